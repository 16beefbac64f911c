//! Capacity, atomicity and packets as a host's pipe has them.

use super::ring::Ring;

fn push(ring: &mut Ring, len: usize) -> usize {
    ring.push(&mut vec![7u8; len].as_slice(), false).unwrap()
}

fn pop(ring: &mut Ring, len: usize) -> usize {
    let mut buffer = vec![0u8; len];
    ring.pop(&mut buffer.as_mut_slice()).unwrap()
}

#[test]
fn capacity_is_counted_in_pages() {
    let mut ring = Ring::new(16);
    // A page and a half each time: the odd halves pair up, as on the host.
    assert_eq!(push(&mut ring, 65536 + 10), 65536);
    assert!(ring.is_full());
    assert_eq!(push(&mut ring, 1), 0);
    assert_eq!(pop(&mut ring, 4095), 4095);
    assert!(ring.is_full());
    assert_eq!(pop(&mut ring, 1), 1);
    assert!(!ring.is_full());
    assert_eq!(push(&mut ring, 5000), 4096);
}

#[test]
fn small_writes_share_a_page() {
    let mut ring = Ring::new(2);
    let mut count = 0;
    while push(&mut ring, 1) == 1 {
        count += 1;
    }
    assert_eq!(count, 2 * 4096);
}

#[test]
fn writes_that_do_not_fit_the_last_page_take_a_new_one() {
    let mut ring = Ring::new(2);
    assert_eq!(push(&mut ring, 3000), 3000);
    assert_eq!(push(&mut ring, 3000), 3000);
    assert_eq!(push(&mut ring, 3000), 0);
    assert_eq!(push(&mut ring, 1000), 1000);
}

#[test]
fn bytes_keep_their_order_around_the_ring() {
    let mut ring = Ring::new(4);
    let mut written = 0u8;
    let mut read = 0u8;
    for step in 1..400usize {
        let chunk: Vec<u8> = (0..step % 23).map(|i| written.wrapping_add(i as u8)).collect();
        let got = ring.push(&mut chunk.as_slice(), false).unwrap();
        written = written.wrapping_add(got as u8);
        let mut buffer = [0u8; 11];
        let got = ring.pop(&mut buffer.as_mut_slice()).unwrap();
        for byte in &buffer[..got] {
            assert_eq!(*byte, read);
            read = read.wrapping_add(1);
        }
    }
}

#[test]
fn packets_end_a_read_and_lose_their_rest() {
    let mut ring = Ring::new(16);
    for packet in [&b"abcdef"[..], b"gh"] {
        assert_eq!(ring.push(&mut &*packet, true).unwrap(), packet.len());
    }
    let mut buffer = [0u8; 4];
    assert_eq!(ring.pop(&mut buffer.as_mut_slice()).unwrap(), 4);
    assert_eq!(ring.pop(&mut buffer.as_mut_slice()).unwrap(), 2);
    assert_eq!(&buffer[..2], b"gh");
    assert!(ring.is_empty());
}
