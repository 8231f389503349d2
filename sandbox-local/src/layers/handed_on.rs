//! Base layers that one provider hands on to the next.
//!
//! To make one takes some thousand operations on files, and it nearly always comes out the same. One that
//! its provider has no use for any more is moved to `STATE_DIR/base/`, under the fingerprint of what it was
//! made from; a provider whose base layer would have the same one takes it from there. Either is one
//! rename: a base layer belongs to one provider at a time, and no lock is needed.
//!
//! Must never hand on what a guest could have written into, nor take one that something was removed from.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use super::found::Fingerprint;
use super::{Layer, State};
use crate::guest_user::GuestUser;
use crate::random;
use crate::walk::{self, At, Cancel, Cursor, Limits, Modes, Stop, Visitor};

/// Directory of those that wait, and in a provider's directory the name of the record of its own.
const BASE: &str = "base";

/// The most that wait: each may take some ten megabytes.
const MOST: usize = 2;

/// A whole base layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Made {
    fingerprint: Fingerprint,
    /// Number of files, links and directories in it.
    entries: u64,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.fingerprint, self.entries)
    }
}

impl Made {
    /// From a text that begins with it.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(['-', ' ', '\n']);
        let fingerprint = Fingerprint::from_str(parts.next()?).ok()?;
        let entries = parts.next()?.parse().ok()?;
        Some(Self {
            fingerprint,
            entries,
        })
    }
}

/// Takes one that waits, if there is one with this fingerprint. It belongs to the provider's user then.
pub(super) fn take(state: &Arc<State>, fingerprint: Fingerprint) -> Option<Arc<Layer>> {
    for (path, made) in waiting(state.root()) {
        let Some(made) = made.filter(|made| made.fingerprint == fingerprint) else {
            continue;
        };
        let name = state.number().to_string();
        if fs::rename(path, state.layers_dir().join(&name)).is_err() {
            continue;
        }
        // Removed with it if it is not whole.
        let layer = Layer::kept(state, &name);
        match adopt(layer.path(), state.guest_user) {
            Ok(entries) if made.entries == entries => {
                note(state, &layer, fingerprint, entries);
                return Some(layer);
            }
            Ok(_) => tracing::debug!("something was removed from a base layer that was handed on"),
            Err(error) => tracing::debug!(%error, "a base layer that was handed on can't be used"),
        }
    }
    None
}

/// Lets a new base layer, which is whole, be handed on when nothing uses it any more.
pub(super) fn give(state: &State, layer: &Layer, fingerprint: Fingerprint) {
    match adopt(layer.path(), None) {
        Ok(entries) => note(state, layer, fingerprint, entries),
        Err(error) => tracing::debug!(%error, "a base layer will not be handed on"),
    }
}

fn note(state: &State, layer: &Layer, fingerprint: Fingerprint, entries: u64) {
    if !state.is_closed_to_guests() {
        return;
    }
    let made = Made {
        fingerprint,
        entries,
    };
    // For a process that ends before it gets to it.
    let record = format!("{made} {}\n", layer.name());
    if let Err(error) = write_record(&state.dir().join(BASE), &record) {
        tracing::debug!(%error, "a base layer will not be handed on");
        return;
    }
    // A provider has one base layer at most.
    let _ = state.base.set(layer.name().to_owned());
}

fn write_record(path: &Path, record: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let mut file = options.custom_flags(flags).open(path)?;
    file.write_all(record.as_bytes())
}

/// Moves the base layer in a provider's directory, which nothing uses any more, to those that wait, if it was
/// noted. What is not moved is removed with the rest.
pub(super) fn hand_on(provider: &Path) {
    if let Err(error) = try_to_hand_on(provider) {
        tracing::debug!(%error, "a base layer is not handed on");
    }
}

fn try_to_hand_on(provider: &Path) -> io::Result<()> {
    let root = provider.parent().unwrap_or(provider);
    let Some((made, layer)) = noted(provider)? else {
        return Ok(());
    };
    let place = root.join(BASE);
    match DirBuilder::new().mode(0o700).create(&place) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let (same, others): (Vec<_>, Vec<_>) = waiting(root)
        .into_iter()
        .partition(|(_, of)| of.is_some_and(|of| of.fingerprint == made.fingerprint));
    if same.len() >= MOST {
        return Ok(());
    }
    let surplus = (same.len() + others.len() + 1).saturating_sub(MOST);
    for (path, _) in others.iter().take(surplus) {
        walk::remove(path, None, None)?;
    }
    let name = format!("{made}-{}", random::hex()?);
    fs::rename(provider.join("layers").join(layer), place.join(name))?;
    fs::remove_file(provider.join(BASE))
}

/// The base layer that was noted in a provider's directory, and its name.
fn noted(provider: &Path) -> io::Result<Option<(Made, String)>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let record = match rustix::fs::open(provider.join(BASE), flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        record => File::from(record?),
    };
    let mut text = String::new();
    record.take(256).read_to_string(&mut text)?;
    let name = text.trim_end().rsplit(' ').next().unwrap_or_default();
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    Ok(Made::parse(&text)
        .filter(|_| is_name)
        .map(|made| (made, name.to_owned())))
}

/// Those that wait.
fn waiting(root: &Path) -> Vec<(PathBuf, Option<Made>)> {
    let entries = fs::read_dir(root.join(BASE)).into_iter().flatten();
    let made = |entry: fs::DirEntry| {
        let made = entry.file_name().to_str().and_then(Made::parse);
        (entry.path(), made)
    };
    entries.flatten().map(made).collect()
}

/// Gives a base layer to a user, and counts what is in it.
fn adopt(layer: &Path, owner: Option<GuestUser>) -> io::Result<u64> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open(layer, flags, Mode::empty())?;
    let mut adoption = Adoption { owner, entries: 0 };
    let mut cursor = Cursor::layer(&top, Modes::Keep)?;
    let walked = walk::walk(
        &mut cursor,
        Limits::DEFAULT,
        &Cancel::default(),
        &mut adoption,
    );
    walked.map_err(io::Error::other)?;
    owner.map_or(Ok(()), |owner| owner.own(layer))?;
    Ok(adoption.entries)
}

struct Adoption {
    owner: Option<GuestUser>,
    entries: u64,
}

impl Visitor for Adoption {
    type Error = Stop;

    fn stopped(&self, stop: Stop) -> Stop {
        stop
    }

    fn entry(&mut self, at: &At<'_>) -> Result<bool, Stop> {
        self.entries += 1;
        if let Some(GuestUser { uid, gid }) = self.owner {
            let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(at.dir, at.name, Some(user), Some(group), flags)?;
        }
        let stat = walk::stat_at(at.dir, at.name)?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }
}
