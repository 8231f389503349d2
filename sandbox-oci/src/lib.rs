//! Container images for sandbox backends: read, verified, unpacked, cached and packed, without a
//! daemon and as an ordinary user.
//!
//! [`Reference`] says where an image is, [`Image`] is its verified manifest and configuration,
//! [`Cache`] keeps unpacked layers as directories for overlayfs, [`Merged`] looks names up in a stack
//! of such directories, and [`Layout`] is an OCI layout that is written: each layer one blob, the index
//! replaced at once.
//!
//! An image is untrusted. This crate must never follow a link of an image on the host, write outside
//! of the directory that a layer is unpacked into, use a byte whose digest was not compared, or keep
//! in memory what an image claims without a bound. It knows no backend, and everything in it blocks:
//! call it where blocking is allowed.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg(target_os = "linux")]
#![deny(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod blobs;
mod cache;
mod decompress;
mod digest;
mod fault;
mod hashing;
mod image;
mod layout;
mod merged;
mod model;
mod reference;
#[cfg(feature = "registry")]
mod registry;
mod unpack;

pub use cache::{Cache, CachedImage, CachedLayer, Collected, Event, Progress, UnpackedLayer};
pub use digest::Digest;
pub use fault::ImageFault;
pub use image::{Image, ImageLayer, Limits, Platform};
pub use layout::{Blob, BlobWriter, InUse, Layout, NewImage, SavedImage};
pub use merged::Merged;
pub use model::{Account, ImageConfig};
pub use reference::{Reference, RegistryName};
#[cfg(feature = "registry")]
pub use registry::Registries;
