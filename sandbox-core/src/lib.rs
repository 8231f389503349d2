//! The [`Sandbox`] trait and everything that backends and applications share.
//!
//! An application takes an `Arc<dyn Sandbox>` from a [`Provider`] and does not care which backend
//! made it; a backend implements the two traits and runs the conformance kit
//! (`sandbox-testkit`). [`layer`] has middleware for any sandbox.
//!
//! Architecture invariants: no backend, no HTTP, no TLS and nothing that only Linux has; no type
//! of a dependency in a public signature except those of `bytes`, `tokio`'s I/O traits, `serde`'s
//! derives and `async-trait`'s expansion.

mod capability;
mod command;
mod env;
mod error;
mod ext;
mod files;
mod info;
mod isolation;
pub mod layer;
mod output;
mod path;
mod process;
mod provider;
mod sandbox;
mod secret;
mod spec;
mod transfer;

pub use async_trait::async_trait;

pub use capability::{Capabilities, Capability, Support};
pub use command::{Command, DEFAULT_OUTPUT_LIMIT, Stdin};
pub use env::{Env, EnvValue};
pub use error::{Error, ErrorKind, Operation, Ran, Result};
pub use ext::SandboxExt;
pub use files::{
    CreateDirOptions, DEFAULT_LIST_LIMIT, DEFAULT_READ_LIMIT, DirEntry, FileBatch, FileKind,
    FileWrite, ListOptions, Metadata, Mode, ReadOptions, RemoveOptions, RenameOptions, WriteMode,
};
pub use info::{Labels, SandboxId, SandboxInfo, Snapshot, SnapshotId};
pub use isolation::{Control, Enforcement, IsolationReport};
pub use output::{Captured, CapturedOutput, Exit, ExitStatus, Output, ResourceUsage};
pub use path::GuestPath;
pub use process::{CollectOptions, Process, ProcessControl, ProcessOutput, ProcessStdin, Signal};
pub use provider::Provider;
pub use sandbox::Sandbox;
pub use secret::Secret;
pub use spec::{
    Access, ForkOptions, Mount, Network, RequiredIsolation, Resources, SandboxSpec,
    SnapshotOptions, Source,
};
pub use transfer::{ExistingDir, ExportOptions, ImportOptions, Skipped, TransferReport};
