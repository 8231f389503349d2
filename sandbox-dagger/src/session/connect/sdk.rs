//! The only use of the Dagger SDK: which engine it is made for, and its download of the CLI.
//!
//! It must never send a query: the SDK opens a connection for each, asks proxies even for loopback,
//! and can't read every error (see `client.rs`). Its own start of a session is not used either,
//! because it neither bounds the wait nor kills the child.

use std::path::PathBuf;

use dagger_sdk::core::DAGGER_ENGINE_VERSION;
use dagger_sdk::core::downloader::Downloader;
use sandbox_core::{Error, ErrorKind, Operation, Result};

/// The engine that this crate was made for.
pub(crate) const MADE_FOR: &str = DAGGER_ENGINE_VERSION;

/// Downloads the CLI of that engine, checks its digest and keeps it in the user's cache.
pub(crate) async fn download() -> Result<PathBuf> {
    // The downloader panics on hosts that it does not know: a task of its own keeps that apart.
    let task = tokio::spawn(async { Downloader::new(MADE_FOR.into()).get_cli().await });
    let failed = |why: String| {
        Error::new(ErrorKind::Unavailable, Operation::Connect)
            .with_message(format!(
                "the Dagger CLI {MADE_FOR} could not be downloaded: {why}"
            ))
            .with_hint("install it, and name it with DaggerConfig::cli")
    };
    match task.await {
        Ok(Ok(path)) => Ok(path),
        Ok(Err(error)) => Err(failed(format!("{error:#}"))),
        Err(panic) => Err(failed(panic.to_string())),
    }
}
