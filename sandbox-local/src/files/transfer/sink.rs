//! Writing a transferred tree.
//!
//! What goes into a new directory is written straight into it while that still has a staged name;
//! a file in a directory that exists already is staged beside its place. One rename then puts
//! either in place whole.
//!
//! Invariant: no link at the destination is followed, and nothing but regular files, links and
//! empty directories is replaced.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{
    Access, AtFlags, Mode, OFlags, StatxTimestamp, Timespec, Timestamps, accessat, futimens,
    mkdirat, renameat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use sandbox_core::{Error, ErrorKind, Result, TransferProgress, TransferReport};
use sandbox_transfer::sparse::{self, CopyError};

use super::super::place::Place;
use super::super::resolve::{DIR_PATH, DIR_READ, open_same_mount, reopen, set_mode};
use super::super::stat::{Stat, find_at, stat_fd};
use super::super::tree::remove_tree;
use super::super::write::{Modes, create_file};
use super::source::Receiver;
use super::{Event, check, too_many_bytes};
use crate::walk::{Cancel, Cursor, Mounts};

/// Destination of a tree, and the rules by which it is written.
pub(super) struct Destination<'a> {
    /// Of the top directory.
    pub(super) place: &'a Place,
    /// Of the top directory that is read, for errors about it.
    pub(super) source: &'a Place,
    /// Whether the top directory is not visible yet, so that nothing has to be staged in it.
    pub(super) unseen: bool,
    /// Whether files and directories keep the time of their last change.
    pub(super) keep_times: bool,
    pub(super) max_bytes: Option<u64>,
    /// Of the names under which it stages; nothing is staged in what is not visible yet.
    pub(super) prefix: String,
    pub(super) cancel: &'a Cancel,
    pub(super) progress: Option<&'a TransferProgress>,
}

/// Writes what the receiver gives below `top`, and counts it.
pub(super) fn receive(
    top: OwnedFd,
    destination: &Destination<'_>,
    events: Receiver,
) -> Result<TransferReport> {
    let mut sink = Sink {
        to: destination,
        stack: Cursor::new(top, DIR_PATH, Mounts::Enter),
        levels: Vec::new(),
        staged: None,
        counter: 0,
        report: TransferReport::default(),
    };
    for event in events {
        if let Err(error) = sink.handle(event) {
            sink.abandon();
            return Err(error);
        }
    }
    // The source may have ended early, with a directory begun; then this is not the success.
    if sink.staged.is_some() {
        sink.abandon();
    }
    Ok(sink.report)
}

struct Sink<'a> {
    to: &'a Destination<'a>,
    stack: Cursor,
    levels: Vec<Level>,
    /// The new directory that is not in place yet.
    staged: Option<Staged>,
    counter: u64,
    report: TransferReport,
}

/// A directory on the stack.
struct Level {
    /// Final name.
    name: Vec<u8>,
    /// The mode that it gets at the end.
    mode: Option<u32>,
    modified: StatxTimestamp,
}

struct Staged {
    name: Vec<u8>,
    /// Depth.
    depth: usize,
}

