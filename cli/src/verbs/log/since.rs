//! The log from one time on: what was added since is read, and nothing before it. The tree before the first of these entries is
//! what that entry's proof says, so the signed checkpoint vouches for all that is read, and for there being no more.
//!
//! Must never: stand for `log verify`, which checks every entry from the first, and every operator's signature.

use super::{MAX_ENTRY, check_memory, checkpoint, entries, next};
use crate::client::Cluster;
use crate::context::SeenLog;
use crate::errors::{Code, Failure};
use holdfast_transport::rpc::log_client::LogClient;
use holdfast_types::Digest;
use holdfast_wire::merkle::{Frontier, frontier_before, leaf_hash};
use holdfast_wire::note::Checkpoint;
use holdfast_wire::{strict, v1};

/// Bytes of an entry's salt.
const SALT: usize = 32;

fn wrong(why: &str) -> Failure {
    Failure::new(Code::LogWrong, why, "stop trusting this voter, and keep its answer as evidence")
}

/// Reads every entry that is not older than `at_ms`, and remembers the checkpoint: no older one counts from then on. `each`
/// sees them in order; what it gathers counts only if this returns `Ok`.
pub async fn since(c: &Cluster, at_ms: i64, each: impl FnMut(&v1::LogEntry)) -> Result<(), Failure> {
    let (checkpoint, _) = checkpoint(c).await?;
    let Some(before) = first(c, &checkpoint, at_ms).await? else { return Ok(()) };
    let mut stream = entries(c, before.size(), checkpoint.size, false).await?;
    rest(before, &checkpoint, async || next(&mut stream).await, each).await?;
    check_memory(c, &checkpoint).await?;
    c.ctx.remember_log(&SeenLog { era: c.era(), size: checkpoint.size, root: checkpoint.root.hex() })
}

/// The tree before the first entry that is not older than `at_ms`; `None`: there is no such entry. Entries grow no older, so
/// one is looked at for each time that the log doubles.
async fn first(c: &Cluster, checkpoint: &Checkpoint, at_ms: i64) -> Result<Option<Frontier>, Failure> {
    let (mut low, mut high, mut found) = (0, checkpoint.size, None);
    while low < high {
        let middle = low + (high - low) / 2;
        let request = v1::InclusionRequest { leaf_index: middle, size: checkpoint.size };
        let proof = c.call(|ch| async move { LogClient::new(ch).inclusion(request).await }).await?;
        let (before, entry) = proven(checkpoint, middle, &proof)?;
        if entry.at_ms < at_ms {
            low = middle + 1;
        } else {
            (high, found) = (middle, Some(before));
        }
    }
    Ok(found)
}

/// The entry at `index`, and the tree before it, if the proof holds under the checkpoint.
fn proven(c: &Checkpoint, index: u64, proof: &v1::InclusionReply) -> Result<(Frontier, v1::LogEntry), Failure> {
    let no = || wrong(&format!("entry {index} is not in the log of the signed checkpoint"));
    let hashes = proof.hashes.iter().map(|h| Digest::from_slice(h)).collect::<Option<Vec<_>>>().ok_or_else(no)?;
    let entry = read(&proof.salt, &proof.entry, index)?;
    let leaf = leaf_hash(&proof.salt, &proof.entry);
    let before = frontier_before(leaf, index, c.size, &c.root, &hashes).ok_or_else(no)?;
    Ok((before, entry))
}

fn read(salt: &[u8], entry: &[u8], index: u64) -> Result<v1::LogEntry, Failure> {
    let decoded: v1::LogEntry = strict::decode(entry, MAX_ENTRY).map_err(|e| wrong(&e.to_string()))?;
    if salt.len() != SALT || decoded.index != index {
        return Err(wrong(&format!("entry {index} is not what stands in its place")));
    }
    Ok(decoded)
}

