//! A directory of the host into the guest: packed here, unpacked there by one command.
//!
//! Invariant: no link of the host is followed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sandbox_core::backend::blocking;
use sandbox_core::{
    DirEntry, Error, ErrorKind, GuestPath, ImportOptions, ListOptions, Operation, Result,
    Sandbox as _, TransferReport,
};
use sandbox_transfer::{Scan, pack};

use crate::guest::Script;
use crate::guest::stage::Stage;
use crate::sandbox::DaggerSandbox;
use crate::session::nonce::nonce;
use crate::session::query;

/// Size from which on the holes of a file stay holes. Not every tar of an image can read such an
/// entry, so that small ones are filled.
const HOLES: u64 = 16 << 20;

/// Brings a directory into the guest: an archive, unpacked there by one command.
pub(crate) async fn import(
    sandbox: &DaggerSandbox,
    from: &Path,
    to: &GuestPath,
    options: ImportOptions,
) -> Result<TransferReport> {
    const OP: Operation = Operation::ImportDir;
    let there = match options.mirror {
        true => list(sandbox, to).await?,
        false => Vec::new(),
    };
    let nonce = nonce();
    let (from, target, name) = (from.to_owned(), to.clone(), nonce.clone());
    let (stage, report) = blocking(OP, move || {
        let stage = Stage::new(OP)?;
        let (mut scan, sparse) = archive(&stage, &from, &options)?;
        let holes = if sparse { "holes=1" } else { "holes=" };
        let mut script = Script::new(&name)
            .line(holes)
            .set("path", target.as_bytes())
            .line(&format!("stage={}", query::STAGE));
        // From the deepest up, so that a directory is empty when its turn comes. One that has
        // something excluded in it stays.
        for entry in there.iter().rev() {
            let is_dir = entry.metadata.is_dir();
            if !scan.is_gone(entry.path.as_bytes(), is_dir) {
                continue;
            }
            scan.report.removed += 1;
            let full = target.join(entry.path.clone());
            let remove = if is_dir { "rmdir --" } else { "rm -f --" };
            script = script.call(remove, &[full.as_bytes()]);
        }
        let script = script.files(
            "if there \"$path\" && [ ! -d \"$path\" ]; then fail not-a-directory; fi\n\
                 [ -d \"$path\" ] || { parents_of; mkdir -p -- \"$path\" || fail denied; }\n\
                 if [ -n \"$holes\" ] && ! tar --version 2>&1 | grep -q GNU; then fail no-holes; fi\n\
                 said=$(tar -xpf \"$stage/data.tar\" -C \"$path\" 2>&1) || because \"$said\"\n\
                 begin; finish",
        );
        stage.file("run.sh", script.as_bytes(), 0o700)?;
        Ok((stage, scan.report))
    })
    .await?;
    sandbox.mutate_staged(&stage, &nonce, OP, to).await?;
    Ok(report)
}

fn archive(stage: &Stage, from: &Path, options: &ImportOptions) -> Result<(Scan, bool)> {
    const OP: Operation = Operation::ImportDir;
    let path = stage.at("data.tar");
    let failed = |error| Error::from_io(error, OP).with_host_path(&path);
    let archive = File::create_new(&path).map_err(failed)?;
    // For this user alone; the engine gives its copy to the guest's user.
    let private = std::fs::Permissions::from_mode(0o600);
    archive.set_permissions(private).map_err(failed)?;
    let packed = pack(from, options, &archive, HOLES)?;
    directories_again(&path).map_err(failed)?;
    Ok(packed)
}

/// Repeats the directories of an archive at its end: a tar that sets the time and mode of a
/// directory before it fills it, as BusyBox does, sets them again.
fn directories_again(archive: &Path) -> io::Result<()> {
    let mut found = Vec::new();
    let mut reader = tar::Archive::new(File::open(archive)?);
    for entry in reader.entries_with_seek()? {
        let entry = entry?;
        if entry.header().entry_type().is_dir() {
            found.push((entry.header().clone(), entry.path_bytes().into_owned()));
        }
    }
    let mut file = File::options().write(true).open(archive)?;
    // An archive ends with two empty blocks.
    file.seek(SeekFrom::End(-1024))?;
    let mut builder = tar::Builder::new(file);
    for (mut header, path) in found {
        builder.append_data(&mut header, OsStr::from_bytes(&path), io::empty())?;
    }
    builder.into_inner().map(drop)
}

/// Lists the sandbox's entries below a directory; none if it does not exist.
async fn list(sandbox: &DaggerSandbox, at: &GuestPath) -> Result<Vec<DirEntry>> {
    let listed = sandbox
        .list_dir(at, ListOptions::new().recursive(true))
        .await;
    listed.or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(Vec::new()),
        _ => Err(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directories_come_again_after_what_is_in_them() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let long = "long".repeat(40);
        std::fs::create_dir_all(dir.path().join("in/a").join(&long))?;
        std::fs::write(dir.path().join("in/a/f"), "content")?;
        let path = dir.path().join("data.tar");
        let archive = File::create_new(&path)?;
        let packed = pack(
            &dir.path().join("in"),
            &ImportOptions::new(),
            &archive,
            HOLES,
        );
        packed.map_err(io::Error::other)?;
        directories_again(&path)?;
        let mut names = Vec::new();
        for entry in tar::Archive::new(File::open(&path)?).entries()? {
            let entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            names.push((name, entry.header().entry_type().is_dir()));
        }
        let last = names.iter().rposition(|(_, is_dir)| !is_dir);
        let (filled, again) = names.split_at(last.map_or(0, |last| last + 1));
        let mut dirs: Vec<_> = names.iter().filter(|(_, is_dir)| *is_dir).collect();
        dirs.sort();
        assert_eq!(dirs.len(), 4, "{names:?}");
        assert_eq!((dirs[0], dirs[2]), (dirs[1], dirs[3]), "each comes twice");
        assert!(!filled.is_empty() && again.len() >= 2, "{names:?}");
        Ok(())
    }
}
