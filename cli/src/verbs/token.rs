//! `token`: join tokens. The token's secret is made here; the vault gets its MAC key, sealed to the intake key.

use super::names;
use crate::app::App;
use crate::args::{SignTo, Token, TokenRole as RoleArg};
use crate::client::{Cluster, NewCommand};
use crate::clock;
use crate::errors::{Code, Failure};
use crate::output::{age, time, words};
use crate::signing::{self, Handed};
use crate::spec::is_label;
use holdfast_types::{Digest, TokenId, Zone, sha256};
use holdfast_wire::token::{JoinToken, TokenRole};
use holdfast_wire::v1;
use serde_json::{Value, json};
use std::time::Duration;
use v1::command::Action;

/// Longest life of a token (protocol, root rotation: tokens die with their root).
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Runs the verb.
pub async fn run(app: &App, verb: Token) -> Result<(), Failure> {
    match verb {
        Token::Create { role, zone, labels, ttl, uses, approval, to } => {
            let wish = v1::MintToken {
                role: role_of(role).as_str().to_owned(),
                expires_at_ms: names::expiry(clock::now(), ttl, LONGEST, "--ttl")?,
                uses,
                zone: Zone::parse(&zone).map_err(names::wrong)?.as_str().to_owned(),
                labels,
                // Orchestrators and voters are always admitted by key (protocol, token).
                approval: approval || role != RoleArg::Node,
                ..v1::MintToken::default()
            };
            create(app, role_of(role), wish, &to).await
        }
        Token::Ls => ls(app).await,
        Token::Revoke { id, to } => revoke(app, &id, &to).await,
    }
}

fn role_of(r: RoleArg) -> TokenRole {
    match r {
        RoleArg::Node => TokenRole::Node,
        RoleArg::Orchestrator => TokenRole::Orchestrator,
        RoleArg::Voter => TokenRole::Voter,
    }
}

async fn create(app: &App, role: TokenRole, wish: v1::MintToken, to: &SignTo) -> Result<(), Failure> {
    if wish.uses == 0 {
        return Err(names::wrong("--uses must be at least 1"));
    }
    if let Some(bad) = wish.labels.iter().find(|l| !is_label(l)) {
        return Err(names::wrong(format!("label {bad:?} is not of the form key=value")));
    }
    let c = Cluster::connect(app).await?;
    let anchor = signing_anchor(&c).await?;
    let token = JoinToken { role, id: TokenId(clock::random()?), anchor, secret: clock::random_secret()? };
    let new = NewCommand::draw()?;
    let subject = format!("token/{}", token.id.hex());
    let (sealed, box_sha256) = c.seal(new, &subject, 0, token.mac_key().expose())?;
    let expires = wish.expires_at_ms;
    let action = Action::MintToken(v1::MintToken { token_id: token.id.to_vec(), box_sha256, ..wish });
    let handed = signing::hand_in(&c, to, new, action, sealed).await?;
    let printed = token.print();
    let mut document =
        json!({"token": printed.as_str(), "id": token.id.hex(), "role": role.as_str(), "expires_at": time(expires)});
    // The token is shown now and never again; the vault knows it once the file is submitted.
    if let Handed::Written { document: of_file, line } = handed {
        app.out.note(&line);
        if let Value::Object(map) = &mut document {
            map.insert("statement".to_owned(), of_file);
        }
    }
    app.out.show(&document, || format!("{}\n", printed.as_str()))
}

/// The anchor of the root that signs now, so that a token outlives the rotation of an older one. Which root that is comes
/// from the voter; that it is a root of this cluster from the bundle.
async fn signing_anchor(c: &Cluster) -> Result<Digest, Failure> {
    let status = c.read(async |mut r| r.get_status(v1::Ack {}).await).await?;
    let signs = |root: &&Vec<u8>| status.roots.iter().any(|r| r.signer && r.sha256 == sha256(&[root]).0);
    let roots = &c.trust.bundle().roots;
    // One that signs since we read the bundle is not in it; the others are shown to those who join until they end.
    let root = roots.iter().find(signs).or_else(|| roots.first());
    let root = root.ok_or_else(|| Failure::untrusted("the cluster's bundle lists no root"))?;
    Ok(c.ctx.cluster.anchor(root))
}

async fn ls(app: &App) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let tokens = c.read(async |mut r| r.list_tokens(names::list(None, None, true)).await).await?.tokens;
    let now = clock::now();
    let id = |t: &v1::TokenView| data_encoding::HEXLOWER.encode(&t.token_id);
    let document = |t: &v1::TokenView| -> Value {
        json!({
            "id": id(t), "role": t.role, "expires_at": time(t.expires_at_ms), "uses_left": t.uses_left, "zone": t.zone,
            "labels": t.labels, "minted_by": t.minted_by, "revoked": t.revoked,
        })
    };
    let row = |t: &v1::TokenView| {
        let state = if t.revoked { "revoked".to_owned() } else { age(now, t.expires_at_ms) };
        vec![id(t), t.role.clone(), state, t.uses_left.to_string(), t.zone.clone(), words(&t.labels)]
    };
    let head = ["id", "role", "expires", "uses", "zone", "labels"];
    app.out.list("tokens", tokens.iter().map(document).collect(), &head, tokens.iter().map(row).collect())
}

async fn revoke(app: &App, id: &str, to: &SignTo) -> Result<(), Failure> {
    let help = "give the id that `holdfast token ls` prints, not the token itself";
    let token = TokenId::parse(id).ok_or_else(|| Failure::new(Code::Usage, "that is not a token id", help))?;
    let c = Cluster::connect(app).await?;
    let revoke = Action::RevokeToken(v1::RevokeToken { token_id: token.to_vec() });
    if signing::command(app, &c, to, revoke).await?.is_none() {
        return Ok(());
    }
    app.out.done(&json!({"id": id, "revoked": true}), &format!("token {id} is revoked"))
}
