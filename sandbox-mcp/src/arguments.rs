//! Arguments of the tools. Each field's documentation is what a model reads in the input schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    /// A name for the sandbox: letters, digits, hyphens. Creating one that exists gives it back.
    pub(crate) name: Option<String>,
    /// An image to start from, such as docker.io/library/python:3.12, where the backend has images;
    /// refused unless the operator allows the network.
    pub(crate) image: Option<String>,
    /// Environment variables of every command.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// Absolute path where relative paths and commands start.
    pub(crate) workdir: Option<String>,
    /// Limit on memory, in MiB.
    pub(crate) memory_mib: Option<u64>,
    /// Limit on processes and threads.
    pub(crate) pids: Option<u32>,
    /// true to reach the network; refused unless the operator allows it.
    #[serde(default)]
    pub(crate) network: bool,
    /// A directory of the host to copy into the workdir of a new sandbox; it must lie below an
    /// import root of the operator.
    pub(crate) import: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfSandbox {
    /// The sandbox's identifier, from sandbox_create or sandbox_list.
    pub(crate) sandbox_id: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fork {
    /// The sandbox to copy.
    pub(crate) sandbox_id: String,
    /// A name for the copy.
    pub(crate) name: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangesIn {
    /// The sandbox; for what was done since a moment, one that was forked then.
    pub(crate) sandbox_id: String,
    /// The directory to compare. Default: the workdir.
    pub(crate) path: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Apply {
    /// The sandbox whose changes are taken, since its beginning: a fork of the other one, as a rule.
    pub(crate) sandbox_id: String,
    /// The sandbox that gets them.
    pub(crate) to: String,
    /// The directory to compare. Default: the workdir.
    pub(crate) path: Option<String>,
    /// The directory of the other sandbox that gets them. Default: as path.
    pub(crate) to_path: Option<String>,
    /// true to put in place git hooks, CI definitions and settings that are obeyed by themselves too;
    /// otherwise they are only listed.
    #[serde(default)]
    pub(crate) automation: bool,
    /// true to compare only and write nothing.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// The sandbox to run it in.
    pub(crate) sandbox_id: String,
    /// Program and arguments, passed as they are. Give this or script.
    #[serde(default)]
    pub(crate) argv: Vec<String>,
    /// A script for /bin/sh. Give this or argv.
    pub(crate) script: Option<String>,
    /// Directory in which it starts, relative to the workdir.
    pub(crate) cwd: Option<String>,
    /// Environment variables of this command.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// Text for its standard input.
    pub(crate) stdin: Option<String>,
    /// Seconds after which it and everything it started are killed. Default: 600.
    pub(crate) timeout_seconds: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutputRead {
    /// From the result of run.
    pub(crate) output_id: String,
    /// stdout or stderr. Default: stdout.
    pub(crate) stream: Option<Stream>,
    /// The byte to start at.
    #[serde(default)]
    pub(crate) offset: u64,
    /// At most this many bytes. Default and most: 32768.
    pub(crate) limit: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobStart {
    /// The sandbox to run it in.
    pub(crate) sandbox_id: String,
    /// A key for the job. Starting one that exists gives it back instead of running it twice.
    pub(crate) job: String,
    /// Program and arguments. Give this or script.
    #[serde(default)]
    pub(crate) argv: Vec<String>,
    /// A script for /bin/sh. Give this or argv.
    pub(crate) script: Option<String>,
    /// Directory in which it starts, relative to the workdir.
    pub(crate) cwd: Option<String>,
    /// Environment variables of this command.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// true to keep its standard input open for job_write.
    #[serde(default)]
    pub(crate) stdin: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobRead {
    /// The sandbox it runs in.
    pub(crate) sandbox_id: String,
    /// The job's key.
    pub(crate) job: String,
    /// The byte of its log to start at: 0, or next_offset of the call before.
    #[serde(default)]
    pub(crate) offset: u64,
    /// Seconds to wait for more if there is nothing to read, at most 50. Default: 0.
    #[serde(default)]
    pub(crate) wait_seconds: u64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobWrite {
    /// The sandbox it runs in.
    pub(crate) sandbox_id: String,
    /// The job's key.
    pub(crate) job: String,
    /// Text for its standard input.
    #[serde(default)]
    pub(crate) text: String,
    /// true to end its input after the text.
    #[serde(default)]
    pub(crate) end: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobOf {
    /// The sandbox it runs in.
    pub(crate) sandbox_id: String,
    /// The job's key.
    pub(crate) job: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileRead {
    /// The sandbox.
    pub(crate) sandbox_id: String,
    /// The file, relative to the workdir or absolute.
    pub(crate) path: String,
    /// The first line to read, from 1. Default: 1.
    pub(crate) start_line: Option<usize>,
    /// Number of lines. Default: as many as fit into 32768 bytes.
    pub(crate) lines: Option<usize>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileWrite {
    /// The sandbox.
    pub(crate) sandbox_id: String,
    /// The files; all of them are written or none.
    pub(crate) files: Vec<NewFile>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewFile {
    /// The file, relative to the workdir or absolute. Directories above it are made.
    pub(crate) path: String,
    /// Whole content of the file.
    pub(crate) content: String,
    /// true to make it executable.
    #[serde(default)]
    pub(crate) executable: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileEdit {
    /// The sandbox.
    pub(crate) sandbox_id: String,
    /// The file.
    pub(crate) path: String,
    /// The text to replace, exactly as it stands in the file, with line breaks and indentation.
    pub(crate) search: String,
    /// Text to put in its place.
    pub(crate) replace: String,
    /// true to replace it wherever it stands; otherwise it must stand there once.
    #[serde(default)]
    pub(crate) all: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileList {
    /// The sandbox.
    pub(crate) sandbox_id: String,
    /// The directory. Default: the workdir.
    pub(crate) path: Option<String>,
    /// true to list what lies below too.
    #[serde(default)]
    pub(crate) recursive: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileFind {
    /// The sandbox.
    pub(crate) sandbox_id: String,
    /// The directory to search. Default: the workdir.
    pub(crate) path: Option<String>,
    /// A glob on paths below the directory, such as **/*.rs. Default: every file.
    pub(crate) glob: Option<String>,
    /// A text that the file must have, on one line.
    pub(crate) text: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Export {
    /// The sandbox.
    pub(crate) sandbox_id: String,
    /// The directory in the sandbox. Default: the workdir.
    pub(crate) path: Option<String>,
    /// A name below the operator's export root; it must not exist yet.
    pub(crate) to: String,
}
