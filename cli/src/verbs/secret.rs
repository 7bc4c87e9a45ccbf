//! `secret`: values go from a file or standard input into a box that only the vault opens. No verb reads one back.

mod history;

use super::names;
use crate::app::App;
use crate::args::{SecretVerb, SignTo};
use crate::client::{Cluster, NewCommand};
use crate::clock;
use crate::errors::{Code, Failure};
use crate::files;
use crate::output::{age, time, words};
use crate::signing;
use holdfast_types::{SecretRef, ServiceRef};
use holdfast_wire::{padding, v1};
use serde_json::{Value, json};
use std::io::IsTerminal as _;
use std::path::Path;
use v1::command::Action;
use zeroize::Zeroizing;

/// Longest value, in bytes (protocol, formats).
const MAX_VALUE: u64 = 500 << 10;

/// Runs the verb.
pub async fn run(app: &App, verb: SecretVerb) -> Result<(), Failure> {
    match verb {
        // No machine is attested yet: a secret that is marked so would be a secret that nobody gets.
        SecretVerb::Put { attested_only: true, .. } => {
            Err(Failure::not_yet("keeping a secret to attested machines (--attested-only)"))
        }
        SecretVerb::Put { name, namespace, file, readers, zones, attested_only: false, to } => {
            let name = names::secret(&name, &namespace)?;
            let rules = Rules { readers: readers_of(readers, &name)?, zones, attested_only: false };
            put(app, &name, file.as_deref(), rules, &to).await
        }
        SecretVerb::Ls { namespace } => ls(app, namespace.as_deref()).await,
        SecretVerb::History { name, namespace } => history::show(app, &names::secret(&name, &namespace)?).await,
        SecretVerb::Rm { name, namespace, to } => rm(app, &names::secret(&name, &namespace)?, &to).await,
    }
}

/// Who may mount it, and where, as far as the command line says.
struct Rules {
    readers: Vec<String>,
    zones: Vec<String>,
    attested_only: bool,
}

/// Readers are services, `NAMESPACE/NAME` or `NAMESPACE/*`; a bare name is of the secret's own namespace.
fn readers_of(given: Vec<String>, secret: &SecretRef) -> Result<Vec<String>, Failure> {
    let full = |r: String| match r.split_once('/') {
        Some((ns, "*")) => holdfast_types::Namespace::parse(ns).map(|ns| format!("{ns}/*")),
        Some(_) | None => ServiceRef::parse(&r, secret.namespace.as_str()).map(|s| s.to_string()),
    };
    given.into_iter().map(full).collect::<Result<_, _>>().map_err(names::wrong)
}

async fn put(app: &App, name: &SecretRef, file: Option<&Path>, rules: Rules, to: &SignTo) -> Result<(), Failure> {
    let value = read_value(file)?;
    let c = Cluster::connect(app).await?;
    let last = find(&c, name).await?;
    let version = last.as_ref().map_or(0, |s| s.version) + 1;
    let rules = inherit(rules, last, name)?;
    let new = NewCommand::draw()?;
    let padded = Zeroizing::new(padding::pad(&value));
    let (sealed, box_sha256) = c.seal(new, &name.to_string(), version, &padded)?;
    let command = v1::PutSecret {
        namespace: name.namespace.as_str().to_owned(),
        name: name.name.as_str().to_owned(),
        version,
        box_sha256,
        readers: rules.readers,
        zones: rules.zones,
        attested_only: rules.attested_only,
    };
    let document = json!({
        "secret": name.to_string(), "version": version, "readers": command.readers, "zones": command.zones,
    });
    // Defaults are said aloud: what holds is what was signed.
    let (readers, zones) = (words(&command.readers), words(&command.zones));
    if signing::command_with(app, &c, to, new, Action::PutSecret(command), sealed).await?.is_none() {
        return Ok(());
    }
    app.out.done(&document, &format!("secret {name} is stored, version {version}; readers {readers}, zones {zones}"))
}

/// What is not said stays as it was; a new secret, also one under a deleted one's name, is readable by its namespace, in every zone.
fn inherit(given: Rules, last: Option<v1::SecretView>, name: &SecretRef) -> Result<Rules, Failure> {
    let (readers, zones, attested) = match last.filter(|s| !s.deleted) {
        Some(s) => (s.readers, s.zones, s.attested_only),
        None => (vec![format!("{}/*", name.namespace)], Vec::new(), false),
    };
    Ok(Rules {
        readers: if given.readers.is_empty() { readers } else { given.readers },
        zones: names::zones(if given.zones.is_empty() { zones } else { given.zones })?,
        attested_only: given.attested_only || attested,
    })
}

