//! The embedded backend: real Linux isolation without a daemon.
