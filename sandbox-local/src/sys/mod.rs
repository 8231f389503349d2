//! System calls that no safe wrapper offers. The only place of this crate with `unsafe`.

pub(crate) mod fsuid;
