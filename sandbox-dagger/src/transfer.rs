//! Directories between host and guest, as tar archives that are built and taken apart here.
//!
//! Invariant: an archive of the guest is untrusted: no name of it leaves the directory that it is
//! unpacked in, and no link is made before all files are there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use sandbox_core::{
    Control, DirEntry, Enforcement, Error, ErrorKind, ExistingDir, ExportOptions, GuestPath,
    ImportOptions, IsolationReport, ListOptions, Operation, Result, Sandbox as _, TransferReport,
};

use crate::client::SMALL_ANSWER;
use crate::files;
use crate::guest::Script;
use crate::query;
use crate::sandbox::{DaggerSandbox, nonce};
use crate::stage::Stage;

/// What can be said of an engine's isolation without probing it: nothing is claimed.
pub(crate) fn unprobed() -> IsolationReport {
    let why = "it is the engine's, and not probed by this backend";
    Control::ALL
        .iter()
        .fold(IsolationReport::new(), |report, control| {
            report.with(*control, Enforcement::absent(why))
        })
}

fn patterns(excludes: &[String], operation: Operation) -> Result<Gitignore> {
    let mut builder = GitignoreBuilder::new("");
    for pattern in excludes {
        builder.add_line(None, pattern).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, operation)
                .with_message(format!("{pattern:?} is no pattern"))
                .with_source(error)
        })?;
    }
    builder.build().map_err(|error| {
        Error::new(ErrorKind::InvalidInput, operation)
            .with_message("the excludes can't be used together")
            .with_source(error)
    })
}

async fn blocking<T: Send + 'static>(
    operation: Operation,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Other, operation)
                .with_message("the operation's thread ended early")
                .with_source(error))
        })
}

/// Brings a directory into the guest: an archive, unpacked there by one command.
pub(crate) async fn import(
    sandbox: &DaggerSandbox,
    from: &Path,
    to: &GuestPath,
    options: ImportOptions,
) -> Result<TransferReport> {
    const OP: Operation = Operation::ImportDir;
    if options.mirror && options.ignore_files {
        let why = "the ignore files of the host are not applied to what the sandbox has";
        return Err(Error::unsupported(
            OP,
            "a mirroring import with ignore files",
            why,
        ));
    }
    let there = match options.mirror {
        true => list(sandbox, to).await?,
        false => Vec::new(),
    };
    let nonce = nonce();
    let (from, target, name) = (from.to_owned(), to.clone(), nonce.clone());
    let (stage, report) = blocking(OP, move || {
        let top =
            fs::metadata(&from).map_err(|error| Error::from_io(error, OP).with_host_path(&from))?;
        if !top.is_dir() {
            return Err(Error::new(ErrorKind::NotADirectory, OP)
                .with_message("not a directory")
                .with_host_path(&from));
        }
        let stage = Stage::new(OP)?;
        let (mut report, brought) = pack(&from, &stage.at("data.tar"), &options)?;
        let mut script = Script::new(&name)
            .set("p", target.as_bytes())
            .line(&format!("stage={}", query::STAGE));
        let excludes = patterns(&options.excludes, OP)?;
        // From the deepest up, so that a directory is empty when its turn comes. One that has
        // something excluded in it stays.
        for entry in there.iter().rev() {
            let path = Path::new(OsStr::from_bytes(entry.path.as_bytes()));
            let is_dir = entry.metadata.is_dir();
            if brought.get(entry.path.as_bytes()) == Some(&is_dir)
                || excludes
                    .matched_path_or_any_parents(path, is_dir)
                    .is_ignore()
            {
                continue;
            }
            report.removed += 1;
            let full = target.join(entry.path.clone());
            let remove = if is_dir { "rmdir --" } else { "rm -f --" };
            script = script.call(remove, &[full.as_bytes()]);
        }
        let script = script.files(
            "if there \"$p\" && [ ! -d \"$p\" ]; then fail not-a-directory; fi\n\
                 [ -d \"$p\" ] || { parents_of; mkdir -p -- \"$p\" || fail denied; }\n\
                 e=$(tar -xpf \"$stage/data.tar\" -C \"$p\" 2>&1) || because \"$e\"\n\
                 begin; finish",
        );
        stage.file("run.sh", script.as_bytes(), 0o755)?;
        Ok((stage, report))
    })
    .await?;
    sandbox.alter_staged(&stage, &nonce, OP, to).await?;
    Ok(report)
}

