//! Whole directories: in from the host, out to it, and from one tree to another.
//!
//! Invariant: the host's side is [`scan`](crate::scan)'s and [`Export`]'s alone; below the directory
//! that is written to, no link of the guest is followed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sandbox_core::{
    Error, ErrorKind, ExportOptions, GuestPath, ImportOptions, ListOptions, Operation, Result,
    TransferReport,
};

use super::{Cancel, GuestTree, at, own_path};
use crate::scan::{ENTRIES, Scan, ScanEntry, ScanKind, scan, scan_untrusted};
use crate::sys::{Dir, finish_file};
use crate::{Attributes, Export, sparse};

impl GuestTree {
    /// Brings a directory of the host in. See
    /// [`Sandbox::import_dir`](sandbox_core::Sandbox::import_dir).
    ///
    /// # Errors
    /// Those of that method.
    pub fn import(
        &self,
        from: &Path,
        to: &GuestPath,
        options: &ImportOptions,
        cancel: &Cancel,
    ) -> Result<TransferReport> {
        const OP: Operation = Operation::ImportDir;
        // Nothing is brought of what is refused.
        let mut silently = options.clone();
        silently.progress = None;
        scan(from, &silently, OP, |_| cancel.check(OP))?;
        let (top, _) = self
            .make_all(to, super::PARENT)
            .map_err(|error| at(error, OP, to))?;
        let mut import = Import {
            tree: self,
            to,
            top,
            mirror: options.mirror,
            cancel,
            directories: Vec::new(),
            removed: 0,
            last: None,
        };
        let mut scan = scan(from, options, OP, |entry| {
            cancel.check(OP)?;
            import.entry(entry)
        })?;
        if options.mirror {
            import.remove_what_is_gone(&scan)?;
        }
        import.finish();
        scan.report.removed = import.removed;
        Ok(scan.report)
    }

    /// Brings a directory out to the host. See
    /// [`Sandbox::export_dir`](sandbox_core::Sandbox::export_dir).
    ///
    /// # Errors
    /// Those of that method.
    pub fn export(
        &self,
        from: &GuestPath,
        to: &Path,
        options: &ExportOptions,
        cancel: &Cancel,
    ) -> Result<TransferReport> {
        const OP: Operation = Operation::ExportDir;
        let dir = self.dir(from).map_err(|error| at(error, OP, from))?;
        let source = own_path(dir.fd());
        let mut export = Export::new(to, options)?;
        let mut rules = ImportOptions::new().unreadable(options.unreadable);
        rules.excludes.clone_from(&options.excludes);
        let found = scan_untrusted(&source, &rules, OP, |entry| {
            cancel.check(OP)?;
            let (path, attributes) = (&*entry.path, entry.attributes);
            match entry.kind {
                ScanKind::Directory => export.directory(path, attributes),
                ScanKind::File(content, _) => export.copy(path, attributes, &content),
                ScanKind::Symlink(target) => export.symlink(path, &target, attributes.modified),
            }
        });
        // The scan speaks of the host; what is below the source is the guest's.
        let found = found.map_err(|error| {
            let inside = error
                .host_path()
                .and_then(|path| path.strip_prefix(&source).ok());
            match inside {
                Some(inside) => Error::new(error.kind(), OP)
                    .with_message(error.message().to_owned())
                    .with_path(from.join(inside.as_os_str().as_bytes()))
                    .with_source(error),
                None => error,
            }
        })?;
        for skipped in found.report.skipped {
            export.skip(skipped.path.as_bytes(), &skipped.reason)?;
        }
        cancel.check(OP)?;
        export.finish(found.top)
    }

    /// Copies all that is in this tree into another, empty one: a fork that costs as much as there
    /// is. FIFOs, sockets and what can't be read are left out; so are set-user-ID bits.
    ///
    /// # Errors
    /// What the host says; [`LimitExceeded`](sandbox_core::ErrorKind::LimitExceeded) as for
    /// [`scan_untrusted`](crate::scan_untrusted). The other tree is then good for nothing but to be removed.
    pub fn copy_to(&self, other: &Self, cancel: &Cancel) -> Result<()> {
        const OP: Operation = Operation::Fork;
        let mut import = Import {
            tree: other,
            to: &GuestPath::root(),
            top: other
                .top
                .try_clone()
                .map_err(|error| Error::from_io(error, OP))?,
            mirror: false,
            cancel,
            directories: Vec::new(),
            removed: 0,
            last: None,
        };
        scan_untrusted(
            &own_path(self.top.fd()),
            &ImportOptions::new(),
            OP,
            |entry| {
                cancel.check(OP)?;
                import
                    .entry(entry)
                    .map_err(|error| error.with_operation(OP))
            },
        )?;
        import.finish();
        Ok(())
    }
}

/// A directory of the guest that is being written to.
struct Import<'a> {
    tree: &'a GuestTree,
    to: &'a GuestPath,
    top: Dir,
    mirror: bool,
    cancel: &'a Cancel,
    /// Modes and times of directories come last: one that may not be written would refuse its
    /// entries, and each entry changes its time.
    directories: Vec<(Vec<u8>, Attributes)>,
    removed: u64,
    /// The directory of the last entry.
    last: Option<(Vec<u8>, Dir)>,
}

