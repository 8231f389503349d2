//! The embedded backend: real Linux isolation without a daemon.

#[cfg(target_os = "linux")]
#[allow(dead_code)] // the backend above it uses it piece by piece
mod engine;
#[cfg(target_os = "linux")]
#[allow(dead_code)] // each side uses its half of the shared layout
mod protocol;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
mod sys;
