//! Keys in shares (Shamir, decision 0075): split and joined here and nowhere else. Any `threshold` shares are the key, fewer
//! tell nothing of it.
//!
//! A share that is wrong is named by its digest: by the digests that were noted when the key was split, or, where one share
//! more than needed was given, by finding out which one to leave out.

use crate::clock;
use crate::errors::{Code, Failure};
use holdfast_types::{ClusterId, Digest, Secret, kind};
use holdfast_wire::Seeded;
use holdfast_wire::share::{KeyShare, ShareKind};
use vsss_rs::Gf256;
use zeroize::Zeroize as _;

/// The secret half of an unlock or recovery key.
pub type KeySecret = Secret<kind::UnlockSecret, 32>;

/// Into how many shares a key is split, and how many of them open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheme {
    /// Shares made.
    pub shares: u8,
    /// Shares needed.
    pub threshold: u8,
}

impl Scheme {
    /// As the command line says; `None`: the key stays whole.
    pub fn of(shares: Option<u8>, threshold: Option<u8>) -> Result<Option<Self>, Failure> {
        let wrong = |what: &str| Failure::new(Code::Usage, what, "such as 5 shares with a threshold of 3");
        match (shares, threshold) {
            (None, None) => Ok(None),
            (Some(shares), Some(threshold)) if (2..=shares).contains(&threshold) => {
                Ok(Some(Self { shares, threshold }))
            }
            (Some(_), Some(_)) => Err(wrong("the threshold must be at least 2 and at most the number of shares")),
            (Some(_), None) | (None, Some(_)) => Err(wrong("give the number of shares and the threshold")),
        }
    }
}

/// Splits `secret`.
pub fn split(
    secret: &KeySecret,
    kind: ShareKind,
    epoch: u64,
    cluster: &ClusterId,
    scheme: Scheme,
) -> Result<Vec<KeyShare>, Failure> {
    let failed = |e: vsss_rs::Error| Failure::new(Code::Failed, format!("cannot split the key: {e}"), "report this");
    let rng = Seeded::new(clock::random()?);
    let bytes = secret.expose().as_slice();
    let raw = Gf256::split_bytes(scheme.threshold.into(), scheme.shares.into(), bytes, rng).map_err(failed)?;
    let mut shares = Vec::with_capacity(raw.len());
    for mut one in raw {
        let made = one.split_first().and_then(|(id, body)| Some((*id, Secret::from_slice(body)?)));
        one.zeroize();
        let (id, body) = made.ok_or_else(|| Failure::new(Code::Failed, "a share has a wrong length", "report this"))?;
        let cluster = KeyShare::prefix_of(cluster);
        shares.push(KeyShare { kind, id, threshold: scheme.threshold, epoch, cluster, body });
    }
    Ok(shares)
}

/// Joins shares to the key for which `fits` says so. `known` are the digests noted when it was split; empty if they are not
/// known here.
pub fn combine(shares: &[KeyShare], known: &[Digest], fits: &dyn Fn(&KeySecret) -> bool) -> Result<KeySecret, Failure> {
    let Some(first) = shares.first() else { return Err(too_few(0, 2)) };
    let of_one_key = |s: &KeyShare| {
        (s.kind, s.threshold, s.epoch, s.cluster) == (first.kind, first.threshold, first.epoch, first.cluster)
    };
    if let Some(other) = shares.iter().find(|s| !of_one_key(s)) {
        return Err(bad_share(other, "is a share of another key than the others"));
    }
    if let Some(wrong) = shares.iter().find(|s| !known.is_empty() && !known.contains(&s.digest())) {
        return Err(bad_share(wrong, "is none of the shares that were made of this key"));
    }
    let mut distinct: Vec<&KeyShare> = Vec::new();
    for share in shares {
        match distinct.iter().find(|s| s.id == share.id) {
            Some(same) if same.digest() == share.digest() => {}
            Some(_) => return Err(bad_share(share, "has the number of another share that was given")),
            None => distinct.push(share),
        }
    }
    let needed = usize::from(first.threshold);
    if distinct.len() < needed {
        return Err(too_few(distinct.len(), needed));
    }
    let secret = join(&distinct)?;
    if fits(&secret) {
        return Ok(secret);
    }
    if distinct.len() > needed {
        for left_out in &distinct {
            let others: Vec<&KeyShare> = distinct.iter().filter(|s| s.id != left_out.id).copied().collect();
            if fits(&join(&others)?) {
                return Err(bad_share(left_out, "is wrong: the others fit together without it"));
            }
        }
    }
    let digests: Vec<String> = distinct.iter().map(|s| s.digest().hex()).collect();
    let help = "compare the digests with those that were shown when the key was split, or give one share more";
    Err(Failure::new(Code::BadKey, "these shares make no key that fits", help).with("shares", digests))
}

fn join(shares: &[&KeyShare]) -> Result<KeySecret, Failure> {
    let raw = |s: &&KeyShare| [[s.id].as_slice(), s.body.expose()].concat();
    let mut raw: Vec<Vec<u8>> = shares.iter().map(raw).collect();
    let joined = Gf256::combine_bytes(raw.as_slice());
    raw.zeroize();
    let failed = |e: vsss_rs::Error| {
        Failure::new(Code::BadKey, format!("cannot join the shares: {e}"), "give shares of one key")
    };
    let mut joined = joined.map_err(failed)?;
    let secret = Secret::from_slice(&joined);
    joined.zeroize();
    secret.ok_or_else(|| Failure::new(Code::BadKey, "the shares make no key", "give the shares of one key"))
}

