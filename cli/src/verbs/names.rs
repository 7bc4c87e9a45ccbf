//! Names and ids from the command line, as parsed values or usage errors.

use crate::args::ServiceName;
use crate::errors::{Code, Failure};
use holdfast_types::{Millis, SecretRef, ServiceRef, Zone};
use holdfast_wire::v1;
use std::time::Duration;

/// A usage error that says what is wrong with a value.
pub fn wrong(e: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Usage, e, "correct the argument; see `holdfast VERB --help`")
}

/// `NAME` or `NAMESPACE/NAME`.
pub fn service(s: &ServiceName) -> Result<ServiceRef, Failure> {
    ServiceRef::parse(&s.name, &s.namespace).map_err(wrong)
}

/// `NAME` or `NAMESPACE/NAME`.
pub fn secret(name: &str, namespace: &str) -> Result<SecretRef, Failure> {
    SecretRef::parse(name, namespace).map_err(wrong)
}

/// Zones; none given means all of them, written out because verifiers take lists literally.
pub fn zones(given: Vec<String>) -> Result<Vec<String>, Failure> {
    given.iter().try_for_each(|z| Zone::parse(z).map(|_| ())).map_err(wrong)?;
    Ok(if given.is_empty() { vec![Zone::all().as_str().to_owned()] } else { given })
}

/// The one thing of `all` whose id is `given` or starts with it.
pub fn one_of<'a, T>(what: &str, given: &str, all: &'a [T], id: impl Fn(&T) -> String) -> Result<&'a T, Failure> {
    let mut matching = all.iter().filter(|t| id(t) == given);
    if let Some(exact) = matching.next() {
        return Ok(exact);
    }
    let mut matching = all.iter().filter(|t| !given.is_empty() && id(t).starts_with(given));
    match (matching.next(), matching.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => {
            Err(Failure::not_found(format!("{what}: {given}"), format!("list them with `holdfast {what} ls`")))
        }
        (Some(_), Some(_)) => Err(wrong(format!("more than one {what} starts with {given:?}"))),
    }
}

/// A request for everything, or for what one namespace or name holds.
pub fn list(namespace: Option<&str>, name: Option<&str>, all: bool) -> v1::ListRequest {
    let text = |s: Option<&str>| s.unwrap_or_default().to_owned();
    v1::ListRequest { namespace: text(namespace), name: text(name), all }
}

/// `now` + `ttl`, at most `longest` ahead.
pub fn expiry(now: Millis, ttl: Duration, longest: Duration, what: &str) -> Result<i64, Failure> {
    if ttl.is_zero() || ttl > longest {
        return Err(wrong(format!("{what} must be longer than 0 and at most {} h", longest.as_secs() / 3600)));
    }
    Ok(now.plus(ttl).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_be_shortened_as_long_as_it_is_clear() {
        let all = ["node-aa".to_owned(), "node-ab".to_owned(), "node-a".to_owned()];
        let find = |given| one_of("node", given, &all, Clone::clone);
        assert_eq!(find("node-a").unwrap(), "node-a");
        assert_eq!(find("node-aa").unwrap(), "node-aa");
        assert_eq!(find("node-").unwrap_err().code, "usage");
        assert_eq!(find("node-b").unwrap_err().exit_code(), 4);
        assert_eq!(find("").unwrap_err().code, "not-found");
    }

    #[test]
    fn no_zone_means_all_zones_said_aloud() {
        assert_eq!(zones(vec![]).unwrap(), ["*"]);
        assert_eq!(zones(vec!["eu/pci".into()]).unwrap(), ["eu/pci"]);
        assert_eq!(zones(vec!["EU".into()]).unwrap_err().code, "usage");
    }
}
