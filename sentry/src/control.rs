//! What supervisor and sentry say to each other over the control socket: one message per datagram.
//!
//! | first byte | from | rest |
//! | --- | --- | --- |
//! | 0 | supervisor | nothing: the namespaces are set up, go ahead |
//! | 1 | supervisor | signal number: deliver it to the guest's first process |
//! | 2 | supervisor | rows, columns (u16 little endian): the terminal's new size |
//! | 3 | supervisor | what the processor answered: leaf, part and four registers of each question (u32 little endian) |
//! | 16 | sentry | exit code: the guest's first process exited |
//! | 17 | sentry | signal number: it was killed |
//! | 18 | sentry | exit code, then one line of UTF-8: the sandbox failed |

use platform::processor::Answer;

use crate::config::Outcome;

/// Longest datagram; longer failure messages are cut.
pub const MAX_LEN: usize = 4096;

/// An order to the sentry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    Go,
    Processor(Vec<Answer>),
    Signal(u8),
    Resize { rows: u16, cols: u16 },
}

impl Order {
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Go => vec![0],
            Self::Signal(signal) => vec![1, signal],
            Self::Resize { rows, cols } => {
                let ([r0, r1], [c0, c1]) = (rows.to_le_bytes(), cols.to_le_bytes());
                vec![2, r0, r1, c0, c1]
            }
            Self::Processor(answers) => {
                let words = answers.iter().flat_map(|answer| {
                    [answer.leaf, answer.part].into_iter().chain(answer.registers)
                });
                [3].into_iter().chain(words.flat_map(u32::to_le_bytes)).collect()
            }
        }
    }

    /// `None` for what is no order.
    #[must_use]
    pub fn decode(datagram: &[u8]) -> Option<Self> {
        match *datagram {
            [0] => Some(Self::Go),
            [1, signal] => Some(Self::Signal(signal)),
            [2, r0, r1, c0, c1] => Some(Self::Resize {
                rows: u16::from_le_bytes([r0, r1]),
                cols: u16::from_le_bytes([c0, c1]),
            }),
            [3, ref answers @ ..] => {
                Some(Self::Processor(answers.as_chunks().0.iter().map(decode_answer).collect()))
            }
            _ => None,
        }
    }
}

fn decode_answer(bytes: &[u8; 24]) -> Answer {
    let mut words = bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
    let mut next = || words.next().unwrap_or_default();
    Answer { leaf: next(), part: next(), registers: std::array::from_fn(|_| next()) }
}

/// The sentry's last word, for the supervisor.
#[must_use]
pub fn encode_outcome(outcome: &Outcome) -> Vec<u8> {
    match outcome {
        Outcome::Exited(code) => vec![16, *code],
        Outcome::Signaled(signal) => vec![17, *signal],
        Outcome::Failed { code, message } => {
            let mut datagram = vec![18, *code];
            datagram.extend_from_slice(message.as_bytes());
            datagram.truncate(MAX_LEN);
            datagram
        }
    }
}

/// `None` for what is no outcome. The sentry may be hostile: the message loses its control characters.
#[must_use]
pub fn decode_outcome(datagram: &[u8]) -> Option<Outcome> {
    match *datagram {
        [16, code] => Some(Outcome::Exited(code)),
        [17, signal] => Some(Outcome::Signaled(signal)),
        [18, code, ref message @ ..] => {
            let message = String::from_utf8_lossy(message);
            let message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            Some(Outcome::Failed { code, message })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_outcomes_survive_the_wire() {
        let answer = |leaf| Answer { leaf, part: 2, registers: [3, 4, 5, u32::MAX] };
        let answers = Order::Processor(vec![answer(1), answer(0x8000_0000)]);
        let resize = Order::Resize { rows: 300, cols: 80 };
        for order in [Order::Go, Order::Signal(15), resize, answers] {
            assert_eq!(Order::decode(&order.clone().encode()), Some(order));
        }
        let failed = Outcome::Failed { code: 127, message: "nope: not found".into() };
        for outcome in [Outcome::Exited(3), Outcome::Signaled(9), failed] {
            assert_eq!(decode_outcome(&encode_outcome(&outcome)), Some(outcome));
        }
        assert_eq!(Order::decode(&[]), None);
        assert_eq!(decode_outcome(b"\x12"), None);
    }
}
