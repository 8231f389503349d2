//! A batch of files: staged beside the tree, then put in place; what fails on the way is taken back.
//!
//! It must never leave a part of a file under its name, nor a part of a batch after an error.

use std::ffi::OsString;
use std::io::{self, Write as _};

use rustix::fs::OFlags;
use sandbox_core::{
    Error, ErrorKind, FileBatch, FileKind, FileWrite, GuestPath, Mode, Operation, Result, WriteMode,
};

use super::{GuestTree, Made, at, reopen, split};
use crate::sys::{Dir, finish_file};

const OP: Operation = Operation::WriteFiles;

/// A file that is written and waits for its name.
struct Staged<'a> {
    path: &'a GuestPath,
    name: OsString,
    write: &'a FileWrite,
}

/// A step that was done, to be taken back in reverse.
enum Done {
    Made(Made),
    Put {
        dir: Dir,
        name: OsString,
        /// The staged name of what was there before.
        backup: Option<OsString>,
    },
}

impl GuestTree {
    /// Writes a batch of files, all of them or none; paths that are not absolute start at
    /// `workdir`. See [`Sandbox::write_files`](sandbox_core::Sandbox::write_files).
    ///
    /// # Errors
    /// Those of that method.
    pub fn write(&self, batch: &FileBatch, workdir: &GuestPath) -> Result<()> {
        let files = batch.resolve(workdir)?;
        let mut staged = Vec::with_capacity(files.len());
        let mut written = Ok(());
        for (path, write) in &files {
            let name = self.staged();
            staged.push(Staged {
                path,
                name: name.clone(),
                write,
            });
            written = self.stage(path, write, &name);
            if written.is_err() {
                break;
            }
        }
        let mut backups = Vec::new();
        let put = written.and_then(|()| self.put(&staged, &mut backups));
        // What has its name by now is not there any more; what is left there does no harm.
        for name in staged.into_iter().map(|staged| staged.name).chain(backups) {
            let _ = self.stage.remove_all(&name);
        }
        put
    }

    /// Checks that a file can have its name, and writes it under another one.
    fn stage(&self, path: &GuestPath, write: &FileWrite, name: &OsString) -> Result<()> {
        let io = |error| at(error, OP, path);
        let mode = self.replaced(path, write)?;
        let mode = write.mode.or(mode).unwrap_or(Mode::FILE).bits();
        let mut file = self.stage.create_file(name).map_err(io)?;
        file.write_all(&write.content)
            .and_then(|()| finish_file(&file, mode & 0o777, None))
            // Bits beyond the permissions, where the guest asked for them.
            .and_then(|()| match mode & !0o777 {
                0 => Ok(()),
                _ => self.stage.set_mode_of(name, mode),
            })
            .map_err(io)
    }

    /// The permission bits of the file that is to be replaced.
    fn replaced(&self, path: &GuestPath, write: &FileWrite) -> Result<Option<Mode>> {
        let refuse = |kind, why: &str| {
            Err(Error::new(kind, OP)
                .with_message(why.to_owned())
                .with_path(path))
        };
        let io = |error| at(error, OP, path);
        let (above, name) = split(path, OP)?;
        let dir = match self.dir(&above) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            dir => dir.map_err(io)?,
        };
        let stat = match dir.stat(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            stat => stat.map_err(io)?,
        };
        if write.write_mode == WriteMode::CreateNew {
            return refuse(ErrorKind::AlreadyExists, "a file is already there");
        }
        match stat.kind {
            FileKind::Directory => refuse(ErrorKind::IsADirectory, "a directory is there"),
            FileKind::File => {
                // A rename needs no right to write what it replaces; the contract does.
                let open = self.open(path, OFlags::PATH | OFlags::NOFOLLOW);
                open.and_then(|found| reopen(&found, OFlags::WRONLY))
                    .map_err(io)?;
                Ok(Some(Mode::new(stat.mode)))
            }
            FileKind::Symlink => Ok(None),
            _ => {
                let why = "a FIFO, socket or device is there";
                refuse(ErrorKind::NotARegularFile, why)
            }
        }
    }

    fn put(&self, staged: &[Staged<'_>], backups: &mut Vec<OsString>) -> Result<()> {
        let mut done = Vec::new();
        for file in staged {
            if let Err(error) = self.put_one(file, &mut done, backups) {
                self.take_back(done);
                return Err(at(error, OP, file.path));
            }
        }
        Ok(())
    }

    fn put_one(
        &self,
        file: &Staged<'_>,
        done: &mut Vec<Done>,
        backups: &mut Vec<OsString>,
    ) -> io::Result<()> {
        let Ok((above, name)) = split(file.path, OP) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let (dir, made) = self.make_all(&above, super::PARENT)?;
        done.extend(made.into_iter().map(Done::Made));
        let mut backup = None;
        if file.write.write_mode == WriteMode::CreateNew {
            self.stage.rename_only_new(&file.name, &dir, &name)?;
        } else {
            // A second name keeps the old file there until the rename takes its place.
            let kept = self.staged();
            match dir.link(&name, &self.stage, &kept) {
                Ok(()) => backup = Some(kept),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            backups.extend(backup.clone());
            self.stage.rename(&file.name, &dir, &name)?;
        }
        done.push(Done::Put { dir, name, backup });
        Ok(())
    }

    fn take_back(&self, done: Vec<Done>) {
        for step in done.into_iter().rev() {
            // The first error is the one to tell.
            let _ = match step {
                Done::Made(Made { dir, name }) => dir.remove_dir(&name),
                Done::Put {
                    dir,
                    name,
                    backup: Some(backup),
                } => self.stage.rename(&backup, &dir, &name),
                Done::Put { dir, name, .. } => dir.remove_file(&name),
            };
        }
    }
}
