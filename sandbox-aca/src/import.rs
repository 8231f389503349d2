//! `import_dir`: the host's directory goes as one tar and is put in place from beside.
//!
//! It must never follow a link of the host, and never open a FIFO, socket or device.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::WalkBuilder;
use sandbox_core::{
    Error, ErrorKind, FileKind, GuestPath, ImportOptions, Operation, Result, TransferReport,
};

use crate::carrier::Carrier;
use crate::handle::{Inner, fresh};
use crate::transfer::{patterns, skipped};

const OP: Operation = Operation::ImportDir;

/// A packed directory.
struct Packed {
    tar: Vec<u8>,
    report: TransferReport,
    /// Everything that was brought, and whether it is a directory.
    brought: BTreeSet<(PathBuf, bool)>,
}

impl<C: Carrier> Inner<C> {
    pub(crate) async fn import_dir(
        self: Arc<Self>,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        self.open(OP)?;
        let to = self.resolve(to, OP)?;
        let (top, given) = (from.to_owned(), options.clone());
        let packed = tokio::task::spawn_blocking(move || pack(&top, &given)).await;
        let packed =
            packed.map_err(|e| self.named(Error::new(ErrorKind::Other, OP).with_source(e)))?;
        let Packed {
            tar,
            mut report,
            brought,
        } = packed.map_err(|error| self.named(error))?;
        let (dir, _) = fresh(C::STAGING);
        let mut gone: Vec<Vec<u8>> = Vec::new();
        if options.mirror {
            gone = self.gone(from, &to, &options, &brought).await?;
            report.removed = gone.len() as u64;
        }
        let mut bytes = Vec::new();
        for path in &gone {
            bytes.extend_from_slice(path);
            bytes.push(0);
        }
        let parts = self.upload(OP, &dir, tar).await?;
        if !bytes.is_empty() {
            let file = format!("{dir}/gone");
            let put = self
                .http
                .put_file(OP, self.id.as_str(), &file, bytes.into())
                .await;
            put.map_err(|failure| self.failed(failure))?;
        }
        let mut script = self.files_script(&dir).text("to=");
        script.quoted(to.as_bytes());
        // Staged within the directory itself, so that what is put in place is a second name, and whole.
        let script = script.text(&format!(
            r#"
x=$(LC_ALL=C mkdir -p -- "$to" 2>&1) || {{ case $x in *'File exists'*) no NOTDIR ;; esac; denied "$x"; }}
[ -d "$to" ] || no NOTDIR
cat {parts} > "$d/tar" || no NOSPACE
rm -f {parts}
n=$to/.sandbox-new-$$
trap 'chmod -R u+rwX "$n" 2> /dev/null; rm -rf "$d" "$n"' EXIT
x=$(LC_ALL=C mkdir -- "$n" 2>&1) || denied "$x"
x=$(LC_ALL=C tar -xpf "$d/tar" -C "$n" --no-same-owner 2>&1) || denied "$x"
if [ -e "$d/gone" ]; then
  cd "$to" && xargs -0 -r rm -f -- < "$d/gone" 2> /dev/null
  tr '\0\n' '\n\0' < "$d/gone" | tac | tr '\0\n' '\n\0' | xargs -0 -r rmdir -- 2> /dev/null
  cd /
fi
x=$(LC_ALL=C cp -aflT --remove-destination "$n" "$to" 2>&1) || x=$(LC_ALL=C cp -afT --remove-destination "$n" "$to" 2>&1) || denied "$x"
echo OK
"#
        ));
        self.helper(OP, script, &dir, &[&to]).await?;
        Ok(report)
    }

    /// What the guest's directory has and the host's does not; children before parents.
    async fn gone(
        &self,
        from: &Path,
        to: &GuestPath,
        options: &ImportOptions,
        brought: &BTreeSet<(PathBuf, bool)>,
    ) -> Result<Vec<Vec<u8>>> {
        let there = match self.list_at(OP, to, "", 10_000_000).await {
            Ok(there) => there,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let rules = patterns(from, &options.excludes, OP).map_err(|error| self.named(error))?;
        let mut gone = Vec::new();
        for entry in there {
            let relative = PathBuf::from(OsStr::from_bytes(entry.path.as_bytes()));
            let is_dir = entry.metadata.is_dir();
            let kept = rules
                .matched_path_or_any_parents(&relative, is_dir)
                .is_ignore();
            if !kept && !brought.contains(&(relative, is_dir)) {
                // `./` in front: a name may begin with a hyphen.
                gone.push([b"./", entry.path.as_bytes()].concat());
            }
        }
        gone.sort();
        Ok(gone)
    }
}

