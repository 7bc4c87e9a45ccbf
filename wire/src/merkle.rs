//! The log's Merkle tree (RFC 9162, section 2.1): leaf and node hashing, the frontier that grows, proofs and their checks.
//!
//! The state machine keeps only a [`Frontier`] (O(log n) hashes). Interior nodes of complete subtrees are stored by the
//! shell, addressed by (level, index); proofs are made from them and checked by everyone with the functions here.

use holdfast_types::{Digest, sha256};

/// Longest proof that is looked at: a tree of 2^63 leaves.
pub const MAX_PROOF: usize = 64;

/// `H(0x00 ‖ salt ‖ entry)`: a leaf of our log (the salt hides entries from those who see only proofs).
pub fn leaf_hash(salt: &[u8], entry: &[u8]) -> Digest {
    sha256(&[&[0], salt, entry])
}
/// `H(0x01 ‖ left ‖ right)`.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    sha256(&[&[1], &left.0, &right.0])
}
/// Root of the empty tree: the hash of nothing.
pub fn empty_root() -> Digest {
    sha256(&[])
}

/// A complete subtree's root: `level` 0 is a leaf; `index` counts subtrees of that level from the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// log2 of the subtree's leaves.
    pub level: u8,
    /// Which one, from the left.
    pub index: u64,
    /// Its hash.
    pub hash: Digest,
}

/// The right edge of the tree: roots of its complete subtrees, largest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Digest>,
}

impl Frontier {
    /// The edge of a tree of `size` leaves; `None` unless there is one peak per bit set in `size`.
    pub fn from_parts(size: u64, peaks: Vec<Digest>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }
    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }
    /// Roots of the complete subtrees, largest first.
    pub fn peaks(&self) -> &[Digest] {
        &self.peaks
    }
    /// Adds a leaf; returns the complete subtrees that it finished (its own leaf first).
    pub fn push(&mut self, leaf: Digest) -> Vec<Node> {
        let mut done = vec![Node { level: 0, index: self.size, hash: leaf }];
        let (mut hash, mut level, mut index) = (leaf, 0_u8, self.size);
        while index & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
            level += 1;
            index >>= 1;
            done.push(Node { level, index, hash });
        }
        self.peaks.push(hash);
        self.size += 1;
        done
    }
    /// Root of the tree.
    pub fn root(&self) -> Digest {
        let mut it = self.peaks.iter().rev();
        let Some(last) = it.next() else { return empty_root() };
        it.fold(*last, |acc, peak| node_hash(peak, &acc))
    }
}

/// Hash of leaves `[start, start + len)` from stored complete subtrees; `len` need not be a power of two.
fn range_hash<E>(start: u64, len: u64, get: &mut impl FnMut(u8, u64) -> Result<Digest, E>) -> Result<Digest, E> {
    if len.is_power_of_two() {
        let level = len.trailing_zeros();
        return get(u8::try_from(level).unwrap_or(u8::MAX), start >> level);
    }
    let k = split(len);
    let l = range_hash(start, k, get)?;
    let r = range_hash(start + k, len - k, get)?;
    Ok(node_hash(&l, &r))
}

/// Largest power of two smaller than `n` (n > 1).
fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// Inclusion proof of `leaf` in the tree of `size` leaves (RFC 9162, 2.1.3.1), from stored complete subtrees.
/// `None` if the leaf is not in the tree.
pub fn inclusion<E>(
    leaf: u64,
    size: u64,
    mut get: impl FnMut(u8, u64) -> Result<Digest, E>,
) -> Result<Option<Vec<Digest>>, E> {
    if leaf >= size {
        return Ok(None);
    }
    let (mut start, mut len, mut path) = (0, size, Vec::new());
    while len > 1 {
        let k = split(len);
        if leaf < start + k {
            path.push(range_hash(start + k, len - k, &mut get)?);
            len = k;
        } else {
            path.push(range_hash(start, k, &mut get)?);
            start += k;
            len -= k;
        }
    }
    path.reverse();
    Ok(Some(path))
}

/// Consistency proof between the trees of `from` and `to` leaves (RFC 9162, 2.1.4.1). `None` unless 0 < from ≤ to.
pub fn consistency<E>(
    from: u64,
    to: u64,
    mut get: impl FnMut(u8, u64) -> Result<Digest, E>,
) -> Result<Option<Vec<Digest>>, E> {
    if from == 0 || from > to {
        return Ok(None);
    }
    let (mut m, mut start, mut len, mut whole, mut path) = (from, 0_u64, to, true, Vec::new());
    while m != len {
        let k = split(len);
        if m <= k {
            path.push(range_hash(start + k, len - k, &mut get)?);
            len = k;
        } else {
            path.push(range_hash(start, k, &mut get)?);
            start += k;
            m -= k;
            len -= k;
            whole = false;
        }
    }
    if !whole {
        path.push(range_hash(start, m, &mut get)?);
    }
    path.reverse();
    Ok(Some(path))
}

