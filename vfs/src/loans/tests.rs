use parking_lot::Mutex as PlainMutex;

use base::lent::Taken;

use super::*;

/// Guest code, as far as a position knows it.
#[derive(Default)]
struct Guest(PlainMutex<State>);

#[derive(Default)]
struct State {
    at: u64,
    is_with_guest: bool,
    is_over: bool,
}

impl Guest {
    /// Moves on by a read of its own, if it can.
    fn read(&self, count: u64) -> bool {
        let mut state = self.0.lock();
        let can = state.is_with_guest && !state.is_over;
        if can {
            state.at += count;
        }
        can
    }
}

impl Lent for Guest {
    fn take(&self) -> Taken {
        let mut state = self.0.lock();
        state.is_with_guest = false;
        Taken { at: state.at, is_over: state.is_over }
    }

    fn give(&self, at: u64) -> bool {
        let mut state = self.0.lock();
        if !state.is_over {
            (state.at, state.is_with_guest) = (at, true);
        }
        !state.is_over
    }

    fn end(&self) {
        self.0.lock().is_over = true;
    }

    fn is_over(&self) -> bool {
        self.0.lock().is_over
    }
}

type Lock = Mutex<Place, lock_order::FilePosition>;

fn lent(place: &Lock) -> Arc<Guest> {
    let guest = Arc::new(Guest::default());
    Position::of(place).lend(Arc::clone(&guest) as Arc<dyn Lent>);
    guest
}

#[test]
fn a_position_is_with_one_at_a_time() {
    let place = Lock::default();
    *Position::of(&place) = 100;
    let guest = lent(&place);
    assert!(guest.read(10));
    let mut position = Position::of(&place);
    assert_eq!(*position, 110);
    assert!(!guest.read(1));
    *position += 5;
    drop(position);
    assert!(guest.read(1));
    assert_eq!(*Position::of(&place), 116);
}

#[test]
fn an_ended_loan_leaves_its_position() {
    let place = Lock::default();
    let guest = lent(&place);
    assert!(guest.read(7));
    guest.end();
    assert!(!guest.read(1));
    assert_eq!(*Position::of(&place), 7);
    // It ends while somebody has the position.
    let guest = lent(&place);
    let mut position = Position::of(&place);
    guest.end();
    *position = 20;
    drop(position);
    assert!(!guest.read(1));
    assert_eq!(*Position::of(&place), 20);
    // And it is ended by who has it.
    let guest = lent(&place);
    Position::of(&place).end_loan();
    assert!(guest.is_over() && !guest.read(1));
    assert_eq!(*Position::of(&place), 20);
}

#[test]
fn who_reads_much_is_looked_at_again_and_again_but_ever_less_often() {
    let habit = Habit::default();
    let looks = |count, size| (0..count).filter(|_| habit.note(size)).count();
    assert_eq!(looks(7, 1), 0);
    assert_eq!(looks(1, 1), 1);
    assert_eq!(looks(16, LARGE), 8);
    habit.lent();
    assert!(habit.is_lent() && habit.note(1));
    habit.ended();
    assert_eq!(looks(15, 1), 0);
    assert_eq!(looks(1, 1), 1);
    habit.never();
    assert_eq!(looks(1000, LARGE), 0);
    assert!(!habit.is_lent());
}
