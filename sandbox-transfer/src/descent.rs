//! The directories from a top one down to the one that a walk is in, few of them open.
//!
//! Untrusted code decides how deep a tree is. Must never hold a descriptor for each directory of
//! it, and never go down more than [`DEPTH`] directories.

use std::ffi::OsString;
use std::io;

use crate::sys::Dir;

/// Directories one below the other that are gone down at most.
pub(crate) const DEPTH: usize = 1000;

/// Innermost directories that are held open.
const WINDOW: usize = 16;

/// The way down, with something of each directory.
#[derive(Debug)]
pub(crate) struct Descent<T> {
    top: Dir,
    levels: Vec<Level<T>>,
}

#[derive(Debug)]
struct Level<T> {
    name: OsString,
    /// Not open: it is found again by its name.
    dir: Option<Dir>,
    of: T,
}

impl<T> Descent<T> {
    pub(crate) fn new(top: Dir, of: T) -> io::Result<Self> {
        let level = Level {
            name: OsString::new(),
            dir: Some(top.try_clone()?),
            of,
        };
        Ok(Self {
            top,
            levels: vec![level],
        })
    }

    /// The number of directories, the top one too.
    pub(crate) fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Goes into a directory of the one at work.
    pub(crate) fn push(&mut self, name: OsString, dir: Dir, of: T) {
        let dir = Some(dir);
        self.levels.push(Level { name, dir, of });
        if let Some(far) = self.levels.len().checked_sub(WINDOW + 1)
            && let Some(far) = self.levels.get_mut(far)
        {
            far.dir = None;
        }
    }

    /// Goes back up.
    pub(crate) fn pop(&mut self) {
        self.levels.pop();
    }

    /// Data of the directory at work; `None` when the walk is over.
    pub(crate) fn of(&mut self) -> Option<&mut T> {
        self.levels.last_mut().map(|level| &mut level.of)
    }

    /// Data of each directory, the top one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.levels.iter().map(|level| &level.of)
    }

    /// The directory at work.
    ///
    /// # Errors
    /// It is not there any more, or a link is in its place or in that of one above.
    pub(crate) fn dir(&mut self) -> io::Result<&Dir> {
        if self.levels.last().is_some_and(|level| level.dir.is_none()) {
            self.reopen()?;
        }
        let last = self.levels.last().and_then(|level| level.dir.as_ref());
        Ok(last.unwrap_or(&self.top))
    }

    /// Opens the innermost directories again, from the top.
    fn reopen(&mut self) -> io::Result<()> {
        let kept = self.levels.len().saturating_sub(WINDOW);
        let mut dir = self.top.try_clone()?;
        for (index, level) in self.levels.iter_mut().enumerate() {
            if index > 0 {
                dir = dir.open_dir(&level.name)?;
            }
            if index >= kept {
                level.dir = Some(dir.try_clone()?);
            }
        }
        Ok(())
    }
}

/// Whether an error says that a directory was taken away or replaced meanwhile.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn few_directories_are_open_however_deep_it_goes() {
        let root = tempfile::tempdir().unwrap();
        let mut descent = Descent::new(Dir::open(root.path()).unwrap(), 0).unwrap();
        let open = |descent: &Descent<i32>| {
            let levels = descent.levels.iter();
            levels.filter(|level| level.dir.is_some()).count()
        };
        for number in 1..=200 {
            let name = OsString::from("d");
            let dir = descent.dir().unwrap();
            dir.make_dir(&name).unwrap();
            let inner = dir.open_dir(&name).unwrap();
            descent.push(name, inner, number);
            assert!(open(&descent) <= WINDOW);
        }
        for number in (0..=200).rev() {
            assert_eq!(descent.of().copied(), Some(number));
            let names = descent.dir().unwrap().names().unwrap();
            assert_eq!(names.len(), usize::from(number < 200));
            assert!(open(&descent) <= WINDOW);
            descent.pop();
        }
        assert!(descent.of().is_none());
    }
}
