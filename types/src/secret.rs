//! `Secret<Kind, N>`: key bytes in locked, guarded, undumpable memory, wiped when dropped.
//!
//! The one file of this crate that may use `unsafe`: it asks `memsec` for a guarded allocation.
//! No `Clone`, no `serde`, no `==`, no bytes in `Debug`.
#![expect(unsafe_code, reason = "locked and guarded allocation for key bytes; each block says why it holds")]

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// `N` secret bytes of one `Kind`, in memory that is locked (mlock), excluded from core dumps and fenced by guard pages.
///
/// Where the kernel locks no more for this process, the memory is fenced all the same and wiped on drop, but may be swapped out:
/// [`Secret::is_locked`] says so, and [`any_unlocked`] for the whole process.
pub struct Secret<Kind, const N: usize> {
    bytes: Store<N>,
    kind: PhantomData<fn() -> Kind>,
}

enum Store<const N: usize> {
    /// Between guard pages.
    Fenced {
        at: NonNull<[u8; N]>,
        locked: bool,
    },
    Heap(Box<[u8; N]>),
}

/// Set with the first secret of this process that the kernel did not lock.
static UNLOCKED: AtomicBool = AtomicBool::new(false);

/// Whether a secret of this process lies, or lay, in memory that may be swapped out.
pub fn any_unlocked() -> bool {
    UNLOCKED.load(Ordering::Relaxed)
}

/// Whether the kernel locks memory for this process at all: tried with one page.
pub fn may_lock() -> bool {
    Secret::<(), 32>::take(&mut [0; 32]).is_locked()
}

// SAFETY: the allocation is owned by this value alone and holds plain bytes.
unsafe impl<const N: usize> Send for Store<N> {}
// SAFETY: shared access only reads; mutation needs `&mut`.
unsafe impl<const N: usize> Sync for Store<N> {}

impl<Kind, const N: usize> Secret<Kind, N> {
    /// Makes a secret and lets `fill` write its bytes in place, so that no copy is left behind on a stack.
    pub fn filled<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut s = Self { bytes: Store::zeroed(), kind: PhantomData };
        fill(s.bytes.get_mut())?;
        Ok(s)
    }
    /// Moves `bytes` in and wipes the original.
    pub fn take(bytes: &mut [u8; N]) -> Self {
        let mut s = Self { bytes: Store::zeroed(), kind: PhantomData };
        s.bytes.get_mut().copy_from_slice(bytes);
        bytes.zeroize();
        s
    }
    /// From a slice of exactly `N` bytes; the caller wipes its own copy.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != N {
            return None;
        }
        let mut s = Self { bytes: Store::zeroed(), kind: PhantomData };
        s.bytes.get_mut().copy_from_slice(bytes);
        Some(s)
    }
    /// The bytes, for the cryptographic call that needs them.
    pub fn expose(&self) -> &[u8; N] {
        self.bytes.get()
    }
    /// A second copy in locked memory of its own, said aloud.
    pub fn duplicate(&self) -> Self {
        let mut s = Self { bytes: Store::zeroed(), kind: PhantomData };
        s.bytes.get_mut().copy_from_slice(self.expose());
        s
    }
    /// Constant-time comparison.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
    /// Whether the bytes lie in locked memory.
    pub fn is_locked(&self) -> bool {
        matches!(self.bytes, Store::Fenced { locked: true, .. })
    }
}

impl<const N: usize> Store<N> {
    fn zeroed() -> Self {
        // SAFETY: `malloc` returns either null or a writable, exclusively owned allocation of the size of [u8; N];
        // it is initialised (zeroed) before it is read.
        let fenced = unsafe { memsec::malloc::<[u8; N]>() };
        let store = match fenced {
            Some(at) => {
                let first = at.as_ptr().cast::<u8>();
                // SAFETY: `at` is valid for N bytes of writing, see above.
                unsafe { memsec::memzero(first, N) };
                // `malloc` locks the pages, and does not say whether the kernel did. Locks do not add up: once more changes
                // nothing where it did, and `free` undoes both.
                // SAFETY: the N bytes lie in an allocation of ours; to lock them changes no byte.
                let locked = unsafe { memsec::mlock(first, N) };
                Self::Fenced { at, locked }
            }
            None => Self::Heap(Box::new([0; N])),
        };
        if !matches!(store, Self::Fenced { locked: true, .. }) {
            UNLOCKED.store(true, Ordering::Relaxed);
        }
        store
    }
    fn get(&self) -> &[u8; N] {
        match self {
            // SAFETY: the pointer is valid and initialised until drop, and shared access never writes.
            Self::Fenced { at, .. } => unsafe { at.as_ref() },
            Self::Heap(b) => b,
        }
    }
    fn get_mut(&mut self) -> &mut [u8; N] {
        match self {
            // SAFETY: as in `get`, and `&mut self` makes the access exclusive.
            Self::Fenced { at, .. } => unsafe { at.as_mut() },
            Self::Heap(b) => b,
        }
    }
}