/// Takes what comes after the tree `before`, until it is the one of the checkpoint.
async fn rest(
    before: Frontier,
    end: &Checkpoint,
    mut next: impl AsyncFnMut() -> Result<Option<Vec<v1::LeafData>>, Failure>,
    mut each: impl FnMut(&v1::LogEntry),
) -> Result<(), Failure> {
    let mut tree = before;
    while tree.size() < end.size {
        let Some(leaves) = next().await? else { break };
        for leaf in &leaves {
            each(&read(&leaf.salt, &leaf.entry, tree.size())?);
            tree.push(leaf_hash(&leaf.salt, &leaf.entry));
        }
    }
    if tree.size() == end.size && tree.root() == end.root {
        return Ok(());
    }
    Err(wrong("the entries that were shown are not those of the signed checkpoint"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    fn leaf(index: u64) -> v1::LeafData {
        let at_ms = i64::try_from(index).unwrap();
        let entry = v1::LogEntry { index, at_ms, kind: "a".into(), ..v1::LogEntry::default() };
        v1::LeafData { index, salt: vec![3; SALT], entry: entry.encode_to_vec() }
    }

    /// A log of so many entries: the trees before each and after all of them, and the checkpoint.
    fn log(size: u64) -> (Vec<Frontier>, Checkpoint) {
        let mut trees = vec![Frontier::default()];
        for index in 0..size {
            let (mut tree, leaf) = (trees.last().unwrap().clone(), leaf(index));
            tree.push(leaf_hash(&leaf.salt, &leaf.entry));
            trees.push(tree);
        }
        let root = trees.last().unwrap().root();
        (trees, Checkpoint { origin: "x".into(), size, root })
    }

    async fn seen(before: &Frontier, end: &Checkpoint, given: &[v1::LeafData]) -> Result<Vec<u64>, Failure> {
        let (mut chunks, mut seen) = (given.iter().cloned(), Vec::new());
        let before = before.clone();
        rest(before, end, async || Ok(chunks.next().map(|leaf| vec![leaf])), |e| seen.push(e.index)).await?;
        Ok(seen)
    }

    #[tokio::test]
    async fn what_came_after_an_entry_is_read_whole_or_refused() {
        let (trees, end) = log(7);
        let leaves: Vec<v1::LeafData> = (3..7).map(leaf).collect();
        assert_eq!(seen(&trees[3], &end, &leaves).await.unwrap(), [3, 4, 5, 6]);
        // One is missing at the beginning, in the midst, at the end; one is another.
        assert!(seen(&trees[4], &end, &leaves).await.is_err());
        assert!(seen(&trees[3], &end, &[leaf(3), leaf(5), leaf(6)]).await.is_err());
        assert!(seen(&trees[3], &end, &leaves[..3]).await.is_err());
        let mut other = leaves.clone();
        let altered = v1::LogEntry { index: 4, kind: "b".into(), ..v1::LogEntry::default() };
        other[1].entry = altered.encode_to_vec();
        assert_eq!(seen(&trees[3], &end, &other).await.unwrap_err().code, "log-wrong");
        let mut salted = leaves;
        salted[1].salt.push(0);
        assert_eq!(seen(&trees[3], &end, &salted).await.unwrap_err().code, "log-wrong");
    }

    #[test]
    fn an_entry_with_its_proof_says_what_tree_is_before_it() {
        let (trees, end) = log(2);
        let first = leaf(0);
        let (salt, entry) = (leaf(1).salt, leaf(1).entry);
        let hashes = vec![leaf_hash(&first.salt, &first.entry).to_vec()];
        let proof = v1::InclusionReply { hashes, salt, entry };
        let (before, found) = proven(&end, 1, &proof).unwrap();
        assert_eq!((&before, found.at_ms), (&trees[1], 1));
        for bad in [
            v1::InclusionReply { hashes: vec![vec![1; 32]], ..proof.clone() },
            v1::InclusionReply { hashes: vec![vec![1]], ..proof.clone() },
            v1::InclusionReply { entry: leaf(0).entry, ..proof.clone() },
            v1::InclusionReply { salt: vec![4; SALT], ..proof },
        ] {
            assert_eq!(proven(&end, 1, &bad).unwrap_err().code, "log-wrong");
        }
    }
}
