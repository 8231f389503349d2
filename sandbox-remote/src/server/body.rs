//! Bodies of requests: read within limits of bytes and of time.
//!
//! Invariant: what all requests hold in memory together has a bound, and a client that sends
//! nothing is not waited for.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use sandbox_core::{Error, ErrorKind, Operation, Result};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::reply::refused;
use crate::wire::MAX_HEAD;

/// A body that is being read.
pub(super) struct Incoming {
    body: Body,
    idle: Duration,
    operation: Operation,
}

/// A body in memory; its share of the bound is given back when it is dropped.
pub(super) struct Buffered {
    pub(super) bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl Incoming {
    pub(super) fn new(body: Body, idle: Duration, operation: Operation) -> Self {
        Self {
            body,
            idle,
            operation,
        }
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = tokio::time::timeout(self.idle, self.body.frame()).await;
            let frame = frame.map_err(|_| {
                let why = "the client sent nothing of the body for too long";
                refused(ErrorKind::InvalidInput, self.operation, why)
            })?;
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    let why = "the body came to an early end";
                    let error =
                        refused(ErrorKind::InvalidInput, self.operation, why).with_source(error);
                    return Err(error);
                }
            }
        }
    }

    /// Reads all of it into memory. `declared` is the length that the request states.
    pub(super) async fn buffer(
        mut self,
        declared: Option<usize>,
        most: usize,
        shares: &Arc<Semaphore>,
    ) -> Result<Buffered> {
        if declared.is_some_and(|length| length > most) {
            return Err(self.too_large(most));
        }
        // Without a length the whole limit is set aside.
        let kib = u32::try_from(declared.unwrap_or(most) / 1024 + 1).unwrap_or(u32::MAX);
        let share = Arc::clone(shares).acquire_many_owned(kib);
        let share = tokio::time::timeout(self.idle, share).await;
        let Ok(Ok(share)) = share else {
            let why = "the server holds as many request bodies as it may";
            return Err(refused(ErrorKind::RateLimited, self.operation, why));
        };
        let mut bytes = BytesMut::with_capacity(declared.unwrap_or(0).min(1 << 20));
        while let Some(data) = self.next().await? {
            if bytes.len() + data.len() > declared.unwrap_or(most).min(most) {
                return Err(self.too_large(most));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Buffered {
            bytes: bytes.freeze(),
            _share: share,
        })
    }

    /// Reads a head and writes what follows it to a file.
    pub(super) async fn store(mut self, most: u64) -> Result<(Bytes, std::fs::File)> {
        let operation = self.operation;
        let mut head = BytesMut::new();
        let length = loop {
            if let Some(length) = head.first_chunk::<4>() {
                let length = u32::from_be_bytes(*length);
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > MAX_HEAD {
                    return Err(self.too_large(MAX_HEAD));
                }
                if head.len() >= 4 + length {
                    break length;
                }
            }
            match self.next().await? {
                Some(data) => head.extend_from_slice(&data),
                None => {
                    let why = "the body ends within its head";
                    return Err(refused(ErrorKind::InvalidInput, operation, why));
                }
            }
        };
        head.advance(4);
        let rest = head.split_off(length);
        let disk = |error| Error::from_io(error, operation);
        let file = tokio::task::spawn_blocking(tempfile::tempfile).await;
        let file = file.map_err(|error| disk(std::io::Error::other(error)))?;
        let mut file = tokio::fs::File::from_std(file.map_err(disk)?);
        let mut written = rest.len() as u64;
        file.write_all(&rest).await.map_err(disk)?;
        while let Some(data) = self.next().await? {
            written += data.len() as u64;
            if written > most {
                return Err(self.too_large(most));
            }
            file.write_all(&data).await.map_err(disk)?;
        }
        file.flush().await.map_err(disk)?;
        Ok((head.freeze(), file.into_std().await))
    }

    fn too_large(&self, most: impl std::fmt::Display) -> Error {
        let why = format!("the body is larger than the server's limit of {most} bytes");
        refused(ErrorKind::LimitExceeded, self.operation, why)
    }
}
