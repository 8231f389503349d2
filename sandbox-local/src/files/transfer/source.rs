//! Reading a tree for a transfer.
//!
//! Invariant: only regular files are opened, by a descriptor that was seen to be one; no link is
//! followed; a link that could lead out of an exported directory is not handed over.

use std::collections::{HashMap, HashSet};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::mpsc;

use rustix::fs::{OFlags, openat, readlinkat};
use rustix::io::Errno;
use sandbox_core::{Error, ErrorKind, FileKind, Result, TransferReport, Unreadable};
use sandbox_transfer::{Excludes, IgnoreFiles, is_excluded, leads_out};

use super::super::place::Place;
use super::super::resolve::reopen;
use super::super::stat::{Stat, stat_fd};
use super::super::walk::{Found, Visitor, walk};
use super::filter::ignore_files;
use super::{Event, check, too_many_bytes};
use crate::walk::Cancel;

pub(super) type Sender = mpsc::SyncSender<Event>;
pub(super) type Receiver = mpsc::Receiver<Event>;

/// Rules for what is read, and how much of it.
pub(super) struct Rules<'a> {
    pub(super) excludes: &'a Excludes,
    /// Whether `.gitignore` and `.ignore` files are heeded.
    pub(super) ignore_files: bool,
    /// Whether links that could lead out of the directory are left behind.
    pub(super) confine_links: bool,
    /// Whether something mounted in the tree is an error.
    pub(super) refuse_mounts: bool,
    pub(super) max_bytes: Option<u64>,
    pub(super) max_entries: Option<u64>,
    pub(super) unreadable: Unreadable,
    pub(super) cancel: &'a Cancel,
}

/// Inventory of a tree, with the rules for what it has not.
#[derive(Default)]
pub(super) struct Inventory {
    /// By path: whether it is a directory.
    pub(super) entries: HashMap<Vec<u8>, bool>,
    /// Directories that could not be read, so that nothing is known of what is below.
    pub(super) unreadable: HashSet<Vec<u8>>,
    /// By directory; only if ignore files are heeded.
    pub(super) ignore_files: HashMap<Vec<u8>, IgnoreFiles>,
}

/// Hands over the tree below `top`, and reports what was left behind.
pub(super) fn send(
    top: &OwnedFd,
    place: &Place,
    rules: &Rules<'_>,
    sender: Sender,
) -> Result<TransferReport> {
    let mut source = Source::new(place, rules, Output::Events(sender));
    walk(top, place, &mut source)?;
    Ok(source.report)
}

/// Notes what is in the tree below `top` without opening a file.
pub(super) fn take_inventory(top: &OwnedFd, place: &Place, rules: &Rules<'_>) -> Result<Inventory> {
    let mut inventory = Inventory::default();
    let mut source = Source::new(place, rules, Output::Inventory(&mut inventory));
    walk(top, place, &mut source)?;
    drop(source);
    Ok(inventory)
}

enum Output<'a> {
    Events(Sender),
    Inventory(&'a mut Inventory),
}

struct Source<'a> {
    place: &'a Place,
    rules: &'a Rules<'a>,
    output: Output<'a>,
    /// Of the directories that the walk is in.
    ignore_files: Vec<IgnoreFiles>,
    entries: u64,
    bytes: u64,
    report: TransferReport,
}

impl<'a> Source<'a> {
    fn new(place: &'a Place, rules: &'a Rules<'a>, output: Output<'a>) -> Self {
        Self {
            place,
            rules,
            output,
            ignore_files: Vec::new(),
            entries: 0,
            bytes: 0,
            report: TransferReport::default(),
        }
    }

    fn emit(&self, event: Event) -> Result<()> {
        match &self.output {
            // The sink has failed and says why itself.
            Output::Events(sender) => sender
                .send(event)
                .map_err(|_| self.place.error(ErrorKind::Other, b"", "stopped")),
            Output::Inventory(_) => Ok(()),
        }
    }

    fn count(&mut self) -> Result<()> {
        self.entries += 1;
        match self.rules.max_entries {
            Some(limit) if self.entries > limit => Err(self
                .place
                .error(
                    ErrorKind::LimitExceeded,
                    b"",
                    format!("more than the limit of {limit} entries"),
                )
                .with_hint("raise max_entries, or exclude something")),
            _ => Ok(()),
        }
    }

