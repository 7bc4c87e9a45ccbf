//! `init`: founds a cluster. Operator, publisher, unlock and recovery keys are made here; the voter sees public halves only.
//!
//! All keys are on this machine's disk before the voter is asked, and an `init` that was cut off is gone on with by
//! repeating it. Before anything is called done, both slots that the voter wrote are opened here with the keys that will
//! be printed: a key that does not work is found out now and not on the day it is needed.

use super::{seal, unlock};
use crate::app::App;
use crate::args::Init;
use crate::context::{ContextDir, Settings};
use crate::errors::{Code, Failure};
use crate::files;
use crate::founding::Founding;
use crate::known::KnownKeys;
use crate::shares::Scheme;
use crate::slots::SlotKey;
use crate::socket::Socket;
use crate::trust::Trust;
use holdfast_types::{ClusterId, Digest};
use holdfast_wire::v1;
use serde_json::json;
use std::time::Duration;

/// Runs the verb.
pub async fn run(app: &App, a: Init) -> Result<(), Failure> {
    refuse_what_is_missing(&a)?;
    let dir = app.context_dir()?;
    let path = std::path::absolute(&a.vault_socket).map_err(|e| Failure::io("find", &a.vault_socket, &e))?;
    let interrupted = Founding::load(&dir)?;
    match &interrupted {
        Some(founding) => founding.must_match(&a, &path, &dir)?,
        None => dir.must_be_new()?,
    }
    let mut socket = Socket::connect(&path, app.timeout(Duration::from_secs(60))).await?;
    let status = socket.seal_status().await?;
    dir.create()?;
    // One at a time: a second `init` must not write its keys over ours. Released with the process.
    let _alone = files::lock_dir(&dir.path(""))?;
    let founding = match interrupted {
        Some(founding) => founding,
        None => {
            must_be_fresh(&status)?;
            dir.must_be_new()?;
            let founding = Founding::make(&a, &path)?;
            founding.save(&dir)?;
            founding
        }
    };
    let settings = found(app, &dir, &founding, &mut socket, &status).await?;
    report(app, &dir, &settings, &founding)?;
    Founding::forget(&dir)
}

/// The voter must not have a cluster yet, unless it is the one that we were about to found.
fn must_be_fresh(status: &v1::SealStatusReply) -> Result<(), Failure> {
    if status.state == "uninitialized" {
        return Ok(());
    }
    let help = "use another state directory to found another cluster, or the context of this one";
    Err(Failure::new(Code::AlreadyInitialized, "this vault has been founded already", help))
}

/// From keys that are on disk to a context that works.
async fn found(
    app: &App,
    dir: &ContextDir,
    founding: &Founding,
    socket: &mut Socket,
    status: &v1::SealStatusReply,
) -> Result<Settings, Failure> {
    let signed = founding.charter()?;
    let cluster = ClusterId::of_charter(&signed.payload);
    match (&founding.unlock, status.state.as_str()) {
        // Founded by the `init` that was cut off, and restarted since.
        (Some(key), "sealed") if status.cluster_id == cluster.0 => {
            let slots = socket.slot_boxes().await?;
            unlock::open(socket, &cluster, &slots, &key.slot, app.timeout(Duration::from_secs(30))).await?;
        }
        _ if status.cluster_id == cluster.0 => {}
        _ => must_be_fresh(status)?,
    }
    let unlock_pk = founding.unlock.as_ref().map(|k| k.public.to_vec()).unwrap_or_default();
    let shares = founding.shares()?;
    let request = v1::InitRequest {
        charter: Some(signed.clone()),
        unlock_pk,
        threshold: shares.first().map_or(0, |s| u32::from(s.threshold)),
        share_digests: shares.iter().map(|s| s.digest().to_vec()).collect(),
        hsm: founding.hsm.clone().unwrap_or_default(),
    };
    let reply = socket.init(request).await?;
    let anchor = check_reply(&reply, &cluster)?;
    let chains = v1::TrustView {
        charter_chain: vec![signed],
        bundle_chain: reply.bundle_chain.clone(),
        ..v1::TrustView::default()
    };
    let trust = Trust::verify(chains, &cluster, &anchor)?;
    prove_slots(&cluster, reply.slots.as_ref(), &founding.recovery.slot, founding.unlock_as_printed()?.as_ref())?;
    let (service_addrs, join_addrs) = addresses(app, socket, &reply).await?;
    let settings = Settings {
        cluster_id: cluster.hex(),
        trust_domain: founding.trust_domain.as_str().to_owned(),
        anchor: anchor.hex(),
        operator: founding.operator.id.clone(),
        service_addrs,
        join_addrs,
        vault_socket: Some(socket.path().to_owned()),
        vault_sockets: Vec::new(),
    };
    founding.known()?.into_iter().try_for_each(|key| KnownKeys::remember(dir, key))?;
    founding.operator.save(dir)?;
    dir.write("trust.pb", &prost::Message::encode_to_vec(trust.chains()))?;
    dir.write_settings(&settings)?;
    Ok(settings)
}

fn refuse_what_is_missing(a: &Init) -> Result<(), Failure> {
    Scheme::of(a.unlock_shares, a.unlock_threshold).map(drop)
}

/// The voter must have founded exactly the cluster that was asked for; returns the anchor it made.
fn check_reply(reply: &v1::InitReply, cluster: &ClusterId) -> Result<Digest, Failure> {
    if reply.cluster_id != cluster.0 {
        return Err(Failure::untrusted("the voter founded another cluster than the one asked for"));
    }
    // That the anchor commits to a root of the bundle and to this cluster is checked by `Trust::verify`.
    Digest::from_slice(&reply.anchor).ok_or_else(|| Failure::untrusted("the voter's anchor is not a digest"))
}

