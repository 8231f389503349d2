//! Directories of this host, to and from a sandbox behind a server.
//!
//! Invariant: this side is `sandbox-transfer`'s alone; nothing that the server sends is believed.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use reqwest::Method;
use sandbox_core::{
    Error, ErrorKind, ExportOptions, GuestPath, ImportOptions, Operation, Result, TransferReport,
    backend::blocking,
};
use sandbox_transfer::{Attributes, Excludes, Export, Landing, pack};

use super::call::{Call, Sent};
use super::http::Opened;
use super::incoming::{Frames, parse};
use super::state::SandboxState;
use crate::wire::{self, MAX_HEAD, frame};

/// Size from which on the holes of a file stay holes in an archive.
const HOLES: u64 = 1 << 20;

/// Packs a directory and has the server bring it in.
pub(super) async fn import(
    sandbox: &Arc<SandboxState>,
    from: &Path,
    to: &GuestPath,
    options: ImportOptions,
) -> Result<TransferReport> {
    const OP: Operation = Operation::ImportDir;
    let (top, given) = (from.to_owned(), options.clone());
    let (scan, archive) = blocking(OP, move || {
        let archive = tempfile::tempfile().map_err(|error| Error::from_io(error, OP))?;
        let (scan, _) = pack(&top, &given, &archive, HOLES)?;
        Ok((scan, archive))
    })
    .await?;
    let mut there = options;
    // Checked here; holes are as long there.
    there.max_bytes = None;
    if there.mirror {
        // What can't be read here is left alone there.
        for left in scan.unreadable() {
            there.excludes.push(literally(left, OP)?);
        }
    }
    let head = wire::Import {
        to: to.clone(),
        options: there,
    };
    let head = serde_json::to_vec(&head).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, OP)
            .with_message("this can't be sent to a server")
            .with_source(error)
    })?;
    let mut body = BytesMut::new();
    body.extend_from_slice(&u32::try_from(head.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend_from_slice(&head);
    let call =
        Call::named(OP, &sandbox.path("import")).body(Sent::File(body.freeze(), Arc::new(archive)));
    let wire::Imported { mut report } = sandbox.http.call(call).await?;
    let total = report.skipped_total + scan.report.skipped_total;
    for left in scan.report.skipped {
        report.skip(left.path, left.reason);
    }
    report.skipped_total = total;
    Ok(report)
}

/// A pattern that stands for one path and nothing else.
fn literally(path: &[u8], operation: Operation) -> Result<String> {
    let Ok(path) = std::str::from_utf8(path) else {
        return Err(Error::new(ErrorKind::Unsupported, operation)
            .with_message("an entry that can't be read has a name that is not UTF-8")
            .with_path(path)
            .with_hint("exclude it, or import without mirroring"));
    };
    let mut pattern = String::from("/");
    for c in path.chars() {
        if matches!(
            c,
            '\\' | '*' | '?' | '[' | ']' | '{' | '}' | '!' | '#' | ' '
        ) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    Ok(pattern)
}

/// Makes the server pack a directory, and builds the export from what comes.
pub(super) async fn export(
    sandbox: &Arc<SandboxState>,
    from: &GuestPath,
    to: &Path,
    options: ExportOptions,
) -> Result<TransferReport> {
    const OP: Operation = Operation::ExportDir;
    // What this host refuses is refused before the server works for it.
    Excludes::new(&options.excludes, OP)?;
    let (place, existing) = (to.to_owned(), options.existing);
    blocking(OP, move || Landing::prepare(&place, existing).map(drop)).await?;
    let asked = wire::Export {
        from: from.clone(),
        options: options.clone(),
    };
    let call = Call::read(OP, Method::POST, &sandbox.path("export")).json(&asked)?;
    let (head, archive) = download(sandbox, &call, &options).await?;
    let to = to.to_owned();
    blocking(OP, move || {
        let mut export = Export::new(&to, &options)?;
        let taken = std::io::BufReader::new(archive);
        export.unpack(taken, |_| true)?;
        let skipped = export.report();
        let total = skipped
            .skipped_total
            .saturating_add(head.report.skipped_total);
        for left in head.report.skipped {
            skipped.skip(left.path, left.reason);
        }
        skipped.skipped_total = total;
        export.finish(Attributes {
            mode: head.mode & 0o777,
            modified: head.modified.and_then(wire::Time::system),
        })
    })
    .await
}

/// Fetches an export, from its beginning again if the connection breaks.
async fn download(
    sandbox: &Arc<SandboxState>,
    call: &Call<'_>,
    options: &ExportOptions,
) -> Result<(wire::Exported, File)> {
    const OP: Operation = Operation::ExportDir;
    // Headers and long names, besides the content.
    let room = options.max_entries.saturating_mul(16 << 10);
    let most = options
        .max_bytes
        .saturating_add(room)
        .saturating_add(1 << 20);
    let started = Instant::now();
    loop {
        let why = match sandbox.http.frames(call).await {
            Ok(frames) => match take(frames, most).await {
                Ok(taken) => return Ok(taken),
                Err(Opened::Refused(error)) => return Err(error),
                Err(Opened::Broken(why)) => why,
            },
            Err(Opened::Refused(error)) => return Err(error),
            Err(Opened::Broken(why)) => why,
        };
        if started.elapsed() > sandbox.http.horizon() {
            return Err(Error::new(ErrorKind::Unavailable, OP)
                .with_message(format!("the export did not come through: {why}")));
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

async fn take(mut frames: Frames, most: u64) -> Result<(wire::Exported, File), Opened> {
    const OP: Operation = Operation::ExportDir;
    let disk = |error| Opened::Refused(Error::from_io(error, OP));
    let garbled = || {
        let error = Error::new(ErrorKind::Other, OP);
        Opened::Refused(error.with_message("what the server sent can't be read as an export"))
    };
    let mut archive = tempfile::tempfile().map_err(disk)?;
    let mut head: Option<wire::Exported> = None;
    let mut bytes = BytesMut::new();
    let mut written = 0_u64;
    loop {
        let part = frames.next().await.map_err(Opened::Broken)?;
        match part.kind {
            frame::DATA => bytes.extend_from_slice(&part.data),
            frame::HEARTBEAT => continue,
            frame::ERROR => {
                let problem: wire::Problem =
                    serde_json::from_slice(&part.data).map_err(|_| garbled())?;
                return Err(Opened::Refused(problem.into_error()));
            }
            frame::END => {
                let head = head.ok_or_else(garbled)?;
                archive.rewind().map_err(disk)?;
                return Ok((head, archive));
            }
            _ => return Err(garbled()),
        }
        if head.is_none() {
            let Some(length) = bytes.first_chunk::<4>() else {
                continue;
            };
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            if length > MAX_HEAD {
                return Err(garbled());
            }
            if bytes.len() < 4 + length {
                continue;
            }
            let whole = bytes.split_to(4 + length);
            let text = whole.get(4..).unwrap_or_default();
            head = Some(parse(text, OP).map_err(Opened::Refused)?);
        }
        written = written.saturating_add(bytes.len() as u64);
        if written > most {
            return Err(garbled());
        }
        let part = bytes.split().freeze();
        // A write to a file of its own, most of which goes to the page cache.
        archive = tokio::task::spawn_blocking(move || archive.write_all(&part).map(|()| archive))
            .await
            .map_err(|error| disk(std::io::Error::other(error)))?
            .map_err(disk)?;
    }
}
