//! The difference between what a sandbox began with and what it became, by its layers.
//!
//! What was written lies in the layers above those that the sandbox began with, so the cost is that
//! of what was written, and of what was deleted, never of the tree. Marks of deletion and opaque
//! directories mean the same here as to the kernel (Documentation/filesystems/overlayfs.rst). A
//! file is compared by its bytes: a copy that was only touched does not differ.
//!
//! It must be called while the guest stands still. (Directories that the guest closed to itself are
//! opened for the moment; see `walk::Modes`.)

use std::ffi::CStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode as RawMode, OFlags, RawDir, SeekFrom, Stat};
use rustix::io::Errno;
use sandbox_core::{
    Change, Error, ErrorKind, FileKind, FileVersion, GuestPath, Mode, Operation, Result,
};
use sandbox_transfer::changes::ChangeCollector;

use super::compact::is_opaque;
use super::copy;
use crate::guest_user::GuestUser;
use crate::walk::{self, Cancel, Cursor, Limits, Modes, Names, Stop, stat_at};

const OP: Operation = Operation::Changes;

/// Two stacks of layers, each topmost first.
pub(crate) struct Stacks {
    /// Layers that were written since the beginning.
    pub(crate) changed: Vec<copy::From>,
    /// The beginning.
    pub(crate) base: Vec<PathBuf>,
}

/// Why the walk ended early.
enum Fault {
    Stop(Stop),
    Error(Error),
}

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Stop(errno.into())
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Stop(error.into())
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Puts what differs below a directory into the collector.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound) and [`NotADirectory`](ErrorKind::NotADirectory) for the
/// directory, those of the collector, and of a tree beyond the limits.
pub(crate) fn difference(
    stacks: &Stacks,
    directory: &GuestPath,
    collector: &mut ChangeCollector,
    guest_user: Option<GuestUser>,
    limits: Limits,
    cancel: &Cancel,
) -> Result<()> {
    let open = |from: &copy::From| copy::open(from, guest_user).map(Cursor::narrow);
    let changed = stacks
        .changed
        .iter()
        .map(open)
        .collect::<std::result::Result<Vec<_>, Stop>>();
    let base = stacks.base.iter().map(|path| open_base(path, guest_user));
    let base = base.collect::<std::result::Result<Vec<_>, Stop>>();
    let walked = changed
        .and_then(|changed| Ok((changed, base?)))
        .map_err(Fault::Stop);
    let walked = walked.and_then(|(changed, base)| {
        Walk {
            changed,
            base,
            pending: Names::default(),
            levels: Vec::new(),
            path: Vec::new(),
            entries: 0,
            open_up: guest_user.is_none(),
            collector,
            limits,
            cancel,
        }
        .run(directory)
    });
    walked.map_err(|fault| match fault {
        Fault::Stop(stop) => stop.into_error(OP, "the sandbox's files can't be compared"),
        Fault::Error(error) => error,
    })
}

/// Opens a layer of the beginning. One that is a link is a directory of the host: nothing in it is
/// changed, not even for a moment.
fn open_base(path: &Path, guest_user: Option<GuestUser>) -> std::result::Result<Cursor, Stop> {
    if !std::fs::symlink_metadata(path)?.is_symlink() {
        return Ok(copy::open_top(path, guest_user)?.narrow());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(path, flags, RawMode::empty())?;
    Ok(Cursor::layer(&top, Modes::Keep)?.narrow())
}

struct Walk<'a> {
    /// Each at the directory at work, if it takes part in it.
    changed: Vec<Cursor>,
    base: Vec<Cursor>,
    /// Directories that wait for their turn.
    pending: Names,
    levels: Vec<Level>,
    /// Path of the directory at work, relative to the one that was asked about.
    path: Vec<u8>,
    entries: u64,
    open_up: bool,
    collector: &'a mut ChangeCollector,
    limits: Limits,
    cancel: &'a Cancel,
}

/// A directory that is being compared.
struct Level {
    /// The changed layers that have a part in it, topmost first.
    changed: Arc<[usize]>,
    /// The layers of the beginning that have a part in it, topmost first.
    base: Arc<[usize]>,
    /// Whether nothing of the beginning shows through.
    hidden: bool,
    /// Number of directories that waited when it was entered.
    waiting: usize,
    /// Length of the path above it.
    above: usize,
}

/// Which of the two stacks.
#[derive(Clone, Copy)]
enum Side {
    Changed,
    Base,
}

