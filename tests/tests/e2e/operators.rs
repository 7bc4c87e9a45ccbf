//! More than one operator: statements that are carried in files, signed on another machine and handed in by anybody.

use super::world::{World, write_key};
use holdfast_types::{ClusterId, Digest, Secret, sha256};
use holdfast_wire::keys::{Ed25519Key, StatementSigner as _};
use holdfast_wire::statement::{self, Document};
use holdfast_wire::{signed, strict, v1};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use suite::programs::program;
use v1::command::Action;

/// A cluster with a second operator, `op-b`, who has every role, and a machine of his own.
pub struct Second {
    first: Ed25519Key,
    second: Ed25519Key,
    cluster: Vec<u8>,
    home: PathBuf,
}

fn context(home: &Path) -> PathBuf {
    home.join("contexts/default")
}

fn key_of(context: &Path) -> Ed25519Key {
    let text = fs::read_to_string(context.join("operator.key")).unwrap();
    Ed25519Key::from_seed(Secret::take(&mut Digest::parse(text.trim()).unwrap().0))
}

impl Second {
    /// Puts `op-b` into the charter of `w`; what is in `two` takes both from then on.
    pub fn join(w: &World, two: &[&str]) -> Self {
        let of_first = context(&w.path("home"));
        let trust: v1::TrustView = strict::decode(&fs::read(of_first.join("trust.pb")).unwrap(), usize::MAX).unwrap();
        let head = trust.charter_chain.last().unwrap();
        let mut next: v1::Charter = statement::peek(head).unwrap();
        let cluster = ClusterId::of_charter(&trust.charter_chain[0].payload).0.to_vec();
        let (first, seed) = (key_of(&of_first), sha256(&[b"op-b", &cluster]));
        let mut copy = seed.0;
        let second = Ed25519Key::from_seed(Secret::take(&mut copy));
        let him = v1::Operator { id: "op-b".into(), key: Some(second.public()), ..next.operators[0].clone() };
        next.operators.push(him);
        next.thresholds.iter_mut().filter(|t| two.contains(&t.action.as_str())).for_each(|t| t.k = 2);
        (next.version, next.prev_sha256) = (next.version + 1, sha256(&[&head.payload]).to_vec());

        let b = Self { first, second, cluster, home: w.path("home-b") };
        let file = b.file(w, "charter", &next, true);
        w.ok(&["submit", &file]);
        // The first operator's machine learns of it, and the second one's begins with what that one knows.
        w.ok(&["node", "ls"]);
        let of_second = context(&b.home);
        fs::create_dir_all(&of_second).unwrap();
        let settings = fs::read_to_string(of_first.join("context.toml")).unwrap();
        let mine =
            |l: &str| if l.starts_with("operator = ") { "operator = \"op-b\"\n".to_owned() } else { format!("{l}\n") };
        fs::write(of_second.join("context.toml"), settings.lines().map(mine).collect::<String>()).unwrap();
        fs::copy(of_first.join("trust.pb"), of_second.join("trust.pb")).unwrap();
        write_key(&of_second.join("operator.key"), &seed.hex());
        write_key(&of_second.join("publisher.key"), &sha256(&[b"publisher", &b.cluster]).hex());
        b
    }
    /// A file with `doc`, signed by the first operator or by both.
    fn file<T: Document>(&self, w: &World, name: &str, doc: &T, both: bool) -> String {
        let mut st = statement::sign(doc, &[&self.first]).unwrap();
        if both {
            statement::add_signature(&mut st, &self.second).unwrap();
        }
        let file =
            v1::SignedFile { cluster_id: self.cluster.clone(), statement: Some(st), ..v1::SignedFile::default() };
        fs::write(w.path(name), signed::encode(&file)).unwrap();
        w.text(name)
    }
    /// A file with a lockdown that the first operator signed, which may be submitted for `life` milliseconds.
    fn lockdown(&self, w: &World, name: &str, life: i64) -> String {
        let c = v1::Command {
            cluster_id: self.cluster.clone(),
            era: 1,
            command_id: sha256(&[name.as_bytes()]).0[..16].to_vec(),
            expires_at_ms: holdfast_transport::now().0 + life,
            expect_rev: 0,
            action: Some(Action::Lockdown(v1::Lockdown { reason: name.into() })),
        };
        self.file(w, name, &c, false)
    }
    /// Runs the tool on his machine.
    pub fn cli(&self, args: &[&str]) -> Output {
        let mut c = Command::new(program("holdfast").unwrap());
        c.args(args).env("HOLDFAST_HOME", &self.home).env("NO_COLOR", "1");
        c.stdin(std::process::Stdio::null()).output().unwrap()
    }
    /// Runs it; it must succeed. Its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let o = self.cli(args);
        assert!(o.status.success(), "op-b: {args:?}: {}", String::from_utf8_lossy(&o.stderr));
        String::from_utf8(o.stdout).unwrap()
    }
    fn refused(&self, args: &[&str], code: i32) -> String {
        let o = self.cli(args);
        let text = String::from_utf8_lossy(&o.stderr).into_owned();
        assert_eq!(o.status.code(), Some(code), "op-b: {args:?}: {text}");
        text
    }
}

