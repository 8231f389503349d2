//! The embedded backend: real Linux isolation without a daemon.

#[allow(dead_code, unused_imports)] // Until the backend itself calls them.
mod files;
mod sys;
