//! The fuzzer's laws, each driven for a moment: its seeds, then damaged seeds, from a fixed start.
//!
//! This finds what a change broke at once; `make fuzz`, which sees what the code does with its input, finds the rest.
//! `HOLDFAST_LAW_SECONDS=60` drives each law longer.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that meets the unexpected should stop there, and say so"
)]

#[allow(clippy::panic, dead_code, missing_docs, reason = "the fuzzer's own code, with its habits")]
#[path = "../../fuzz/src/lib.rs"]
mod laws;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};
use suite::repository;

/// How long each law is driven by default; all of them together stay under half a minute.
const MOMENT: Duration = Duration::from_secs(1);
/// Longest input that is made.
const LONGEST: usize = 64 << 10;
/// What parsers of ours might stumble over.
const WORDS: &[&[u8]] = &[
    b"",
    b"../",
    b"/",
    b".wh.",
    b"\0",
    b"\n",
    b"\n\n",
    b" ",
    b"\"",
    b"{",
    b"[",
    b"=",
    b"\xff\xff\xff\xff",
    b"\x80",
    b"0",
];

/// SplitMix64.
struct Dice(u64);
impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(sides.max(1)).unwrap()).unwrap()
    }
    fn byte(&mut self) -> u8 {
        u8::try_from(self.throw(256)).unwrap()
    }

    /// One of the seeds, changed in a few places; or bytes from nowhere.
    fn input(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        if seeds.is_empty() || self.throw(4) == 0 {
            let length = self.throw(48);
            return (0..length).map(|_| self.byte()).collect();
        }
        let mut bytes = seeds[self.throw(seeds.len())].clone();
        for _ in 0..=self.throw(4) {
            self.change(&mut bytes, seeds);
        }
        bytes.truncate(LONGEST);
        bytes
    }
    fn change(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.throw(bytes.len() + 1);
        match self.throw(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.splice(at..at, WORDS[self.throw(WORDS.len())].iter().copied())),
            2 => {
                let end = (at + self.throw(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                let other = &seeds[self.throw(seeds.len())];
                let from = self.throw(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            4 if at < bytes.len() => bytes[at] = self.byte(),
            _ if at < bytes.len() => bytes[at] ^= 1 << self.throw(8),
            _ => bytes.push(self.byte()),
        }
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = repository::root().join("fuzz/seeds").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|f| fs::read(f).unwrap()).collect()
}

fn drive(target: &str, law: fn(&[u8])) {
    let asked = std::env::var("HOLDFAST_LAW_SECONDS").ok().and_then(|s| s.parse().ok());
    let end = Instant::now() + asked.map_or(MOMENT, Duration::from_secs);
    let (mut dice, seeds) = (Dice(1), seeds(target));
    let mut inputs = seeds.clone().into_iter();
    let mut tried = 0_u64;
    while Instant::now() < end || inputs.len() > 0 {
        let input = inputs.next().unwrap_or_else(|| dice.input(&seeds));
        if let Err(broken) = catch_unwind(AssertUnwindSafe(|| law(&input))) {
            let hex: String = input.iter().map(|b| format!("{b:02x}")).collect();
            eprintln!("the law of {target} does not hold for {hex}");
            resume_unwind(broken);
        }
        tried += 1;
    }
    eprintln!("{target}: {tried} inputs");
}

macro_rules! laws {
    ($($target:ident)*) => {
        const DRIVEN: &[&str] = &[$(stringify!($target)),*];
        $(
            mod $target {
                #[test]
                fn its_law_holds() {
                    super::drive(stringify!($target), super::laws::$target);
                }
            }
        )*
    };
}
laws! {
    anchor assign backup boxes chain command config csr files ident identity image layer memory note peer pkcs11 record records
    signed_file slots state statement strict token trust unlock_chain
}

#[test]
fn every_target_of_the_fuzzer_is_driven_here_and_every_seed_is_of_one() {
    let names = |folder: &str| -> BTreeSet<String> {
        let files = fs::read_dir(repository::root().join(folder)).unwrap();
        files.map(|e| e.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let driven: BTreeSet<String> = DRIVEN.iter().map(|t| (*t).to_owned()).collect();
    assert_eq!(names("fuzz/fuzz_targets"), driven);
    assert!(names("fuzz/seeds").is_subset(&driven));
    let manifest = repository::read("fuzz/Cargo.toml").unwrap();
    let built: BTreeSet<String> = manifest
        .lines()
        .filter_map(|l| Some(l.strip_prefix("path = \"fuzz_targets/")?.split('.').next()?.to_owned()))
        .collect();
    assert_eq!(built, driven);
}

#[test]
fn the_seed_of_a_certificate_request_is_a_good_one() {
    assert!(holdfast_pki::csr::Request::parse(laws::CSR).is_ok());
}
