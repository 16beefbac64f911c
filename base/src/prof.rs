use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
pub static COUNT: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];
pub static NS: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];
pub fn add(at: usize, ns: u64) {
    COUNT[at].fetch_add(1, Relaxed);
    NS[at].fetch_add(ns, Relaxed);
}
pub fn since(at: usize, start: Instant) {
    add(at, start.elapsed().as_nanos() as u64);
}
pub struct Timed(usize, Instant);
pub fn timed(at: usize) -> Timed { Timed(at, Instant::now()) }
impl Drop for Timed { fn drop(&mut self) { since(self.0, self.1); } }
pub fn text() -> String {
    let mut rows: Vec<(u64, u64, usize)> = (0..1024).map(|i| (NS[i].load(Relaxed), COUNT[i].load(Relaxed), i)).filter(|r| r.1 > 0).collect();
    rows.sort_by(|a, b| b.cmp(a));
    let mut t = String::new();
    for (ns, n, i) in rows.iter().take(40) {
        t += &format!("  {:>4}: {:>8} x {:>8.3} us = {:>9.2} ms\n", i, n, *ns as f64 / *n as f64 / 1e3, *ns as f64 / 1e6);
    }
    t
}
