//! Plan of a batch: the place of each file, and whether it may be written there.
//!
//! Invariant: nothing is written here.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;
use sandbox_core::{
    ErrorKind, FileKind, FileWrite, GuestPath, Mode as FileMode, Operation, Result, WriteMode,
};

use super::super::GuestRoot;
use super::super::place::Place;
use super::super::resolve::DIR_PATH;
use super::super::stat::{find_at, stat_fd};
use super::staged_prefix;

/// Limit of directories that a batch holds open; those beyond are opened again for each step. A
/// process has 1,024 descriptors by default.
const HELD: usize = 256;

/// A batch, sorted by directories.
pub(super) struct Plan<'a> {
    /// Files whose directory exists.
    pub(super) groups: Vec<Group<'a>>,
    /// Directories that do not exist yet, with what goes into them.
    pub(super) trees: Vec<Tree<'a>>,
    pub(super) prefix: String,
}

/// Files of one existing directory.
pub(super) struct Group<'a> {
    pub(super) dir: Dir,
    pub(super) items: Vec<Item<'a>>,
}

/// A file of an existing directory.
pub(super) struct Item<'a> {
    pub(super) path: &'a GuestPath,
    pub(super) name: &'a [u8],
    pub(super) file: &'a FileWrite,
    /// Number in the batch, for its staged name.
    pub(super) index: usize,
    /// Whether something is there that it replaces.
    pub(super) replaces: bool,
    pub(super) mode: u32,
}

/// A directory to be created, of which the parent exists.
pub(super) struct Tree<'a> {
    /// The existing parent.
    pub(super) anchor: Dir,
    pub(super) name: Vec<u8>,
    /// The path of the directory, for messages.
    pub(super) path: GuestPath,
    /// By directory relative to this one: the files in it.
    pub(super) files: BTreeMap<Vec<u8>, Vec<NewFile<'a>>>,
}

/// A file of a directory to be created.
pub(super) struct NewFile<'a> {
    pub(super) path: &'a GuestPath,
    pub(super) name: &'a [u8],
    pub(super) file: &'a FileWrite,
}

/// An existing directory: open, or known by its path.
pub(super) struct Dir {
    pub(super) path: GuestPath,
    held: Option<OwnedFd>,
}

/// A directory that is open for one step.
pub(super) enum Opened<'a> {
    Held(BorrowedFd<'a>),
    Own(OwnedFd),
}

impl AsFd for Opened<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Held(dir) => *dir,
            Self::Own(dir) => dir.as_fd(),
        }
    }
}

impl Dir {
    pub(super) fn open(&self, root: &GuestRoot) -> Result<Opened<'_>> {
        match &self.held {
            Some(dir) => Ok(Opened::Held(dir.as_fd())),
            None => root
                .open(&self.path, DIR_PATH)
                .map(Opened::Own)
                .map_err(|errno| place(&self.path).fail(errno, b"")),
        }
    }
}

/// Slot in which the files of one parent directory are planned.
enum Slot {
    Group(usize),
    Tree(usize, Vec<u8>),
}

pub(super) fn place(path: &GuestPath) -> Place {
    Place::guest(Operation::WriteFiles, path)
}