    fn file(&mut self, found: &Found<'_>) -> Result<()> {
        let fail = |errno| self.place.fail(errno, found.path);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = match openat(found.dir, found.name, flags, rustix::fs::Mode::empty()) {
            Ok(handle) => handle,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(fail(errno)),
        };
        let stat = stat_fd(&handle).map_err(fail)?;
        if !stat.is_file() {
            self.report.skip(found.path, "changed at the same time");
            return Ok(());
        }
        let bytes = self.bytes.saturating_add(stat.size);
        if let Some(limit) = self.rules.max_bytes.filter(|limit| bytes > *limit) {
            return Err(too_many_bytes(self.place, limit));
        }
        let content = match reopen(&handle, OFlags::RDONLY) {
            Ok(content) => content,
            Err(errno @ Errno::ACCESS) => return self.unreadable(found.path, fail(errno)),
            Err(errno) => return Err(fail(errno)),
        };
        self.bytes = bytes;
        self.emit(Event::File {
            name: found.name.to_bytes().to_vec(),
            stat,
            content: content.into(),
        })
    }

    fn link(&mut self, found: &Found<'_>) -> Result<()> {
        let target = match readlinkat(found.dir, found.name, Vec::new()) {
            Ok(target) => target.into_bytes(),
            Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
            Err(errno) => return Err(self.place.fail(errno, found.path)),
        };
        if self.rules.confine_links
            && let Some(reason) = leads_out(found.path, &target)
        {
            self.report.skip(found.path, reason);
            return Ok(());
        }
        self.emit(Event::Link {
            name: found.name.to_bytes().to_vec(),
            target,
            modified: found.stat.modified,
        })
    }
}

impl Visitor for Source<'_> {
    fn entry(&mut self, found: &Found<'_>) -> Result<bool> {
        check(self.rules.cancel, self.place)?;
        let above: Vec<&IgnoreFiles> = self.ignore_files.iter().collect();
        if is_excluded(self.rules.excludes, &above, found.path, found.stat.is_dir()) {
            return Ok(false);
        }
        if self.rules.refuse_mounts && found.stat.mounted {
            return Err(self.place.mounted(found.path));
        }
        self.count()?;
        if let Output::Inventory(inventory) = &mut self.output {
            let is_dir = found.stat.is_dir();
            inventory.entries.insert(found.path.to_vec(), is_dir);
            return Ok(is_dir);
        }
        match found.stat.kind {
            FileKind::Directory => return Ok(true),
            FileKind::File => self.file(found)?,
            FileKind::Symlink => self.link(found)?,
            FileKind::Fifo => self.report.skip(found.path, "a FIFO"),
            FileKind::Socket => self.report.skip(found.path, "a socket"),
            _ => self.report.skip(found.path, "a device"),
        }
        Ok(false)
    }

    fn enter(&mut self, dir: BorrowedFd<'_>, path: &[u8], stat: &Stat) -> Result<()> {
        if self.rules.ignore_files {
            let files = ignore_files(dir, path, self.place)?;
            if let Output::Inventory(inventory) = &mut self.output {
                inventory.ignore_files.insert(path.to_vec(), files.clone());
            }
            self.ignore_files.push(files);
        }
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        if path.is_empty() {
            return Ok(());
        }
        self.emit(Event::Enter {
            name: name.to_vec(),
            stat: *stat,
        })
    }

    fn leave(&mut self, path: &[u8]) -> Result<()> {
        self.ignore_files.pop();
        if path.is_empty() {
            return Ok(());
        }
        self.emit(Event::Leave)
    }

    fn unreadable(&mut self, path: &[u8], error: Error) -> Result<()> {
        if self.rules.unreadable != Unreadable::Skip {
            return Err(error);
        }
        self.report.skip(path, "can't be read: permission denied");
        if let Output::Inventory(inventory) = &mut self.output {
            inventory.unreadable.insert(path.to_vec());
        }
        Ok(())
    }

    fn made_up(&mut self, path: &[u8]) {
        self.report
            .skip(path, "a filesystem that the kernel makes up");
    }
}
