//! A sandbox in memory: the reference that backends are compared with, and a mock.
//!
//! It implements the whole contract on a tree in memory. Commands are not real programs: a tiny
//! shell and some thirty programs (`cat`, `printf`, `head`, `sleep`, …) run as tasks, and
//! [`ModelProviderBuilder::on`] answers any other command as a test wants it.
//!
//! ```
//! use sandbox_core::{Command, Provider, SandboxSpec};
//! use sandbox_testkit::model::{MockOutcome, ModelProvider};
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let provider = ModelProvider::builder()
//!     .on(|command: &Command| {
//!         (command.program() == b"cargo").then(|| MockOutcome::exit(101).stderr("error: no"))
//!     })
//!     .build();
//! let sandbox = provider.create(SandboxSpec::new()).await?;
//! let output = sandbox.exec(Command::new("cargo").arg("test")).await?;
//! assert_eq!(output.status.code(), Some(101));
//! assert_eq!(provider.calls().len(), 2); // create, exec
//! # Ok::<(), sandbox_core::Error>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Architecture invariant: nothing here touches the host but `import_dir` and `export_dir`, and
//! those only the directory that they are given.

mod changes;
mod core;
mod export;
mod files;
mod fixture;
mod front;
mod import;
mod mock;
mod process;
mod provider;
mod sandbox;
mod shell;
mod stream;
mod tree;
mod watch;

use sandbox_core::{Capabilities, Capability};

pub use fixture::ModelFixture;
pub use mock::{Call, End, Fault, MockOutcome, Step};
pub use provider::{ModelProvider, ModelProviderBuilder};
pub use sandbox::ModelSandbox;

const NO_PROGRAMS: &str = "the model runs no real programs";

/// Capabilities of the model.
pub const CAPABILITIES: Capabilities = Capabilities::none("this backend does not have it")
    .with_each(&[
        Capability::Exec,
        Capability::Spawn,
        Capability::StdinPipe,
        Capability::Signals,
        Capability::KillDaemons,
        Capability::Background,
        Capability::Fork,
        Capability::Snapshot,
        Capability::SnapshotList,
        Capability::SnapshotDelete,
        Capability::List,
        Capability::Attach,
        Capability::Ttl,
        Capability::Symlinks,
        Capability::Modes,
        Capability::NonUtf8Names,
        Capability::FilePermissions,
        Capability::NetworkOff,
        Capability::Isolation,
        Capability::Jobs,
        Capability::FileStreams,
        Capability::Changes,
        Capability::Usage,
        Capability::Lasting,
        Capability::Watch,
    ])
    .without(Capability::User, "the model has one user")
    .without(
        Capability::ForkMemory,
        "processes of the model are not copied",
    )
    .without(Capability::Image, "the model starts from nothing")
    .without(Capability::RootDir, "the model starts from nothing")
    .without(Capability::Mounts, "the model is in memory")
    .without(Capability::NetworkOpen, "the model has no network")
    .without(Capability::EgressByName, "the model has no network")
    .without(Capability::Terminal, NO_PROGRAMS)
    .without(Capability::Ports, NO_PROGRAMS)
    .without(Capability::MemoryLimit, NO_PROGRAMS)
    .without(Capability::CpuLimit, NO_PROGRAMS)
    .without(Capability::PidsLimit, NO_PROGRAMS)
    .without(Capability::DiskLimit, "the model is in memory");