fn bad_share(share: &KeyShare, why: &str) -> Failure {
    let digest = share.digest().hex();
    let what = format!("share {} of the {} key, digest {digest}, {why}", share.id, share.kind.word());
    Failure::new(Code::BadShare, what, "leave it out and give another share").with("share", digest)
}

fn too_few(given: usize, needed: usize) -> Failure {
    let what = format!("{given} of {needed} needed shares were given");
    let help = "give more: each with --share-file, or several lines in one file";
    Failure::new(Code::TooFewShares, what, help).with("given", given).with("needed", needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([4; 32]);

    fn secret(byte: u8) -> KeySecret {
        Secret::take(&mut [byte; 32])
    }
    fn made(byte: u8, shares: u8, threshold: u8) -> Vec<KeyShare> {
        split(&secret(byte), ShareKind::Unlock, 1, &CLUSTER, Scheme { shares, threshold }).unwrap()
    }
    fn copy(s: &KeyShare) -> KeyShare {
        KeyShare::parse(&s.print()).unwrap()
    }
    /// The shares whose bit is set.
    fn subset(all: &[KeyShare], bits: u32) -> Vec<KeyShare> {
        all.iter().enumerate().filter(|(i, _)| (bits >> i) & 1 == 1).map(|(_, s)| copy(s)).collect()
    }
    fn is(byte: u8) -> impl Fn(&KeySecret) -> bool {
        move |s: &KeySecret| s.ct_eq(&secret(byte))
    }

    #[test]
    fn every_subset_of_threshold_shares_opens_and_no_smaller_one_does() {
        for (n, k) in [(2, 2), (3, 2), (5, 3), (6, 5)] {
            let all = made(7, n, k);
            for bits in 1..(1_u32 << n) {
                let some = subset(&all, bits);
                let joined = combine(&some, &[], &is(7));
                if some.len() >= usize::from(k) {
                    assert!(joined.unwrap().ct_eq(&secret(7)), "{n} {k} {bits:b}");
                } else {
                    assert_eq!(joined.unwrap_err().code, "too-few-shares");
                }
            }
        }
    }

    #[test]
    fn fewer_shares_than_needed_do_not_make_the_key_even_if_the_count_is_forged() {
        let all = made(7, 5, 3);
        let forged: Vec<KeyShare> = all.iter().take(2).map(|s| KeyShare { threshold: 2, ..copy(s) }).collect();
        assert_eq!(combine(&forged, &[], &is(7)).unwrap_err().code, "bad-key");
    }

    #[test]
    fn a_corrupted_share_is_named_by_its_digest() {
        let all = made(7, 5, 3);
        let known: Vec<Digest> = all.iter().map(KeyShare::digest).collect();
        let corrupted = KeyShare { body: Secret::take(&mut [0xee; 32]), ..copy(&all[1]) };
        let digest = corrupted.digest().hex();
        let given = [copy(&all[0]), corrupted, copy(&all[4])];
        let by_digest = combine(&given, &known, &is(7)).unwrap_err();
        assert_eq!(by_digest.code, "bad-share");
        assert!(by_digest.message.contains(&digest), "{}", by_digest.message);
        // Without the digests three shares cannot tell which of them is wrong; with one more they can.
        assert_eq!(combine(&given, &[], &is(7)).unwrap_err().code, "bad-key");
        let [a, b, c] = given;
        let by_trial = combine(&[a, b, c, copy(&all[3])], &[], &is(7)).unwrap_err();
        assert_eq!(by_trial.code, "bad-share");
        assert!(by_trial.message.contains(&digest), "{}", by_trial.message);
    }

    #[test]
    fn shares_of_two_keys_or_the_same_share_twice_do_not_count_together() {
        let (all, other) = (made(7, 3, 2), made(8, 4, 3));
        assert_eq!(combine(&[copy(&all[0]), copy(&other[1])], &[], &is(7)).unwrap_err().code, "bad-share");
        assert_eq!(combine(&[copy(&all[0]), copy(&all[0])], &[], &is(7)).unwrap_err().code, "too-few-shares");
        let again = made(7, 3, 2);
        assert_eq!(combine(&[copy(&all[0]), copy(&again[0])], &[], &is(7)).unwrap_err().code, "bad-share");
        assert_eq!(combine(&[], &[], &is(7)).unwrap_err().code, "too-few-shares");
    }

    #[test]
    fn a_scheme_needs_both_numbers_and_a_threshold_that_can_be_met() {
        assert_eq!(Scheme::of(None, None).unwrap(), None);
        assert_eq!(Scheme::of(Some(3), Some(2)).unwrap(), Some(Scheme { shares: 3, threshold: 2 }));
        for (n, k) in [(Some(3), Some(4)), (Some(3), Some(1)), (Some(3), None), (None, Some(2))] {
            assert_eq!(Scheme::of(n, k).unwrap_err().code, "usage");
        }
    }
}
