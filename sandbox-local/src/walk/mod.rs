//! Walks of the host over trees that a guest wrote: copying, merging, listing, counting, removing.
//!
//! Everything that goes down such a tree does it by a [`Cursor`], and only this module has the
//! system calls for it. By construction a walk
//! - looks up names from an open directory and follows no link, not even one in a name's place
//!   since a moment ago,
//! - stays on the mount that it began on, unless it shows a guest its own view ([`Mounts::Enter`]),
//! - changes a mode through the descriptor of what was looked at, never by name,
//! - takes time linear in the entries, a few descriptors, and memory for the names of the
//!   directories above and of those that wait, both bounded by [`Limits`],
//! - ends soon after its [`Cancel`] is set.
//!
//! Must never take a path, and never `..` without comparing what it led to.

mod beneath;
mod cursor;
mod flatten;
mod limits;
mod visit;

#[cfg(test)]
mod tests;

pub(crate) use beneath::{
    DIR_PATH, DIR_READ, open_beneath, open_file, open_same_mount, reopen, resolve, set_mode,
    stat_at, watch_dir,
};
pub(crate) use cursor::{Cursor, Modes, Mounts};
pub(crate) use flatten::{Progress, remove, remove_in};
pub(crate) use limits::{Cancel, Limits, Stop};
pub(crate) use visit::{At, Names, Visitor, walk};
