//! Operations that need no container: the engine itself looks at the files and hands them over.
//!
//! Invariant: only what gives the same answer as a command of the guest is done so; in all other
//! cases, failures among them, the guest is asked. The engine looks with the rights of root, and
//! sees neither `/proc` nor a mounted cache.

use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use sandbox_core::{Error, ErrorKind, GuestPath, Operation, Result};
use serde_json::Value;

use crate::guest::stage::Stage;
use crate::sandbox::DaggerSandbox;
use crate::session::client::SMALL_ANSWER;
use crate::session::query::{self, is_root};
use sandbox_core::backend::blocking;

/// Paths that the engine mounts over a container's own files while a command runs.
const MOUNTED: [&str; 7] = [
    "/proc",
    "/sys",
    "/dev",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/.init",
    "/run",
];

/// A file or directory, as the engine sees it when it has followed all links.
struct Seen {
    is_file: bool,
    is_dir: bool,
    size: u64,
}

impl DaggerSandbox {
    /// The path as text of a query, if the engine sees the same there as a command would.
    pub(super) fn direct<'a>(&self, path: &'a GuestPath) -> Option<&'a str> {
        let text = std::str::from_utf8(path.as_bytes()).ok()?;
        let below = |top: &Path| Path::new(text).starts_with(top);
        let caches = self.shared.config.caches.iter();
        let mut caches = caches.filter_map(|cache| std::str::from_utf8(cache.path.as_bytes()).ok());
        let hidden = MOUNTED.iter().any(|top| below(Path::new(top)))
            || caches.any(|cache| below(Path::new(cache)));
        (is_root(&self.user) && !hidden).then_some(text)
    }

    /// The answer to a query; nothing if the engine says no, which the guest can explain better.
    async fn ask_directly(&self, below: &str, operation: Operation) -> Result<Option<Value>> {
        let query = query::on_container(&self.chain.head().id, below);
        let answer = self.ask(&query, operation, SMALL_ANSWER, self.patience());
        match answer.await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.kind() == ErrorKind::Other => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn query_directly(&self, path: &str, operation: Operation) -> Result<Option<Seen>> {
        let below = format!("stat(path: {}) {{ fileType size }}", query::string(path));
        let Some(answer) = self.ask_directly(&below, operation).await? else {
            return Ok(None);
        };
        let stat = answer.pointer("/node/stat");
        let kind = stat.and_then(|stat| stat.get("fileType")?.as_str());
        let size = stat.and_then(|stat| stat.get("size")?.as_u64());
        let (Some(kind), Some(size)) = (kind, size) else {
            return Ok(None);
        };
        // Engines have named the kinds with and without this ending.
        let kind = kind.trim_end_matches("_TYPE");
        Ok(Some(Seen {
            is_file: kind == "REGULAR",
            is_dir: kind == "DIRECTORY",
            size,
        }))
    }

    /// The bytes of a regular file, which the engine exports to the host; nothing if the guest has
    /// to be asked.
    pub(super) async fn read_directly(
        &self,
        path: &GuestPath,
        limit: u64,
    ) -> Result<Option<Bytes>> {
        const OP: Operation = Operation::ReadFile;
        let Some(text) = self.direct(path) else {
            return Ok(None);
        };
        let seen = match self.query_directly(text, OP).await? {
            Some(seen) if seen.is_file => seen,
            _ => return Ok(None),
        };
        let too_large = || {
            Error::new(ErrorKind::LimitExceeded, OP)
                .with_message(format!(
                    "the file is larger than the limit of {limit} bytes"
                ))
                .with_path(path.clone())
        };
        if seen.size > limit {
            return Err(self.named(too_large()));
        }
        let stage = blocking(OP, move || Stage::new(OP)).await?;
        let to = stage.at("file");
        let below = format!(
            "file(path: {}) {{ export(path: {}) }}",
            query::string(text),
            query::string(&to.to_string_lossy())
        );
        if self.ask_directly(&below, OP).await?.is_none() {
            return Ok(None);
        }
        let read = blocking(OP, move || {
            let failed = |error| Error::from_io(error, OP).with_host_path(&to);
            let mut bytes = Vec::new();
            let file = std::fs::File::open(&to).map_err(failed)?;
            let bound = limit.saturating_add(1);
            file.take(bound).read_to_end(&mut bytes).map_err(failed)?;
            drop(stage);
            Ok(bytes)
        });
        let bytes = read.await.map_err(|error| self.named(error))?;
        match bytes.len() as u64 > limit {
            true => Err(self.named(too_large())),
            false => Ok(Some(bytes.into())),
        }
    }

    /// Whether the engine sees a directory there. If not, the guest can say why.
    pub(super) async fn is_dir_directly(
        &self,
        path: &GuestPath,
        operation: Operation,
    ) -> Result<bool> {
        let Some(text) = self.direct(path) else {
            return Ok(false);
        };
        let seen = self.query_directly(text, operation).await?;
        Ok(seen.is_some_and(|seen| seen.is_dir))
    }
}
