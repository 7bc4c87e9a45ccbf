//! Signatures by a root's key in SoftHSM: through our port, which is a process and a queue away, and by the module alone.
//!
//! Both in a process of their own, because the module finds its tokens by the environment.

use crate::Failed;
use crate::leaves::TO_BE_SIGNED;
use crate::line::{Goal, Line};
use crate::programs::program;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use holdfast_hsm::{Keeper, KeeperOptions, KeyPort as _, Pkcs11Port, Purpose, Uri};
use holdfast_types::{SecretBytes, sha256};
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub const HOW: &str = "ECDSA P-256 signatures over 500 bytes, one session, for 3 s, by a key in SoftHSM 2: through the vault's port and its worker \
     process; beside: the module alone, in the same run";

/// The first argument of the process that measures.
pub const RATES: &str = "token-rates";

const CONF: &str = "SOFTHSM2_CONF";
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const LABEL: &str = "bench";
const PIN: &str = "123456";
const SPAN: Duration = Duration::from_secs(3);
/// The curve P-256, as an object identifier in DER.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

pub fn root_signatures() -> Result<Line, Failed> {
    let dir = tempfile::tempdir()?;
    let (tokens, conf) = (dir.path().join("tokens"), dir.path().join("softhsm2.conf"));
    fs::create_dir(&tokens)?;
    fs::write(&conf, format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display()))?;
    let init = ["--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", PIN];
    let made = Command::new("softhsm2-util").args(init).env(CONF, &conf).output();
    let made = made.map_err(|e| format!("cannot run softhsm2-util ({e}): apt-get install softhsm2"))?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned().into());
    }
    let own = std::env::current_exe()?;
    let measured = Command::new(own).arg(RATES).env(CONF, &conf).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8(measured.stdout)?;
    if !measured.status.success() {
        return Err(text.trim().into());
    }
    let (value, beside) = text.trim().split_once(' ').ok_or("no two rates")?;
    Ok(Line { value: value.parse()?, unit: "signatures/s", beside: beside.parse()?, goal: Goal::OfBeside(0.8) })
}

/// What that process prints: both rates.
pub fn rates() -> Result<String, Failed> {
    Ok(format!("{} {}", through_the_port()?, by_the_module()?))
}

fn a_second(mut sign: impl FnMut() -> Result<(), Failed>) -> Result<f64, Failed> {
    let (start, mut signed) = (Instant::now(), 0_u32);
    while start.elapsed() < SPAN {
        sign()?;
        signed += 1;
    }
    Ok(f64::from(signed) / start.elapsed().as_secs_f64())
}

fn through_the_port() -> Result<f64, Failed> {
    let uri = Uri::parse(&format!("pkcs11:token={LABEL}?module-path={MODULE}"))?;
    let pin = SecretBytes::new(PIN.as_bytes().to_vec());
    let options = KeeperOptions { uri, pin, deadline: Duration::from_secs(5) };
    let port = Pkcs11Port::new(Keeper::spawn(&program("holdfast-vault")?, options)?);
    let id = port.generate(Purpose::Root, b"bench")?;
    a_second(|| {
        port.sign_p256(&id, &TO_BE_SIGNED)?;
        Ok(())
    })
}

fn by_the_module() -> Result<f64, Failed> {
    let module = Pkcs11::new(MODULE)?;
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
    let slot = *module.get_slots_with_initialized_token()?.first().ok_or("SoftHSM has no token")?;
    let session = module.open_rw_session(slot)?;
    session.login(UserType::User, Some(&AuthPin::new(PIN.into())))?;
    let public = [Attribute::Token(true), Attribute::KeyType(KeyType::EC), Attribute::EcParams(P256.to_vec())];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
    ];
    let (_, key) = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
    a_second(|| {
        session.sign(&Mechanism::Ecdsa, key, &sha256(&[&TO_BE_SIGNED]).0)?;
        Ok(())
    })
}