fn secrets(w: &World) -> usize {
    w.json(&["secret", "ls"])["secrets"].as_array().unwrap().len()
}

#[test]
fn two_operators_sign_on_two_machines_and_anybody_submits_it_once() {
    let w = World::founded();
    w.put_secret("shop/x", b"value", &[]);
    let b = Second::join(&w, &["deleteSecret"]);
    let alone = w.refused(&["secret", "rm", "shop/x"], 3);
    assert!(alone.contains("deleteSecret needs 2") && alone.contains("--out"), "{alone}");

    let file = w.text("rm.signed");
    let written = w.json(&["secret", "rm", "shop/x", "--out", &file]);
    assert_eq!((&written["complete"], &written["signatures"][0]["missing"]), (&Value::from(false), &Value::from(1)));
    assert_eq!(secrets(&w), 1, "it was submitted");
    assert!(w.refused(&["secret", "rm", "shop/x", "--out", &file], 2).contains("exists already"));
    let short = w.refused(&["submit", &file], 3);
    assert!(short.contains("1 signed") && short.contains("op-b"), "{short}");

    let shown: Value = serde_json::from_str(&b.ok(&["inspect", &file, "--json"])).unwrap();
    assert_eq!(shown["content"]["action"], "delete-secret");
    assert_eq!(shown["content"]["says"]["secret"], "shop/x");
    assert_eq!(shown["sha256"], written["sha256"]);
    assert!(b.refused(&["sign", &file], 2).contains("nobody is there to be asked"));
    fs::copy(&file, w.path("copy.signed")).unwrap();
    b.ok(&["sign", &file, "--yes"]);
    assert!(b.refused(&["sign", &file, "--yes"], 4).contains("already"));

    let accepted = w.json(&["submit", &file]);
    assert_eq!(secrets(&w), 0);
    w.put_secret("shop/x", b"another value", &[]);
    // Whoever hands it in again, as a thief of the file may, is answered as before, and nothing is done.
    let again: Value = serde_json::from_str(&b.ok(&["submit", &file, "--json"])).unwrap();
    assert_eq!((&again["leaf"], secrets(&w)), (&accepted["leaf"], 1));
    // The copy with one signature says the same, so it is answered the same where both are put together.
    w.ok(&["submit", &w.text("copy.signed"), &file]);
    assert_eq!(secrets(&w), 1);
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
}

#[test]
fn a_file_that_was_altered_or_is_over_or_lives_too_long_or_is_of_another_cluster_changes_nothing() {
    let w = World::founded();
    let b = Second::join(&w, &[]);
    let hour = 3_600_000;
    let good = fs::read(b.lockdown(&w, "good", hour)).unwrap();
    for at in [2, 4, 20, 60, good.len() / 2, good.len() - 20] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(w.path("altered"), bytes).unwrap();
        for verb in ["inspect", "submit"] {
            let o = w.cli(&[verb, &w.text("altered")]);
            assert!(matches!(o.status.code(), Some(2 | 3)), "{verb}, byte {at}: {o:?}");
        }
    }
    assert!(w.refused(&["submit", &b.lockdown(&w, "over", -1)], 4).contains("could be submitted until"));
    assert!(b.refused(&["sign", &b.lockdown(&w, "over", -1), "--yes"], 4).contains("could be submitted until"));
    let long = w.refused(&["submit", &b.lockdown(&w, "long", 25 * hour)], 4);
    assert!(long.contains("longer than 24 h"), "{long}");
    let other = World::founded();
    let astray = other.refused(&["submit", &b.lockdown(&w, "astray", hour)], 2);
    assert!(astray.contains("another cluster"), "{astray}");
    let alarms = |w: &World| w.json(&["status"])["alarms"].to_string();
    assert!(!alarms(&w).contains("lockdown"), "{}", alarms(&w));
    // The one that is in order does what it says.
    w.ok(&["submit", &w.text("good")]);
    assert!(alarms(&w).contains("lockdown"), "{}", alarms(&w));
}
