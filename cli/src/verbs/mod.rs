//! One file a group of verbs. A verb asks, signs, submits and prints; what is true and what is allowed is decided elsewhere.

mod autolock;
mod backup;
mod brake;
mod dev;
mod docs;
mod grant;
mod hsm;
mod image;
mod init;
mod keyring;
mod log;
mod logs;
mod mandate;
mod names;
mod node;
mod recover;
mod recovery_key;
mod rollout;
mod root;
mod scan;
mod seal;
mod secret;
mod service;
mod statement;
mod status;
mod survivor;
mod token;
mod unlock;
mod unlock_key;
mod voter;

use crate::app::App;
use crate::args::{Cli, Verb};
use crate::errors::Failure;

/// Runs the verb of a command line.
pub async fn run(cli: Cli, app: &App) -> Result<(), Failure> {
    match cli.verb {
        Verb::Init(a) => init::run(app, a).await,
        Verb::Status(a) => status::run(app, a).await,
        Verb::Backup(v) => backup::run(app, v).await,
        Verb::Recover(a) => recover::run(app, a).await,
        Verb::Unlock(a) => unlock::run(app, a).await,
        Verb::Seal(a) => seal::run(app, a).await,
        Verb::Autolock(v) => autolock::run(app, v).await,
        Verb::UnlockKey(v) => unlock_key::run(app, v).await,
        Verb::RecoveryKey(v) => recovery_key::run(app, v).await,
        Verb::Keyring(v) => keyring::run(app, v).await,
        Verb::Root(v) => root::run(app, v).await,
        Verb::Voter(v) => voter::run(app, v).await,
        Verb::Token(v) => token::run(app, v).await,
        Verb::Secret(v) => secret::run(app, v).await,
        Verb::Node(v) => node::run(app, v).await,
        Verb::Mandate(v) => mandate::run(app, v).await,
        Verb::Service(v) => service::run(app, v).await,
        Verb::Image(v) => image::run(app, v).await,
        Verb::Log(v) => log::run(app, v).await,
        Verb::Grant(v) => grant::run(app, v).await,
        Verb::Lockdown(a) => brake::lockdown(app, a).await,
        Verb::Release(a) => brake::release(app, a).await,
        Verb::Login => brake::login(app).await,
        Verb::Inspect { file } => statement::inspect(app, &file),
        Verb::Sign(a) => statement::sign(app, &a),
        Verb::Submit(a) => statement::submit(app, &a.files).await,
        Verb::Hsm(v) => hsm::run(app, v).await,
        Verb::Scan { paths } => scan::run(&app.out, &paths),
        Verb::Dev(a) => dev::run(app, a).await,
        Verb::Completions { shell } => docs::completions(&app.out, shell),
        Verb::Man { dir } => docs::man(&app.out, &dir),
        Verb::Reference { dir } => docs::reference(&app.out, &dir),
    }
}
