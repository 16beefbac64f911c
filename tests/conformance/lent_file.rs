//! A file of the host with known bytes, read so often that a kernel may take a short way.

use crate::support::{ok, open, read_some};

/// Part of this program's file: word i is i.
static WORDS: [u32; COUNT] = {
    let mut words = [0; COUNT];
    let mut at = 0;
    while at < COUNT {
        words[at] = at as u32;
        at += 1;
    }
    words
};
pub const COUNT: usize = 1 << 18;
/// More often than any kernel reads before it takes a short way.
const OFTEN: usize = 1500;
pub const FILE: &str = "/proc/self/exe";

/// Where the words are in the file.
pub fn start() -> i64 {
    let file = std::fs::read(FILE).expect("it is there");
    let needle: Vec<u8> = WORDS[..64].iter().flat_map(|word| word.to_le_bytes()).collect();
    // SAFETY: both are live and of these lengths.
    let found = unsafe {
        libc::memmem(file.as_ptr().cast(), file.len(), needle.as_ptr().cast(), needle.len())
    };
    assert!(!found.is_null());
    found as i64 - file.as_ptr() as i64
}

/// The file, read often, standing at the words.
pub fn file(start: i64) -> i32 {
    let fd = open(FILE, libc::O_RDONLY);
    warm_up(fd, start);
    fd
}

/// By either call, for each has call sites of its own.
pub fn warm_up(fd: i32, start: i64) {
    ok!(lseek(fd, start, libc::SEEK_SET));
    for at in 0..OFTEN {
        assert_eq!(words_at(fd, start, at, 1), [at as u32]);
        assert_eq!(next_words(fd, 1), [at as u32]);
    }
    ok!(lseek(fd, start, libc::SEEK_SET));
}

pub fn as_words(bytes: &[u8]) -> Vec<u32> {
    assert_eq!(bytes.len() % 4, 0, "part of a word");
    bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// read(2) of some words.
pub fn next_words(fd: i32, count: usize) -> Vec<u32> {
    as_words(&read_some(fd, count * 4))
}

/// pread(2) of some words.
pub fn words_at(fd: i32, start: i64, at: usize, count: usize) -> Vec<u32> {
    let mut bytes = vec![0; count * 4];
    let offset = start + 4 * at as i64;
    let got = ok!(pread(fd, bytes.as_mut_ptr().cast(), bytes.len(), offset));
    bytes.truncate(got as usize);
    as_words(&bytes)
}

pub fn run_of(first: usize, count: usize) -> Vec<u32> {
    (first..first + count).map(|word| word as u32).collect()
}

pub fn position(fd: i32) -> i64 {
    ok!(lseek(fd, 0, libc::SEEK_CUR))
}

pub fn file_with_reads(start: i64, count: usize) -> i32 {
    let fd = open(FILE, libc::O_RDONLY);
    for at in 0..count {
        assert_eq!(words_at(fd, start, at, 1), [at as u32]);
    }
    ok!(lseek(fd, start, libc::SEEK_SET));
    fd
}
