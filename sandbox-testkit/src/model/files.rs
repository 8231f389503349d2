//! File operations on the model's tree, by the rules of the contract.
//!
//! Invariant: each function either does all of its work or, on an error, is followed by throwing
//! the changed tree away; callers work on a copy and keep it only on success.

use std::time::SystemTime;

use sandbox_core::{DirEntry, ErrorKind, GuestPath, Mode};

use super::tree::{Kind, Node, Place, Tree, Tried};

impl Tree {
    /// Writes a file: a link at its own name is replaced.
    pub(crate) fn write(
        &mut self,
        path: &GuestPath,
        content: &[u8],
        mode: Option<Mode>,
        new: bool,
    ) -> Tried<()> {
        let place = self.locate(path, false)?;
        let mut kept = None;
        if place.exists() {
            if new {
                return Err(ErrorKind::AlreadyExists);
            }
            let old = self.node(&place)?;
            match old.kind {
                Kind::Dir(_) => return Err(ErrorKind::IsADirectory),
                Kind::File(_) if !old.allows(2) => return Err(ErrorKind::PermissionDenied),
                Kind::File(_) => kept = Some(old.mode),
                Kind::Fifo => return Err(ErrorKind::NotARegularFile),
                Kind::Link(_) => {}
            }
        }
        self.make_parents(&place)?;
        let mode = mode.map(Mode::bits).or(kept).unwrap_or(0o644);
        self.put(&place, Node::new(Kind::File(content.to_vec()), mode))
    }

    /// Opens a file for a program: follows links, creates it if its directory is there.
    pub(crate) fn open_for_writing(&mut self, path: &GuestPath, keep: bool) -> Tried<GuestPath> {
        let place = self.locate(path, true)?;
        if place.missing > 1 {
            return Err(ErrorKind::NotFound);
        }
        if !place.exists() {
            self.put(&place, Node::new(Kind::File(Vec::new()), 0o644))?;
            return Ok(place.path());
        }
        self.edit(&place.names, |node| match &mut node.kind {
            Kind::File(_) if node.mode & 0o200 == 0 => Err(ErrorKind::PermissionDenied),
            Kind::File(content) => {
                if !keep {
                    content.clear();
                }
                Ok(())
            }
            Kind::Dir(_) => Err(ErrorKind::IsADirectory),
            Kind::Link(_) | Kind::Fifo => Err(ErrorKind::NotARegularFile),
        })?;
        Ok(place.path())
    }

    /// Adds to a file that a program holds open.
    pub(crate) fn append(&mut self, path: &GuestPath, bytes: &[u8]) -> Tried<()> {
        let place = self.locate(path, false)?;
        self.edit(&place.names, |node| match &mut node.kind {
            Kind::File(content) => {
                content.extend_from_slice(bytes);
                node.modified = SystemTime::now();
                Ok(())
            }
            _ => Err(ErrorKind::NotARegularFile),
        })
    }

    /// Reads a regular file, following links.
    pub(crate) fn read(&self, path: &GuestPath, limit: u64) -> Tried<Vec<u8>> {
        let node = self.get(path, true)?;
        match &node.kind {
            Kind::Dir(_) => Err(ErrorKind::IsADirectory),
            Kind::Fifo | Kind::Link(_) => Err(ErrorKind::NotARegularFile),
            Kind::File(_) if !node.allows(4) => Err(ErrorKind::PermissionDenied),
            Kind::File(content) if content.len() as u64 > limit => Err(ErrorKind::LimitExceeded),
            Kind::File(content) => Ok(content.clone()),
        }
    }

