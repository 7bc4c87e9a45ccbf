//! A statement in a file on this machine: written, read, signed once more, and counted by the charter that is believed here.
//!
//! LAW: what is counted here decides nothing. It spares operators a way that would be for nothing; the vault counts again, by the
//! charter that is in force when the statement arrives (`a_signer_who_is_not_permitted_or_not_an_operator_does_not_count`).

use crate::errors::{Code, Failure};
use crate::files;
use crate::framed::must_be_new;
use crate::operator::Operator;
use crate::trust::Trust;
use holdfast_types::{ClusterId, Millis, sha256};
use holdfast_wire::charter::{self, ADMIN, DEPLOYER, PUT_CHARTER, PUT_MANDATE};
use holdfast_wire::keys::{self, StatementSigner as _, key_id};
use holdfast_wire::signed::{self, Signed};
use holdfast_wire::statement::{self, MAX_SIGS, pre_auth_encoding};
use holdfast_wire::v1;
use std::path::Path;

/// A statement that is not submitted yet.
#[derive(Debug)]
pub struct Carried {
    /// As it is written.
    pub statement: v1::Statement,
    /// The sealed value that it speaks of, or nothing.
    pub sealed: Vec<u8>,
    /// What it says.
    pub signed: Signed,
    cluster: Vec<u8>,
}

/// Those who can sign for something, and who of them has.
#[derive(Debug, PartialEq, Eq)]
pub struct Tally {
    /// What they sign for, as the charter calls it.
    pub entry: String,
    /// How many it takes.
    pub needed: usize,
    /// Who has signed.
    pub signed: Vec<String>,
    /// Who could.
    pub others: Vec<String>,
}
impl Tally {
    /// How many are missing.
    pub fn missing(&self) -> usize {
        self.needed.saturating_sub(self.signed.len())
    }
}

/// A name and a key.
type Signer = (String, v1::PublicKey);

