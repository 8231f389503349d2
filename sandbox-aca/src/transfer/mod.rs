//! The host's side of import and export, whatever the guest is.
//!
//! Nothing here touches the guest.

mod gather;
mod receive;

pub(crate) use gather::gather;
pub(crate) use receive::{Wanted, build, decide, names};
