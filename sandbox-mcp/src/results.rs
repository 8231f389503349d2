//! Results of the tools: fields that a model can act on.

use schemars::JsonSchema;
use serde::Serialize;

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SandboxOut {
    /// For sandbox_id in other calls.
    pub(crate) sandbox_id: String,
    /// ready, working, waiting, thinking, error, suspended or gone.
    pub(crate) status: String,
    /// Directory in which relative paths and commands start.
    pub(crate) workdir: Option<String>,
    /// Seconds until it is closed if it is not used.
    pub(crate) expires_in_seconds: Option<u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Sandboxes {
    pub(crate) sandboxes: Vec<SandboxOut>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Done {
    /// true if there was something to do.
    pub(crate) done: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChangedEntry {
    /// Path relative to the directory that was compared.
    pub(crate) path: String,
    /// added, modified, deleted, mode or replaced.
    pub(crate) change: &'static str,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChangesOut {
    pub(crate) changes: Vec<ChangedEntry>,
    /// Number of changes that there are; more than are listed if truncated.
    pub(crate) total: usize,
    pub(crate) truncated: bool,
    /// Entries that were not compared, and why.
    pub(crate) skipped: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConflictOut {
    /// Path relative to the directory.
    pub(crate) path: String,
    /// State of the other sandbox at this path.
    pub(crate) reason: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Applied {
    /// Whether anything may have been written: not with a conflict, and not by a dry run.
    pub(crate) written: bool,
    /// Paths that were put in place; without `written`, that would be.
    pub(crate) applied: Vec<String>,
    /// Number of such paths, of which the first thousand are listed.
    pub(crate) total: usize,
    /// Number of changes that the other sandbox has already.
    pub(crate) unchanged: usize,
    pub(crate) conflicts: Vec<ConflictOut>,
    /// Git hooks, CI definitions and the like that were changed and not put in place.
    pub(crate) automation: Vec<String>,
    /// Entries that were left out, and why.
    pub(crate) skipped: Vec<String>,
}

/// Whether a command ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ran {
    /// The command ran to its end.
    Yes,
    /// The command never started: running it again runs it once.
    NotStarted,
    /// The command started and was killed, by its timeout or with its sandbox.
    Interrupted,
    /// The command may have run.
    Unknown,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunOut {
    /// Whether it ran.
    pub(crate) ran: Ran,
    /// Exit code; 128 and the signal if a signal ended it.
    pub(crate) exit_code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: Text,
    /// Standard error.
    pub(crate) stderr: Text,
    /// Milliseconds that it took.
    pub(crate) duration_ms: u64,
    /// For output_read, if a stream is truncated.
    pub(crate) output_id: Option<String>,
    /// Reason, if it did not run to its end.
    pub(crate) error: Option<String>,
    /// Advice on what to do about the error.
    pub(crate) hint: Option<String>,
}

#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Text {
    /// The whole text, or its beginning if it is truncated.
    pub(crate) head: String,
    /// End of the text, if it is truncated.
    pub(crate) tail: Option<String>,
    /// true if something between head and tail is left out.
    pub(crate) truncated: bool,
    /// The byte at which output_read goes on behind the head.
    pub(crate) next_offset: Option<u64>,
    /// Number of bytes that were written in all.
    pub(crate) total_bytes: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OutputOut {
    pub(crate) text: String,
    /// Offset to read on from; null at the end.
    pub(crate) next_offset: Option<u64>,
    /// Number of bytes that were kept.
    pub(crate) kept_bytes: u64,
    /// Number of bytes that were written: what is beyond the kept ones is lost.
    pub(crate) total_bytes: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct JobOut {
    pub(crate) job: String,
    /// running, ended or failed.
    pub(crate) state: String,
    /// Exit code, once it has ended.
    pub(crate) exit_code: Option<i32>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LogOut {
    /// Text since the offset, both streams in order.
    pub(crate) text: String,
    /// For offset in the next call.
    pub(crate) next_offset: u64,
    /// Bytes behind the offset that are no longer kept.
    pub(crate) lost_bytes: u64,
    /// true if the job has ended and everything was read.
    pub(crate) ended: bool,
    /// Exit code, once it has ended.
    pub(crate) exit_code: Option<i32>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FileOut {
    pub(crate) content: String,
    /// The number of the first line, from 1.
    pub(crate) start_line: usize,
    /// The line to read on from; null at the end.
    pub(crate) next_line: Option<usize>,
    pub(crate) total_lines: usize,
    /// Number of these lines that were cut, because one alone is longer than 32768 bytes.
    pub(crate) cut_lines: usize,
    /// true if bytes that are not UTF-8 were replaced: do not write it back.
    pub(crate) lossy: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Written {
    /// Number of files that were written.
    pub(crate) files: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Edited {
    /// Number of replacements.
    pub(crate) replacements: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Entry {
    pub(crate) path: String,
    /// file, directory, symlink or other.
    pub(crate) kind: &'static str,
    pub(crate) size: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Entries {
    pub(crate) entries: Vec<Entry>,
    /// Number of entries that there are; more than are listed if truncated.
    pub(crate) total: usize,
    pub(crate) truncated: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Found {
    pub(crate) path: String,
    /// The line that has the text, from 1.
    pub(crate) line: Option<usize>,
    /// That line.
    pub(crate) text: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Finds {
    pub(crate) matches: Vec<Found>,
    /// true if there are more, or files were left out because they are too many or too large.
    pub(crate) truncated: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Exported {
    /// Path on the host.
    pub(crate) host_path: String,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Entries that were left out, and why.
    pub(crate) skipped: Vec<String>,
}
