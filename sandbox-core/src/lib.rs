//! The [`Sandbox`] trait and everything that backends and applications share.
//!
//! An application takes an `Arc<dyn Sandbox>` from a [`Provider`] and does not care which backend
//! made it; a backend implements the two traits and runs the conformance kit
//! (`sandbox-testkit`). [`layer`] has middleware for any sandbox.
//!
//! # Is it safe to run that again?
//!
//! An error of a command says how far it got, and claims [`NotStarted`](Execution::NotStarted) only
//! with proof:
//!
//! | [`error.execution()`](Error::execution) | The command | Running it again |
//! |---|---|---|
//! | `Some(NotStarted)` | never started | runs it once |
//! | `Some(Interrupted)` | started and was ended early; [`partial_output`](Error::partial_output) has what it wrote | is a second run |
//! | `Some(Unknown)` | may have run: the connection broke before an answer | may be a second run |
//! | `None` | the operation runs no command | see the operation |
//!
//! # Features
//!
//! `serde`: `Serialize` and `Deserialize` of specs, options, commands, outputs, metadata, reports
//! and capabilities. Names are in kebab case, times are seconds, bytes are text where they are
//! UTF-8. An unknown field is refused. A variable that was set with [`Env::secret`] can be read
//! (`TOKEN = { secret = "…" }`) and is never written: serialising it is an error.
//!
//! Architecture invariants: no backend, no HTTP, no TLS and nothing that only Linux has; no type
//! of a dependency in a public signature except those of `bytes`, `tokio`'s I/O traits, `serde`'s
//! derives and `async-trait`'s expansion.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backend;
mod capability;
mod changes;
mod command;
mod egress;
mod env;
mod error;
mod ext;
mod files;
mod info;
mod isolation;
mod job;
pub mod layer;
mod output;
mod path;
mod port;
mod port_wait;
mod process;
mod provider;
mod sandbox;
mod secret;
mod setters;
mod spec;
mod stream;
mod terminal;
mod transfer;
mod usage;
mod watch;
#[cfg(feature = "serde")]
mod wire;

pub use async_trait::async_trait;

pub use capability::{Capabilities, Capability, Support};
pub use changes::{Change, ChangeKind, Changes, ChangesOptions, FileVersion};
pub use command::{Command, DEFAULT_OUTPUT_LIMIT, Stdin};
pub use egress::{
    EgressDecision, EgressDecisions, EgressHeader, EgressLimits, EgressPolicy, EgressProtocol,
    EgressRule, EgressVerdict, HostPattern, canonical_host,
};
pub use env::{Env, EnvValue};
pub use error::{Error, ErrorKind, Execution, Operation, Result};
pub use ext::SandboxExt;
pub use files::{
    CreateDirOptions, DEFAULT_LIST_LIMIT, DEFAULT_READ_LIMIT, DirEntry, FileBatch, FileKind,
    FileWrite, ListOptions, Metadata, MetadataOptions, Mode, ReadOptions, RemoveOptions,
    RenameOptions, WriteMode,
};
pub use info::{Labels, SandboxId, SandboxInfo, SandboxStatus, Snapshot, SnapshotId};
pub use isolation::{Control, Enforcement, IsolationReport};
pub use job::{
    DEFAULT_LOG_LIMIT, DEFAULT_LOG_READ_LIMIT, Job, JobControl, JobInfo, JobKey, JobLog,
    JobOptions, JobState, LogChunk, LogOptions, LogStream,
};
pub use output::{
    CapturedStream, Exit, ExitCause, ExitStatus, Output, PartialOutput, ResourceUsage,
};
pub use path::GuestPath;
pub use port::PortStream;
pub use port_wait::{PortWaitOptions, Readiness};
pub use process::{
    CollectOptions, Process, ProcessControl, ProcessStderr, ProcessStdin, ProcessStdout, Signal,
};
pub use provider::Provider;
pub use sandbox::Sandbox;
pub use secret::Secret;
pub use spec::{
    Access, ForkOptions, GuestUser, Mount, Network, RequiredIsolation, Resources, SandboxSpec,
    SnapshotOptions, Source,
};
pub use stream::{FileReader, FileSink, FileWriter, OpenReadOptions, OpenWriteOptions};
pub use terminal::{DEFAULT_TERM, TerminalOptions, TerminalSize};
pub use transfer::{
    ExistingDir, ExportOptions, ImportOptions, Skipped, TransferCount, TransferProgress,
    TransferReport, Unreadable,
};
pub use usage::Usage;
pub use watch::{
    DEFAULT_WATCH_DIRECTORIES, DEFAULT_WATCH_EVENTS, FileEvent, FileWatch, WatchOptions,
};