impl<const N: usize> Drop for Store<N> {
    fn drop(&mut self) {
        match self {
            // SAFETY: allocated by `memsec::malloc` and freed once, here; `free` wipes before it unmaps.
            Self::Fenced { at, .. } => unsafe {
                memsec::memzero(at.as_ptr().cast::<u8>(), N);
                memsec::free(*at);
            },
            Self::Heap(b) => b.zeroize(),
        }
    }
}

impl<Kind, const N: usize> fmt::Debug for Secret<Kind, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Overwrites the stack below the caller's frame: what a cipher has just left there of a key or a value. Call it after
/// decrypting or hashing what must not stay.
#[inline(never)]
pub fn wipe_stack() {
    // Deeper than the frames of a cipher, hash or key exchange in a build without optimisation. A variable that may be
    // changed: a constant would lie in the program's file, and nothing would be written.
    let mut below = [0_u8; 16 << 10];
    std::hint::black_box(&mut below);
}

/// A secret of any length (a user's value): on the heap, never reallocated, wiped on drop, redacted in `Debug`.
#[derive(Default)]
pub struct SecretBytes(Vec<u8>);
impl SecretBytes {
    /// Takes ownership of `v`.
    pub fn new(v: Vec<u8>) -> Self {
        Self(v)
    }
    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// True if there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Shortens to `n` bytes, wiping what is cut off.
    pub fn truncate(&mut self, n: usize) {
        if let Some(tail) = self.0.get_mut(n..) {
            tail.zeroize();
        }
        self.0.truncate(n);
    }
}
impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::DiskKey;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn a_secret_shows_nothing_in_debug_and_wipes_its_source() {
        let mut src = *b"0123456789abcdef0123456789abcdef";
        let s = Secret::<DiskKey, 32>::take(&mut src);
        assert_eq!(src, [0; 32]);
        assert_eq!(format!("{s:?}"), "Secret(…)");
        assert_eq!(s.expose(), b"0123456789abcdef0123456789abcdef");
        assert!(s.ct_eq(&s.duplicate()));
        assert!(s.is_locked());
    }

    /// Leaves something in a frame that is over, and says where: well below what is called next.
    #[inline(never)]
    fn left_on_the_stack() -> u64 {
        let mut frame = [0xa5_u8; 8 << 10];
        std::hint::black_box(&mut frame).as_ptr().addr() as u64
    }

    #[test]
    fn what_a_call_left_on_the_stack_is_overwritten() {
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        let mut found = [0; 64];
        let at = left_on_the_stack();
        memory.read_exact_at(&mut found, at).unwrap();
        assert_eq!(found, [0xa5; 64], "the control: it stays until something is written over it");
        let at = left_on_the_stack();
        wipe_stack();
        memory.read_exact_at(&mut found, at).unwrap();
        assert_eq!(found, [0; 64]);
    }

    /// A mapping of this process, as the kernel shows it: from, to, rights, flags.
    fn mappings() -> Vec<(usize, usize, String, String)> {
        let mut all: Vec<(usize, usize, String, String)> = Vec::new();
        for line in std::fs::read_to_string("/proc/self/smaps").unwrap().lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap();
            if let Some(flags) = line.strip_prefix("VmFlags:") {
                all.last_mut().unwrap().3 = format!("{flags} ");
            } else if let Some((from, to)) = first.split_once('-') {
                let address = |text| usize::from_str_radix(text, 16).unwrap();
                all.push((address(from), address(to), words.next().unwrap().to_owned(), String::new()));
            }
        }
        all
    }

    #[test]
    fn a_secret_lies_in_a_locked_page_of_no_dump_between_two_that_nobody_may_touch() {
        let (s, plain) = (Secret::<DiskKey, 32>::take(&mut [7; 32]), vec![7_u8; 32]);
        let at = s.expose().as_ptr().addr();
        let all = mappings();
        let own = all.iter().position(|(from, to, ..)| (*from..*to).contains(&at)).unwrap();
        let (from, to, rights, flags) = &all[own];
        assert_eq!(rights, "rw-p");
        assert!(flags.contains(" lo ") && flags.contains(" dd "), "locked and in no dump: {flags}");
        assert_eq!(to - from, 4096, "it shares its mapping with what is no secret");
        for (near, (begins, ends, rights, _)) in [("before", &all[own - 1]), ("behind", &all[own + 1])] {
            assert!(*ends == *from || *begins == *to, "there is a hole {near} it");
            assert_eq!(rights, "---p", "what lies {near} it can be touched");
        }
        // The control: what is no secret lies in a page without any of this.
        let at = plain.as_ptr().addr();
        let (.., flags) = all.iter().find(|(from, to, ..)| (*from..*to).contains(&at)).unwrap();
        assert!(!flags.contains(" lo ") && !flags.contains(" dd "), "{flags}");
    }
}
