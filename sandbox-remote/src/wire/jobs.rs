//! Jobs: how one is started, and what is asked of it.

use std::time::SystemTime;

use sandbox_core::{
    JobInfo, JobKey, JobLog, JobOptions, LogChunk, LogOptions, LogStream, TerminalSize,
};
use serde::{Deserialize, Serialize};

use super::{Base64, Run};

#[derive(Serialize, Deserialize)]
pub(crate) struct StartJob {
    pub(crate) key: JobKey,
    pub(crate) run: Run,
    #[serde(default)]
    pub(crate) options: JobOptions,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) key: JobKey,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Jobs {
    pub(crate) jobs: Vec<JobInfo>,
}

/// A question to a job, or a change of it.
#[derive(Serialize, Deserialize)]
pub(crate) struct AskJob {
    pub(crate) key: JobKey,
    /// The time at which it was started, as its [`JobInfo`] says: a later job under the same key is
    /// another.
    pub(crate) started: SystemTime,
    pub(crate) ask: Ask,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// Answered with a [`JobInfo`].
    Info,
    /// Answered with a [`WireLog`].
    ReadLog {
        from: u64,
        options: LogOptions,
    },
    /// Answered with [`Taken`](super::Taken).
    WriteStdin {
        offset: u64,
        bytes: Base64,
    },
    CloseStdin,
    /// Answered with [`Waited`](super::Waited).
    Wait,
    Resize {
        size: TerminalSize,
    },
    Signal {
        signal: i32,
    },
    Stop,
    Forget,
}

impl Ask {
    /// Whether it must not be done twice.
    #[cfg(feature = "server")]
    pub(crate) fn changes(&self) -> bool {
        matches!(self, Self::Signal { .. } | Self::Stop | Self::Forget)
    }
}

/// A part of a log, with its bytes in base64.
#[derive(Serialize, Deserialize)]
struct Chunk {
    offset: u64,
    stream: LogStream,
    bytes: Base64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct WireLog {
    chunks: Vec<Chunk>,
    next: u64,
    lost: u64,
    first_kept: u64,
    ended: bool,
}

impl From<JobLog> for WireLog {
    fn from(log: JobLog) -> Self {
        let chunks = log.chunks.into_iter().map(|chunk| Chunk {
            offset: chunk.offset,
            stream: chunk.stream,
            bytes: Base64(chunk.bytes),
        });
        Self {
            chunks: chunks.collect(),
            next: log.next,
            lost: log.lost,
            first_kept: log.first_kept,
            ended: log.ended,
        }
    }
}

impl From<WireLog> for JobLog {
    fn from(wire: WireLog) -> Self {
        let chunks = wire.chunks.into_iter();
        let mut log = Self::default();
        log.chunks = chunks
            .map(|chunk| LogChunk::new(chunk.offset, chunk.stream, chunk.bytes.0))
            .collect();
        log.next = wire.next;
        log.lost = wire.lost;
        log.first_kept = wire.first_kept;
        log.ended = wire.ended;
        log
    }
}
