//! A PKCS#11 program that knows nothing of the rest, for tests: it shows what a token says of its slots and keys, and plants
//! keys that no vault would make.
//!
//! `slots MODULE`, `keys MODULE TOKEN PIN`, `pair MODULE TOKEN PIN ID SENSITIVE EXTRACTABLE`, `aes` likewise, `labelled`, which is
//! a pair with a label in the place of the id, and `imported`, which is a pair that was made elsewhere.
#![allow(clippy::unwrap_used, reason = "a program of tests that meets the unexpected stops there")]

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeInfo, AttributeType, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use std::io::Write as _;

/// 1.2.840.10045.3.1.7.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// The generator of the curve as a token names a point, in a DER OCTET STRING: the public half of the private key 1.
const POINT: &str = "0441046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                     4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let text = match args.as_slice() {
        ["slots", module] => slots(&load(module)),
        ["keys", module, token, pin] => keys(&session(&load(module), token, pin)),
        [kind, module, token, pin, id, sensitive, extractable] => {
            let kept = [Attribute::Sensitive(*sensitive == "true"), Attribute::Extractable(*extractable == "true")];
            let name = match *kind {
                "labelled" => Attribute::Label(id.as_bytes().to_vec()),
                _ => Attribute::Id(bytes(id)),
            };
            let session = session(&load(module), token, pin);
            if *kind == "imported" {
                import(&session, &name, &kept);
            } else {
                plant(&session, *kind != "aes", &name, &kept);
            }
            String::new()
        }
        _ => "what?\n".to_owned(),
    };
    std::io::stdout().write_all(text.as_bytes()).unwrap();
}

fn load(module: &str) -> Pkcs11 {
    let pkcs11 = Pkcs11::new(module).unwrap();
    pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    pkcs11
}

/// A session of the token with this label, logged in.
fn session(pkcs11: &Pkcs11, token: &str, pin: &str) -> Session {
    let slots = pkcs11.get_slots_with_token().unwrap().into_iter();
    let mut named = slots.filter(|slot| pkcs11.get_token_info(*slot).is_ok_and(|info| info.label().trim() == token));
    let session = pkcs11.open_rw_session(named.next().unwrap()).unwrap();
    session.login(UserType::User, Some(&AuthPin::new(pin.into()))).unwrap();
    session
}

/// A line for each slot with a token: its number, whether the token is initialised, the token's serial number.
fn slots(pkcs11: &Pkcs11) -> String {
    let line = |slot| {
        let info = pkcs11.get_token_info(slot).unwrap();
        format!("{} {} {}\n", slot.id(), info.token_initialized(), info.serial_number().trim())
    };
    pkcs11.get_slots_with_token().unwrap().into_iter().map(line).collect()
}

/// A line for each private or secret key: its id, and what the token says of it.
fn keys(session: &Session) -> String {
    let mut lines = String::new();
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::SECRET_KEY] {
        for key in session.find_objects(&[Attribute::Class(class)]).unwrap() {
            let asked = [
                AttributeType::Id,
                AttributeType::Sensitive,
                AttributeType::Extractable,
                AttributeType::AlwaysSensitive,
                AttributeType::NeverExtractable,
            ];
            let said = session.get_attributes(key, &asked).unwrap();
            let id = said.iter().find_map(|a| if let Attribute::Id(id) = a { Some(hex(id)) } else { None });
            let values = [AttributeType::Value, AttributeType::PrivateExponent];
            let values = session.get_attribute_info(key, &values).unwrap();
            lines += &format!(
                "{} sensitive={} extractable={} always-sensitive={} never-extractable={} readable={}\n",
                id.unwrap(),
                said.contains(&Attribute::Sensitive(true)),
                !said.contains(&Attribute::Extractable(false)),
                said.contains(&Attribute::AlwaysSensitive(true)),
                said.contains(&Attribute::NeverExtractable(true)),
                values.iter().any(|v| matches!(v, AttributeInfo::Available(_))),
            );
        }
    }
    lines
}

/// Makes a P-256 key pair, or an AES key, of this id or label.
fn plant(session: &Session, pair: bool, name: &Attribute, kept: &[Attribute]) {
    let mut private = vec![Attribute::Token(true), Attribute::Private(true), name.clone()];
    private.extend_from_slice(kept);
    if pair {
        private.push(Attribute::Sign(true));
        let public = [
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Verify(true),
            Attribute::EcParams(P256.to_vec()),
            name.clone(),
        ];
        session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
    } else {
        private.extend([Attribute::Encrypt(true), Attribute::Decrypt(true), Attribute::ValueLen(32.into())]);
        session.generate_key(&Mechanism::AesKeyGen, &private).unwrap();
    }
}

/// Brings in a P-256 key pair of this id whose private half everybody knows.
fn import(session: &Session, name: &Attribute, kept: &[Attribute]) {
    let common = |class| {
        let curve = Attribute::EcParams(P256.to_vec());
        vec![Attribute::Class(class), Attribute::KeyType(KeyType::EC), Attribute::Token(true), curve, name.clone()]
    };
    let mut one = vec![0; 31];
    one.push(1);
    let mut private = common(ObjectClass::PRIVATE_KEY);
    private.extend([Attribute::Private(true), Attribute::Sign(true), Attribute::Value(one)]);
    private.extend_from_slice(kept);
    let mut public = common(ObjectClass::PUBLIC_KEY);
    public.extend([Attribute::Private(false), Attribute::Verify(true), Attribute::EcPoint(bytes(POINT))]);
    for half in [private, public] {
        session.create_object(&half).unwrap();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len()).step_by(2).filter_map(|at| hex.get(at..at + 2));
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
