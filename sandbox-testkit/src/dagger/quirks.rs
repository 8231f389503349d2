//! Behaviour of the real engine that surprises its clients, and faults that a test may order.
//!
//! Invariant: every quirk can be switched off, so that a test can show which one it is about.

use std::time::Duration;

/// Behaviour of the real engine that surprises its clients. All are on by default.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Quirks {
    /// Runs the same command on the same container once, and shares its result.
    pub exec_cache: bool,
    /// `expect: ANY` means the codes 0–127 and 192–255; others are errors that lose the files.
    pub any_is_not_all: bool,
    /// Errors carry the last 100 KiB of each stream only, without white space around it.
    pub error_tails: bool,
    /// `*` in the name of a file to remove is a pattern, and a missing file is not an error.
    pub delete_globs: bool,
    /// A directory of the host is read once in a session, unless `noCache` is said.
    pub host_cache: bool,
    /// Bytes that are not UTF-8 become U+FFFD in texts.
    pub lossy_text: bool,
    /// Error extensions have no `_type`.
    pub extensions_without_type: bool,
    /// More layers than this can't be mounted.
    pub layer_limit: Option<u32>,
    /// Commands get variables of the engine: tracing, its own settings, `BAGGAGE`.
    pub engine_variables: bool,
    /// Way in which it shows what commands write while they run.
    pub live_logs: LiveLogs,
}

/// Ways in which the engine shows what commands write while they run: `GET /v1/logs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LiveLogs {
    /// In records with what was written at once, within 100 ms.
    Prompt,
    /// There is no such route: spawned commands are refused.
    Absent,
    /// This much later.
    Late(Duration),
    /// The connection is closed after each record.
    Cut,
    /// Records that wait at the same time come in turned order.
    Turned,
    /// Each record comes twice.
    Doubled,
    /// Every third record is lost.
    Lost,
    /// Before each record comes one of another query, with another text.
    Foreign,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            exec_cache: true,
            any_is_not_all: true,
            error_tails: true,
            delete_globs: true,
            host_cache: true,
            lossy_text: true,
            extensions_without_type: false,
            layer_limit: Some(500),
            engine_variables: true,
            live_logs: LiveLogs::Prompt,
        }
    }
}

/// Something that goes wrong with one request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The request is carried out and the connection closed instead of an answer.
    ResetAfter,
    /// The connection is closed before anything is carried out.
    ResetBefore,
    /// The request is carried out and the answer is not JSON.
    Garbage,
    /// The request is carried out and the answer has this many bytes.
    Oversized(usize),
    /// The answer comes this much later.
    Slow(Duration),
    /// Nothing is carried out; this status with a plain text.
    Status(u16, &'static str),
    /// Nothing is carried out; the engine waits for a client's attachables that never come.
    StaleSession,
    /// The request is carried out, and the engine, which is asked to end meanwhile, answers with
    /// status 200 and this error.
    Ending(&'static str),
    /// Nothing is carried out; the engine, which is asked to end, answers with status 503 and this
    /// error.
    NotBegun(&'static str),
    /// The request is carried out and the answer has neither data nor errors.
    NullData,
}
