//! One trait for running untrusted code: on a laptop, in a container engine, in a cloud.
//!
//! [`Sandbox`] is the trait and has the contract; a [`Provider`] creates sandboxes. Which one is
//! chosen by a URI ([`connect`]) or by the environment ([`connect_from_env`]); everything after
//! that is the same for all of them.
//!
//! ```no_run
//! use sandbox::{SandboxExt, SandboxSpec};
//!
//! # async fn run() -> sandbox::Result<()> {
//! let provider = sandbox::connect("local:").await?;
//! let sandbox = provider.create(SandboxSpec::new()).await?;
//! let output = sandbox.sh("echo hello from $(uname)").await?;
//! assert!(output.success());
//! sandbox.close().await
//! # }
//! ```
//!
//! | URI | Backend | Feature |
//! |---|---|---|
//! | `local:` | Linux namespaces on this host, no daemon | `local` (default) |
//! | `local-landlock:` | Landlock and a filter, no namespaces: weaker, only by name | `local` (default) |
//! | `local-plain:` | ordinary processes, **no isolation**, only by name | `local` (default) |
//! | `dagger:` | containers of a Dagger engine | `dagger` |
//! | `aca-sandboxes:` | microVM sandboxes of Azure Container Apps | `aca` |
//! | `aca-sessions:` | dynamic sessions of Azure Container Apps | `aca` |
//! | `remote:` | sandboxes behind a server: `remote:https://HOST:PORT`, `remote:unix:/PATH` | `remote` |
//!
//! A [`Registry`] has these and the schemes of other backends that an application adds.
//!
//! Architecture invariant: nothing here runs code of a guest. This crate chooses a backend, passes
//! on what the core and the backends give out, and exposes ports on the host ([`expose`]).

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backends;
#[cfg(feature = "config")]
pub mod config;
mod connect;
mod connector;
mod expose;
#[cfg(feature = "preview")]
mod preview;
mod registry;
mod settings;

pub use connect::{PROVIDER_VARIABLE, Selection, connect, connect_chain, connect_from_env};
pub use connector::Connector;
pub use expose::{ExposeAt, Exposed, expose};
#[cfg(feature = "preview")]
pub use preview::{Preview, preview};
pub use registry::Registry;
pub use sandbox_core::*;
pub use settings::Settings;

/// Changes of a sandbox as a patch, and put in place on the host or in another sandbox.
#[cfg(feature = "changes")]
pub mod changes {
    pub use sandbox_transfer::changes::*;
}

/// The embedded backend: its providers and their configuration.
#[cfg(feature = "local")]
pub mod local {
    pub use sandbox_local::*;
}

/// Sandboxes in a Dagger engine: the provider and its configuration.
#[cfg(feature = "dagger")]
pub mod dagger {
    pub use crate::backends::dagger::connect;
    pub use sandbox_dagger::*;
}

/// Azure Container Apps: its providers, their configuration and where tokens come from.
#[cfg(feature = "aca")]
pub mod aca {
    pub use sandbox_aca::*;
}

/// Layers that need more than the core brings: audit, policy, metrics.
#[cfg(feature = "layers")]
pub mod layers {
    pub use sandbox_layers::*;
}

/// Sandboxes kept for tenants under keys: reuse, limits, expiry, a pool, a journal.
#[cfg(feature = "sessions")]
pub mod sessions {
    pub use sandbox_sessions::*;
}

/// Environments of coding agents: a repository, an agent, a branch or patch as the result.
#[cfg(feature = "coding")]
pub mod coding {
    pub use sandbox_coding::*;
}

/// Sandboxes behind a server, and the server.
#[cfg(feature = "remote")]
pub mod remote {
    pub use sandbox_remote::*;
}

/// The guides' programs, compiled and run as documentation tests.
#[cfg(all(doctest, feature = "local", target_os = "linux"))]
mod guides {
    macro_rules! guides {
        ($($name:ident: $file:literal),* $(,)?) => {$(
            #[doc = include_str!(concat!("../docs/guides/", $file))]
            mod $name {}
        )*};
    }
    guides! {
        cli: "cli.md",
        files: "files.md",
        fork_and_pick: "fork-and-pick.md",
        images: "images.md",
        isolation: "isolation.md",
        jobs_and_ports: "jobs-and-ports.md",
        lasting: "lasting.md",
        mock: "mock.md",
        terminals: "terminals.md",
        network: "network.md",
        untrusted_tool: "untrusted-tool.md",
        usage_and_pause: "usage-and-pause.md",
        watch: "watch.md",
        write_a_backend: "write-a-backend.md",
    }
    #[cfg(feature = "changes")]
    guides! { changes: "changes.md" }
    #[cfg(feature = "aca")]
    guides! { azure: "azure.md" }
    #[cfg(all(feature = "aca", feature = "remote"))]
    guides! { azure_tenants: "azure-tenants.md" }
    #[cfg(feature = "remote")]
    guides! { remote: "remote.md" }
    #[cfg(feature = "dagger")]
    guides! { dagger: "dagger.md" }
    #[cfg(feature = "sessions")]
    guides! { first_program: "first-program.md", sessions: "sessions.md" }
    #[cfg(feature = "coding")]
    guides! { coding_agents: "coding-agents.md" }
    #[cfg(feature = "layers")]
    guides! {
        observability: "observability.md",
        policy: "policy.md",
    }
    #[cfg(feature = "config")]
    guides! { configuration: "configuration.md" }
}
