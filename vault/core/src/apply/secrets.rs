//! Secrets put and deleted, and what becomes of the grants that had them.

use super::Step;
use super::submit::{By, invalid};
use crate::refusal::Refusal;
use crate::state::{SecretRow, SecretVersion, SpecVersion, State};
use holdfast_types::{SecretRef, ServiceRef, Zone};
use holdfast_wire::v1;

impl Step<'_> {
    pub(super) fn put_secret(&mut self, by: &By<'_>, p: v1::PutSecret, sealed: Option<&[u8]>) -> Result<(), Refusal> {
        let name = SecretRef::of(&p.namespace, &p.name).map_err(invalid)?;
        let record = sealed.ok_or_else(|| Refusal::invalid("the sealed value is missing"))?;
        self.live_record(record)?;
        let next = self.state.next_secret(&name, p.version)?;
        let zones = p.zones.iter().map(|z| Zone::parse(z)).collect::<Result<_, _>>().map_err(invalid)?;
        let created = self.state.secrets.get(&name).map_or(self.at, |s| s.created);
        let version = SecretVersion { number: next, record: record.into(), at: self.at };
        self.state.deleted_secrets.remove(&name);
        self.state.secrets.insert(
            name.clone(),
            SecretRow { readers: p.readers, zones, attested_only: p.attested_only, version, created }.into(),
        );
        self.state.secret_moved(&name);
        self.next_rev();
        self.leaf(by.draft("secret.put", &name).with("version", next));
        self.revoke_readers(&name, by);
        Ok(())
    }

    pub(super) fn delete_secret(&mut self, by: &By<'_>, d: &v1::DeleteSecret) -> Result<(), Refusal> {
        let name = SecretRef::of(&d.namespace, &d.name).map_err(invalid)?;
        if !self.state.secrets.contains_key(&name) {
            return Err(Refusal::not_found("secret", &name));
        }
        if let Some(user) = self.state.service_using(&name) {
            return Err(Refusal::changed(format!(
                "secret {name} is used by service {user}; remove or change the service first"
            )));
        }
        self.state.deleted_secrets.insert(name.clone(), self.state.last_secret_version(&name));
        self.state.secrets.remove(&name);
        self.state.secret_moved(&name);
        self.next_rev();
        self.leaf(by.draft("secret.delete", &name));
        self.revoke_readers(&name, by);
        Ok(())
    }

    /// Takes back the grants that could not be given this secret any more.
    fn revoke_readers(&mut self, name: &SecretRef, by: &By<'_>) {
        for (id, why) in self.state.unreadable(name) {
            self.revoke_grant(id, &by.actor, why);
        }
    }
}

impl State {
    /// The highest version that a secret ever had; 0 if there never was one. A number never names two values, so it
    /// outlives the secret.
    pub fn last_secret_version(&self, name: &SecretRef) -> u64 {
        let live = self.secrets.get(name).map(|s| s.version.number);
        live.or_else(|| self.deleted_secrets.get(name).copied()).unwrap_or(0)
    }

    /// An active service that mounts `name`, if there is one.
    fn service_using(&self, name: &SecretRef) -> Option<ServiceRef> {
        let uses = |spec: &v1::Spec| {
            spec.secrets.iter().any(|m| SecretRef::parse(&m.name, &spec.namespace).is_ok_and(|r| r == *name))
        };
        self.services
            .iter()
            .find(|(_, row)| row.active && row.versions.iter().filter_map(SpecVersion::spec).any(uses))
            .map(|(s, _)| s.clone())
    }
}
