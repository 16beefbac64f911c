//! Tables of what is typed and what comes of it.

use abi::signal::Signal;
use abi::termios::{InputFlags, LocalFlags, OutputFlags, Termios, cc};

use super::discipline::{Discipline, Effects, Readable};

struct Outcome {
    echo: String,
    /// One string per read of 100 bytes, until there is nothing.
    reads: Vec<String>,
    signals: Vec<Signal>,
}

fn raw(min: u8) -> Termios {
    let mut termios = Termios { iflag: 0, oflag: 0, lflag: 0, ..Termios::default() };
    termios.cc[cc::VMIN] = min;
    termios
}

fn type_in(termios: Termios, typed: &[u8]) -> Outcome {
    let mut discipline = Discipline::default();
    discipline.set_termios(termios);
    let (mut echo, mut signals) = (Vec::new(), Vec::new());
    for byte in typed {
        let mut effects = Effects::default();
        discipline.receive(*byte, &mut effects);
        if effects.flushes_output {
            echo.clear();
        }
        echo.extend(effects.echo);
        signals.extend(effects.signal);
    }
    let mut reads = Vec::new();
    while discipline.readable() != Readable::Nothing {
        let mut buffer = [0; 100];
        let count = discipline.read(&mut &mut buffer[..]).unwrap();
        reads.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
    }
    Outcome { echo: String::from_utf8_lossy(&echo).into_owned(), reads, signals }
}

#[test]
fn canonical_lines_are_edited_and_echoed() {
    let table: &[(&[u8], &str, &[&str])] = &[
        (b"ab\r", "ab\r\n", &["ab\n"]),
        (b"ab", "ab", &[]),
        (b"abc\x7fd\n", "abc\x08 \x08d\r\n", &["abd\n"]),
        (b"\x7fa\n", "a\r\n", &["a\n"]),
        (b"ab\x15c\n", "ab\x08 \x08\x08 \x08c\r\n", &["c\n"]),
        (b"one two\x17x\n", "one two\x08 \x08\x08 \x08\x08 \x08x\r\n", &["one x\n"]),
        (b"a\x04", "a", &["a"]),
        (b"\x04", "", &[""]),
        (b"a\n\x04b\n", "a\r\nb\r\n", &["a\n", "", "b\n"]),
        (b"\x01\x7f\n", "^A\x08 \x08\x08 \x08\r\n", &["\n"]),
        (b"a\t\x7fb\n", "a\t\x08\x08\x08\x08\x08\x08\x08b\r\n", &["ab\n"]),
        (b"\x16\x03\n", "^\x08^C\r\n", &["\x03\n"]),
        (b"ab\x12c\n", "ab^R\r\nabc\r\n", &["abc\n"]),
    ];
    for (typed, echo, reads) in table {
        let outcome = type_in(Termios::default(), typed);
        assert_eq!(outcome.echo, *echo, "typed {:?}", typed.escape_ascii().to_string());
        assert_eq!(outcome.reads, *reads, "typed {:?}", typed.escape_ascii().to_string());
    }
}

#[test]
fn utf8_characters_are_erased_whole() {
    let utf8 = Termios::default().iflag | InputFlags::IUTF8.bits();
    let termios = Termios { iflag: utf8, ..Termios::default() };
    let outcome = type_in(termios, "aé\x7fb\n".as_bytes());
    assert_eq!(outcome.echo, "aé\x08 \x08b\r\n");
    assert_eq!(outcome.reads, ["ab\n"]);
}

#[test]
fn signal_characters_flush_what_was_typed() {
    let outcome = type_in(Termios::default(), b"abc\x03de\n");
    assert_eq!(outcome.signals, [Signal::SIGINT]);
    assert_eq!(
        (outcome.echo.as_str(), outcome.reads.as_slice()),
        ("^Cde\r\n", &["de\n".into()][..])
    );
    let keeps = LocalFlags::from_bits_retain(Termios::default().lflag) | LocalFlags::NOFLSH;
    let termios = Termios { lflag: keeps.bits(), ..Termios::default() };
    let outcome = type_in(termios, b"abc\x1ade\n");
    assert_eq!(outcome.signals, [Signal::SIGTSTP]);
    assert_eq!(
        (outcome.echo.as_str(), outcome.reads.as_slice()),
        ("abc^Zde\r\n", &["abcde\n".into()][..])
    );
}

#[test]
fn raw_bytes_pass_as_they_are() {
    let outcome = type_in(raw(1), b"a\r\x03\x7f\x04");
    assert_eq!(outcome.echo, "");
    assert_eq!(outcome.reads, ["a\r\x03\x7f\x04"]);
    assert!(outcome.signals.is_empty());
}

#[test]
fn without_echo_only_the_newline_shows() {
    let lflag = LocalFlags::ICANON | LocalFlags::ECHONL;
    let termios = Termios { lflag: lflag.bits(), ..Termios::default() };
    assert_eq!(type_in(termios, b"secret\x7f\n").echo, "\r\n");
}

#[test]
fn changing_the_mode_frees_what_was_typed() {
    let mut discipline = Discipline::default();
    for byte in b"ab" {
        discipline.receive(*byte, &mut Effects::default());
    }
    assert_eq!(discipline.readable(), Readable::Nothing);
    discipline.set_termios(raw(1));
    assert_eq!(discipline.readable(), Readable::Bytes(2));
    discipline.set_termios(Termios::default());
    assert_eq!(discipline.readable(), Readable::Line(2));
}

#[test]
fn overlong_lines_lose_bytes_but_end() {
    let mut discipline = Discipline::default();
    for _ in 0..5000 {
        assert!(discipline.room() > 0);
        discipline.receive(b'x', &mut Effects::default());
    }
    discipline.receive(b'\n', &mut Effects::default());
    assert_eq!(discipline.pending(), 4096);
    assert_eq!(discipline.room(), 0);
}

#[test]
fn line_that_fills_the_buffer_takes_its_end_of_file_along() {
    let mut discipline = Discipline::default();
    for byte in b"ab\x04" {
        discipline.receive(*byte, &mut Effects::default());
    }
    let mut buffer = [0; 2];
    assert_eq!(discipline.read(&mut &mut buffer[..]), Ok(2));
    assert_eq!(discipline.readable(), Readable::Nothing);
}

#[test]
fn output_is_processed() {
    let put = |oflag: OutputFlags, text: &[u8]| {
        let mut discipline = Discipline::default();
        discipline.set_termios(Termios { oflag: oflag.bits(), ..Termios::default() });
        let mut out = Vec::new();
        for byte in text {
            discipline.put_output(*byte, &mut out);
        }
        String::from_utf8(out).unwrap()
    };
    let post = OutputFlags::OPOST;
    assert_eq!(put(OutputFlags::empty(), b"a\nb"), "a\nb");
    assert_eq!(put(post | OutputFlags::ONLCR, b"a\nb"), "a\r\nb");
    assert_eq!(put(post | OutputFlags::TABDLY, b"ab\tc"), "ab      c");
    assert_eq!(put(post | OutputFlags::ONOCR, b"\ra\rb"), "a\rb");
    assert_eq!(put(post | OutputFlags::OCRNL, b"a\r"), "a\n");
}