/// True if `proof` shows that `leaf_hash` is leaf `index` of the tree (`size`, `root`) (RFC 9162, 2.1.3.2).
pub fn verify_inclusion(leaf_hash: Digest, index: u64, size: u64, root: &Digest, proof: &[Digest]) -> bool {
    if index >= size || proof.len() > MAX_PROOF {
        return false;
    }
    let (mut f, mut s, mut r) = (index, size - 1, leaf_hash);
    for p in proof {
        if s == 0 {
            return false;
        }
        if f & 1 == 1 || f == s {
            r = node_hash(p, &r);
            while f & 1 == 0 && f != 0 {
                f >>= 1;
                s >>= 1;
            }
        } else {
            r = node_hash(&r, p);
        }
        f >>= 1;
        s >>= 1;
    }
    s == 0 && r == *root
}

/// The edge of the tree of the leaves before `index`, as the inclusion proof of that leaf has it: the subtrees on its left. `None`
/// if the proof does not hold.
pub fn frontier_before(leaf_hash: Digest, index: u64, size: u64, root: &Digest, proof: &[Digest]) -> Option<Frontier> {
    if !verify_inclusion(leaf_hash, index, size, root, proof) {
        return None;
    }
    let (mut f, mut s, mut peaks) = (index, size - 1, Vec::new());
    for p in proof {
        if f & 1 == 1 || f == s {
            peaks.push(*p);
            while f & 1 == 0 && f != 0 {
                f >>= 1;
                s >>= 1;
            }
        }
        f >>= 1;
        s >>= 1;
    }
    // The smallest comes first in a proof.
    peaks.reverse();
    Frontier::from_parts(index, peaks)
}

/// True if `proof` shows that tree (`from`, `from_root`) is a prefix of tree (`to`, `to_root`) (RFC 9162, 2.1.4.2).
pub fn verify_consistency(from: u64, from_root: &Digest, to: u64, to_root: &Digest, proof: &[Digest]) -> bool {
    if from > to || proof.len() > MAX_PROOF {
        return false;
    }
    if from == 0 {
        return proof.is_empty();
    }
    if from == to {
        return proof.is_empty() && from_root == to_root;
    }
    let mut path = proof.iter().copied();
    let first = if from.is_power_of_two() { Some(*from_root) } else { path.next() };
    let Some(first) = first else { return false };
    let (mut f, mut s) = (from - 1, to - 1);
    while f & 1 == 1 {
        f >>= 1;
        s >>= 1;
    }
    let (mut fr, mut sr) = (first, first);
    for c in path {
        if s == 0 {
            return false;
        }
        if f & 1 == 1 || f == s {
            fr = node_hash(&c, &fr);
            sr = node_hash(&c, &sr);
            while f & 1 == 0 && f != 0 {
                f >>= 1;
                s >>= 1;
            }
        } else {
            sr = node_hash(&sr, &c);
        }
        f >>= 1;
        s >>= 1;
    }
    s == 0 && fr == *from_root && sr == *to_root
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::convert::Infallible;

    fn tree(n: u64) -> (Vec<Frontier>, HashMap<(u8, u64), Digest>) {
        let (mut f, mut all, mut nodes) = (Frontier::default(), vec![Frontier::default()], HashMap::new());
        for i in 0..n {
            for node in f.push(leaf_hash(b"salt", &i.to_be_bytes())) {
                nodes.insert((node.level, node.index), node.hash);
            }
            all.push(f.clone());
        }
        (all, nodes)
    }
    /// The recursive definition of RFC 9162, 2.1.1: slow and obviously right.
    fn mth(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            many => {
                let (l, r) = many.split_at(split(many.len() as u64) as usize);
                node_hash(&mth(l), &mth(r))
            }
        }
    }

    #[test]
    fn the_frontier_has_the_root_of_the_recursive_definition() {
        let (all, _) = tree(70);
        for n in 0..=70_u64 {
            let leaves: Vec<_> = (0..n).map(|i| leaf_hash(b"salt", &i.to_be_bytes())).collect();
            assert_eq!(all[n as usize].root(), mth(&leaves), "{n}");
        }
    }

    proptest! {
        #[test]
        fn every_proof_verifies_and_no_altered_one_does(n in 1_u64..200, a in 0_u64..200, b in 1_u64..200, flip in 0_usize..256) {
            let (all, nodes) = tree(n);
            let get = |l: u8, i: u64| Ok::<_, Infallible>(nodes[&(l, i)]);
            let root = all[n as usize].root();
            let leaf = a % n;
            let lh = leaf_hash(b"salt", &leaf.to_be_bytes());
            let p = inclusion(leaf, n, get).unwrap().unwrap();
            prop_assert!(verify_inclusion(lh, leaf, n, &root, &p));
            prop_assert!(!verify_inclusion(lh, leaf + 1, n, &root, &p));
            let before = frontier_before(lh, leaf, n, &root, &p);
            prop_assert_eq!(before.as_ref(), Some(&all[leaf as usize]));
            prop_assert_eq!(frontier_before(lh, leaf + 1, n, &root, &p), None);
            let m = 1 + b % n;
            let from = all[m as usize].root();
            let c = consistency(m, n, get).unwrap().unwrap();
            prop_assert!(verify_consistency(m, &from, n, &root, &c));
            for mut bad in [p.clone(), c.clone()] {
                let k = bad.len();
                if k == 0 { continue; }
                bad[flip % k].0[flip % 32] ^= 1;
                if bad.len() == p.len() { prop_assert!(!verify_inclusion(lh, leaf, n, &root, &bad)); }
                prop_assert!(!verify_consistency(m, &from, n, &root, &bad));
            }
        }
    }
}