fn pack(from: &Path, options: &ImportOptions) -> Result<Packed> {
    let host = |e: io::Error, path: &Path| Error::from_io(e, OP).with_host_path(path);
    fs::read_dir(from).map_err(|e| host(e, from))?;
    let top = fs::canonicalize(from).map_err(|e| host(e, from))?;
    let rules = patterns(&top, &options.excludes, OP)?;
    let walker = WalkBuilder::new(&top)
        .standard_filters(false)
        .ignore(options.ignore_files)
        .git_ignore(options.ignore_files)
        .require_git(false)
        .sort_by_file_name(OsStr::cmp)
        .filter_entry(move |entry| {
            let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
            entry.depth() == 0 || !rules.matched(entry.path(), is_dir).is_ignore()
        })
        .build();
    let mut packed = Packed {
        tar: Vec::new(),
        report: TransferReport::default(),
        brought: BTreeSet::new(),
    };
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    for entry in walker {
        let entry = entry.map_err(|e| {
            let kind = e.io_error().map_or(io::ErrorKind::Other, io::Error::kind);
            host(kind.into(), from).with_source(e)
        })?;
        let path = entry.path();
        let relative = path.strip_prefix(&top).unwrap_or(path).to_owned();
        if relative.as_os_str().is_empty() {
            continue;
        }
        let meta = fs::symlink_metadata(path).map_err(|e| host(e, path))?;
        let report = &mut packed.report;
        let mut header = tar::Header::new_gnu();
        header.set_mode(meta.permissions().mode() & 0o777);
        let modified = meta.modified().ok();
        let modified = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        header.set_mtime(modified.map_or(0, |since| since.as_secs()));
        let kind = meta.file_type();
        let added = if kind.is_dir() {
            report.directories += 1;
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            tar.append_data(&mut header, &relative, io::empty())
        } else if kind.is_symlink() {
            report.symlinks += 1;
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            fs::read_link(path).and_then(|target| tar.append_link(&mut header, &relative, target))
        } else if kind.is_file() {
            let content = read(path).map_err(|e| host(e, path))?;
            report.files += 1;
            report.bytes += content.len() as u64;
            if let Some(limit) = options.max_bytes.filter(|limit| report.bytes > *limit) {
                return Err(Error::new(ErrorKind::LimitExceeded, OP)
                    .with_message(format!("more than {limit} bytes"))
                    .with_host_path(from));
            }
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, &relative, content.as_slice())
        } else {
            let kind = match kind {
                kind if kind.is_fifo() => FileKind::Fifo,
                kind if kind.is_socket() => FileKind::Socket,
                _ => FileKind::Device,
            };
            report.skip(
                GuestPath::new(relative.as_os_str().as_bytes()),
                skipped(kind),
            );
            continue;
        };
        added.map_err(|e| host(e, path))?;
        packed.brought.insert((relative, kind.is_dir()));
    }
    packed.tar = tar.into_inner().map_err(|e| host(e, from))?;
    Ok(packed)
}

/// A file whole; one that turned into something else in between is not waited for.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::OpenOptionsExt as _;
    const NONBLOCK_NOFOLLOW: i32 = 0o4000 | 0o400_000;
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .read(true)
        .custom_flags(NONBLOCK_NOFOLLOW)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut content = Vec::new();
    io::Read::read_to_end(&mut file, &mut content)?;
    Ok(content)
}
