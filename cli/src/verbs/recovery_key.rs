//! `recovery-key`: the key that sleeps offline and opens every voter and every backup. It is named by the charter, so a new
//! one is a new version of the charter, signed by the Admins of the old and the new one.

use super::unlock_key::Proof;
use super::voter;
use crate::app::App;
use crate::args::{KeyOutput, RecoveryKeyVerb, SignTo};
use crate::client::Cluster;
use crate::errors::Failure;
use crate::framed::must_be_new;
use crate::keyout::{NewKey, must_be_handed_over};
use crate::known::KnownKeys;
use crate::signing;
use crate::slots::SlotKind;
use data_encoding::HEXLOWER;
use holdfast_types::sha256;
use holdfast_wire::charter::{PUT_CHARTER, threshold};
use holdfast_wire::v1;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// How long voters may take to follow.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

/// Runs the verb.
pub async fn run(app: &App, verb: RecoveryKeyVerb) -> Result<(), Failure> {
    match verb {
        RecoveryKeyVerb::Rotate { new, voters, to } => rotate(app, new, &voters.sockets, &to).await,
        RecoveryKeyVerb::Status => status(app).await,
    }
}

/// The charter after the one in force, with another recovery key.
fn next_charter(head: &v1::Charter, head_payload: &[u8], key: &NewKey) -> v1::Charter {
    let shares = u32::try_from(key.digests.len()).unwrap_or(u32::MAX);
    let recovery = v1::Recovery {
        public_key: key.slot.public.to_vec(),
        k: u32::from(key.threshold).max(1),
        n: shares.max(1),
        share_digests: key.share_digests(),
    };
    v1::Charter {
        version: head.version.saturating_add(1),
        prev_sha256: sha256(&[head_payload]).to_vec(),
        recovery: Some(recovery),
        ..head.clone()
    }
}

async fn rotate(app: &App, new: KeyOutput, sockets: &[PathBuf], to: &SignTo) -> Result<(), Failure> {
    let scheme = must_be_handed_over(app, &new)?;
    let c = Cluster::connect(app).await?;
    let head = c.trust.charter();
    signing::one_is_enough(threshold(head, PUT_CHARTER), to, "a new charter")?;
    if let Some(file) = &to.out {
        must_be_new(file)?;
    }
    let payload = c.trust.chains().charter_chain.last().map(|st| st.payload.as_slice()).unwrap_or_default();
    let version = head.version.saturating_add(1);
    let key = NewKey::make(SlotKind::Recovery, version, &c.ctx.cluster, scheme)?;
    let files = key.hand_over(app, new.key_out.as_deref())?;
    KnownKeys::remember(&c.ctx.dir, key.known(&[]))?;
    if to.out.is_some() {
        // The voters follow by themselves once it is submitted; until then only the old key opens them.
        return signing::document(app, &c, to, &next_charter(head, payload, &key)).await.map(|_| ());
    }
    let follow = async {
        c.sign_and_submit(&next_charter(head, payload, &key)).await?;
        let missing = wait_for_voters(app, &c, version).await?;
        Ok::<_, Failure>((missing, Proof::gather(app, &c, sockets).await?.prove(&c, &key.slot, version)?))
    };
    let (missing, proven) = follow.await.map_err(|f| unfinished(f, version))?;
    let files: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
    let doc = json!({"charter_version": version, "proven_by": proven, "missing": missing, "key_files": files});
    app.out.show(&doc, || said(version, &proven, &missing))
}

/// The new key was handed over, and whether it counts may be unknown: the same command once more would make another one.
fn unfinished(f: Failure, version: u64) -> Failure {
    let help = format!(
        "keep both keys, and do not repeat the command, which would make another: `holdfast recovery-key status` says charter \
         {version} once the new key counts; as long as it does not, the old one does"
    );
    Failure { help, ..f }.with("charter_version", version)
}

fn said(version: u64, proven: &[u64], missing: &[u64]) -> String {
    let list = |v: &[u64]| v.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let mut text = format!("charter {version} is in force, with the new recovery key\n");
    text.push_str(&match proven {
        [] => "the new key was not tried on a voter: none could be reached by its socket from here\n".to_owned(),
        some => format!("the new key was tried and opens voter {}\n", list(some)),
    });
    text.push_str("keep the old key as long as you keep backups that were made before: only it opens them\n");
    if !missing.is_empty() {
        text.push_str(&format!("until it has followed, only the old key opens voter {}\n", list(missing)));
    }
    text
}

