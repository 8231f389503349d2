//! Directories by path, where the platform has nothing else.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sandbox_core::FileKind;

use super::Stat;

/// The name of an entry as bytes.
pub(crate) fn bytes(name: &OsStr) -> Vec<u8> {
    name.to_string_lossy().into_owned().into_bytes()
}

/// A name for an entry of the host, or `None` if the host cannot have it.
pub(crate) fn name(bytes: &[u8]) -> Option<OsString> {
    let name = std::str::from_utf8(bytes).ok()?;
    let sound = !matches!(name, "" | "." | "..")
        && !name.contains(['/', '\\', ':', '<', '>', '"', '|', '?', '*'])
        && !name.chars().any(|c| c < ' ')
        && !name.ends_with(['.', ' ']);
    sound.then(|| name.into())
}

/// A directory.
#[derive(Debug)]
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if !fs::metadata(path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self(path.to_owned()))
    }

    pub(crate) fn open_dir(&self, name: &OsStr) -> io::Result<Self> {
        if !self.stat(name)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self(self.0.join(name)))
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.clone()))
    }

    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        self.names_at_most(usize::MAX)
    }

    pub(crate) fn names_within(&self, most: u64) -> io::Result<Option<Vec<OsString>>> {
        let one_more = usize::try_from(most.saturating_add(1)).unwrap_or(usize::MAX);
        let names = self.names_at_most(one_more)?;
        Ok((names.len() as u64 <= most).then_some(names))
    }

    pub(crate) fn names_at_most(&self, most: usize) -> io::Result<Vec<OsString>> {
        let entries = fs::read_dir(&self.0)?.take(most);
        entries.map(|entry| Ok(entry?.file_name())).collect()
    }

    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        Ok(fs::read_dir(&self.0)?.next().is_none())
    }

    pub(crate) fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        Ok(stat_of(&fs::symlink_metadata(self.0.join(name))?))
    }

    pub(crate) fn stat_self(&self) -> io::Result<Stat> {
        Ok(stat_of(&fs::symlink_metadata(&self.0)?))
    }

    pub(crate) fn read_link(&self, name: &OsStr) -> io::Result<Vec<u8>> {
        Ok(bytes(fs::read_link(self.0.join(name))?.as_os_str()))
    }

    pub(crate) fn make_dir(&self, name: &OsStr) -> io::Result<()> {
        super::super::fault::point()?;
        fs::create_dir(self.0.join(name))
    }

    pub(crate) fn create_file(&self, name: &OsStr) -> io::Result<File> {
        super::super::fault::point()?;
        File::create_new(self.0.join(name))
    }

    pub(crate) fn open_file(&self, name: &OsStr) -> io::Result<Option<(File, Stat)>> {
        let stat = self.stat(name)?;
        if stat.kind != FileKind::File {
            return Ok(None);
        }
        Ok(Some((File::open(self.0.join(name))?, stat)))
    }

    /// Links need a privilege here that most users lack.
    pub(crate) fn symlink(&self, _: &[u8], _: &OsStr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn rename(&self, name: &OsStr, to: &Self, new: &OsStr) -> io::Result<()> {
        super::super::fault::point()?;
        let new = to.0.join(new);
        // Of directories only an empty one may be replaced; this platform replaces none by itself.
        if fs::symlink_metadata(&new).is_ok_and(|meta| meta.is_dir()) {
            fs::remove_dir(&new)?;
        }
        fs::rename(self.0.join(name), new)
    }

    /// Renames an entry of this directory to a name that must be new.
    pub(crate) fn rename_new(&self, name: &OsStr, new: &OsStr) -> io::Result<()> {
        super::super::fault::point()?;
        let new = self.0.join(new);
        if fs::symlink_metadata(&new).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // What appears now is a directory, which this platform does not replace, or a file.
        fs::rename(self.0.join(name), new)
    }

    /// Renames a file of this directory to a name of another one that must be new.
    pub(crate) fn rename_new_to(&self, name: &OsStr, to: &Self, new: &OsStr) -> io::Result<()> {
        super::super::fault::point()?;
        let new = to.0.join(new);
        if fs::symlink_metadata(&new).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(self.0.join(name), new)
    }

    pub(crate) fn exchange_with(&self, _: &OsStr, _: &Self, _: &OsStr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn exchange(&self, _: &OsStr, _: &OsStr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        super::super::fault::point()?;
        let path = self.0.join(name);
        // A link to a directory is removed as a directory here.
        fs::remove_file(&path).or_else(|error| fs::remove_dir(&path).map_err(|_| error))
    }

    pub(crate) fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        super::super::fault::point()?;
        fs::remove_dir(self.0.join(name))
    }

    pub(crate) fn set_mode_of(&self, _: &OsStr, _: u32) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn open_up(&self) -> io::Result<Option<u32>> {
        Ok(None)
    }

    pub(crate) fn shut(&self, _: u32) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn set_time_of(&self, name: &OsStr, modified: SystemTime) {
        if let Ok(file) = File::options().write(true).open(self.0.join(name)) {
            let _ = file.set_modified(modified);
        }
    }
}

/// Gives a file its modification time; permission bits are not this platform's.
pub(crate) fn finish_file(file: &File, _: u32, modified: Option<SystemTime>) -> io::Result<()> {
    if let Some(modified) = modified {
        let _ = file.set_modified(modified);
    }
    Ok(())
}

fn stat_of(meta: &fs::Metadata) -> Stat {
    let kind = if meta.is_dir() {
        FileKind::Directory
    } else if meta.is_symlink() {
        FileKind::Symlink
    } else {
        FileKind::File
    };
    Stat {
        kind,
        size: meta.len(),
        mode: if meta.is_dir() { 0o755 } else { 0o644 },
        modified: meta.modified().ok(),
    }
}
