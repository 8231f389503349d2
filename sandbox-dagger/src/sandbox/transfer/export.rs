//! A directory of the guest to the host: packed there, handed over by the engine, unpacked here.
//!
//! Invariant: an archive of the guest is untrusted: no name of it leaves the directory that it is
//! unpacked in, and no link is made before all files are there.

use super::{blocking, patterns};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use ignore::gitignore::Gitignore;
use sandbox_core::{
    Error, ErrorKind, ExistingDir, ExportOptions, GuestPath, Operation, Result, TransferReport,
};

use crate::guest::Script;
use crate::guest::stage::Stage;
use crate::sandbox::DaggerSandbox;
use crate::sandbox::files;
use crate::session::client::SMALL_ANSWER;
use crate::session::nonce::nonce;
use crate::session::query;

/// Brings a directory to the host: the guest packs it, the engine exports the archive.
pub(crate) async fn export(
    sandbox: &DaggerSandbox,
    from: &GuestPath,
    to: &Path,
    options: ExportOptions,
) -> Result<TransferReport> {
    const OP: Operation = Operation::ExportDir;
    let excludes = patterns(&options.excludes, OP)?;
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
        let report = land(&archive, &to, &excludes, &options);
        drop(stage);
        report
    })
    .await
}

fn land(
    archive: &Path,
    to: &Path,
    excludes: &Gitignore,
    options: &ExportOptions,
) -> Result<TransferReport> {
    const OP: Operation = Operation::ExportDir;
    let failed = |error: io::Error| Error::from_io(error, OP).with_host_path(to);
    let exists = to.symlink_metadata().is_ok();
    let is_dir = to.is_dir() && !to.is_symlink();
    let empty = is_dir && fs::read_dir(to).map_err(failed)?.next().is_none();
    let taken = || {
        Error::new(ErrorKind::AlreadyExists, OP)
            .with_message("something is there already")
            .with_host_path(to)
    };
    if exists && (!is_dir || (options.existing == ExistingDir::Fail && !empty)) {
        return Err(taken());
    }
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(failed)?;
    let fresh = tempfile::Builder::new()
        .prefix(".sandbox-export-")
        .tempdir_in(parent);
    let fresh = fresh.map_err(failed)?;
    let tree = fresh.path().join("tree");
    fs::create_dir(&tree).map_err(failed)?;
    let report = unpack(archive, &tree, excludes, options)?;
    match (exists, options.existing) {
        (true, ExistingDir::Merge) => merge(&tree, to).map_err(failed)?,
        (true, _) => {
            fs::rename(to, fresh.path().join("old")).map_err(failed)?;
            fs::rename(&tree, to).map_err(failed)?;
        }
        (false, _) => fs::rename(&tree, to).map_err(failed)?,
    }
    Ok(report)
}

/// Moves a tree into another, each file at once.
fn merge(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let there = target
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_dir());
        if entry.file_type()?.is_dir() && there {
            merge(&entry.path(), &target)?;
        } else {
            fs::rename(entry.path(), target)?;
        }
    }
    Ok(())
}

fn unpack(
    archive: &Path,
    tree: &Path,
    excludes: &Gitignore,
    options: &ExportOptions,
) -> Result<TransferReport> {
    const OP: Operation = Operation::ExportDir;
    let failed = |error: io::Error| Error::from_io(error, OP);
    let limit = |what: String| Error::new(ErrorKind::LimitExceeded, OP).with_message(what);
    let file = fs::File::open(archive).map_err(failed)?;
    let mut archive = tar::Archive::new(io::BufReader::new(file));
    let mut report = TransferReport::default();
    let (mut links, mut hard, mut modes) = (Vec::new(), Vec::new(), Vec::new());
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let Some(path) = inside(&entry.path_bytes()) else {
            continue;
        };
        let kind = entry.header().entry_type();
        if path.as_os_str().is_empty()
            || excludes
                .matched_path_or_any_parents(&path, kind.is_dir())
                .is_ignore()
        {
            continue;
        }
        if report.files + report.directories + report.symlinks >= options.max_entries {
            return Err(limit(format!("more than {} entries", options.max_entries)));
        }
        let target = tree.join(&path);
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
        let guest = GuestPath::new(path.as_os_str().as_bytes());
        if kind.is_dir() {
            fs::create_dir_all(&target).map_err(failed)?;
            modes.push((target, mode));
            report.directories += 1;
        } else if kind.is_file() {
            report.bytes += entry.size();
            if report.bytes > options.max_bytes {
                return Err(limit(format!("more than {} bytes", options.max_bytes)));
            }
            let mut out = fs::File::create_new(&target).map_err(failed)?;
            io::copy(&mut entry, &mut out).map_err(failed)?;
            out.set_permissions(fs::Permissions::from_mode(mode))
                .map_err(failed)?;
            report.files += 1;
        } else if kind.is_symlink() || kind.is_hard_link() {
            let to = entry.link_name_bytes().unwrap_or_default().into_owned();
            if kind.is_hard_link() {
                hard.push((target, inside(&to), guest));
            } else if leads_out(&path, &to) {
                report.skip(guest, "a link out of the directory");
            } else {
                links.push((target, to));
            }
        } else {
            report.skip(guest, "neither file nor directory nor link");
        }
    }
    for (target, source, guest) in hard {
        match source
            .map(|source| tree.join(source))
            .filter(|source| source.is_file())
        {
            Some(source) => {
                report.bytes += fs::copy(source, target).map_err(failed)?;
                report.files += 1;
            }
            None => report.skip(guest, "another name of a file that is left out"),
        }
    }
    for (target, to) in links {
        symlink(OsStr::from_bytes(&to), target).map_err(failed)?;
        report.symlinks += 1;
    }
    for (directory, mode) in modes.into_iter().rev() {
        fs::set_permissions(directory, fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(report)
}

/// A name of the archive as a path that can't leave the directory it is joined to.
fn inside(name: &[u8]) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(path)
}

/// Whether a link's target is absolute or climbs above the top.
fn leads_out(link: &Path, target: &[u8]) -> bool {
    let mut depth = link.components().count().saturating_sub(1);
    for part in Path::new(OsStr::from_bytes(target)).components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return true,
            },
            Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    false
}
