//! Files of a session over HTTP, in both shapes.
//!
//! A name is one name and a directory has no dot: nothing outside of what the service shows is
//! ever read or written.

use sandbox_core::{
    DirEntry, Error, ErrorKind, FileBatch, GuestPath, ListOptions, Metadata, ReadOptions,
    RemoveOptions, SandboxExt,
};
use serde_json::{Value, json};

use super::multipart;
use super::pool::{InUse, PoolKind, SessionPool};
use super::reply::error;
use crate::aca::call::{Call, not_found};
use crate::aca::clock::rfc3339;
use crate::aca::reply::Reply;
use crate::aca::state::State;

/// Directory of files by default.
const HOME: &str = "/mnt/data";
/// The largest file that is read.
const LARGEST: u64 = 1 << 30;

pub(super) async fn answer(
    state: &State,
    call: &Call,
    pool: &SessionPool,
    used: &InUse,
    old: bool,
) -> Result<Reply, Reply> {
    let local = &used.session.local;
    let dir = match old {
        true => GuestPath::from(HOME),
        false => directory(call.query.get("path").map(String::as_str), pool.kind)?,
    };
    let rest: Vec<&str> = call.rest.iter().skip(1).map(String::as_str).collect();
    match (call.method.as_str(), &rest[..], old) {
        ("GET", [], _) => {
            let mut options = ListOptions::new();
            options.recursive = call
                .query
                .get("recursive")
                .is_some_and(|flag| flag == "true");
            let found = local.list_dir(&dir, options).await;
            let found = found.map_err(|e| failed(&e))?;
            let shown: Vec<Value> = found
                .iter()
                .filter(|entry| !old || entry.metadata.is_file())
                .map(|entry| record(&dir, entry, old))
                .collect();
            Ok(Reply::json(200, json!({"value": shown, "nextLink": null})))
        }
        ("POST", [], false) | ("POST", ["upload"], true) => {
            let options = state.options();
            let cap = options.file_cap.map_or(usize::MAX, |cap| cap as usize);
            if call.body.len() > options.upload_cap.min(cap.saturating_add(FORM)) {
                return Err(error(413, "PayloadTooLarge", "the file is too large"));
            }
            let part = multipart::file(&call.body)
                .ok_or_else(|| error(400, "FileMissing", "the form has no field \"file\""))?;
            let given = part.file_name.rsplit('/').next().unwrap_or_default();
            let at = dir.join(name(given)?);
            local.stat(&dir).await.map_err(|e| failed(&e))?;
            let batch = FileBatch::new().file(at.clone(), part.content.to_vec());
            local.write_files(batch).await.map_err(|e| failed(&e))?;
            let found = local.stat(&at).await.map_err(|e| failed(&e))?;
            let shown = record(&dir, &DirEntry::new(given, found), old);
            Ok(match old {
                true => Reply::json(200, json!({"value": [shown]})),
                false => Reply::json(200, shown),
            })
        }
        ("GET", ["content", file], true) | ("GET", [file, "content"], false) => {
            let at = dir.join(name(file)?);
            let cap = state.options().file_cap.map_or(LARGEST, u64::from);
            let options = ReadOptions::new().limit(cap);
            let bytes = local
                .read_file(&at, options)
                .await
                .map_err(|e| failed(&e))?;
            Ok(Reply::new(200, "application/octet-stream", bytes))
        }
        ("GET", [file], _) => {
            let found = local.stat(dir.join(name(file)?)).await;
            let found = found.map_err(|e| failed(&e))?;
            Ok(Reply::json(
                200,
                record(&dir, &DirEntry::new(*file, found), old),
            ))
        }
        ("DELETE", [file], _) => {
            let options = RemoveOptions::new().recursive(true);
            let gone = local.remove(&dir.join(name(file)?), options).await;
            gone.map_err(|e| failed(&e))?;
            Ok(Reply::empty(204))
        }
        _ => Err(not_found()),
    }
}

fn bad(why: &str) -> Reply {
    error(400, "FilePathInvalid", why)
}

/// Most bytes that a form has beside its file.
const FORM: usize = 4 << 10;

/// The directory of a request. Python sessions know what is below their home, shells all.
fn directory(given: Option<&str>, kind: PoolKind) -> Result<GuestPath, Reply> {
    let given = given.unwrap_or_default();
    if given.contains('.') || given.contains('\0') {
        return Err(bad("a directory's name has no dot"));
    }
    if given.is_empty() {
        return Ok(GuestPath::from(HOME));
    }
    let relative = match (kind, given.strip_prefix('/')) {
        (PoolKind::Shell, Some(_)) => return Ok(GuestPath::from(given)),
        (PoolKind::Shell, None) => return Ok(GuestPath::from("/app").join(given)),
        (_, None) => given,
        (_, Some(below)) => match below.strip_prefix("mnt/data") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_matches('/'),
            _ => return Err(bad("the path is not below /mnt/data")),
        },
    };
    Ok(match relative {
        "" => GuestPath::from(HOME),
        relative => GuestPath::from(HOME).join(relative),
    })
}

/// A file's name, if the service takes it.
fn name(given: &str) -> Result<&str, Reply> {
    let sound = |c: char| c.is_alphanumeric() || " -_.@$&=;,#%^()".contains(c);
    let dots = matches!(given, "" | "." | "..");
    match !dots && given.len() <= 255 && given.chars().all(sound) {
        true => Ok(given),
        false => Err(bad("the name has a character that is not allowed")),
    }
}

fn record(dir: &GuestPath, entry: &DirEntry, old: bool) -> Value {
    let Metadata { size, modified, .. } = &entry.metadata;
    let name = String::from_utf8_lossy(entry.path.file_name().unwrap_or_default()).into_owned();
    let modified = modified.map_or_else(String::new, rfc3339);
    if old {
        return json!({"properties": {
            "filename": name, "size": size, "lastModifiedTime": modified,
        }});
    }
    let at = entry
        .path
        .parent()
        .map_or_else(|| dir.clone(), |below| dir.join(below));
    let (kind, content) = match entry.metadata.is_dir() {
        true => ("directory", Value::Null),
        false => ("file", json!("application/octet-stream")),
    };
    json!({
        "name": name, "type": kind, "contentType": content, "sizeInBytes": size,
        "lastModifiedAt": modified, "directory": at.to_string(),
    })
}

fn failed(e: &Error) -> Reply {
    match e.kind() {
        ErrorKind::NotFound => error(404, "FileNotFound", "there is no such file"),
        ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::InvalidInput => {
            bad(e.message())
        }
        ErrorKind::LimitExceeded => error(413, "PayloadTooLarge", e.message()),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnly => {
            error(403, "FileAccessDenied", e.message())
        }
        _ => error(500, "InternalServerError", e.message()),
    }
}