impl Sink<'_> {
    fn handle(&mut self, event: Event) -> Result<()> {
        check(self.to.cancel, self.to.place)?;
        match event {
            Event::Enter { name, stat } => self.enter(name, &stat),
            Event::File {
                name,
                stat,
                content,
            } => self.file(&name, &stat, &content),
            Event::Link {
                name,
                target,
                modified,
            } => self.link(&name, &target, modified),
            Event::Leave => self.leave(),
        }
    }

    /// Whether the directory at work is not visible yet.
    fn unseen(&self) -> bool {
        self.to.unseen || self.staged.is_some()
    }

    fn enter(&mut self, name: Vec<u8>, from: &Stat) -> Result<()> {
        let mode = from.permissions();
        let path = self.path(&name);
        let fail = |errno| fail(self.to.place, errno, &path);
        let unseen = self.unseen();
        let existing = if unseen {
            None
        } else {
            find_at(self.stack.current().map_err(fail)?, &name).map_err(fail)?
        };
        let mut level_mode = Some(mode);
        match existing {
            Some(stat) if stat.is_dir() => {
                self.stack.push(&name).map_err(fail)?;
                // An import reflects the host's modes; an export leaves the host's directories as
                // they are.
                let kept = stat.permissions();
                let wanted = if self.to.place.is_guest() { mode } else { kept };
                level_mode = (wanted != kept).then_some(wanted);
                if kept & 0o300 != 0o300 {
                    // Its owner has shut it and may open it until it is complete.
                    let _ = set_mode(self.stack.current().map_err(fail)?, stat.mode | 0o700);
                    level_mode = Some(wanted);
                }
            }
            Some(_) => {
                return Err(self
                    .to
                    .place
                    .error(
                        ErrorKind::NotADirectory,
                        &path,
                        "something that is not a directory is there",
                    )
                    .with_hint("remove it first"));
            }
            None => {
                let own = if unseen {
                    name.clone()
                } else {
                    self.next_name()
                };
                // Usable by its owner until it is complete.
                let usable = Mode::from_raw_mode(mode | 0o700);
                mkdirat(self.stack.current().map_err(fail)?, &*own, usable).map_err(fail)?;
                if !unseen {
                    self.staged = Some(Staged {
                        name: own.clone(),
                        depth: self.stack.depth() + 1,
                    });
                }
                self.stack.push(&own).map_err(fail)?;
            }
        }
        self.levels.push(Level {
            name,
            mode: level_mode,
            modified: from.modified,
        });
        self.report.directories += 1;
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let path = self.path(b"");
        let fail = |errno| fail(self.to.place, errno, &path);
        let Some(level) = self.levels.pop() else {
            return Ok(());
        };
        if let Some(mode) = level.mode {
            let dir = self.stack.current().map_err(fail)?;
            let stat = stat_fd(dir).map_err(fail)?;
            if stat.permissions() != mode {
                // What a setgid directory has passed on is its parent's affair.
                match set_mode(dir, mode | stat.mode & 0o7000) {
                    // A directory of another user that was there before keeps its mode.
                    Err(Errno::PERM) if self.staged.is_none() && !self.to.unseen => {}
                    set => set.map_err(fail)?,
                }
            }
        }
        if self.to.keep_times {
            let dir = self.stack.current().map_err(fail)?;
            keep_time(dir, level.modified).map_err(fail)?;
        }
        let depth = self.stack.depth();
        self.stack.pop();
        if self
            .staged
            .as_ref()
            .is_some_and(|staged| staged.depth == depth)
        {
            let dir = self.stack.current().map_err(fail)?;
            if let Some(staged) = &self.staged {
                // Of directories only an empty one is ever replaced by this.
                renameat(dir, &*staged.name, dir, &*level.name).map_err(fail)?;
            }
            self.staged = None;
        }
        Ok(())
    }

    fn file(&mut self, name: &[u8], from: &Stat, content: &File) -> Result<()> {
        let path = self.path(name);
        let staged = self.place_for(name, &path)?;
        let own = staged.as_deref().unwrap_or(name);
        let written = self.write(own, from, content, &path);
        let dir = self
            .stack
            .current()
            .map_err(|errno| fail(self.to.place, errno, &path))?;
        let placed = written.and_then(|bytes| {
            put_in_place(dir, staged.as_deref(), name)
                .map_err(|errno| fail(self.to.place, errno, &path))?;
            Ok(bytes)
        });
        match placed {
            Ok(bytes) => {
                self.report.files += 1;
                self.report.bytes += bytes;
                if let Some(progress) = self.to.progress {
                    progress.tell(&self.report);
                }
                Ok(())
            }
            Err(error) => {
                if let Some(staged) = staged {
                    let _ = unlinkat(dir, &*staged, AtFlags::empty());
                }
                Err(error)
            }
        }
    }

    fn write(&mut self, own: &[u8], from: &Stat, content: &File, path: &[u8]) -> Result<u64> {
        let Destination {
            place,
            source,
            max_bytes,
            cancel,
            keep_times,
            ..
        } = *self.to;
        // Directories differ in their ACLs, so that nothing is known from the last file.
        let mut modes = Modes::default();
        let file = self
            .stack
            .current()
            .and_then(|dir| create_file(dir, own, from.permissions(), &mut modes))
            .map_err(|errno| fail(place, errno, path))?;
        let file = File::from(file);
        let allowed = max_bytes.map_or(u64::MAX, |limit| limit.saturating_sub(self.report.bytes));
        let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        sparse::copy(content, &file, allowed, &mut || cancel.check().is_ok())
            .map_err(|error| match error {
                CopyError::Read(error) => source.fail(errno(error), path),
                CopyError::Write(error) => place.fail(errno(error), path),
                CopyError::TooLarge => too_many_bytes(source, max_bytes.unwrap_or(u64::MAX)),
                CopyError::Cancelled => place.error(ErrorKind::Other, b"", "cancelled"),
            })
            .inspect(|_| {
                if keep_times {
                    // What the filesystem can't keep costs a rebuild at most.
                    let _ = futimens(&file, &times(from.modified));
                }
            })
    }

    fn link(&mut self, name: &[u8], target: &[u8], modified: StatxTimestamp) -> Result<()> {
        let path = self.path(name);
        let staged = self.place_for(name, &path)?;
        let own = staged.as_deref().unwrap_or(name);
        let fail = |errno| fail(self.to.place, errno, &path);
        let dir = self.stack.current().map_err(fail)?;
        symlinkat(target, dir, own).map_err(fail)?;
        if self.to.keep_times {
            let _ = utimensat(dir, own, &times(modified), AtFlags::SYMLINK_NOFOLLOW);
        }
        if let Err(errno) = put_in_place(dir, staged.as_deref(), name) {
            let _ = unlinkat(dir, own, AtFlags::empty());
            return Err(fail(errno));
        }
        self.report.symlinks += 1;
        Ok(())
    }

    /// Looks at what is where a file or link is to be; gives the name to stage it under, or
    /// `None` if it can be written under its own.
    fn place_for(&mut self, name: &[u8], path: &[u8]) -> Result<Option<Vec<u8>>> {
        if self.unseen() {
            return Ok(None);
        }
        let place = self.to.place;
        let dir = self
            .stack
            .current()
            .map_err(|errno| fail(place, errno, path))?;
        if let Some(stat) = find_at(dir, name).map_err(|errno| fail(place, errno, path))? {
            if stat.is_dir() {
                return Err(place
                    .error(ErrorKind::IsADirectory, path, "a directory is there")
                    .with_hint("remove it first"));
            }
            if stat.mounted {
                return Err(place.mounted(path));
            }
            if place.is_guest() && stat.is_file() {
                // Renaming over it would need no right to the file itself: its owner may, whatever
                // its mode is, and else who may write to it.
                let flags = AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW;
                accessat(dir, name, Access::WRITE_OK, flags)
                    .or_else(|errno| owned(dir, name, &stat).map_err(|_| errno))
                    .map_err(|errno| fail(place, errno, path))?;
            }
        }
        Ok(Some(self.next_name()))
    }

    fn next_name(&mut self) -> Vec<u8> {
        self.counter += 1;
        format!("{}{}", self.to.prefix, self.counter).into_bytes()
    }

    /// The path of an entry of the directory at work, by final names.
    fn path(&self, name: &[u8]) -> Vec<u8> {
        let mut parts: Vec<&[u8]> = self.levels.iter().map(|level| &*level.name).collect();
        if !name.is_empty() {
            parts.push(name);
        }
        parts.join(&b'/')
    }

    /// Removes the new directory that is not in place.
    fn abandon(&mut self) {
        let Some(staged) = self.staged.take() else {
            return;
        };
        while self.stack.depth() >= staged.depth {
            self.stack.pop();
        }
        if let Ok(dir) = self.stack.current() {
            let _ = remove_tree(dir, &staged.name, self.to.place);
        }
    }
}