    /// Lists a directory, sorted by path bytes.
    pub(crate) fn list(
        &self,
        path: &GuestPath,
        recursive: bool,
        limit: usize,
    ) -> Tried<Vec<DirEntry>> {
        let top = self.get(path, true)?;
        let mut entries = Vec::new();
        let mut todo = vec![(Vec::new(), top)];
        while let Some((prefix, node)) = todo.pop() {
            let Kind::Dir(names) = &node.kind else {
                return Err(ErrorKind::NotADirectory);
            };
            if !node.allows(4) {
                return Err(ErrorKind::PermissionDenied);
            }
            for (name, node) in names {
                let mut path: Vec<u8> = prefix.clone();
                path.extend_from_slice(name);
                entries.push(DirEntry::new(path.clone(), node.metadata()));
                if entries.len() > limit {
                    return Err(ErrorKind::LimitExceeded);
                }
                if recursive && node.is_dir() {
                    path.push(b'/');
                    todo.push((path, node.clone()));
                }
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    /// Removes an entry.
    pub(crate) fn remove(&mut self, path: &GuestPath, recursive: bool) -> Tried<()> {
        let place = self.locate(path, false)?;
        if place.names.is_empty() {
            return Err(ErrorKind::InvalidInput);
        }
        if !place.exists() {
            return Err(ErrorKind::NotFound);
        }
        let full = matches!(&self.node(&place)?.kind, Kind::Dir(names) if !names.is_empty());
        if full && !recursive {
            return Err(ErrorKind::DirectoryNotEmpty);
        }
        self.edit_parent(&place, |names, name| {
            names.remove(name);
            Ok(())
        })
    }

    /// Creates a directory.
    pub(crate) fn make_dir(&mut self, path: &GuestPath, parents: bool, mode: Mode) -> Tried<()> {
        let place = self.locate(path, false)?;
        if place.exists() {
            // A link to a directory is content to find it there; any other is in the way.
            let there = self.get(path, true).is_ok_and(|node| node.is_dir());
            return if parents && there {
                Ok(())
            } else {
                Err(ErrorKind::AlreadyExists)
            };
        }
        if place.missing > 1 {
            if !parents {
                return Err(ErrorKind::NotFound);
            }
            self.make_parents(&place)?;
        }
        self.put(&place, Node::dir(mode.bits()))
    }

    /// Renames an entry. The error says which of the two paths it is about.
    pub(crate) fn rename(
        &mut self,
        from: &GuestPath,
        to: &GuestPath,
        replace: bool,
    ) -> Result<(), (ErrorKind, bool)> {
        let of_from = |kind| (kind, true);
        let of_to = |kind| (kind, false);
        let source = self.locate(from, false).map_err(of_from)?;
        if source.names.is_empty() {
            return Err(of_from(ErrorKind::InvalidInput));
        }
        if !source.exists() {
            return Err(of_from(ErrorKind::NotFound));
        }
        let target = self.locate(to, false).map_err(of_to)?;
        let moved = self.node(&source).map_err(of_from)?;
        if target.names.len() > source.names.len() && target.names.starts_with(&source.names) {
            return Err(of_to(ErrorKind::InvalidInput));
        }
        if target.missing > 1 {
            return Err(of_to(ErrorKind::NotFound));
        }
        if target.exists() {
            if !replace {
                return Err(of_to(ErrorKind::AlreadyExists));
            }
            self.may_replace(&moved, &target).map_err(of_to)?;
        }
        if source == target {
            return Ok(());
        }
        self.edit_parent(&source, |names, name| {
            names.remove(name);
            Ok(())
        })
        .map_err(of_from)?;
        self.edit_parent(&target, |names, name| {
            names.insert(name.to_vec(), moved);
            Ok(())
        })
        .map_err(of_to)
    }

    fn may_replace(&self, moved: &Node, target: &Place) -> Tried<()> {
        let old = self.node(target)?;
        match &old.kind {
            Kind::Dir(_) if !moved.is_dir() => Err(ErrorKind::IsADirectory),
            Kind::Dir(names) if !names.is_empty() => Err(ErrorKind::DirectoryNotEmpty),
            Kind::Dir(_) => Ok(()),
            _ if moved.is_dir() => Err(ErrorKind::NotADirectory),
            _ => Ok(()),
        }
    }

    /// Puts a link or FIFO where nothing is.
    pub(crate) fn make(&mut self, path: &GuestPath, kind: Kind) -> Tried<()> {
        let place = self.locate(path, false)?;
        let mode = match kind {
            Kind::Link(_) => 0o777,
            _ => 0o644,
        };
        match place.missing {
            0 => Err(ErrorKind::AlreadyExists),
            1 => self.put(&place, Node::new(kind, mode)),
            _ => Err(ErrorKind::NotFound),
        }
    }

    /// Sets the modification time of an entry, of a link itself.
    pub(crate) fn set_modified(&mut self, path: &GuestPath, at: SystemTime) -> Tried<()> {
        let place = self.locate(path, false)?;
        if !place.exists() {
            return Err(ErrorKind::NotFound);
        }
        self.edit(&place.names, |node| {
            node.modified = at;
            Ok(())
        })
    }

    /// Changes permission bits, following links.
    pub(crate) fn chmod(&mut self, path: &GuestPath, mode: u32) -> Tried<()> {
        let place = self.locate(path, true)?;
        if !place.exists() {
            return Err(ErrorKind::NotFound);
        }
        self.edit(&place.names, |node| {
            node.mode = mode & 0o7777;
            Ok(())
        })
    }
}
