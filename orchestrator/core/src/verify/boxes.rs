//! Check 9: each box opens with this node's keys, in the place that the grant says.

use super::assign::{NodeKey, NodeSelf, OpenedSecret};
use super::refusal::{Refusal, require};
use super::trust::NodeTrust;
use holdfast_types::{SecretBytes, sha256};
use holdfast_wire::v1::{Grant, GrantSecret};
use holdfast_wire::{boxes, padding};

/// Each box is the one granted, sealed for this grant and this generation by someone who knows the PSK.
pub(crate) fn check(
    trust: &NodeTrust,
    me: &NodeSelf,
    key: &NodeKey,
    g: &Grant,
    sealed: &[Vec<u8>],
) -> Result<Vec<OpenedSecret>, Refusal> {
    require(sealed.len() == g.secrets.len(), 9, "boxes", || {
        format!("{} boxes for {} secrets", sealed.len(), g.secrets.len())
    })?;
    g.secrets.iter().zip(sealed).map(|(s, b)| open(trust, me, key, g, s, b)).collect()
}

fn open(
    trust: &NodeTrust,
    me: &NodeSelf,
    key: &NodeKey,
    g: &Grant,
    s: &GrantSecret,
    sealed: &[u8],
) -> Result<OpenedSecret, Refusal> {
    let no = |code, why: String| Refusal::new(9, code, format!("secret {:?}: {why}", s.name));
    if s.box_sha256 != sha256(&[sealed]).0 {
        return Err(no("box-hash", "the box is not the one granted".into()));
    }
    let kid = boxes::parse(sealed).map_err(|e| no("box", e.to_string()))?.kid;
    if g.hpke_kid != kid {
        return Err(no("box-kid", "the grant names another key than the box".into()));
    }
    let aad = boxes::secret_aad(&g.grant_id, &s.name, s.version, me.node_id.as_str(), g.node_seq);
    let c = boxes::Context { purpose: "secret", cluster: trust.cluster(), aad: &aad };
    let padded = boxes::open(&key.hpke, &c, Some(&key.psk), sealed).map_err(|e| no("box", e.to_string()))?;
    let value = padding::unpad(padded.expose())
        .ok_or_else(|| no("box-padding", "the value is not padded as it must be".into()))?;
    let bytes = SecretBytes::new(value.to_vec());
    Ok(OpenedSecret {
        name: s.name.clone(),
        version: s.version,
        target: s.target.clone(),
        mode: s.mode,
        uid: s.uid,
        gid: s.gid,
        bytes,
    })
}