/// What the sandbox has below a directory; nothing if there is none.
async fn list(sandbox: &DaggerSandbox, at: &GuestPath) -> Result<Vec<DirEntry>> {
    let listed = sandbox
        .list_dir(at, ListOptions::default().recursive())
        .await;
    listed.or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(Vec::new()),
        _ => Err(error),
    })
}

/// The paths that were packed, and which are directories.
type Brought = BTreeMap<Vec<u8>, bool>;

/// Packs what the options let through.
fn pack(from: &Path, archive: &Path, options: &ImportOptions) -> Result<(TransferReport, Brought)> {
    const OP: Operation = Operation::ImportDir;
    let failed = |path: &Path, error| Error::from_io(error, OP).with_host_path(path);
    let file = fs::File::create_new(archive).map_err(|error| failed(archive, error))?;
    file.set_permissions(fs::Permissions::from_mode(0o644))
        .map_err(|error| failed(archive, error))?;
    let mut tar = tar::Builder::new(io::BufWriter::new(file));
    let mut report = TransferReport::default();
    let mut brought = Brought::new();
    let excludes = patterns(&options.excludes, OP)?;
    let mut walk = ignore::WalkBuilder::new(from);
    walk.standard_filters(false)
        .hidden(false)
        .follow_links(false)
        .require_git(false);
    walk.ignore(options.ignore_files)
        .git_ignore(options.ignore_files)
        .parents(false);
    let top = from.to_owned();
    walk.filter_entry(move |entry| {
        let Ok(path) = entry.path().strip_prefix(&top) else {
            return true;
        };
        let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
        path.as_os_str().is_empty() || !excludes.matched(path, is_dir).is_ignore()
    });
    for entry in walk.sort_by_file_path(|a, b| a.cmp(b)).build() {
        let entry = entry.map_err(|error| {
            let error = error
                .into_io_error()
                .unwrap_or_else(|| io::Error::other("unreadable"));
            failed(from, error)
        })?;
        let Ok(path) = entry.path().strip_prefix(from) else {
            continue;
        };
        if path.as_os_str().is_empty() {
            continue;
        }
        let problem = |error| failed(entry.path(), error);
        let metadata = fs::symlink_metadata(entry.path()).map_err(problem)?;
        let guest = || GuestPath::new(path.as_os_str().as_bytes());
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&metadata);
        header.set_mode(metadata.permissions().mode() & 0o777);
        header.set_uid(0);
        header.set_gid(0);
        if metadata.is_dir() || metadata.is_symlink() || metadata.is_file() {
            brought.insert(path.as_os_str().as_bytes().to_vec(), metadata.is_dir());
        }
        if metadata.is_dir() {
            report.directories += 1;
            tar.append_data(&mut header, path, io::empty())
                .map_err(problem)?;
        } else if metadata.is_symlink() {
            report.symlinks += 1;
            let target = fs::read_link(entry.path()).map_err(problem)?;
            header.set_size(0);
            tar.append_link(&mut header, path, target)
                .map_err(problem)?;
        } else if metadata.is_file() {
            report.files += 1;
            report.bytes += metadata.len();
            if options.max_bytes.is_some_and(|most| report.bytes > most) {
                return Err(
                    Error::new(ErrorKind::LimitExceeded, OP).with_message(format!(
                        "more than {} bytes",
                        options.max_bytes.unwrap_or_default()
                    )),
                );
            }
            let content = fs::File::open(entry.path()).map_err(problem)?;
            // A file that grows meanwhile must not break the archive; one that shrinks is padded.
            let content = content.chain(io::repeat(0)).take(metadata.len());
            tar.append_data(&mut header, path, content)
                .map_err(problem)?;
        } else {
            report.skip(guest(), "neither file nor directory nor link");
        }
    }
    let finish = || {
        tar.into_inner()?
            .into_inner()
            .map_err(|error| error.into_error())
    };
    finish().map(drop).map_err(|error| failed(archive, error))?;
    Ok((report, brought))
}

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
