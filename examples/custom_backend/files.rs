//! The files of a sandbox: a sorted map from absolute path to what is there.
//!
//! Invariant: every key is resolved, and its parent is there and a directory. A path that sorts
//! right after its parent's makes "all that is below" one range of the map.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use sandbox::{DirEntry, ErrorKind, FileKind, GuestPath, Metadata, Mode, WriteMode};

/// Result to which a sandbox adds operation, path and identifier.
pub(crate) type Tried<T> = Result<T, ErrorKind>;

/// A file or a directory; links are not among the capabilities.
#[derive(Clone)]
pub(crate) enum Node {
    Dir,
    File(Bytes, SystemTime),
}

impl Node {
    pub(crate) fn metadata(&self) -> Metadata {
        match self {
            Self::Dir => Metadata::new(FileKind::Directory, 0, Mode::EXECUTABLE),
            Self::File(content, modified) => {
                let size = content.len() as u64;
                Metadata::new(FileKind::File, size, Mode::FILE).modified(*modified)
            }
        }
    }
}

/// A tree. A clone shares the contents of its files, which never change in place.
#[derive(Clone)]
pub(crate) struct Files(BTreeMap<GuestPath, Node>);

impl Files {
    pub(crate) fn new() -> Self {
        Self(BTreeMap::from([(GuestPath::root(), Node::Dir)]))
    }

    /// Finds the entry at a path. A file among the parents is told apart from nothing at all.
    pub(crate) fn get(&self, path: &GuestPath) -> Tried<&Node> {
        if let Some(node) = self.0.get(path) {
            return Ok(node);
        }
        match path.parent().map(|parent| self.get(&parent)) {
            Some(Ok(Node::File(..))) => Err(ErrorKind::NotADirectory),
            Some(Err(kind)) => Err(kind),
            _ => Err(ErrorKind::NotFound),
        }
    }

    pub(crate) fn dir(&self, path: &GuestPath) -> Tried<()> {
        match self.get(path)? {
            Node::Dir => Ok(()),
            Node::File(..) => Err(ErrorKind::NotADirectory),
        }
    }

    /// All that is below a directory, with its relative path, sorted by bytes, parents first.
    pub(crate) fn below(&self, top: &GuestPath) -> impl Iterator<Item = (GuestPath, &Node)> {
        // With the slash, so that "/a-b" is not taken to be below "/a".
        let first = top.join("");
        self.0
            .range(first..)
            .map_while(|(path, node)| Some((path.strip_prefix(top)?, node)))
            .filter(|(path, _)| !path.as_bytes().is_empty())
    }

    pub(crate) fn read(&self, path: &GuestPath) -> Tried<Bytes> {
        match self.get(path)? {
            Node::Dir => Err(ErrorKind::IsADirectory),
            Node::File(content, _) => Ok(content.clone()),
        }
    }

    pub(crate) fn list(&self, top: &GuestPath, recursive: bool) -> Tried<Vec<DirEntry>> {
        self.dir(top)?;
        let entries = self.below(top);
        Ok(entries
            .filter(|(path, _)| recursive || path.components().count() == 1)
            .map(|(path, node)| DirEntry::new(path, node.metadata()))
            .collect())
    }

    /// Puts a node where its parent is a directory.
    fn put(&mut self, path: &GuestPath, node: Node) -> Tried<()> {
        // What Linux takes as a name, so that what is written here can be exported.
        if path.file_name().is_none_or(|name| name.len() > 255) {
            return Err(ErrorKind::InvalidInput);
        }
        self.0.insert(path.clone(), node);
        Ok(())
    }

    pub(crate) fn make_dir(&mut self, path: &GuestPath, parents: bool) -> Tried<()> {
        match self.get(path) {
            Ok(Node::Dir) if parents => return Ok(()),
            Ok(_) => return Err(ErrorKind::AlreadyExists),
            Err(ErrorKind::NotFound) => {}
            Err(kind) => return Err(kind),
        }
        if let Some(parent) = path.parent() {
            if parents {
                self.make_dir(&parent, true)?;
            } else {
                self.dir(&parent)?;
            }
        }
        self.put(path, Node::Dir)
    }

    pub(crate) fn write(&mut self, path: &GuestPath, content: Bytes, how: WriteMode) -> Tried<()> {
        match self.get(path) {
            Ok(_) if how == WriteMode::CreateNew => return Err(ErrorKind::AlreadyExists),
            Ok(Node::Dir) => return Err(ErrorKind::IsADirectory),
            Ok(Node::File(..)) => {}
            Err(ErrorKind::NotFound) => {
                if let Some(parent) = path.parent() {
                    self.make_dir(&parent, true)?;
                }
            }
            Err(kind) => return Err(kind),
        }
        self.put(path, Node::File(content, SystemTime::now()))
    }

    pub(crate) fn remove(&mut self, path: &GuestPath, recursive: bool) -> Tried<()> {
        if *path == GuestPath::root() {
            return Err(ErrorKind::InvalidInput);
        }
        self.get(path)?;
        if !recursive && self.below(path).next().is_some() {
            return Err(ErrorKind::DirectoryNotEmpty);
        }
        self.0.retain(|found, _| found.strip_prefix(path).is_none());
        Ok(())
    }

    /// Renames. The error says which of the two paths is in the way.
    pub(crate) fn rename<'a>(
        &mut self,
        from: &'a GuestPath,
        to: &'a GuestPath,
        replace: bool,
    ) -> Result<(), (ErrorKind, &'a GuestPath)> {
        let moved = self.get(from).map_err(|kind| (kind, from))?.clone();
        let parent = to.parent().ok_or((ErrorKind::InvalidInput, to))?;
        if from != to && to.strip_prefix(from).is_some() {
            return Err((ErrorKind::InvalidInput, to));
        }
        self.dir(&parent).map_err(|kind| (kind, to))?;
        match (self.0.get(to), &moved) {
            (None, _) => {}
            (Some(_), _) if !replace => return Err((ErrorKind::AlreadyExists, to)),
            (Some(Node::Dir), Node::File(..)) => return Err((ErrorKind::IsADirectory, to)),
            (Some(Node::File(..)), Node::Dir) => return Err((ErrorKind::NotADirectory, to)),
            (Some(Node::File(..)), _) => {}
            (Some(Node::Dir), _) if from == to => {}
            (Some(Node::Dir), _) if self.below(to).next().is_none() => {}
            (Some(Node::Dir), _) => return Err((ErrorKind::DirectoryNotEmpty, to)),
        }
        let content: Vec<_> = self
            .below(from)
            .map(|(path, node)| (to.join(path), node.clone()))
            .collect();
        self.remove(from, true).map_err(|kind| (kind, from))?;
        self.put(to, moved).map_err(|kind| (kind, to))?;
        self.0.extend(content);
        Ok(())
    }
}