impl Walk<'_> {
    fn run(mut self, directory: &GuestPath) -> std::result::Result<(), Fault> {
        self.levels.push(Level {
            changed: (0..self.changed.len()).collect(),
            base: (0..self.base.len()).collect(),
            hidden: false,
            waiting: 0,
            above: 0,
        });
        for name in directory.components() {
            self.check_dir(name, directory)?;
            self.enter(name)?;
        }
        self.path.clear();
        let top = self.levels.len();
        self.read()?;
        while self.levels.len() > top || self.pending.count() > 0 {
            let waiting = self.levels.last().map_or(0, |level| level.waiting);
            if self.levels.len() > top && self.pending.count() == waiting {
                self.leave();
            } else {
                let name = self.pending.pop();
                self.enter(&name)?;
                self.read()?;
            }
        }
        Ok(())
    }

    /// Refuses a directory that is there neither before nor after.
    fn check_dir(&mut self, name: &[u8], directory: &GuestPath) -> std::result::Result<(), Fault> {
        let name = c_name(name)?;
        let before = self.find(Side::Base, &name)?;
        let after = match self.find(Side::Changed, &name)? {
            Found::Nothing if !self.levels.last().is_some_and(|level| level.hidden) => before,
            found => found,
        };
        let refuse = |kind, message: &str| {
            let error = Error::new(kind, OP).with_message(message);
            Err(error.with_path(directory.clone()).into())
        };
        match (before, after) {
            (Found::Entry(_, stat), _) if is_dir(&stat) => Ok(()),
            (_, Found::Entry(_, stat)) if is_dir(&stat) => Ok(()),
            (Found::Entry(..), _) | (_, Found::Entry(..)) => refuse(
                ErrorKind::NotADirectory,
                "not a directory (no link is followed)",
            ),
            _ => refuse(
                ErrorKind::NotFound,
                "no such directory, neither before nor after",
            ),
        }
    }

    fn cursor(&mut self, side: Side, index: usize) -> Option<&mut Cursor> {
        match side {
            Side::Changed => self.changed.get_mut(index),
            Side::Base => self.base.get_mut(index),
        }
    }

    fn layers(&self, side: Side) -> Arc<[usize]> {
        let level = self.levels.last();
        let layers = level.map(|level| match side {
            Side::Changed => &level.changed,
            Side::Base => &level.base,
        });
        layers.cloned().unwrap_or_default()
    }

    /// Looks up what a stack has at a name of the directory at work.
    fn find(&mut self, side: Side, name: &CStr) -> std::result::Result<Found, Fault> {
        for &index in self.layers(side).iter() {
            let Some(cursor) = self.cursor(side, index) else {
                continue;
            };
            match stat_at(cursor.current()?, name) {
                Ok(stat) if is_mark(&stat) => return Ok(Found::Deleted),
                Ok(stat) => return Ok(Found::Entry(index, stat)),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Found::Nothing)
    }

    /// Goes into a directory, in each layer that has a part in it.
    fn enter(&mut self, name: &[u8]) -> std::result::Result<(), Fault> {
        self.limits.check_depth(self.levels.len())?;
        let hidden = self.levels.last().is_some_and(|level| level.hidden);
        let (changed, hides) = self.push(Side::Changed, name)?;
        let (base, _) = self.push(Side::Base, name)?;
        self.levels.push(Level {
            changed: changed.into(),
            base: base.into(),
            hidden: hidden || hides,
            waiting: self.pending.count(),
            above: self.path.len(),
        });
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        Ok(())
    }

    /// Goes into a directory of one stack: the layers that have a part in it, and whether they hide
    /// what is below them.
    fn push(&mut self, side: Side, name: &[u8]) -> std::result::Result<(Vec<usize>, bool), Fault> {
        let mut layers = Vec::new();
        for &index in self.layers(side).iter() {
            let Some(cursor) = self.cursor(side, index) else {
                continue;
            };
            match cursor.push(name) {
                Ok(()) => layers.push(index),
                Err(Errno::NOENT) => continue,
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok((layers, true)),
                Err(errno) => return Err(errno.into()),
            }
            if is_opaque(cursor.current()?)? {
                return Ok((layers, true));
            }
        }
        Ok((layers, false))
    }

    /// Compares the entries of the directory at work, and notes the directories among them.
    fn read(&mut self) -> std::result::Result<(), Fault> {
        if let Some(level) = self.levels.last_mut() {
            level.waiting = self.pending.count();
        }
        self.names(Side::Changed)?;
        if self.levels.last().is_some_and(|level| level.hidden) {
            self.names(Side::Base)?;
        }
        Ok(())
    }

    /// Compares what one stack names in the directory at work.
    fn names(&mut self, side: Side) -> std::result::Result<(), Fault> {
        let mut buffer = Vec::with_capacity(32 << 10);
        let layers = self.layers(side);
        for (place, index) in layers.iter().enumerate() {
            let Some(cursor) = self.cursor(side, *index) else {
                continue;
            };
            let dir = cursor.current()?.try_clone_to_owned()?;
            rustix::fs::seek(&dir, SeekFrom::Start(0))?;
            let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
            while let Some(entry) = entries.next() {
                let entry = entry?;
                let name = entry.file_name();
                if name == c"." || name == c".." {
                    continue;
                }
                self.cancel.check()?;
                self.entries += 1;
                self.limits.check(self.entries)?;
                let above = layers.get(..place).unwrap_or_default();
                if !self.is_named_above(side, name, above)? {
                    self.entry(name)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a name was compared already, because a layer above has it.
    fn is_named_above(
        &mut self,
        side: Side,
        name: &CStr,
        above: &[usize],
    ) -> std::result::Result<bool, Fault> {
        let of_changed = self.layers(Side::Changed);
        let changed = match side {
            Side::Changed => &[],
            Side::Base => &*of_changed,
        };
        let changed = changed.iter().map(|index| (Side::Changed, *index));
        for (side, index) in changed.chain(above.iter().map(|index| (side, *index))) {
            let Some(cursor) = self.cursor(side, index) else {
                continue;
            };
            match stat_at(cursor.current()?, name) {
                Ok(_) => return Ok(true),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(false)
    }

    /// Compares one entry.
    fn entry(&mut self, name: &CStr) -> std::result::Result<(), Fault> {
        let before = self.find(Side::Base, name)?;
        let after = self.find(Side::Changed, name)?;
        let (before, after) = match (before, after) {
            // Another name of the same file: the layers were merged.
            (Found::Entry(_, old), Found::Entry(_, new))
                if old.st_ino == new.st_ino && old.st_dev == new.st_dev && !is_dir(&old) =>
            {
                return Ok(());
            }
            (before, after) => (before.entry(), after.entry()),
        };
        let dir = [&before, &after]
            .into_iter()
            .flatten()
            .any(|(_, stat)| is_dir(stat));
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        if before.is_none() && after.is_none() || self.collector.is_excluded(&path, dir) {
            return Ok(());
        }
        let is_alone = before.is_none() || after.is_none();
        let before = self.version(Side::Base, before, name, &path, is_alone)?;
        let after = self.version(Side::Changed, after, name, &path, is_alone)?;
        self.collector.push(Change::new(path, before, after))?;
        if dir {
            self.pending.push(name.to_bytes(), self.limits.names)?;
        }
        Ok(())
    }

    /// One side of an entry. The content of a file that has no other side is read only if it is
    /// asked for.
    fn version(
        &mut self,
        side: Side,
        found: Option<(usize, Stat)>,
        name: &CStr,
        path: &[u8],
        is_alone: bool,
    ) -> std::result::Result<Option<FileVersion>, Fault> {
        let Some((index, stat)) = found else {
            return Ok(None);
        };
        let mode = Mode::new(stat.st_mode & 0o7777);
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            _ => FileKind::Device,
        };
        let open_up = self.open_up;
        if kind == FileKind::File {
            let mut version = FileVersion::new(kind, mode, size);
            if !is_alone || self.collector.keeps_contents() {
                self.collector.reserve(path, size)?;
                if let Some(cursor) = self.cursor(side, index) {
                    let file = walk::open_file(cursor.current()?, name, &stat, open_up)?;
                    let mut content = Vec::new();
                    File::from(file.as_fd().try_clone_to_owned()?)
                        .take(size)
                        .read_to_end(&mut content)?;
                    version = version.content(content);
                }
            }
            return Ok(Some(version));
        }
        let version = FileVersion::new(kind, mode, 0);
        if kind == FileKind::Symlink
            && let Some(cursor) = self.cursor(side, index)
        {
            let target = rustix::fs::readlinkat(cursor.current()?, name, Vec::new())?;
            return Ok(Some(version.link_target(target.into_bytes())));
        }
        Ok(Some(version))
    }

    fn leave(&mut self) {
        let Some(level) = self.levels.pop() else {
            return;
        };
        for &index in level.changed.iter() {
            if let Some(cursor) = self.changed.get_mut(index) {
                cursor.pop();
            }
        }
        for &index in level.base.iter() {
            if let Some(cursor) = self.base.get_mut(index) {
                cursor.pop();
            }
        }
        self.path.truncate(level.above);
    }
}

/// State of a stack at a name.
#[derive(Clone, Copy)]
enum Found {
    Nothing,
    /// The mark of a deletion.
    Deleted,
    /// An entry of this layer.
    Entry(usize, Stat),
}

impl Found {
    fn entry(self) -> Option<(usize, Stat)> {
        match self {
            Self::Entry(index, stat) => Some((index, stat)),
            Self::Nothing | Self::Deleted => None,
        }
    }
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Whether it is overlayfs's mark of a deletion.
fn is_mark(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn c_name(name: &[u8]) -> std::result::Result<std::ffi::CString, Fault> {
    std::ffi::CString::new(name).map_err(|_| Errno::INVAL.into())
}