fn read_value(file: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let value = match file {
        Some(path) if path != Path::new("-") => files::read(path, MAX_VALUE)?,
        None if std::io::stdin().is_terminal() => {
            let typed = rpassword::prompt_password("value: ").map(|v| Zeroizing::new(v.into_bytes()));
            typed.map_err(|e| Failure::new(Code::Io, format!("cannot read from the terminal: {e}"), "use --file"))?
        }
        Some(_) | None => files::read_limited(std::io::stdin().lock(), MAX_VALUE, "the value")?,
    };
    if value.is_empty() {
        return Err(Failure::new(
            Code::InvalidInput,
            "the value is empty",
            "pipe the value in, or name its file with --file",
        ));
    }
    Ok(value)
}

/// The secret, or what is left of it once deleted.
async fn find(c: &Cluster, name: &SecretRef) -> Result<Option<v1::SecretView>, Failure> {
    let (ns, n) = (name.namespace.as_str(), name.name.as_str());
    let found = c.read(|mut r| async move { r.list_secrets(names::list(Some(ns), Some(n), true)).await }).await?;
    Ok(found.secrets.into_iter().find(|s| s.namespace == ns && s.name == n))
}

async fn ls(app: &App, namespace: Option<&str>) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let secrets =
        c.read(|mut r| async move { r.list_secrets(names::list(namespace, None, false)).await }).await?.secrets;
    let now = clock::now();
    let document = |s: &v1::SecretView| -> Value {
        json!({
            "namespace": s.namespace, "name": s.name, "version": s.version, "readers": s.readers, "zones": s.zones,
            "attested_only": s.attested_only, "created_at": time(s.created_at_ms), "updated_at": time(s.updated_at_ms),
        })
    };
    let row = |s: &v1::SecretView| {
        let name = format!("{}/{}", s.namespace, s.name);
        vec![name, s.version.to_string(), words(&s.readers), words(&s.zones), age(now, s.updated_at_ms)]
    };
    let head = ["name", "version", "readers", "zones", "updated"];
    app.out.list("secrets", secrets.iter().map(document).collect(), &head, secrets.iter().map(row).collect())
}

async fn rm(app: &App, name: &SecretRef, to: &SignTo) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let command =
        v1::DeleteSecret { namespace: name.namespace.as_str().to_owned(), name: name.name.as_str().to_owned() };
    if signing::command(app, &c, to, Action::DeleteSecret(command)).await?.is_none() {
        return Ok(());
    }
    app.out.done(&json!({"secret": name.to_string(), "deleted": true}), &format!("secret {name} is deleted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> SecretRef {
        SecretRef::of("shop", "db").unwrap()
    }
    fn given(readers: Vec<String>) -> Rules {
        Rules { readers, zones: vec![], attested_only: false }
    }

    #[test]
    fn readers_are_services_and_a_bare_name_is_of_the_same_namespace() {
        let r = |s: &str| readers_of(vec![s.into()], &name());
        assert_eq!(r("web").unwrap(), ["shop/web"]);
        assert_eq!(r("other/web").unwrap(), ["other/web"]);
        assert_eq!(r("other/*").unwrap(), ["other/*"]);
        for bad in ["*", "*/*", "a/b/c", "A"] {
            assert_eq!(r(bad).unwrap_err().code, "usage", "{bad}");
        }
    }

    #[test]
    fn a_new_value_keeps_the_rules_of_the_last_one() {
        let last = v1::SecretView {
            readers: vec!["shop/web".into()],
            zones: vec!["eu".into()],
            attested_only: true,
            ..v1::SecretView::default()
        };
        let kept = inherit(given(vec![]), Some(last.clone()), &name()).unwrap();
        assert_eq!(
            (kept.readers, kept.zones, kept.attested_only),
            (vec!["shop/web".to_owned()], vec!["eu".to_owned()], true)
        );
        let changed = inherit(given(vec!["shop/api".into()]), Some(last), &name()).unwrap();
        assert_eq!(changed.readers, ["shop/api"]);
        let fresh = inherit(given(vec![]), None, &name()).unwrap();
        assert_eq!((fresh.readers, fresh.zones), (vec!["shop/*".to_owned()], vec!["*".to_owned()]));
        let gone = v1::SecretView { version: 3, deleted: true, ..v1::SecretView::default() };
        let anew = inherit(given(vec![]), Some(gone), &name()).unwrap();
        assert_eq!(anew.readers, ["shop/*"], "a deleted secret leaves its number alone");
    }
}
