//! The host side of importing and exporting directories, once for all sandbox backends.
//!
//! [`scan`] reads a directory of the host, and [`pack`] puts it into an archive.
//! [`Export`] builds an export from entries of an untrusted source and lands it under its final
//! name ([`Landing`]). [`leads_out`] decides which links may come out, [`Excludes`] and
//! [`IgnoreFiles`] what is left out, [`changes`] shows what a sandbox changed and puts it in place elsewhere, [`sparse`] copies content without filling holes. On Linux, `GuestTree` is a
//! directory of the host as the whole tree of a guest, for backends that keep files on the host.
//!
//! It must never follow a link on the host, open anything but a regular file, write outside of the
//! directory that it builds, or lose what the user has at the final name. It knows no backend.
//! Everything in it blocks, except what takes a sandbox: call it where blocking is allowed.

#![deny(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod archive;
pub mod changes;
mod descent;
mod export;
mod fault;
mod filter;
#[cfg(target_os = "linux")]
mod guest_tree;
mod landing;
mod link;
mod pack;
mod scan;
pub mod sparse;
mod sys;
mod time;

pub use archive::{ArchiveEntry, ArchiveKind, read_archive, read_layer};
pub use export::{Attributes, Export, skipped};
pub use filter::{Excludes, IgnoreFiles, MAX_IGNORE_FILE, is_excluded};
#[cfg(target_os = "linux")]
pub use guest_tree::{Cancel, CancelOnDrop, GuestTree};
pub use landing::{Landing, remove_tree};
pub use link::leads_out;
pub use pack::{PackEntry, PackKind, Packer, pack};
pub use scan::{Scan, ScanEntry, ScanKind, scan, scan_untrusted};
pub use time::{from_epoch, since_epoch};
