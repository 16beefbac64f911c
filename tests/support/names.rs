//! A tree of files whose bytes follow from their names: for those who walk, and for those who lay it there before.

/// Its directories, each after the one it is in.
pub const DIRS: [&str; 6] = ["d0", "d0/inner", "d1", "d2", "d2/inner", "d3"];
/// Files in each of them.
pub const FILES: usize = 14;
/// Of the first file of a directory, and so on: the next directory begins elsewhere.
const SIZES: [usize; 17] = [
    0, 3, 4095, 4096, 1, 10_000, 31_000, 100, 4097, 33_000, 64, 7000, 512, 100_000, 64_512,
    130_047, 130_048,
];

/// The files' paths in the tree, and what they contain.
pub fn files() -> impl Iterator<Item = (String, Vec<u8>)> {
    DIRS.iter().flat_map(|dir| {
        (0..FILES).map(move |at| {
            let path = format!("{dir}/f{at:02}");
            let bytes = content(&path);
            (path, bytes)
        })
    })
}

/// Of the file of this path, which begins with its directory.
#[must_use]
pub fn content(path: &str) -> Vec<u8> {
    let seed = path
        .bytes()
        .fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)).rotate_left(5));
    let size = SIZES[seed as usize % SIZES.len()];
    (0..size as u32)
        .map(|at| (seed.wrapping_add(at).wrapping_mul(0x9e37_79b1) >> 24) as u8)
        .collect()
}