/// Waits until every voter that takes part has a slot for the new key; returns those that have none when time is over.
async fn wait_for_voters(app: &App, c: &Cluster, version: u64) -> Result<Vec<u64>, Failure> {
    let deadline = Instant::now() + app.timeout(PATIENCE);
    loop {
        let voters = voter::list(c).await?.voters;
        let missing = behind(&voters, version);
        let reachable = voters.iter().any(|v| missing.contains(&v.id) && v.state != "unreachable");
        if !reachable || Instant::now() >= deadline {
            return Ok(missing);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The voters that take part and have no slot for the recovery key of `version`.
fn behind(voters: &[v1::VoterView], version: u64) -> Vec<u64> {
    let late = |v: &&v1::VoterView| !voter::is_evicted(v) && v.recovery_version < version;
    voters.iter().filter(late).map(|v| v.id).collect()
}

/// The version of the charter that brought the recovery key of the one in force.
fn since(c: &Cluster) -> u64 {
    let key = |charter: &v1::Charter| charter.recovery.as_ref().map(|r| r.public_key.clone());
    let (head, mut version) = (c.trust.charter(), c.trust.charter().version);
    let chain = c.trust.chains().charter_chain.iter().rev();
    for older in chain.filter_map(|st| holdfast_wire::statement::peek::<v1::Charter>(st).ok()) {
        if key(&older) != key(head) {
            break;
        }
        version = older.version;
    }
    version
}

async fn status(app: &App) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let version = since(&c);
    let recovery = c.trust.charter().recovery.clone().unwrap_or_default();
    let missing = behind(&voter::list(&c).await?.voters, version);
    let digests: Vec<String> = recovery.share_digests.iter().map(|d| HEXLOWER.encode(d)).collect();
    let doc = json!({
        "charter_version": version, "public": HEXLOWER.encode(&recovery.public_key), "threshold": recovery.k,
        "shares": recovery.n, "share_digests": digests, "missing": missing,
    });
    app.out.show(&doc, || {
        let key =
            if digests.is_empty() { "one key".to_owned() } else { format!("{} of {} shares", recovery.k, recovery.n) };
        let late = missing.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let late = if late.is_empty() { "none".to_owned() } else { late };
        format!("recovery  {key}, since charter {version}\nmissing   {late}\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charter;
    use crate::errors::Code;
    use crate::operator::Operator;
    use crate::shares::Scheme;
    use holdfast_types::ClusterId;
    use holdfast_wire::charter::CharterChain;
    use holdfast_wire::statement::News;

    #[test]
    fn a_charter_with_a_new_recovery_key_follows_the_one_in_force() {
        let op = Operator::generate("op-a").unwrap();
        let domain = charter::default_trust_domain(&[1; 32], &op).unwrap();
        let first = op.sign(&charter::founding(&op, [1; 32], &domain, [2; 32])).unwrap();
        let mut chain = CharterChain::verify(std::slice::from_ref(&first)).unwrap();
        let cluster = ClusterId::of_charter(&first.payload);
        let scheme = Some(Scheme { shares: 3, threshold: 2 });
        let key = NewKey::make(SlotKind::Recovery, 2, &cluster, scheme).unwrap();
        let next = op.sign(&next_charter(chain.head(), &first.payload, &key)).unwrap();
        let News::Todo(next) = chain.observe(&next).unwrap() else { panic!("it is news") };
        chain.adopt(next);
        let recovery = chain.head().recovery.clone().unwrap();
        assert_eq!((recovery.k, recovery.n, recovery.share_digests.len()), (2, 3, 3));
        assert_eq!(recovery.public_key, key.slot.public);
    }

    #[test]
    fn a_rotation_whose_answer_is_lost_says_where_to_look_and_not_to_repeat_it() {
        let lost = Failure::new(Code::TimedOut, "no answer", "repeat the command");
        let told = unfinished(lost, 7);
        assert_eq!((&*told.code, told.message.as_str()), (Code::TimedOut.word(), "no answer"));
        assert!(told.help.contains("keep both keys") && told.help.contains("do not repeat"), "{}", told.help);
        assert!(told.help.contains("recovery-key status") && told.help.contains("charter 7"), "{}", told.help);
    }

    #[test]
    fn voters_that_did_not_follow_are_named() {
        let voter = |id, state: &str, recovery_version| v1::VoterView {
            id,
            state: state.to_owned(),
            recovery_version,
            ..Default::default()
        };
        let all = [voter(1, "ready", 2), voter(2, "unreachable", 1), voter(3, "evicted", 1), voter(4, "leaving", 1)];
        assert_eq!(behind(&all, 2), [2]);
        assert!(said(2, &[1], &[2]).contains("only the old key opens voter 2"));
    }
}