impl Carried {
    /// What was signed a moment ago.
    pub fn new(cluster: &ClusterId, statement: v1::Statement, sealed: Vec<u8>) -> Result<Self, Failure> {
        let unread = |e| Failure::new(Code::Failed, e, "report this");
        let signed = Signed::read(&statement).map_err(unread)?;
        Ok(Self { statement, sealed, signed, cluster: cluster.0.to_vec() })
    }
    /// Reads a file strictly.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = files::read(path, signed::MAX as u64)?;
        let damaged = |e| {
            let what = format!("{} cannot be read: {e}", path.display());
            Failure::new(Code::InvalidInput, what, "give a file that a verb wrote with --out, or fetch it once more")
        };
        let (file, signed) = signed::decode(&bytes).map_err(damaged)?;
        let statement = file.statement.unwrap_or_default();
        Ok(Self { statement, sealed: file.r#box, signed, cluster: file.cluster_id })
    }
    fn encoded(&self) -> Vec<u8> {
        signed::encode(&v1::SignedFile {
            cluster_id: self.cluster.clone(),
            statement: Some(self.statement.clone()),
            r#box: self.sealed.clone(),
        })
    }
    /// Writes a new file.
    pub fn create(&self, path: &Path) -> Result<(), Failure> {
        must_be_new(path)?;
        self.replace(path)
    }
    /// Writes the file in the place of the one that is there.
    pub fn replace(&self, path: &Path) -> Result<(), Failure> {
        files::write_private(path, &self.encoded())
    }
    /// `H(payload)`: what signers compare.
    pub fn sha256(&self) -> String {
        sha256(&[&self.statement.payload]).hex()
    }

    /// Refuses what is of another cluster or era, or over.
    pub fn must_count(&self, trust: &Trust, now: Millis) -> Result<(), Failure> {
        let over = |what: String| Err(Failure::new(Code::Changed, what, "have it signed anew"));
        if self.cluster != trust.cluster().0 {
            let help = "name the context of its cluster with --context";
            return Err(Failure::new(Code::InvalidInput, "this was signed for another cluster", help));
        }
        if let Some(era) = self.signed.era().filter(|era| *era != trust.bundle().era) {
            return over(format!("this was signed for era {era}, the cluster is in era {}", trust.bundle().era));
        }
        if let Some(until) = self.signed.until_ms().filter(|until| *until <= now.0) {
            return over(format!("this could be submitted until {}", Millis(until)));
        }
        Ok(())
    }

    /// Who must sign it by the charter `c`, and who has. A signature under a known name that does not verify spoils it all.
    pub fn tallies(&self, c: &v1::Charter) -> Result<Vec<Tally>, Failure> {
        self.circles(c).into_iter().map(|(entry, needed, who)| self.tally(entry, needed, who)).collect()
    }
    fn tally(&self, entry: String, needed: usize, who: Vec<Signer>) -> Result<Tally, Failure> {
        let (mut signed, mut others) = (Vec::new(), Vec::new());
        for (id, key) in who {
            let list = if self.is_signed_by(&id, &key)? { &mut signed } else { &mut others };
            if !list.contains(&id) {
                list.push(id);
            }
        }
        Ok(Tally { entry, needed, signed, others })
    }
    /// Each threshold: its entry in the charter, how many it takes, and of whom. What else is asked of a signer, his role for a
    /// command and his namespace, is the policy's.
    fn circles(&self, c: &v1::Charter) -> Vec<(String, usize, Vec<Signer>)> {
        let by = |entry: &str, who: Vec<Signer>| (entry.to_owned(), charter::threshold(c, entry), who);
        let admins = |c: &v1::Charter| named(c.operators.iter().filter(|o| has(o, ADMIN)));
        match &self.signed {
            Signed::Command(cmd) => {
                let entry = cmd.action.as_ref().map_or(PUT_CHARTER, charter::entry);
                vec![by(entry, named(&c.operators))]
            }
            Signed::Mandate(_) => vec![by(PUT_MANDATE, named(&c.operators))],
            Signed::Spec(s) => {
                let owns = |o: &&v1::Operator| o.owns.iter().any(|n| n == "*" || *n == s.namespace);
                let who = named(c.operators.iter().filter(|o| has(o, DEPLOYER)).filter(owns));
                vec![(charter::DEPLOY.to_owned(), charter::deployers_needed(c, s.sensitive), who)]
            }
            Signed::Voucher(_) => {
                let keys = |p: &v1::Publisher| p.keys.iter().map(|k| (p.id.clone(), k.clone())).collect::<Vec<_>>();
                vec![("publisher".to_owned(), 1, c.publishers.iter().flat_map(keys).collect())]
            }
            Signed::Charter(next) => {
                let after = format!("{PUT_CHARTER}, by charter {}", next.version);
                let before = format!("{PUT_CHARTER}, by charter {}", c.version);
                vec![
                    (before, charter::threshold(c, PUT_CHARTER), admins(c)),
                    (after, charter::threshold(next, PUT_CHARTER), admins(next)),
                ]
            }
        }
    }
    fn is_signed_by(&self, id: &str, key: &v1::PublicKey) -> Result<bool, Failure> {
        let msg = pre_auth_encoding(&self.statement.r#type, &self.statement.payload);
        let claimed: Vec<_> = self.statement.sigs.iter().filter(|s| s.key_id == key_id(&key.key)).collect();
        if claimed.iter().any(|s| !keys::verify(key, &msg, &s.sig)) {
            let what = format!("the signature of {id} does not verify");
            return Err(Failure::new(Code::BadCredential, what, "the file was altered: have it signed anew"));
        }
        Ok(!claimed.is_empty())
    }

    /// Adds the operator's signature, if it counts and is not there yet.
    pub fn sign(&mut self, operator: &Operator, c: &v1::Charter) -> Result<(), Failure> {
        let key = if matches!(self.signed, Signed::Voucher(_)) { &operator.publisher } else { &operator.key };
        let public = key.public();
        if !self.circles(c).iter().any(|(_, _, who)| who.iter().any(|(_, k)| *k == public)) {
            let what = format!("a signature of {} does not count for this", operator.id);
            return Err(Failure::new(Code::Threshold, what, "`holdfast inspect` says who can sign"));
        }
        if self.is_signed_by(&operator.id, &public)? {
            let what = format!("{} has signed this already", operator.id);
            return Err(Failure::new(Code::Changed, what, "`holdfast inspect` says who is missing"));
        }
        if self.statement.sigs.len() >= MAX_SIGS {
            let what = format!("this has {MAX_SIGS} signatures, and more are never looked at");
            return Err(Failure::new(Code::InvalidInput, what, "have it signed anew"));
        }
        let unable = |e| Failure::new(Code::Failed, e, "check the key files of the context");
        statement::add_signature(&mut self.statement, key).map_err(unable)
    }

    /// Takes over the signatures of a copy that was signed apart.
    pub fn merge(&mut self, copy: Self) -> Result<(), Failure> {
        let same = |a: &Self, b: &Self| {
            (&a.cluster, &a.statement.r#type, &a.statement.payload, &a.sealed)
                == (&b.cluster, &b.statement.r#type, &b.statement.payload, &b.sealed)
        };
        if !same(self, &copy) {
            let help = "`holdfast inspect` shows the SHA-256 of each; submit them one by one";
            return Err(Failure::new(Code::InvalidInput, "these files are not copies of one statement", help));
        }
        for sig in copy.statement.sigs {
            if !self.statement.sigs.contains(&sig) {
                self.statement.sigs.push(sig);
            }
        }
        Ok(())
    }

    /// Refuses what too few have signed, naming who could.
    pub fn must_be_enough(&self, c: &v1::Charter) -> Result<(), Failure> {
        let Some(short) = self.tallies(c)?.into_iter().find(|t| t.missing() > 0) else { return Ok(()) };
        let what = format!("{} needs {} operators, {} signed", short.entry, short.needed, short.signed.len());
        let help =
            format!("have it signed with `holdfast sign` by {} of: {}", short.missing(), short.others.join(", "));
        Err(Failure::new(Code::Threshold, what, help)
            .with("needed", short.needed)
            .with("signed_by", short.signed)
            .with("others", short.others))
    }
}

fn has(o: &v1::Operator, role: &str) -> bool {
    o.roles.iter().any(|r| r == role)
}

fn named<'a>(operators: impl IntoIterator<Item = &'a v1::Operator>) -> Vec<Signer> {
    operators.into_iter().filter_map(|o| Some((o.id.clone(), o.key.clone()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::TrustDomain;
    use v1::command::Action;

    const NOW: Millis = Millis(1_800_000_000_000);

    /// Two operators; what ends a lockdown takes both.
    struct Two {
        a: Operator,
        b: Operator,
        charter: v1::Charter,
    }
    fn two() -> Two {
        let (a, b) = (Operator::generate("op-a").unwrap(), Operator::generate("op-b").unwrap());
        let domain = TrustDomain::parse("a.example").unwrap();
        let mut charter = crate::charter::founding(&a, [1; 32], &domain, [2; 32]);
        let second =
            v1::Operator { id: b.id.clone(), key: Some(b.key.public()), roles: vec![ADMIN.into()], owns: vec![] };
        charter.operators.push(second);
        charter.thresholds.iter_mut().filter(|t| t.action == "release").for_each(|t| t.k = 2);
        Two { a, b, charter }
    }
    fn release(by: &Operator) -> Carried {
        let c = v1::Command {
            cluster_id: vec![3; 32],
            era: 1,
            command_id: vec![4; 16],
            expires_at_ms: NOW.0 + 1,
            expect_rev: 0,
            action: Some(Action::Release(v1::Release { reason: "all is well".into() })),
        };
        Carried::new(&ClusterId([3; 32]), by.sign(&c).unwrap(), Vec::new()).unwrap()
    }

    #[test]
    fn a_file_is_signed_by_one_after_the_other_until_there_are_enough() {
        let w = two();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("release");
        release(&w.a).create(&path).unwrap();
        assert_eq!(release(&w.a).create(&path).unwrap_err().code, "invalid-input", "nothing is overwritten");
        let mut carried = Carried::read(&path).unwrap();
        let short = carried.must_be_enough(&w.charter).unwrap_err();
        assert_eq!((short.code.as_ref(), short.exit_code()), ("threshold", 3));
        assert!(short.message.contains("release needs 2") && short.help.ends_with("op-b"), "{short:?}");
        carried.sign(&w.b, &w.charter).unwrap();
        carried.replace(&path).unwrap();
        let carried = Carried::read(&path).unwrap();
        carried.must_be_enough(&w.charter).unwrap();
        let tally = Tally {
            entry: "release".into(),
            needed: 2,
            signed: vec!["op-a".into(), "op-b".into()],
            others: Vec::new(),
        };
        assert_eq!(carried.tallies(&w.charter).unwrap(), [tally]);
    }

    #[test]
    fn nobody_signs_twice_and_no_stranger_signs() {
        let w = two();
        let mut carried = release(&w.a);
        assert_eq!(carried.sign(&w.a, &w.charter).unwrap_err().code, "changed");
        let stranger = Operator::generate("op-a").unwrap();
        let refused = carried.sign(&stranger, &w.charter).unwrap_err();
        assert_eq!((refused.code.as_ref(), carried.statement.sigs.len()), ("threshold", 1));
    }

    #[test]
    fn copies_that_were_signed_apart_are_put_together_and_other_files_are_not() {
        let w = two();
        let mut mine = release(&w.a);
        let mut copy = release(&w.b);
        copy.sign(&w.a, &w.charter).unwrap();
        mine.merge(copy).unwrap();
        assert_eq!(mine.statement.sigs.len(), 2, "each signature once");
        mine.must_be_enough(&w.charter).unwrap();
        let other = Carried { sealed: vec![1], ..release(&w.b) };
        assert_eq!(mine.merge(other).unwrap_err().code, "invalid-input");
    }

    #[test]
    fn an_altered_file_is_refused_whoever_signed_it() {
        let w = two();
        let mut carried = release(&w.a);
        carried.statement.payload = release(&w.b).statement.payload;
        carried.statement.payload[40] ^= 1;
        assert_eq!(carried.tallies(&w.charter).unwrap_err().code, "bad-credential");
        assert_eq!(carried.must_be_enough(&w.charter).unwrap_err().exit_code(), 3);
    }

    #[test]
    fn a_charter_counts_by_the_one_before_and_by_itself() {
        let w = two();
        let next = v1::Charter { version: 2, ..w.charter.clone() };
        let mut before = w.charter.clone();
        before.operators.truncate(1);
        let next = v1::Charter {
            thresholds: next
                .thresholds
                .iter()
                .map(|t| v1::Threshold { k: if t.action == PUT_CHARTER { 2 } else { t.k }, ..t.clone() })
                .collect(),
            ..next
        };
        let mut carried = Carried::new(&ClusterId([3; 32]), w.a.sign(&next).unwrap(), Vec::new()).unwrap();
        let missing = |c: &Carried| c.tallies(&before).unwrap().iter().map(Tally::missing).collect::<Vec<_>>();
        assert_eq!(missing(&carried), [0, 1]);
        // The new Admin is in the new charter alone, and signs for it.
        carried.sign(&w.b, &before).unwrap();
        assert_eq!(missing(&carried), [0, 0]);
    }
}