impl<'a> Plan<'a> {
    pub(super) fn new(root: &GuestRoot, files: &'a [(GuestPath, &'a FileWrite)]) -> Result<Self> {
        let mut plan = Self {
            groups: Vec::new(),
            trees: Vec::new(),
            prefix: staged_prefix(),
        };
        let mut slots: HashMap<&[u8], Slot> = HashMap::new();
        // Two paths can lead to one directory through links; what is missing there is one tree.
        let mut trees: HashMap<(u64, u64, Vec<u8>), usize> = HashMap::new();
        for (index, (path, file)) in files.iter().enumerate() {
            let name = path.file_name().unwrap_or_default();
            let split = path.as_bytes().len().saturating_sub(name.len());
            let parent = path.as_bytes().get(..split).unwrap_or_default();
            if !slots.contains_key(parent) {
                let slot = plan.locate(root, path, parent, &mut trees)?;
                slots.insert(parent, slot);
            }
            match slots.get(parent) {
                Some(Slot::Group(group)) => plan.groups[*group].items.push(Item {
                    path,
                    name,
                    file,
                    index,
                    replaces: false,
                    mode: mode_of(file),
                }),
                Some(Slot::Tree(tree, rel)) => plan.trees[*tree]
                    .files
                    .entry(rel.clone())
                    .or_default()
                    .push(NewFile { path, name, file }),
                None => {}
            }
        }
        for group in &mut plan.groups {
            let dir = group.dir.open(root)?;
            for item in &mut group.items {
                check_target(&dir, item)?;
            }
        }
        Ok(plan)
    }

    /// Finds the directory of a file, or what is missing of it.
    fn locate(
        &mut self,
        root: &GuestRoot,
        path: &GuestPath,
        parent: &[u8],
        trees: &mut HashMap<(u64, u64, Vec<u8>), usize>,
    ) -> Result<Slot> {
        let parent = GuestPath::from(parent);
        let fail = |errno| place(path).fail(errno, b"");
        match root.open(&parent, DIR_PATH) {
            Ok(dir) => {
                let dir = self.hold(parent, dir);
                self.groups.push(Group {
                    dir,
                    items: Vec::new(),
                });
                return Ok(Slot::Group(self.groups.len() - 1));
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(fail(errno)),
        }
        let names: Vec<&[u8]> = parent.components().collect();
        for existing in (0..names.len()).rev() {
            let mut anchor = GuestPath::root();
            for name in &names[..existing] {
                anchor = anchor.join(*name);
            }
            let dir = match root.open(&anchor, DIR_PATH) {
                Ok(dir) => dir,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(fail(errno)),
            };
            let missing = names[existing];
            match find_at(&dir, missing).map_err(fail)? {
                None => {}
                Some(stat) if stat.kind == FileKind::Symlink => {
                    return Err(place(path).error(
                        ErrorKind::NotADirectory,
                        b"",
                        "a link to nothing is among the parents",
                    ));
                }
                Some(_) => return Err(place(path).changed(b"")),
            }
            let stat = stat_fd(&dir).map_err(fail)?;
            let rel = names[existing + 1..].join(&b'/');
            let key = (stat.mount, stat.inode, missing.to_vec());
            if let Some(tree) = trees.get(&key) {
                return Ok(Slot::Tree(*tree, rel));
            }
            let top = anchor.join(missing);
            let anchor = self.hold(anchor, dir);
            self.trees.push(Tree {
                anchor,
                name: missing.to_vec(),
                path: top,
                files: BTreeMap::new(),
            });
            trees.insert(key, self.trees.len() - 1);
            return Ok(Slot::Tree(self.trees.len() - 1, rel));
        }
        // The root exists always.
        Err(fail(Errno::NOENT))
    }

    fn hold(&self, path: GuestPath, dir: OwnedFd) -> Dir {
        let held = (self.groups.len() + self.trees.len() < HELD).then_some(dir);
        Dir { path, held }
    }
}

/// Whether a file may be put in this place; finds the mode that it takes over.
pub(super) fn check_target(dir: &Opened<'_>, item: &mut Item<'_>) -> Result<()> {
    let at = place(item.path);
    let Some(stat) = find_at(dir, item.name).map_err(at.failed())? else {
        return Ok(());
    };
    if item.file.write_mode == WriteMode::CreateNew {
        return Err(at.fail(Errno::EXIST, b""));
    }
    if stat.is_dir() {
        return Err(at.error(ErrorKind::IsADirectory, b"", "a directory is there"));
    }
    if stat.mounted {
        return Err(at.mounted(b""));
    }
    if stat.is_file() {
        // Staging and renaming would need no right to the file itself.
        let may = accessat(
            dir,
            item.name,
            Access::WRITE_OK,
            AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW,
        );
        match may {
            // Removed meanwhile: there is nothing to replace.
            Err(Errno::NOENT) => return Ok(()),
            may => may.map_err(at.failed())?,
        }
        if item.file.mode.is_none() {
            item.mode = stat.permissions();
        }
    } else if stat.kind != FileKind::Symlink {
        return Err(at
            .error(
                ErrorKind::NotARegularFile,
                b"",
                "a FIFO, socket or device is there",
            )
            .with_hint("remove it first"));
    }
    item.replaces = true;
    Ok(())
}

/// The mode of a file that replaces none.
pub(super) fn mode_of(file: &FileWrite) -> u32 {
    file.mode.unwrap_or(FileMode::FILE).bits() & 0o777
}
