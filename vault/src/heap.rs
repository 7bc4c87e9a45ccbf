//! The C library's heap: how far it may spread, and giving back what is free in it.
//!
//! Left to itself it keeps up to eight heaps for each processor, each with what its busiest moment needed; and once one large
//! block was freed, it keeps blocks of that size too. A snapshot would be paid for with its memory until the process ends.
//!
//! Must never: be called where somebody waits. Giving back looks at all that is free, while those who allocate wait.
#![cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "the settings of the C library's heap; each block says why it holds")
)]

/// A block of this size or more is a mapping of its own, and goes when it is freed.
#[cfg(target_env = "gnu")]
const MAPPED: libc::c_int = 512 << 10;
/// What may stay free at the end of a heap while it is used: giving a page back and asking for it again costs more than having it.
#[cfg(target_env = "gnu")]
const SPARE: libc::c_int = 8 << 20;

/// Sets the limits: two heaps for each processor, so that whoever works there rarely waits for another. Call it before there are
/// threads.
#[cfg(target_env = "gnu")]
pub(crate) fn limit() {
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get().min(64));
    let heaps = libc::c_int::try_from(2 * processors).unwrap_or(2);
    let limits = [(libc::M_ARENA_MAX, heaps), (libc::M_MMAP_THRESHOLD, MAPPED), (libc::M_TRIM_THRESHOLD, SPARE)];
    for (limit, value) in limits {
        // SAFETY: no pointers are passed; any value is allowed, and one that is refused changes nothing.
        if unsafe { libc::mallopt(limit, value) } == 0 {
            tracing::debug!("the C library's heap takes no limit {limit} of {value}");
        }
    }
}

/// Gives what is free in all heaps back to the system.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // SAFETY: no pointers are passed; only pages that no block lies in are given back.
    let given = unsafe { libc::malloc_trim(0) };
    tracing::trace!(any = given != 0, "what is free of the heap went back to the system");
}

/// Another C library has limits of its own.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn limit() {}

/// Another C library gives back what it will.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the unexpected")]
    use super::*;
    use std::os::unix::fs::FileExt as _;

    /// How many of these addresses are in memory. Of these alone: other tests of the process take and give back as they please.
    fn resident(addresses: &[usize]) -> usize {
        // SAFETY: no pointers are passed.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
        let map = std::fs::File::open("/proc/self/pagemap").unwrap();
        let is_there = |address: &&usize| {
            let mut entry = [0; 8];
            map.read_exact_at(&mut entry, (**address / page * 8) as u64).unwrap();
            u64::from_ne_bytes(entry) >> 63 == 1
        };
        addresses.iter().filter(is_there).count()
    }

    #[test]
    fn what_is_free_between_what_is_in_use_goes_back() {
        limit();
        // Pieces below the size of a mapping; every eighth is kept, so that no heap's end comes free.
        let pieces: Vec<Vec<u8>> = (0..8 * 1024).map(|n| vec![u8::try_from(n % 251).unwrap() + 1; 16 << 10]).collect();
        // The middle of those that are farthest from what is kept.
        let free: Vec<usize> =
            pieces.iter().skip(4).step_by(8).map(|piece| piece.as_ptr().addr() + (8 << 10)).collect();
        let full = resident(&free);
        let kept: Vec<Vec<u8>> = pieces.into_iter().step_by(8).collect();
        give_back();
        let left = resident(&free);
        assert!(full > free.len() / 2 && left < full / 2, "{full} of {} pages, then {left}", free.len());
        assert!(kept.iter().all(|piece| piece.len() == 16 << 10 && piece.first() == piece.last()));
    }
}
