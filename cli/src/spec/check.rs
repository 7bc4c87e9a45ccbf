//! Every rule of a service file, in the order of its keys. Faults are collected, not thrown.

use super::Service;
use super::raw::{RawHealth, RawResources, RawSecret, RawService, RawTmpfs, RawUpdate};
use holdfast_types::{SecretRef, ServiceRef, Zone, parse_duration, parse_size};
use holdfast_wire::v1;
use std::fmt::Display;

/// Longest life of a signed Spec (protocol, Spec): bounds what could be dug out and run again.
const MAX_VALID_DAYS: u32 = 180;

/// Faults found so far, each led by the key it is about.
#[derive(Default)]
struct Faults(Vec<String>);
impl Faults {
    fn add(&mut self, key: &str, why: impl Display) {
        self.0.push(format!("{key}: {why}"));
    }
    /// The value, or its default and a fault.
    fn take<T: Default, E: Display>(&mut self, key: &str, r: Result<T, E>) -> T {
        r.unwrap_or_else(|e| {
            self.add(key, e);
            T::default()
        })
    }
    /// One of `allowed`; the first of them if nothing is given.
    fn word(&mut self, key: &str, given: Option<String>, allowed: &[&str]) -> String {
        let first = allowed.first().copied().unwrap_or_default();
        let word = given.unwrap_or_else(|| first.to_owned());
        if !allowed.contains(&word.as_str()) {
            self.add(key, format!("{word:?} is none of {}", allowed.join(", ")));
        }
        word
    }
    fn at_least_one(&mut self, key: &str, n: u32) -> u32 {
        if n == 0 {
            self.add(key, "must be at least 1");
        }
        n
    }
    fn millis(&mut self, key: &str, given: Option<String>, default: &str) -> u32 {
        let d = parse_duration(given.as_deref().unwrap_or(default));
        let ms =
            d.map_err(|e| e.to_string()).and_then(|d| u32::try_from(d.as_millis()).map_err(|_| "too long".to_owned()));
        self.take(key, ms)
    }
}

/// Checks a raw service; all faults at once.
pub fn service(raw: RawService) -> Result<Service, Vec<String>> {
    let mut f = Faults::default();
    let name = ServiceRef::of(&raw.namespace, &raw.name).map_err(|e| f.add("name", e)).ok();
    if raw.image.trim().is_empty() || raw.image.contains(char::is_whitespace) {
        f.add("image", "must be a reference, oci-layout:PATH or docker-archive:PATH");
    }
    f.at_least_one("replicas", raw.replicas);
    let valid_for_ms = valid_for(raw.valid_for, &mut f);
    // The only one there may be must not run on while its replacement starts.
    let expiry: &[&str] = match (raw.exclusive, raw.sensitive) {
        (true, _) => &["stop"],
        (false, true) => &["stop", "run-on"],
        (false, false) => &["run-on", "stop"],
    };
    let content = v1::Spec {
        command: strings("command", raw.command, &mut f),
        args: strings("args", raw.args, &mut f),
        env: environment(raw.env, &mut f),
        secrets: raw.secrets.into_iter().map(|s| secret(s, &raw.namespace, raw.user, &mut f)).collect(),
        replicas_min: raw.replicas,
        replicas_max: raw.replicas,
        resources: raw.resources.map(|r| resources(&r, &mut f)),
        isolation: f.word("isolation", raw.isolation, &["default", "relaxed"]),
        zones: zones(raw.zones, &mut f),
        node_labels: labels(raw.node_labels, &mut f),
        exclusive: raw.exclusive,
        protected: raw.protected,
        sensitive: raw.sensitive,
        on_expiry: f.word("on-expiry", raw.on_expiry, expiry),
        restart: f.word("restart", raw.restart, &["always", "on-failure", "never"]),
        user: raw.user,
        workdir: workdir(raw.workdir, &mut f),
        tmpfs: raw.tmpfs.into_iter().map(|t| tmpfs(t, &mut f)).collect(),
        health: raw.health.map(|h| health(h, &mut f)),
        update: raw.update.map(|u| update(u, &mut f)),
        ..v1::Spec::default()
    };
    match name {
        Some(name) if f.0.is_empty() => Ok(Service { name, image: raw.image, content, valid_for_ms }),
        _ => Err(f.0),
    }
}

/// Arguments and paths end up in C strings.
fn strings(key: &str, v: Vec<String>, f: &mut Faults) -> Vec<String> {
    if v.iter().any(|s| s.contains('\0')) {
        f.add(key, "contains a null byte");
    }
    v
}

fn environment(env: std::collections::BTreeMap<String, String>, f: &mut Faults) -> Vec<v1::EnvVar> {
    let named = |n: &str| !n.is_empty() && !n.contains(['=', '\0']);
    env.into_iter()
        .map(|(name, value)| {
            if !named(&name) || value.contains('\0') {
                f.add("env", format!("{name:?} is not a variable that can be set"));
            }
            v1::EnvVar { name, value }
        })
        .collect()
}

