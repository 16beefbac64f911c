//! How the C library's allocator takes memory from the host.
//!
//! # Safety
//! The calls take plain numbers.

#![expect(unsafe_code, reason = "mallopt(3) has no safe wrapper")]

/// One heap for all threads, which grows and shrinks in large steps: a thread's own one grows page by page, with a host
/// call for each. To be called before there is a second thread; processes that are forked later have it, too.
pub fn use_one_heap() {
    /// Bytes asked for beyond what is needed, and kept when they are free again; touched only when used.
    const STEP: libc::c_int = 1 << 20;
    for (option, value) in
        [(libc::M_ARENA_MAX, 1), (libc::M_TOP_PAD, STEP), (libc::M_TRIM_THRESHOLD, 4 * STEP)]
    {
        // Refused, it is only slower.
        // SAFETY: see the module.
        unsafe { libc::mallopt(option, value) };
    }
}
