//! What `--json` prints: the fields of each verb's document, as `docs/reference/json.md` lists them.

mod listed;
mod lives;

use super::hsm::token::Token;
use super::operators::Second;
use super::roots::given::{CA, made_by_openssl, name_of_roots};
use super::roots::{roots, stable};
use super::voters::world::Voter;
use super::world::{World, eventually, write_key};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use suite::programs::program;

const PAGE: &str = "docs/reference/json.md";
/// Objects whose keys are data: counts by state, variables, fields of an entry, what a backup holds, processes,
/// what a statement says.
const MAPS: [&str; 6] = ["nodes", "env", "fields", "found", "pids", "content"];

/// Documents, each under the verb that printed it.
type Documents = Vec<(&'static str, Value)>;

/// Each field of a document as a path: `voters[].id`.
fn fields(v: &Value, at: &str, found: &mut BTreeSet<String>) {
    match v {
        Value::Object(o) => {
            for (key, value) in o {
                let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                if value.is_object() && MAPS.contains(&key.as_str()) {
                    found.insert(format!("{path}{{}}"));
                } else {
                    fields(value, &path, found);
                }
            }
        }
        Value::Array(a) => {
            let inner = format!("{at}[]");
            if a.iter().all(|v| !v.is_object()) {
                found.insert(inner.clone());
            }
            a.iter().filter(|v| v.is_object()).for_each(|v| fields(v, &inner, found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            found.insert(at.to_owned());
        }
    }
}

/// The service of the story with everything said that a service file can say about it.
fn full_spec(w: &World) -> String {
    let text = fs::read_to_string(w.web_spec(1)).unwrap();
    let more = "env = { MODE = \"full\" }\nresources = { cpu = \"100m\", memory = \"64Mi\", pids = 64 }\n\
                health = { command = [\"/bin/busybox\", \"true\"] }\nupdate = { parallelism = 1 }\n\
                tmpfs = [{ target = \"/cache\", size = \"1Mi\" }]\n";
    w.write_spec("full", &format!("{more}{text}"))
}

/// A file with what looks like a join token: its checksum is wrong, or `scan` would fail.
fn example_of_a_token(w: &World, token: &Value) -> String {
    let altered = |(n, c): (usize, char)| if n == 30 { if c == '0' { '1' } else { '0' } } else { c };
    let text: String = token["token"].as_str().unwrap().chars().enumerate().map(altered).collect();
    fs::write(w.path("example.txt"), text).unwrap();
    w.text("example.txt")
}

/// A node that waits for its approval: its id and key.
fn applicant(w: &mut World) -> (String, String) {
    let n = w.agents.len();
    w.write_agent_config(n, "");
    let token = w.token("node", &["--approval"]);
    let vault = format!("127.0.0.1:{}", w.join);
    w.start_agent(n, &["--join-token-file", token.to_str().unwrap(), "--vault", &vault]);
    let node = eventually("a node that waits", || {
        w.json(&["node", "ls"])["nodes"].as_array()?.iter().find(|n| n["state"] == "pending").cloned()
    });
    (node["id"].as_str().unwrap().to_owned(), node["key"].as_str().unwrap().to_owned())
}

/// The documents of the verbs about voters and their keys. The unlock key changes.
fn of_keys(w: &mut World, all: &mut Documents) {
    let old = w.unlock_key.to_str().unwrap().to_owned();
    let (share, new, recovery) = (w.text("share"), w.text("new.key"), w.text("new-recovery.key"));
    let three = ["--shares", "3", "--threshold", "2", "--key-out", &share];
    all.push(("unlock-key status`", w.json(&["unlock-key", "status"])));
    all.push(("unlock-key split`", w.json(&[&["unlock-key", "split", "--key-file", &old][..], &three].concat())));
    all.push(("unlock-key rotate`", w.json(&["unlock-key", "rotate", "--key-file", &old, "--key-out", &new])));
    w.unlock_key = new.into();
    all.push(("recovery-key rotate`", w.json(&["recovery-key", "rotate", "--key-out", &recovery])));
    all.push(("recovery-key status`", w.json(&["recovery-key", "status"])));
    all.push(("keyring rotate` (with `--detach`)", w.json(&["keyring", "rotate", "--detach"])));
    all.push(("keyring rotate`", w.json(&["keyring", "rotate"])));
    all.push(("keyring status`", w.json(&["keyring", "status"])));
    all.push(("root rotate`", w.json(&["root", "rotate"])));
    all.push(("root status`", w.json(&["root", "status"])));
}

/// Those that turn autolock off and on again, and order new disk keys.
fn of_autolock(w: &World, all: &mut Documents) {
    all.push(("autolock off`", w.json(&["autolock", "off"])));
    all.push(("autolock on`", w.json(&["autolock", "on", "--key-out", &w.text("again.key")])));
    all.push(("voter rotate-disk-keys`", w.json(&["voter", "rotate-disk-keys"])));
}

/// Those about a statement that is carried in a file.
fn of_carried(w: &World, orchestrator: &str, all: &mut Documents) {
    let (file, token) = (w.text("mandate.signed"), w.text("token.signed"));
    let put = ["mandate", "put", "--orchestrator", orchestrator, "--id", "m-3", "--out", &file];
    all.push(("mandate put` (with `--out`, as of every verb that signs)", w.json(&put)));
    all.push(("inspect`", w.json(&["inspect", &file])));
    let signed = Second::join(w, &[]).ok(&["sign", &file, "--yes", "--json"]);
    all.push(("sign`", serde_json::from_str(&signed).unwrap()));
    all.push(("submit`", w.json(&["submit", &file])));
    let create = ["token", "create", "--role", "node", "--out", &token];
    all.push(("token create` (with `--out`)", w.json(&create)));
}

/// Those of the brake, and of an operator's own renewal.
fn of_the_brake(w: &World, grant: &str, all: &mut Documents) {
    all.push(("lockdown`", w.json(&["lockdown", "--reason", "drill"])));
    all.push(("release`", w.json(&["release", "--reason", "drill"])));
    all.push(("grant revoke`", w.json(&["grant", "revoke", grant])));
    all.push(("login`", w.json(&["login"])));
}

/// Those about a root whose key is offline. One that is given up, and two that sign.
fn of_roots(w: &World, all: &mut Documents) {
    let (dir, name) = (w.dir.path(), name_of_roots(w));
    let (given_up, _) = made_by_openssl(dir, "given-up", &name, CA);
    w.json(&["root", "rotate", "--ca-cert", &given_up, "--offline"]);
    all.push(("root abort`", w.json(&["root", "abort"])));
    stable(w);
    all.push(("root export` (with `--out`)", w.json(&["root", "export", "--out", &w.text("roots.pem")])));
    let installed = |all: &mut Documents, called: &str, row, more: &[&str]| {
        let (cert, key) = made_by_openssl(dir, called, &name, CA);
        w.json(&["root", "rotate", "--ca-cert", &cert, "--offline"]);
        let (request, signed) = (w.text(&format!("{called}.request")), w.text(&format!("{called}.signed")));
        all.push(("root csr` (with `--out`)", w.json(&["root", "csr", "--out", &request])));
        let sign = ["root", "sign", &request, "--ca-cert", &cert, "--ca-key", &key, "--out", &signed];
        all.push(("root sign` (with `--out`)", w.json(&sign)));
        all.push((row, w.json(&[&["root", "install", &signed][..], more].concat())));
    };
    installed(all, "offline", "root install`", &[]);
    // Nothing here signs that yet another one is trusted beside it: Admins do.
    w.ok(&["root", "rotate", "--software", "--without-old-root"]);
    installed(all, "another", "root install` (with `--detach`)", &["--detach"]);
}

/// Those about a rotation that waits for a machine.
fn of_a_straggler(w: &World, all: &mut Documents) {
    w.agents[0].signal(Signal::STOP);
    all.push(("root rotate` (with `--detach`)", w.json(&["root", "rotate", "--detach"])));
    let waits = eventually("a machine to be waited for", || {
        let now = roots(w);
        now["stragglers"].as_array().is_some_and(|s| !s.is_empty()).then_some(now)
    });
    all.push(("root status`", waits));
    all.push(("root abort` (with `--detach`)", w.json(&["root", "abort", "--detach"])));
    w.agents[0].signal(Signal::CONT);
    stable(w);
}

/// Those that write the log or everything to a file, and what would come back of that in an empty place.
fn of_files(w: &World, all: &mut Documents) {
    let (log, backup, key, socket) = (w.text("all.hflog"), w.text("all.hfbackup"), w.text("recovery.key"), w.socket());
    all.push(("log export`", w.json(&["log", "export", &log])));
    all.push(("backup create`", w.json(&["backup", "create", &backup, "--vault-socket", &socket])));
    all.push(("backup verify`", w.json(&["backup", "verify", &backup, "--key-file", &key])));
    let mut empty = Voter::place(w, "empty");
    empty.configure("");
    empty.start(&[]);
    let recover = ["recover", "--backup", &backup, "--key-file", &key, "--vault-socket", &empty.socket(), "--dry-run"];
    all.push(("recover`", w.json(&recover)));
}

fn of_a_token(w: &World) -> Value {
    let token = Token::new(w.path("hsm"));
    let mut probe = Command::new(program("holdfast").unwrap());
    probe.args(["hsm", "probe", &token.uri(), "--json", "--pin-file"]).arg(token.pin_file());
    let shown = probe.env("SOFTHSM2_CONF", token.conf()).output().unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    serde_json::from_slice(&shown.stdout).unwrap()
}

/// The documents of one life of a cluster.
fn documents() -> Documents {
    let w = World::empty();
    let mut all = Documents::new();
    all.push(("status` (of a voter by its socket)", w.json(&["status", "--vault-socket", &w.socket()])));
    let init = w.json(&["init", "--vault-socket", &w.socket(), "--autolock"]);
    write_key(&w.unlock_key, init["unlock_keys"][0].as_str().unwrap());
    write_key(&w.path("recovery.key"), init["recovery_keys"][0].as_str().unwrap());
    all.push(("init`", init));
    let mut w = w;
    w.add_orchestrator();
    w.add_node("eu");
    let key = |w: &World| w.unlock_key.to_str().unwrap().to_owned();
    let put = w.cli_with(&["secret", "put", "shop/db-password", "--json"], b"value");
    all.push(("secret put`", serde_json::from_slice(&put.stdout).unwrap()));
    all.push(("secret ls`", w.json(&["secret", "ls"])));
    let spec = full_spec(&w);
    all.push(("service deploy`", w.json(&["service", "deploy", "-f", &spec])));
    all.push(("status`", w.json(&["status"])));
    all.push(("service ls`", w.json(&["service", "ls"])));
    all.push(("service ps`", w.json(&["service", "ps", "shop/web"])));
    all.push(("service inspect`", w.json(&["service", "inspect", "shop/web"])));
    eventually("a line of the service", || w.ok(&["service", "logs", "shop/web"]).contains("secret ").then_some(()));
    all.push(("service logs`", w.json(&["service", "logs", "shop/web"])));
    all.push(("log tail`", w.json(&["log", "tail"])));
    all.push(("service scale`", w.json(&["service", "scale", "shop/web=1"])));
    all.push(("service scale` (with `--detach`)", w.json(&["service", "scale", "shop/web=2", "--detach"])));
    let token = w.json(&["token", "create", "--role", "node", "--label", "disk=ssd"]);
    all.push(("token ls`", w.json(&["token", "ls"])));
    let id =
        all.last().unwrap().1["tokens"].as_array().unwrap().iter().find(|t| t["uses_left"] != 0).unwrap()["id"].clone();
    let example = example_of_a_token(&w, &token);
    all.push(("token create`", token));
    all.push(("token revoke`", w.json(&["token", "revoke", id.as_str().unwrap()])));
    let nodes = w.json(&["node", "ls"]);
    let id = |role: &str| {
        let one = nodes["nodes"].as_array().unwrap().iter().find(|n| n["role"] == role).unwrap();
        one["id"].as_str().unwrap().to_owned()
    };
    let (node, orchestrator) = (id("node"), id("orchestrator"));
    all.push(("node inspect`", w.json(&["node", "inspect", &node])));
    let grants = w.json(&["grant", "ls"]);
    let grant = grants["grants"][0]["id"].as_str().unwrap().to_owned();
    all.push(("grant ls`", grants));
    all.push(("grant verify`", w.json(&["grant", "verify", &grant])));
    all.push(("mandate ls`", w.json(&["mandate", "ls"])));
    let mandate = w.json(&["mandate", "put", "--orchestrator", &orchestrator, "--id", "m-2"]);
    all.push(("mandate put`", mandate));
    all.push(("mandate revoke`", w.json(&["mandate", "revoke", "m-2"])));
    of_carried(&w, &orchestrator, &mut all);
    all.push(("service approve`", w.json(&["service", "approve", "shop/web", "--node", &node])));
    of_the_brake(&w, &grant, &mut all);
    let digest = format!("sha256:{}", "ab".repeat(32));
    all.push(("image deny`", w.json(&["image", "deny", &digest, "--reason", "drill"])));
    all.push(("image ls`", w.json(&["image", "ls"])));
    all.push(("image allow`", w.json(&["image", "allow", &digest])));
    all.push(("log verify`", w.json(&["log", "verify"])));
    all.push(("service deploy` (with `--detach`)", w.json(&["service", "deploy", "-f", &spec, "--detach"])));
    all.push(("service rm`", w.json(&["service", "rm", "shop/web"])));
    all.push(("secret rm`", w.json(&["secret", "rm", "shop/db-password"])));
    all.push(("secret history`", w.json(&["secret", "history", "shop/db-password"])));
    all.push(("node zone`", w.json(&["node", "zone", &node, "us"])));
    all.push(("node label`", w.json(&["node", "label", &node, "disk=ssd"])));
    all.push(("node exposure`", w.json(&["node", "exposure", &node])));
    of_a_straggler(&w, &mut all);
    all.push(("node drain`", w.json(&["node", "drain", &node])));
    all.push(("node activate`", w.json(&["node", "activate", &node])));
    all.push(("node rm`", w.json(&["node", "rm", &node])));
    all.push(("node ls`", nodes));
    let (waiting, its_key) = applicant(&mut w);
    all.push(("node approve`", w.json(&["node", "approve", &waiting, "--key", &its_key])));
    all.push(("node quarantine`", w.json(&["node", "quarantine", &waiting])));
    all.push(("node release`", w.json(&["node", "release", &waiting, "--key", &"ab".repeat(32)])));
    // It does not have that key, and would keep a rotation of the root waiting.
    w.ok(&["node", "rm", &waiting]);
    all.push(("scan`", w.json(&["scan", &example])));
    of_files(&w, &mut all);
    of_keys(&mut w, &mut all);
    all.push(("seal`", w.json(&["seal"])));
    let vault = w.vault.as_mut().unwrap();
    eventually("the sealed process to end", || vault.exited());
    w.start_vault();
    all.push(("unlock`", w.json(&["unlock", "--key-file", &key(&w)])));
    of_autolock(&w, &mut all);
    of_roots(&w, &mut all);
    all.push(("hsm probe`", of_a_token(&w)));
    all
}

fn page(documents: &[(&str, Value)]) -> String {
    let mut page = "# What `--json` prints\n\n\
        One document on standard output, with these fields; `[]` is a list, `{}` an object whose keys are data.\n\
        Times are RFC 3339, or null for never. It cannot be used with `--follow`.\n\
        Without `--out`, `root export`, `root csr` and `root sign` print what was asked for, and no document about it.\n\
        A failure is `{\"error\":{\"code\",\"message\",\"help\",\"details\"}}`: see [errors](errors.md).\n"
        .to_owned();
    let mut rows: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (verb, document) in documents {
        fields(document, "", rows.entry(verb).or_default());
    }
    for (verb, found) in rows {
        // What was empty in one document may have had fields in another.
        let more = |f: &str| found.iter().any(|other| other.strip_prefix(f).is_some_and(|rest| rest.starts_with('.')));
        let list: Vec<_> = found.iter().filter(|f| !more(f)).map(|f| format!("`{f}`")).collect();
        write!(page, "\n## `{verb}\n\n{}\n", list.join(" · ")).unwrap();
    }
    page
}

/// With `HOLDFAST_BLESS=1` the page is written instead.
#[test]
fn the_fields_of_each_document_are_the_documented_ones_in_snake_case() {
    let documents = std::thread::scope(|s| {
        let others = s.spawn(lives::documents);
        [documents(), others.join().unwrap()].concat()
    });
    let page = page(&documents);
    for line in page.lines().filter(|l| l.starts_with('`')) {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.[]{}` ·".contains(c);
        assert!(line.chars().all(plain), "not snake_case: {line}");
    }
    let path = suite::repository::root().join(PAGE);
    if std::env::var_os("HOLDFAST_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "{PAGE} is stale: run this test once with HOLDFAST_BLESS=1\n{page}");
}
