//! A directory of the guest to the host: packed there, handed over by the engine, unpacked here.
//!
//! Invariant: an archive of the guest is untrusted, and taken apart by `sandbox-transfer` alone.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use sandbox_core::{Error, ExportOptions, GuestPath, Operation, Result, TransferReport};
use sandbox_transfer::{Attributes, Excludes, Export, Landing};

use crate::guest::Script;
use crate::guest::stage::Stage;
use crate::sandbox::DaggerSandbox;
use crate::sandbox::files;
use crate::session::client::SMALL_ANSWER;
use crate::session::nonce::nonce;
use crate::session::query;
use sandbox_core::backend::blocking;

/// Brings a directory to the host: the guest packs it, the engine exports the archive.
pub(crate) async fn export(
    sandbox: &DaggerSandbox,
    from: &GuestPath,
    to: &Path,
    options: ExportOptions,
) -> Result<TransferReport> {
    const OP: Operation = Operation::ExportDir;
    // What the host refuses is refused before the guest works for it.
    Excludes::new(&options.excludes, OP)?;
    drop(Landing::prepare(to, options.existing)?);
    let stage = Stage::new(OP)?;
    let nonce = nonce();
    let script = Script::new(&nonce).set("p", from.as_bytes()).files(
        "[ -e \"$p\" ] || absent \"$p\"\n\
         [ -d \"$p\" ] || fail not-a-directory\n\
         e=$(tar -cf /.sandbox-export -C \"$p\" . 2>&1)\n\
         begin; finish",
    );
    let archive = stage.at("export.tar");
    let below = format!(
        "stdout file(path: \"/.sandbox-export\") {{ export(path: {}) }}",
        query::string(&archive.to_string_lossy())
    );
    // The answer of a script that refused comes before the export, which then fails: ask first.
    let check = query::run(&script, &nonce, "stdout");
    let head = sandbox.chain.head();
    let query = query::on_container(&head.id, &check);
    let answer = sandbox
        .ask(&query, OP, SMALL_ANSWER, sandbox.patience())
        .await?;
    files::open(
        query::find(&answer, "stdout").unwrap_or(""),
        &nonce,
        OP,
        from,
    )?;
    // The same command again: the engine has its result and runs nothing.
    let query = query::on_container(&head.id, &query::run(&script, &nonce, &below));
    sandbox
        .ask(&query, OP, SMALL_ANSWER, sandbox.patience())
        .await?;
    let to = to.to_owned();
    blocking(OP, move || {
        let archive = File::open(stage.at("export.tar")).map_err(|e| Error::from_io(e, OP))?;
        let mut export = Export::new(&to, &options)?;
        let top = export.unpack(BufReader::new(archive))?;
        export.finish(top.unwrap_or(Attributes {
            mode: 0o755,
            modified: None,
        }))
    })
    .await
}
