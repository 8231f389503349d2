//! The model's filesystem: an immutable tree with shared branches, so that a copy costs nothing.
//!
//! Invariant: a change is made on a path of fresh nodes from the root; a copy of an older root
//! still has the whole older tree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use sandbox_core::{ErrorKind, FileKind, GuestPath, Metadata, Mode};

/// Names in a directory.
pub(crate) type Names = BTreeMap<Vec<u8>, Arc<Node>>;
/// A result whose error is just the kind; the caller adds path and operation.
pub(crate) type Tried<T> = Result<T, ErrorKind>;

/// Limit of links that a path may lead through.
const MAX_LINKS: usize = 40;
/// The user and group that own everything.
pub(crate) const USER: u32 = 1000;
/// Longest name of an entry.
const MAX_NAME: usize = 255;

/// The kind of a node, with its content.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    File(Vec<u8>),
    Dir(Names),
    Link(Vec<u8>),
    Fifo,
}

/// An entry of the tree, without its name.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) modified: SystemTime,
}

impl Node {
    pub(crate) fn new(kind: Kind, mode: u32) -> Self {
        Self {
            kind,
            mode,
            modified: SystemTime::now(),
        }
    }

    pub(crate) fn dir(mode: u32) -> Self {
        Self::new(Kind::Dir(Names::new()), mode)
    }

    pub(crate) fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir(_))
    }

    /// Whether the owner has this bit of `rwx`; the model's user owns everything.
    pub(crate) fn allows(&self, bit: u32) -> bool {
        self.mode & (bit << 6) != 0
    }

    pub(crate) fn metadata(&self) -> Metadata {
        let mode = Mode::new(self.mode);
        let (kind, size) = match &self.kind {
            Kind::File(content) => (FileKind::File, content.len() as u64),
            Kind::Dir(_) => (FileKind::Directory, 0),
            Kind::Link(target) => (FileKind::Symlink, target.len() as u64),
            Kind::Fifo => (FileKind::Fifo, 0),
        };
        let metadata = Metadata::new(kind, size, mode)
            .owner(USER, USER)
            .modified(self.modified);
        match &self.kind {
            Kind::Link(target) => metadata.link_target(target.as_slice()),
            _ => metadata,
        }
    }
}

/// Destination of a path: names from the root without links, of which the last `missing` are not
/// there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) names: Vec<Vec<u8>>,
    pub(crate) missing: usize,
}

impl Place {
    pub(crate) fn exists(&self) -> bool {
        self.missing == 0
    }

    /// The path without links.
    pub(crate) fn path(&self) -> GuestPath {
        let mut bytes = Vec::new();
        for name in &self.names {
            bytes.push(b'/');
            bytes.extend_from_slice(name);
        }
        if bytes.is_empty() {
            bytes.push(b'/');
        }
        GuestPath::new(bytes)
    }
}

/// A filesystem.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: Arc<Node>,
}

impl Tree {
    /// A root that has the usual directories, all empty.
    pub(crate) fn new() -> Self {
        let mut names = Names::new();
        for (name, mode) in [("tmp", 0o1777), ("home", 0o755), ("etc", 0o755)] {
            names.insert(name.into(), Arc::new(Node::dir(mode)));
        }
        Self {
            root: Arc::new(Node::new(Kind::Dir(names), 0o755)),
        }
    }

    /// Sum of the files' sizes.
    pub(crate) fn bytes(&self) -> u64 {
        fn of(node: &Node) -> u64 {
            match &node.kind {
                Kind::File(content) => content.len() as u64,
                Kind::Dir(names) => names.values().map(|node| of(node)).sum(),
                Kind::Link(_) | Kind::Fifo => 0,
            }
        }
        of(&self.root)
    }

