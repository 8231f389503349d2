//! The guest of a sandbox of a group, reached by the calls of the data plane.
//!
//! It must never add to what a call promises: whether a line is repeated is the caller's to say.

use std::time::Duration;

use bytes::Bytes;
use sandbox_core::{Capabilities, Operation};

use crate::group::capability::CAPABILITIES as ALL;
use crate::guest::transport::Transport;
use crate::http::{Failure, Http};

impl Transport for Http {
    const STAGING: &'static str = "/var/tmp/.sandbox-";
    // Well under the gateway's 600 s.
    const SLICE: Duration = Duration::from_secs(200);
    const CAPABILITIES: Capabilities = ALL;
    const CLOSE_HINT: &'static str = "close it again, or delete it by its identifier";

    async fn shell(
        &self,
        op: Operation,
        id: &str,
        line: &str,
        repeat: bool,
        timeout: Duration,
    ) -> Result<String, Failure> {
        Self::shell(self, op, id, line, repeat, timeout).await
    }

    async fn touch(&self, id: &str) -> Result<(), Failure> {
        Self::touch(self, id).await
    }

    async fn delete(&self, op: Operation, id: &str) -> Result<(), Failure> {
        Self::delete(self, op, id).await
    }

    async fn put_file(
        &self,
        op: Operation,
        id: &str,
        path: &str,
        bytes: Bytes,
    ) -> Result<(), Failure> {
        Self::put_file(self, op, id, path, bytes).await
    }

    async fn get_file(
        &self,
        op: Operation,
        id: &str,
        path: &str,
        limit: u64,
    ) -> Result<Bytes, Failure> {
        Self::get_file(self, op, id, path, limit).await
    }
}
