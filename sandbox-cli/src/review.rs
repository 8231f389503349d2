//! `sandbox run --patch` and `--apply`: what a command changed in an imported directory.
//!
//! It must never write to the host what was not compared with it first.

use std::io::Write as _;
use std::path::Path;

use sandbox::changes::{ApplyOptions, apply_to_dir, git_patch};
use sandbox::{ChangesOptions, Error, ErrorKind, Operation, Sandbox};

use crate::arguments::RunOptions;
use crate::show::{Failure, complain};
use crate::values::Imported;

/// The directory that is compared, if it was asked for.
pub(crate) fn of(options: &RunOptions) -> Result<Option<&Imported>, Failure> {
    if options.patch.is_none() && !options.apply {
        return Ok(None);
    }
    match options.import.as_slice() {
        [one] => Ok(Some(one)),
        _ => Err(Error::new(ErrorKind::InvalidInput, Operation::Changes)
            .with_message("--patch and --apply need exactly one --import")
            .into()),
    }
}

/// Writes the patch and puts the changes in place, as asked for.
pub(crate) async fn settle(
    sandbox: &dyn Sandbox,
    imported: &Imported,
    options: &RunOptions,
) -> Result<(), Error> {
    let mut wanted = ChangesOptions::new();
    wanted.excludes.clone_from(&options.exclude);
    let changes = sandbox
        .changes(&imported.to.as_str().into(), wanted)
        .await?;
    if let Some(file) = &options.patch {
        let patch = git_patch(&changes)?;
        write(file, &patch.text)?;
        for left in &patch.left_out {
            let path = left.path.to_string_lossy().escape_debug().to_string();
            complain(&format!(
                "sandbox: not in the patch: {path}: {}",
                left.reason
            ));
        }
    }
    if !options.apply {
        return Ok(());
    }
    let directory = imported.from.clone();
    // It blocks: not on a thread of the runtime.
    let applied = tokio::task::spawn_blocking(move || {
        apply_to_dir(&changes, &directory, &ApplyOptions::new())
    });
    let applied = applied.await.map_err(|error| {
        Error::new(ErrorKind::Other, Operation::ApplyChanges).with_source(error)
    })?;
    let report = applied?;
    let shown = |path: &sandbox::GuestPath| path.to_string_lossy().escape_debug().to_string();
    for conflict in &report.conflicts {
        let path = shown(&conflict.path);
        complain(&format!("sandbox: conflict: {path}: {}", conflict.reason));
    }
    for path in &report.automation {
        let path = shown(path);
        complain(&format!(
            "sandbox: not applied, since it would run by itself: {path}"
        ));
    }
    for left in &report.left_out {
        let path = shown(&left.path);
        complain(&format!("sandbox: not applied: {path}: {}", left.reason));
    }
    if !report.conflicts.is_empty() {
        return Err(Error::new(ErrorKind::Conflict, Operation::ApplyChanges)
            .with_message("the directory was changed meanwhile; nothing was applied")
            .with_host_path(&imported.from)
            .with_hint("take the patch with --patch, or run the command again"));
    }
    Ok(())
}

fn write(file: &Path, patch: &[u8]) -> Result<(), Error> {
    let written = match file.as_os_str() == "-" {
        true => std::io::stdout().lock().write_all(patch),
        false => std::fs::write(file, patch),
    };
    written.map_err(|error| Error::from_io(error, Operation::Changes).with_host_path(file))
}