/// Opens each slot with its key; they must yield the same disk key, which is wiped right away.
fn prove_slots(
    cluster: &ClusterId,
    slots: Option<&v1::SlotBoxes>,
    recovery: &SlotKey,
    unlock: Option<&SlotKey>,
) -> Result<(), Failure> {
    let slots = slots.ok_or_else(|| Failure::untrusted("the voter did not show its slots"))?;
    let by_recovery = recovery.open(cluster, slots)?;
    if let Some(unlock) = unlock {
        let by_unlock = unlock.open(cluster, slots)?;
        if !by_unlock.ct_eq(&by_recovery) {
            return Err(Failure::untrusted("unlock and recovery slot hold different disk keys"));
        }
    }
    Ok(())
}

/// Addresses of the listeners, which open once the voter is up.
async fn addresses(
    app: &App,
    socket: &mut Socket,
    reply: &v1::InitReply,
) -> Result<(Vec<String>, Vec<String>), Failure> {
    let up = seal::wait_until_ready(socket, app.timeout(Duration::from_secs(30))).await?;
    let merge = |told: &[String], now: String| {
        let mut all: Vec<String> = told.iter().filter(|a| !a.is_empty()).cloned().collect();
        if !now.is_empty() && !all.contains(&now) {
            all.push(now);
        }
        all
    };
    Ok((merge(&reply.service_addrs, up.service_addr), merge(&reply.join_addrs, up.join_addr)))
}

fn report(app: &App, dir: &ContextDir, s: &Settings, founding: &Founding) -> Result<(), Failure> {
    let (recovery, shares) = (&founding.recovery, &founding.unlock_shares);
    let whole = founding.unlock.iter().map(|k| &k.printed).filter(|_| shares.is_empty());
    let threshold = founding.shares()?.first().map_or(0, |s| s.threshold);
    let unlock_keys: Vec<&str> = whole.chain(shares).map(|k| k.as_str()).collect();
    let document = json!({
        "cluster_id": s.cluster_id, "trust_domain": s.trust_domain, "anchor": s.anchor, "operator": s.operator,
        "unlock_keys": unlock_keys, "recovery_keys": [recovery.printed.as_str()],
    });
    app.out.show(&document, || {
        let mut text = format!(
            "cluster       {}\ntrust domain  {}\nanchor        {}\noperator      {}\n\n\
             recovery key  {}\n  store it offline, in two places: it opens every voter and every backup\n",
            s.cluster_id, s.trust_domain, s.anchor, s.operator, recovery.printed.as_str()
        );
        text.push_str(&match unlock_keys.as_slice() {
            [] => "unlock key    none: autolock is off, voters open by themselves\n".to_owned(),
            [k] => format!(
                "unlock key    {k}\n  store it in a password manager: every start of a voter needs it (holdfast unlock)\n"
            ),
            all => format!(
                "unlock key    in {} shares, one for each keeper:\n  {}\n  every start of a voter needs {} of them (holdfast unlock)\n",
                all.len(),
                all.join("\n  "),
                threshold
            ),
        });
        text.push_str(&format!(
            "operator key  {}\n  back this folder up: it holds the only keys that can change the cluster\n\n\
             next: holdfast token create --role orchestrator; holdfast token create --role node\n",
            dir.path("").display()
        ));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::founding::Key;
    use crate::slots::SlotKind;
    use holdfast_wire::boxes;

    fn slots(cluster: &ClusterId, keys: &[(&str, &str, &Key, [u8; 32])]) -> v1::SlotBoxes {
        let aad = boxes::slot_aad(1, 1, 1);
        let slot = |(kind, purpose, key, dk): &(&str, &str, &Key, [u8; 32])| {
            let context = boxes::Context { purpose, cluster, aad: &aad };
            let sealed = boxes::seal(&key.public, &context, None, dk, [1; 32]).unwrap();
            v1::SlotBox { kind: (*kind).to_owned(), epoch: 1, r#box: sealed, dk_gen: 1 }
        };
        let slots = keys.iter().map(slot).collect();
        v1::SlotBoxes { cluster_id: cluster.0.to_vec(), voter_id: 1, dk_gen: 1, slots, ..Default::default() }
    }

    #[test]
    fn founding_fails_unless_both_printed_keys_open_the_same_disk_key() {
        let cluster = ClusterId([1; 32]);
        let (r, u) = (Key::make(SlotKind::Recovery).unwrap(), Key::make(SlotKind::Unlock).unwrap());
        let both = |dk: [u8; 32]| {
            slots(&cluster, &[("recovery", "recovery-slot", &r, [9; 32]), ("unlock", "unlock-slot", &u, dk)])
        };
        assert!(prove_slots(&cluster, Some(&both([9; 32])), &r.slot, Some(&u.slot)).is_ok());
        assert_eq!(prove_slots(&cluster, Some(&both([8; 32])), &r.slot, Some(&u.slot)).unwrap_err().code, "untrusted");
        let other = Key::make(SlotKind::Unlock).unwrap();
        assert_eq!(
            prove_slots(&cluster, Some(&both([9; 32])), &r.slot, Some(&other.slot)).unwrap_err().code,
            "bad-key"
        );
        assert_eq!(prove_slots(&cluster, None, &r.slot, None).unwrap_err().code, "untrusted");
    }
}