/// Whether a file is the current user's: only its owner may set its mode, here to what it is.
fn owned(dir: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> rustix::io::Result<()> {
    set_mode(
        open_same_mount(dir, name, OFlags::PATH | OFlags::NOFOLLOW)?,
        stat.mode,
    )
}

fn put_in_place(dir: BorrowedFd<'_>, staged: Option<&[u8]>, name: &[u8]) -> rustix::io::Result<()> {
    match staged {
        Some(staged) => renameat(dir, staged, dir, name),
        None => Ok(()),
    }
}

/// Gives a directory the time of its last change.
fn keep_time(dir: BorrowedFd<'_>, modified: StatxTimestamp) -> rustix::io::Result<()> {
    // A descriptor by `O_PATH` takes no times; a directory that can't be read keeps the new one.
    match reopen(dir, DIR_READ) {
        Ok(dir) => {
            // As with files; a directory of another user that was there keeps its own.
            let _ = futimens(&dir, &times(modified));
            Ok(())
        }
        Err(Errno::ACCESS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn times(modified: StatxTimestamp) -> Timestamps {
    let modified = Timespec {
        tv_sec: modified.tv_sec,
        tv_nsec: modified.tv_nsec.into(),
    };
    Timestamps {
        last_access: modified,
        last_modification: modified,
    }
}

/// Error for the kernel's answer about an entry; some of it can only come of a change at the same
/// time.
fn fail(place: &Place, errno: Errno, path: &[u8]) -> Error {
    match errno {
        Errno::NOENT | Errno::EXIST | Errno::NOTEMPTY | Errno::LOOP | Errno::NOTDIR => {
            place.changed(path)
        }
        errno => place.fail(errno, path),
    }
}
