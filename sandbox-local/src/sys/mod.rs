//! The library's unsafe code: starting the agent, reading into uninitialised
//! buffers, system calls that no crate has a function for. Must stay small, and
//! must never decide what a sandbox may do.

pub(crate) mod confine;
pub(crate) mod exec;
pub(crate) mod fsuid;
pub(crate) mod holder;
pub(crate) mod keeper;
pub(crate) mod landlock;
pub(crate) mod launch;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod notify;
pub(crate) mod open_files;
pub(crate) mod pipe;
pub(crate) mod signals;
pub(crate) mod watch;

pub(crate) use landlock::landlock_version;
