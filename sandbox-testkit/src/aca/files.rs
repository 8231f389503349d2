//! Files of a sandbox over HTTP.
//!
//! It must never wait for a FIFO: the service would, the emulator says so instead.

use sandbox_core::{
    CreateDirOptions, DirEntry, Error, ErrorKind, FileBatch, FileKind, GuestPath, Metadata, Mode,
    ReadOptions, RemoveOptions, SandboxExt,
};
use serde_json::{Value, json};

use super::call::{Call, not_found};
use super::reply::{Reply, coded, invalid};
use super::state::{Guest, State};

/// The largest file that is read.
const LARGEST: u64 = 1 << 30;

pub(super) async fn operation(
    state: &State,
    call: &Call,
    guest: &Guest,
    tail: &[&str],
) -> Result<Reply, Reply> {
    guest.running(state)?;
    let cap = state.options().file_cap.map(u64::from);
    let local = &guest.local;
    let path = match (call.method.as_str(), tail) {
        ("POST", ["mkdir"]) => call.json()?["path"].as_str().map(str::to_owned),
        _ => call.query.get("path").cloned(),
    };
    let path = path.filter(|path| !path.is_empty());
    let path = GuestPath::from(path.ok_or_else(|| invalid("path", "a path is required"))?);
    match (call.method.as_str(), tail) {
        ("GET", []) => {
            let options = ReadOptions::new().limit(cap.unwrap_or(LARGEST));
            let bytes = local
                .read_file(&path, options)
                .await
                .map_err(|e| failed(&e))?;
            Ok(Reply::new(200, "application/octet-stream", bytes))
        }
        (method, []) if method == call.writes() => {
            if call
                .query
                .get("createDirs")
                .is_none_or(|flag| flag != "true")
                && let Some(parent) = path.parent()
            {
                local.stat(&parent).await.map_err(|e| failed(&e))?;
            }
            let mode = match call.query.get("mode") {
                // The newer version has a number, the older one digits as `chmod` takes them.
                Some(text) => u32::from_str_radix(text, if call.newer() { 10 } else { 8 })
                    .map_err(|_| invalid("mode", "is not an octal mode"))?,
                None => 0o644,
            };
            let (size, body) = (call.body.len(), call.body.clone());
            if cap.is_some_and(|cap| size as u64 > cap) {
                return Err(coded(413, "TooLarge", "the file is too large", json!(1)));
            }
            let batch = FileBatch::new().file_with_mode(path, body, Mode::new(mode));
            local.write_files(batch).await.map_err(|e| failed(&e))?;
            Ok(Reply::json(
                call.created(&state.options()),
                json!({"bytesWritten": size, "success": true}),
            ))
        }
        ("DELETE", []) => {
            let recursive = call
                .query
                .get("recursive")
                .is_some_and(|flag| flag == "true");
            let options = match recursive {
                true => RemoveOptions::new().recursive(true),
                false => RemoveOptions::new(),
            };
            match local.remove(&path, options).await {
                Err(error) if call.newer() || error.kind() != ErrorKind::NotFound => {
                    Err(failed(&error))
                }
                _ if call.newer() => Ok(Reply::json(200, json!({"success": true}))),
                _ => Ok(Reply::empty(204)),
            }
        }
        ("POST", ["mkdir"]) => {
            let mut options = CreateDirOptions::new();
            let body = call.json()?;
            if let (true, Some(flag)) = (call.newer(), body["createParents"].as_bool()) {
                options.recursive = flag;
            }
            let made = local.create_dir(&path, options).await;
            made.map_err(|e| failed(&e))?;
            Ok(Reply::json(200, json!({"success": true})))
        }
        ("GET", ["stat"]) => {
            let found = local.stat(&path).await.map_err(|e| failed(&e))?;
            Ok(Reply::json(200, entry(&DirEntry::new(path, found))))
        }
        ("GET", ["list"]) => {
            let found = local.list(&path).await;
            let found = found.map_err(|e| failed(&e))?;
            let entries: Vec<Value> = found
                .into_iter()
                .map(|found| entry(&DirEntry::new(path.join(found.path), found.metadata)))
                .collect();
            Ok(Reply::json(
                200,
                json!({"path": path.to_string(), "entries": entries}),
            ))
        }
        _ => Err(not_found()),
    }
}

/// An entry as it is on the wire.
fn entry(found: &DirEntry) -> Value {
    let Metadata {
        kind,
        size,
        mode,
        modified,
        ..
    } = &found.metadata;
    let name = found.path.file_name().unwrap_or_default();
    let modified = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    json!({
        "name": String::from_utf8_lossy(name),
        "path": found.path.to_string(),
        "size": size,
        "isDir": *kind == FileKind::Directory,
        "isSymlink": *kind == FileKind::Symlink,
        "mode": mode.bits(),
        "modifiedTime": modified.map_or(0, |since| since.as_secs()),
    })
}

fn failed(error: &Error) -> Reply {
    let (status, title) = match error.kind() {
        ErrorKind::NotFound => (404, "FileNotFound"),
        ErrorKind::Closed | ErrorKind::Lost => (404, "SandboxNotFound"),
        ErrorKind::InvalidInput => return invalid("path", error.message()),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnly => (403, "PermissionDenied"),
        ErrorKind::LimitExceeded => (413, "TooLarge"),
        _ => (400, "FileOperationFailed"),
    };
    coded(status, title, error.message(), json!(title))
}