/// A secret is named alone, of the service's namespace, or as `namespace/name`; its file is called by the name alone.
fn secret(s: RawSecret, namespace: &str, user: u32, f: &mut Faults) -> v1::SecretMount {
    let name = SecretRef::parse(&s.name, namespace).map_err(|e| f.add("secrets", e)).ok();
    let target = s.target.or(name.map(|n| n.name.as_str().to_owned())).unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if target.is_empty() || target.len() > 255 || target.starts_with('.') || !target.bytes().all(plain) {
        f.add("secrets", format!("target {target:?} must be a plain file name; it appears under /run/secrets"));
    }
    if s.mode & !0o777 != 0 || s.mode & 0o222 != 0 || s.mode == 0 {
        f.add("secrets", format!("mode 0o{:o} of {} must be a read-only file mode, such as 0o400", s.mode, s.name));
    }
    v1::SecretMount { name: s.name, target, mode: s.mode, uid: s.uid.unwrap_or(user), gid: s.gid.unwrap_or(user) }
}

/// Zones are taken literally by every verifier, so "anywhere" is written out.
fn zones(zones: Vec<String>, f: &mut Faults) -> Vec<String> {
    for z in &zones {
        if let Err(e) = Zone::parse(z) {
            f.add("zones", e);
        }
    }
    if zones.is_empty() { vec!["*".to_owned()] } else { zones }
}

fn labels(labels: Vec<String>, f: &mut Faults) -> Vec<String> {
    for l in labels.iter().filter(|l| !is_label(l)) {
        f.add("node-labels", format!("{l:?} is not of the form key=value"));
    }
    labels
}

/// `key=value`, both present, of printable characters.
pub fn is_label(l: &str) -> bool {
    l.len() <= 128
        && l.bytes().all(|b| b.is_ascii_graphic())
        && l.split_once('=').is_some_and(|(k, v)| !k.is_empty() && !v.is_empty())
}

fn resources(r: &RawResources, f: &mut Faults) -> v1::Resources {
    let cpu = r.cpu.as_deref().map_or(Ok(0), cpu_milli);
    let memory = r.memory.as_deref().map_or(Ok(0), parse_size);
    v1::Resources {
        cpu_milli: f.take("resources.cpu", cpu),
        memory_bytes: f.take("resources.memory", memory),
        pids: r.pids.unwrap_or(0),
    }
}

/// `250m`, `2`, `1.5`: thousandths of a CPU, at least one.
fn cpu_milli(s: &str) -> Result<u32, String> {
    let bad = || format!("{s:?} is not an amount of CPU: write 250m, 2 or 1.5");
    let milli = match s.strip_suffix('m') {
        Some(n) => n.parse().map_err(|_| bad())?,
        None => {
            let (whole, part) = s.split_once('.').unwrap_or((s, ""));
            if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(bad());
            }
            let part: u32 = format!("{part:0<3}").parse().map_err(|_| bad())?;
            let whole: u32 = whole.parse().map_err(|_| bad())?;
            whole.checked_mul(1000).and_then(|w| w.checked_add(part)).ok_or_else(bad)?
        }
    };
    if milli == 0 { Err(bad()) } else { Ok(milli) }
}

fn workdir(dir: String, f: &mut Faults) -> String {
    if !dir.is_empty() && !is_absolute(&dir) {
        f.add("workdir", format!("{dir:?} must be an absolute path without `..`"));
    }
    dir
}

fn is_absolute(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\0') && path.split('/').all(|e| e != "..")
}

fn tmpfs(t: RawTmpfs, f: &mut Faults) -> v1::TmpfsMount {
    if !is_absolute(&t.target) || t.target == "/" {
        f.add("tmpfs", format!("target {:?} must be an absolute path below /", t.target));
    }
    let size_bytes = f.take("tmpfs.size", parse_size(&t.size));
    v1::TmpfsMount { target: t.target, size_bytes }
}

fn health(h: RawHealth, f: &mut Faults) -> v1::HealthCheck {
    if h.command.is_empty() {
        f.add("health.command", "must not be empty");
    }
    let interval_ms = f.millis("health.interval", h.interval, "10s");
    let interval_ms = f.at_least_one("health.interval", interval_ms);
    let retries = f.at_least_one("health.retries", h.retries.unwrap_or(3));
    v1::HealthCheck { command: strings("health.command", h.command, f), interval_ms, retries }
}

fn update(u: RawUpdate, f: &mut Faults) -> v1::UpdatePolicy {
    v1::UpdatePolicy {
        parallelism: f.at_least_one("update.parallelism", u.parallelism.unwrap_or(1)),
        order: f.word("update.order", u.order, &["stop-first", "start-first"]),
        on_failure: f.word("update.on-failure", u.on_failure, &["pause", "rollback", "continue"]),
        monitor_ms: f.millis("update.monitor", u.monitor, "5s"),
    }
}

fn valid_for(given: Option<String>, f: &mut Faults) -> i64 {
    let longest = i64::from(MAX_VALID_DAYS) * 86_400_000;
    let Some(text) = given else { return longest };
    let d = f.take("valid-for", parse_duration(&text));
    let ms = i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
    if ms == 0 || ms > longest {
        f.add("valid-for", format!("must be longer than 0 and at most {MAX_VALID_DAYS}d"));
    }
    ms
}
