//! Large contents on their way into a guest: in parts, into a directory of ours.
//!
//! Nothing is put under a name that the caller knows before it is there in full.

use std::fs::File;
use std::io::Read as _;

use bytes::Bytes;
use sandbox_core::{Error, ErrorKind, Operation, Result};

use crate::guest::handle::Guest;
use crate::guest::transport::{PART, Transport};

impl<T: Transport> Guest<T> {
    /// Uploads bytes in parts and gives the parts' names, for the shell.
    pub(crate) async fn upload(&self, op: Operation, dir: &str, bytes: &Bytes) -> Result<String> {
        let mut names = Vec::new();
        for start in (0..bytes.len()).step_by(PART) {
            let part = bytes.slice(start..(start + PART).min(bytes.len()));
            names.push(self.upload_part(op, dir, names.len(), part).await?);
        }
        Ok(names.join(" "))
    }

    /// Uploads a file of the host; memory does not grow with it.
    pub(crate) async fn upload_file(
        &self,
        op: Operation,
        dir: &str,
        mut file: File,
    ) -> Result<String> {
        let mut names = Vec::new();
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let mut part = Vec::new();
                let read = (&mut file).take(PART as u64).read_to_end(&mut part);
                read.map(|_| (part, file))
            });
            let read = read
                .await
                .map_err(|e| self.named(Error::new(ErrorKind::Other, op).with_source(e)))?;
            let (part, rest) = read.map_err(|e| self.named(Error::from_io(e, op)))?;
            if part.is_empty() {
                return Ok(names.join(" "));
            }
            file = rest;
            names.push(self.upload_part(op, dir, names.len(), part.into()).await?);
        }
    }

    pub(crate) async fn upload_part(
        &self,
        op: Operation,
        dir: &str,
        number: usize,
        part: Bytes,
    ) -> Result<String> {
        let name = format!("{dir}/part-{number}");
        let put = self
            .transport
            .put_file(op, self.id.as_str(), &name, part)
            .await;
        put.map_err(|failure| self.failed(failure))?;
        Ok(name)
    }
}
