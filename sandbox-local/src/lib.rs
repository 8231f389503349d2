//! The embedded backend: real Linux isolation without a daemon.

mod plain;

pub use plain::PlainProvider;
