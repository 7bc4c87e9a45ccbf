//! `inspect`, `sign` and `submit`: a statement that is carried from one operator to the next. Whoever signs sees first what he
//! signs, every field of it, and needs no network for it.

mod words;

use crate::app::App;
use crate::args::Sign;
use crate::carried::Carried;
use crate::client::Cluster;
use crate::clock;
use crate::errors::{Code, Failure};
use crate::operator::Operator;
use crate::signing::{document_of, plain, said};
use crate::trust::Trust;
use serde_json::{Value, json};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

/// `inspect`: also of what is over or of another era, and says so by its time.
pub fn inspect(app: &App, file: &Path) -> Result<(), Failure> {
    let trust = Trust::stored(&app.context()?)?;
    let carried = Carried::read(file)?;
    let tallies = carried.tallies(trust.charter())?;
    let mut document = document_of(file, &carried, &tallies);
    if let Value::Object(map) = &mut document {
        map.insert("content".to_owned(), words::content(&carried.signed));
    }
    app.out.show(&document, || format!("{}\n\n{}", shown(&carried), said(&carried, &tallies)))
}

/// `sign`.
pub fn sign(app: &App, a: &Sign) -> Result<(), Failure> {
    let ctx = app.context()?;
    let (operator, trust) = (Operator::load(&ctx)?, Trust::stored(&ctx)?);
    let mut carried = Carried::read(&a.file)?;
    carried.must_count(&trust, clock::now())?;
    let charter = trust.charter();
    carried.tallies(charter)?;
    // Shown as it is about to be signed; nothing is read a second time.
    if !a.yes {
        confirm(&carried, &operator.id)?;
    }
    carried.sign(&operator, charter)?;
    carried.replace(&a.file)?;
    let tallies = carried.tallies(charter)?;
    let line = format!("signed by {}\n{}", operator.id, said(&carried, &tallies));
    app.out.done(&document_of(&a.file, &carried, &tallies), line.trim_end())
}

/// Every field, for people.
fn shown(carried: &Carried) -> String {
    plain(&format!("{:#}", words::content(&carried.signed)))
}

/// Shows it and asks on the terminal; without one nothing is signed by accident.
fn confirm(carried: &Carried, operator: &str) -> Result<(), Failure> {
    let help = "look at it with `holdfast inspect`, and add --yes if it is to be signed";
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Code::Usage, "a signature is asked for, and nobody is there to be asked", help));
    }
    let mut typed = String::new();
    let shown = format!("{}\n\nsha256:{}", shown(carried), carried.sha256());
    crate::output::ask(&format!("{shown}\ntype yes to sign this as {operator}: "));
    let read = std::io::stdin().read_line(&mut typed);
    read.map_err(|e| Failure::new(Code::Io, format!("cannot read from the terminal: {e}"), help))?;
    if typed.trim() == "yes" {
        Ok(())
    } else {
        Err(Failure::new(Code::Usage, "not confirmed: nothing was signed", help))
    }
}

/// `submit`: one file, or copies of it that were signed apart.
pub async fn submit(app: &App, files: &[PathBuf]) -> Result<(), Failure> {
    let mut copies = files.iter().map(|f| Carried::read(f)).collect::<Result<Vec<_>, _>>()?.into_iter();
    let none = || Failure::new(Code::Usage, "no file was named", "name the file that a verb wrote with --out");
    let mut carried = copies.next().ok_or_else(none)?;
    copies.try_for_each(|copy| carried.merge(copy))?;
    let c = Cluster::connect(app).await?;
    carried.must_count(&c.trust, clock::now())?;
    carried.must_be_enough(c.trust.charter())?;
    let (kind, sha256) = (carried.signed.kind(), carried.sha256());
    let done = c.submit(carried.statement, carried.sealed).await?;
    let document = json!({"type": kind, "sha256": sha256, "leaf": done.leaf_index});
    app.out.done(&document, &format!("the {kind} is accepted: entry {} of the log", done.leaf_index))
}