    /// Finds where an absolute path without `..` leads. Links on the way are followed; one at the
    /// end is if `follow`.
    pub(crate) fn locate(&self, path: &GuestPath, follow: bool) -> Tried<Place> {
        let mut todo: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
        let mut stack: Vec<(Vec<u8>, Arc<Node>)> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            let here = stack.last().map_or(&self.root, |(_, node)| node);
            let Kind::Dir(names) = &here.kind else {
                return Err(ErrorKind::NotADirectory);
            };
            match name.as_slice() {
                b"." => continue,
                b".." => {
                    stack.pop();
                    continue;
                }
                _ if name.len() > MAX_NAME => return Err(ErrorKind::InvalidInput),
                _ if !here.allows(1) => return Err(ErrorKind::PermissionDenied),
                _ => {}
            }
            let Some(node) = names.get(&name).cloned() else {
                if todo.iter().any(|name| name.len() > MAX_NAME) {
                    return Err(ErrorKind::InvalidInput);
                }
                let missing = todo.len() + 1;
                let mut names: Vec<_> = stack.into_iter().map(|(name, _)| name).collect();
                names.push(name);
                names.extend(todo.into_iter().rev());
                return Ok(Place { names, missing });
            };
            match &node.kind {
                Kind::Link(target) if follow || !todo.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(ErrorKind::InvalidInput);
                    }
                    if target.first() == Some(&b'/') {
                        stack.clear();
                    }
                    let parts = target.split(|b| *b == b'/').filter(|part| !part.is_empty());
                    todo.extend(parts.rev().map(<[u8]>::to_vec));
                }
                _ => stack.push((name, node)),
            }
        }
        Ok(Place {
            names: stack.into_iter().map(|(name, _)| name).collect(),
            missing: 0,
        })
    }

    /// The node at a place.
    pub(crate) fn node(&self, place: &Place) -> Tried<Arc<Node>> {
        let mut node = &self.root;
        for name in &place.names {
            let Kind::Dir(names) = &node.kind else {
                return Err(ErrorKind::NotADirectory);
            };
            node = names.get(name).ok_or(ErrorKind::NotFound)?;
        }
        Ok(node.clone())
    }

    /// The node that a path names.
    pub(crate) fn get(&self, path: &GuestPath, follow: bool) -> Tried<Arc<Node>> {
        let place = self.locate(path, follow)?;
        if !place.exists() {
            return Err(ErrorKind::NotFound);
        }
        self.node(&place)
    }

    /// Changes a node in place, after copying what others share of the way to it.
    pub(crate) fn edit<T>(
        &mut self,
        names: &[Vec<u8>],
        change: impl FnOnce(&mut Node) -> Tried<T>,
    ) -> Tried<T> {
        let mut node = Arc::make_mut(&mut self.root);
        for name in names {
            let Kind::Dir(entries) = &mut node.kind else {
                return Err(ErrorKind::NotADirectory);
            };
            let next = entries.get_mut(name).ok_or(ErrorKind::NotFound)?;
            node = Arc::make_mut(next);
        }
        change(node)
    }

    /// Changes the names of the directory that holds a place, if the user may.
    pub(crate) fn edit_parent<T>(
        &mut self,
        place: &Place,
        change: impl FnOnce(&mut Names, &[u8]) -> Tried<T>,
    ) -> Tried<T> {
        let Some((name, parents)) = place.names.split_last() else {
            return Err(ErrorKind::InvalidInput);
        };
        self.edit(parents, |parent| {
            if !parent.allows(2) || !parent.allows(1) {
                return Err(ErrorKind::PermissionDenied);
            }
            parent.modified = SystemTime::now();
            match &mut parent.kind {
                Kind::Dir(names) => change(names, name),
                _ => Err(ErrorKind::NotADirectory),
            }
        })
    }

    /// Puts a node at a place whose parent is there.
    pub(crate) fn put(&mut self, place: &Place, node: Node) -> Tried<()> {
        self.edit_parent(place, |names, name| {
            names.insert(name.to_vec(), Arc::new(node));
            Ok(())
        })
    }

    /// Creates the directories that a place lacks above its last name.
    pub(crate) fn make_parents(&mut self, place: &Place) -> Tried<()> {
        for missing in (1..place.missing).rev() {
            let parent = Place {
                names: place.names[..place.names.len() - missing].to_vec(),
                missing: 1,
            };
            self.put(&parent, Node::dir(0o755))?;
        }
        Ok(())
    }
}