impl Import<'_> {
    fn fail(&self, error: io::Error, path: &[u8]) -> Error {
        at(error, Operation::ImportDir, &self.to.join(path))
    }

    /// Opens the directory of an entry; no link is followed.
    fn above<'p>(&mut self, path: &'p [u8]) -> io::Result<(Dir, &'p OsStr)> {
        let end = path.iter().rposition(|b| *b == b'/');
        let (above, name) = path.split_at(end.unwrap_or(0));
        let name = OsStr::from_bytes(name.strip_prefix(b"/").unwrap_or(name));
        // Down from the last one, so that a deep tree costs no more than its directories.
        let below = self.last.take().and_then(|(known, dir)| {
            let rest = above.strip_prefix(known.as_slice())?;
            (rest.is_empty() || rest.starts_with(b"/")).then_some((dir, rest))
        });
        let (mut dir, rest) = match below {
            Some(below) => below,
            None => (self.top.try_clone()?, above),
        };
        for part in rest.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            dir = dir.open_dir(OsStr::from_bytes(part))?;
        }
        self.last = Some((above.to_vec(), dir.try_clone()?));
        Ok((dir, name))
    }

    fn entry(&mut self, entry: ScanEntry) -> Result<()> {
        let path = &*entry.path;
        let (dir, name) = self.above(path).map_err(|error| self.fail(error, path))?;
        let there = dir.stat(name).ok();
        let is_dir = matches!(entry.kind, ScanKind::Directory);
        if self.mirror && there.as_ref().is_some_and(|there| there.is_dir() != is_dir) {
            dir.remove_all(&name.to_owned())
                .map_err(|error| self.fail(error, path))?;
            self.removed += 1;
        }
        let put = match entry.kind {
            ScanKind::Directory => self.directory(&dir, name, path, entry.attributes),
            ScanKind::File(content, _) => {
                let staged = self.tree.staged();
                let put = self.file(&content, &staged, entry.attributes);
                put.and_then(|()| self.place(&staged, &dir, name, path))
            }
            ScanKind::Symlink(target) => {
                let staged = self.tree.staged();
                let made = self.tree.stage.symlink(&target, &staged);
                if let (Ok(()), Some(modified)) = (&made, entry.attributes.modified) {
                    self.tree.stage.set_time_of(&staged, modified);
                }
                made.map_err(|error| self.fail(error, path))
                    .and_then(|()| self.place(&staged, &dir, name, path))
            }
        };
        put.map_err(|error| match error.path() {
            Some(_) => error,
            None => error.with_path(self.to.join(path)),
        })
    }

    fn directory(
        &mut self,
        dir: &Dir,
        name: &OsStr,
        path: &[u8],
        attributes: Attributes,
    ) -> Result<()> {
        match dir.make_dir(name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let there = dir.stat(name).map_err(|error| self.fail(error, path))?;
                if !there.is_dir() {
                    let error = io::ErrorKind::NotADirectory.into();
                    return Err(self.fail(error, path));
                }
                // Its owner may have shut it.
                let _ = dir.set_mode_of(name, there.mode | 0o700);
            }
            made => made.map_err(|error| self.fail(error, path))?,
        }
        self.directories.push((path.to_vec(), attributes));
        Ok(())
    }

    /// Writes a file beside the tree.
    fn file(
        &self,
        content: &std::fs::File,
        staged: &OsString,
        attributes: Attributes,
    ) -> Result<()> {
        const OP: Operation = Operation::ImportDir;
        let stage = &self.tree.stage;
        let io = |error| Error::from_io(error, OP);
        let file = stage.create_file(staged).map_err(io)?;
        let copied = sparse::copy(content, &file, u64::MAX, &mut || !self.cancel.is_set());
        let finished = match copied {
            Ok(_) => finish_file(&file, attributes.mode, attributes.modified).map_err(io),
            Err(sparse::CopyError::Read(error) | sparse::CopyError::Write(error)) => Err(io(error)),
            Err(_) => Err(Error::new(ErrorKind::Other, OP).with_message("given up by the caller")),
        };
        if finished.is_err() {
            // What is left there does no harm.
            let _ = stage.remove_file(staged);
        }
        finished
    }

    /// Gives a staged entry its name; a file or link that has it is replaced.
    fn place(&self, staged: &OsString, dir: &Dir, name: &OsStr, path: &[u8]) -> Result<()> {
        self.tree.stage.rename(staged, dir, name).map_err(|error| {
            let _ = self.tree.stage.remove_file(staged);
            self.fail(error, path)
        })
    }

    /// Removes what the guest has and the host has not, unless it is excluded.
    fn remove_what_is_gone(&mut self, scan: &Scan) -> Result<()> {
        const OP: Operation = Operation::ImportDir;
        let most = usize::try_from(ENTRIES).unwrap_or(usize::MAX);
        let everything = ListOptions::new().recursive(true).limit(most);
        let there = self.tree.list(self.to, &everything);
        let there = there.map_err(|error| error.with_operation(OP))?;
        // Children before parents; a parent that keeps something excluded stays.
        for entry in there.iter().rev() {
            let path = entry.path.as_bytes();
            if !scan.is_gone(path, entry.metadata.is_dir()) {
                continue;
            }
            let (dir, name) = self.above(path).map_err(|error| self.fail(error, path))?;
            if entry.metadata.is_dir() {
                self.removed += u64::from(dir.remove_dir(name).is_ok());
            } else {
                dir.remove_file(name)
                    .map_err(|error| self.fail(error, path))?;
                self.removed += 1;
            }
        }
        Ok(())
    }

    fn finish(&mut self) {
        for (path, attributes) in std::mem::take(&mut self.directories).iter().rev() {
            let Ok((dir, name)) = self.above(path) else {
                continue;
            };
            if let Some(modified) = attributes.modified {
                dir.set_time_of(name, modified);
            }
            // Its owner is this user, who made it.
            let _ = dir.set_mode_of(name, attributes.mode);
        }
    }
}
