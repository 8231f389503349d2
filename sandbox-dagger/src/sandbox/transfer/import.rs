//! A directory of the host into the guest: packed here, unpacked there by one command.
//!
//! Invariant: no link of the host is followed.

use super::patterns;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sandbox_core::backend::blocking;
use sandbox_core::{
    DirEntry, Error, ErrorKind, GuestPath, ImportOptions, ListOptions, Operation, Result,
    Sandbox as _, TransferReport,
};

use crate::guest::Script;
use crate::guest::stage::Stage;
use crate::sandbox::DaggerSandbox;
use crate::session::nonce::nonce;
use crate::session::query;

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
        stage.file("run.sh", script.as_bytes(), 0o700)?;
        Ok((stage, report))
    })
    .await?;
    sandbox.alter_staged(&stage, &nonce, OP, to).await?;
    Ok(report)
}

/// What the sandbox has below a directory; nothing if there is none.
async fn list(sandbox: &DaggerSandbox, at: &GuestPath) -> Result<Vec<DirEntry>> {
    let listed = sandbox
        .list_dir(at, ListOptions::default().recursive(true))
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
    file.set_permissions(fs::Permissions::from_mode(0o600))
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
