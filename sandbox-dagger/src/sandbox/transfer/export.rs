//! A directory of the guest to the host: packed there, handed over by the engine, unpacked here.
//!
//! Invariant: an archive of the guest is untrusted, and taken apart by `sandbox-transfer` alone;
//! one that has less in it than the guest listed is an error.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use sandbox_core::{
    Error, ErrorKind, ExportOptions, GuestPath, Operation, Result, TransferReport, Unreadable,
};
use sandbox_transfer::{Attributes, Excludes, Export, Landing};

use crate::guest::Script;
use crate::guest::frame::{Broken, Frame};
use crate::guest::stage::Stage;
use crate::sandbox::DaggerSandbox;
use crate::sandbox::files;
use crate::session::nonce::nonce;
use crate::session::query;
use sandbox_core::backend::blocking;

const OP: Operation = Operation::ExportDir;

/// The largest answer of the packing script: it names what can't be read.
const LARGEST: u64 = 64 << 20;

/// Set before: path, nonce, most (the largest archive, in blocks of 512 bytes beside its headers;
/// empty for any). The archive is built where the user may write and the engine reads files: on the
/// root's own filesystem.
const PACK: &str = r#"
[ -e "$path" ] || absent "$path"
[ -d "$path" ] || fail not-a-directory
cd -- "$path" || fail denied
archive=
for directory in / /tmp /var/tmp "$HOME"; do
    if [ -d "$directory" ] && [ -w "$directory" ] && [ "$(stat -L -c %d -- "$directory")" = "$(stat -c %d /)" ]; then
        archive=${directory%/}/.sandbox-export-$nonce; break
    fi
done
[ -n "$archive" ] || fail nowhere
entries=0
for part in $(find . -mindepth 1 -exec sh -c 'echo $#' sh {} +); do entries=$((entries + part)); done
shut=$(find . -mindepth 1 \( -type f -o -type d \) -exec sh -c 'for f do
    if [ ! -r "$f" ] || { [ -d "$f" ] && [ ! -x "$f" ] && ! (cd -- "$f"); }; then printf "%s\0" "$f"; fi
done' sh {} + | base64)
sockets=$(find . -type s -print0 | base64)
sparse=
if tar --version 2>&1 | grep -q GNU; then sparse=--sparse; fi
( [ -z "$most" ] || ulimit -f "$((most + entries * 8 + 64))"; exec tar $sparse -cf "$archive" -C "$path" . )
status=$?
if [ "$status" -ge 128 ]; then fail limit; fi
if [ "$status" -gt 1 ] && [ -z "$shut" ]; then fail archiver; fi
begin
printf %s "$archive" | base64; echo .
echo "$entries"
echo "$shut"; echo .
echo "$sockets"; echo .
finish
"#;

/// The guest's report about its archive.
struct Packed {
    path: String,
    entries: u64,
    unreadable: HashSet<Vec<u8>>,
    sockets: Vec<Vec<u8>>,
}

/// Brings a directory to the host: the guest packs it, the engine exports the archive.
pub(crate) async fn export(
    sandbox: &DaggerSandbox,
    from: &GuestPath,
    to: &Path,
    options: ExportOptions,
) -> Result<TransferReport> {
    // What the host refuses is refused before the guest works for it.
    Excludes::new(&options.excludes, OP)?;
    drop(Landing::prepare(to, options.existing)?);
    let stage = Stage::new(OP)?;
    let nonce = nonce();
    // What is excluded is packed as well, and counts for nothing.
    let most = match options.excludes.is_empty() {
        true if options.max_bytes < 1 << 60 => (options.max_bytes / 512 + 1).to_string(),
        _ => String::new(),
    };
    let script = Script::new(&nonce)
        .set("path", from.as_bytes())
        .line(&format!("most={most}"))
        .files(PACK);
    // The answer of a script that refused comes before the export, which then fails: ask first.
    let check = query::run(&script, &nonce, "stdout");
    let head = sandbox.chain.head();
    let query = query::on_container(&head.id, &check);
    let answer = sandbox.ask(&query, OP, LARGEST, sandbox.patience()).await?;
    let stdout = query::find(&answer, "stdout").unwrap_or("");
    let mut frame = files::open(stdout, &nonce, OP, from)?;
    let packed = packed(&mut frame).map_err(|problem| files::broken(problem, OP))?;
    if let (Some(path), Unreadable::Fail) = (packed.unreadable.iter().next(), options.unreadable) {
        return Err(Error::new(ErrorKind::PermissionDenied, OP)
            .with_message("the sandbox's user can't read it")
            .with_path(from.join(path.as_slice())));
    }
    let archive = stage.at("export.tar");
    let below = format!(
        "stdout file(path: {}) {{ export(path: {}) }}",
        query::string(&packed.path),
        query::string(&archive.to_string_lossy())
    );
    // The same command again: the engine has its result and runs nothing.
    let query = query::on_container(&head.id, &query::run(&script, &nonce, &below));
    sandbox.ask(&query, OP, LARGEST, sandbox.patience()).await?;
    let to = to.to_owned();
    blocking(OP, move || {
        let archive = File::open(stage.at("export.tar")).map_err(|e| Error::from_io(e, OP))?;
        land(archive, &packed, &to, &options)
    })
    .await
}

fn packed(frame: &mut Frame<'_>) -> std::result::Result<Packed, Broken> {
    let names = |bytes: Vec<u8>| -> Vec<Vec<u8>> {
        bytes
            .split(|byte| *byte == 0)
            .filter(|path| !path.is_empty())
            .map(|path| path.strip_prefix(b"./").unwrap_or(path).to_vec())
            .collect()
    };
    let path = String::from_utf8(frame.bytes()?);
    Ok(Packed {
        path: path.map_err(|_| Broken("the archive's path is not text"))?,
        entries: frame
            .line()?
            .parse()
            .map_err(|_| Broken("no number of entries"))?,
        unreadable: names(frame.bytes()?).into_iter().collect(),
        sockets: names(frame.bytes()?),
    })
}

fn land(
    archive: File,
    packed: &Packed,
    to: &Path,
    options: &ExportOptions,
) -> Result<TransferReport> {
    let mut export = Export::new(to, options)?;
    let mut came = 0;
    let top = export.unpack(BufReader::new(archive), |path| {
        // An archiver may have an entry for what it could not read.
        let readable = !packed.unreadable.contains(path);
        came += u64::from(readable);
        readable
    })?;
    for path in &packed.unreadable {
        export.skip(path, "can't be read: permission denied")?;
    }
    for path in &packed.sockets {
        export.special(path, sandbox_core::FileKind::Socket)?;
    }
    let left = (packed.unreadable.len() + packed.sockets.len()) as u64;
    if came + left < packed.entries {
        return Err(Error::new(ErrorKind::Other, OP).with_message(format!(
            "the image's tar left out {} of {} entries; nothing was exported",
            packed.entries - came - left,
            packed.entries
        )));
    }
    export.finish(top.unwrap_or(Attributes {
        mode: 0o755,
        modified: None,
    }))
}
