//! Names looked up in a stack of unpacked layers, as overlayfs would show them.
//!
//! Must never let the kernel follow a link: each name is looked up by itself from the directory that
//! holds it, and a link is resolved here, from the image's root.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

pub(crate) const DIR: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// overlayfs's mark of a directory that hides those below it.
pub(crate) const OPAQUE: &str = "user.overlay.opaque";

/// Links that one path may lead through, as in the kernel.
const LINKS: usize = 40;

/// Names that are looked up for one path; deep directories behind links could make them very many.
const LOOKUPS: u64 = 100_000;

/// A stack of unpacked layers.
#[derive(Debug, Default)]
pub struct Merged {
    /// The topmost first.
    layers: Vec<OwnedFd>,
    /// Names that were looked up so far, each layer by itself.
    looked: AtomicU64,
}

/// An entry of one of the layers.
pub(crate) struct Found {
    /// Directory that holds it.
    pub(crate) dir: OwnedFd,
    pub(crate) stat: Stat,
}

pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

pub(crate) fn is_opaque(dir: BorrowedFd<'_>) -> io::Result<bool> {
    let mut value = [0_u8; 8];
    // Through a link of /proc, since a descriptor that only names has no attributes.
    let path = proc_path(dir);
    match rustix::fs::getxattr(&*path, OPAQUE, value.as_mut_slice()) {
        Ok(length) => Ok(value.get(..length) == Some(b"y")),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

pub(crate) fn proc_path(file: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

impl Merged {
    /// Opens a stack of directories, the topmost first.
    ///
    /// # Errors
    /// One of them can't be opened.
    pub fn open<P: AsRef<Path>>(layers: impl IntoIterator<Item = P>) -> io::Result<Self> {
        let open = |path: P| Ok(rustix::fs::open(path.as_ref(), DIR, Mode::empty())?);
        let layers = layers.into_iter().map(open).collect::<io::Result<_>>()?;
        Ok(Self {
            layers,
            looked: AtomicU64::new(0),
        })
    }

    /// Number of names that were looked up so far.
    pub(crate) fn looked(&self) -> u64 {
        self.looked.load(Ordering::Relaxed)
    }

    /// Finds an entry by its path from the root, which has no links in it but at its end.
    pub(crate) fn find(&self, path: &[Vec<u8>]) -> io::Result<Option<Found>> {
        let Some((last, parents)) = path.split_last() else {
            let Some(top) = self.layers.first() else {
                return Ok(None);
            };
            let stat = rustix::fs::fstat(top)?;
            return Ok(Some(Found {
                dir: top.try_clone()?,
                stat,
            }));
        };
        'layers: for layer in &self.layers {
            self.looked.fetch_add(path.len() as u64, Ordering::Relaxed);
            let mut at = layer.try_clone()?;
            let mut hides = false;
            for part in parents {
                match stat_at(at.as_fd(), part)? {
                    None if hides => return Ok(None),
                    None => continue 'layers,
                    Some(stat) if is_dir(&stat) => {}
                    // A deletion, or something else in its place.
                    Some(_) => return Ok(None),
                }
                at = rustix::fs::openat(&at, &**part, DIR, Mode::empty())?;
                hides |= is_opaque(at.as_fd())?;
            }
            match stat_at(at.as_fd(), last)? {
                Some(stat) if is_whiteout(&stat) => return Ok(None),
                Some(stat) => return Ok(Some(Found { dir: at, stat })),
                None if hides => return Ok(None),
                None => {}
            }
        }
        Ok(None)
    }

    /// Whether there is a link at a path that leads through none.
    ///
    /// # Errors
    /// A layer can't be read.
    pub fn is_link(&self, path: &[u8]) -> io::Result<bool> {
        let found = self.find(&split(path))?;
        let kind = found.map(|found| FileType::from_raw_mode(found.stat.st_mode));
        Ok(kind == Some(FileType::Symlink))
    }

    /// Whether there is a directory at a path that leads through no link.
    ///
    /// # Errors
    /// A layer can't be read.
    pub fn is_dir(&self, path: &[u8]) -> io::Result<bool> {
        let found = self.find(&split(path))?;
        let kind = found.map(|found| FileType::from_raw_mode(found.stat.st_mode));
        Ok(kind == Some(FileType::Directory))
    }

    /// Reads a regular file of the stack, links within it followed; `None` if there is none, or one
    /// of more than `most` bytes.
    ///
    /// # Errors
    /// A layer can't be read.
    pub fn read(&self, path: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let mut links = 0;
        let most_looked = self.looked() + LOOKUPS;
        let mut real: Vec<Vec<u8>> = Vec::new();
        let mut left: Vec<Vec<u8>> = split(path.as_bytes());
        left.reverse();
        while let Some(part) = left.pop() {
            if part == b".." {
                real.pop();
                continue;
            }
            real.push(part);
            if self.looked() > most_looked {
                return Err(Errno::LOOP.into());
            }
            let Some(found) = self.find(&real)? else {
                return Ok(None);
            };
            let name = real.last().cloned().unwrap_or_default();
            match FileType::from_raw_mode(found.stat.st_mode) {
                FileType::Directory => {}
                FileType::Symlink if links < LINKS => {
                    links += 1;
                    let target = rustix::fs::readlinkat(&found.dir, &*name, Vec::new())?;
                    follow(&mut real, &mut left, target.as_bytes());
                }
                FileType::RegularFile if left.is_empty() => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let file = rustix::fs::openat(&found.dir, &*name, flags, Mode::empty())?;
                    let mut bytes = Vec::new();
                    File::from(file).take(most + 1).read_to_end(&mut bytes)?;
                    return Ok((bytes.len() as u64 <= most).then_some(bytes));
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// The names of a path.
pub(crate) fn split(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|b| *b == b'/');
    let named = parts.filter(|part| !matches!(*part, b"" | b"."));
    named.map(<[u8]>::to_vec).collect()
}

/// Puts the names of a link's target before those that are left; `real` ends with the link.
pub(crate) fn follow(real: &mut Vec<Vec<u8>>, left: &mut Vec<Vec<u8>>, target: &[u8]) {
    real.pop();
    if target.first() == Some(&b'/') {
        real.clear();
    }
    left.extend(split(target).into_iter().rev());
}

/// Counts links of one path.
#[derive(Default)]
pub(crate) struct Links(usize);

impl Links {
    pub(crate) fn one_more(&mut self) -> io::Result<()> {
        self.0 += 1;
        match self.0 > LINKS {
            true => Err(Errno::LOOP.into()),
            false => Ok(()),
        }
    }
}
