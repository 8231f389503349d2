//! The server for a tenant's container: one owner, one sandbox that is there from the start, and
//! those that the owner creates.
//!
//! It must never serve without knowing its owner, or run commands without isolation unless that was
//! named and the container is the isolation.

mod container;
mod entra;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use sandbox_core::{Error, ErrorKind, Network, Operation, Provider, Result, SandboxSpec};
use sandbox_local::{PlainConfig, PlainProvider};
use sandbox_remote::{Access, Listener, Server, ServerConfig, TokenAccess};

use entra::{Entra, EntraAccess};

/// Serves a sandbox to the owner of this container.
///
/// There is no TLS: the container's ingress has it.
#[derive(Parser)]
#[command(name = "sandbox-agent", version)]
struct Arguments {
    /// Address and port to listen on
    #[arg(long, env = "SANDBOX_AGENT_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Backend that runs the commands
    #[arg(
        long,
        env = "SANDBOX_AGENT_BACKEND",
        value_enum,
        default_value = "local"
    )]
    backend: Backend,
    /// Let sandboxes use the container's network, with the identity of the container if it has one
    #[arg(long, env = "SANDBOX_AGENT_NETWORK", value_enum, default_value = "off")]
    network: NetworkChoice,
    /// A file with the owner's token; the variable SANDBOX_AGENT_TOKEN may have it instead
    #[arg(long, env = "SANDBOX_AGENT_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The SHA-256 digest of the owner's token as hexadecimal digits, instead of the token: what
    /// runs here can't read what is not here
    #[arg(long, env = "SANDBOX_AGENT_TOKEN_DIGEST", value_name = "DIGEST")]
    #[arg(conflicts_with = "token_file")]
    token_digest: Option<String>,
    /// The owner's tenant in Entra, instead of a token
    #[arg(long, env = "SANDBOX_AGENT_ENTRA_TENANT", value_name = "ID")]
    #[arg(
        requires = "entra_audience",
        requires = "entra_object",
        conflicts_with = "token_file",
        conflicts_with = "token_digest"
    )]
    entra_tenant: Option<String>,
    /// Audience that tokens must be for: an application's identifier or URI
    #[arg(long, env = "SANDBOX_AGENT_ENTRA_AUDIENCE", value_name = "AUDIENCE")]
    entra_audience: Option<String>,
    /// The owner: an object identifier of that tenant
    #[arg(long, env = "SANDBOX_AGENT_ENTRA_OBJECT", value_name = "ID")]
    entra_object: Option<String>,
    /// Authority that gives out tokens
    #[arg(long, env = "SANDBOX_AGENT_ENTRA_AUTHORITY", value_name = "URL")]
    #[arg(default_value = "https://login.microsoftonline.com")]
    entra_authority: String,
    /// Commands at the same time
    #[arg(long, env = "SANDBOX_AGENT_MAX_COMMANDS", default_value_t = 64)]
    max_commands: usize,
    /// Open sandboxes at the same time
    #[arg(long, env = "SANDBOX_AGENT_MAX_SANDBOXES", default_value_t = 64)]
    max_sandboxes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Backend {
    /// Linux namespaces within the container
    Local,
    /// Ordinary processes: the container is the only isolation, and commands can end the agent
    Plain,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NetworkChoice {
    Off,
    Open,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .init();
    match serve(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: Arguments) -> Result<()> {
    let access = access(&arguments)?;
    let provider = provider(arguments.backend)?;
    let network = match (arguments.network, arguments.backend) {
        (NetworkChoice::Open, _) => Network::Open,
        // Plain processes have the container's network; to say otherwise would be a lie.
        (NetworkChoice::Off, Backend::Plain) => {
            return Err(Error::new(ErrorKind::InvalidInput, Operation::Create)
                .with_message("the backend plain can't keep commands from the network")
                .with_hint("use the backend local, or say --network open"));
        }
        (NetworkChoice::Off, Backend::Local) => Network::Off,
    };
    let own = provider.create(SandboxSpec::new().network(network)).await?;
    let config = ServerConfig::new()
        .max_commands(arguments.max_commands)
        .max_sandboxes(arguments.max_sandboxes);
    let listener = Listener::tcp(arguments.listen)?;
    let serving = Server::new(provider, access)
        .sandbox(own)
        .config(config)
        .start(listener)?;
    let uri = serving.uri();
    tracing::info!("serving at {}", uri.trim_start_matches("remote:http://"));
    tokio::select! {
        () = serving.ended() => {}
        () = stopped() => tracing::info!("stopping"),
    }
    // The platform kills what takes longer.
    let _ = tokio::time::timeout(Duration::from_secs(20), serving.close()).await;
    Ok(())
}

fn provider(backend: Backend) -> Result<Arc<dyn Provider>> {
    match backend {
        #[cfg(target_os = "linux")]
        Backend::Local => {
            let config = sandbox_local::LocalConfig::default();
            Ok(Arc::new(sandbox_local::LocalProvider::new(config)?))
        }
        #[cfg(not(target_os = "linux"))]
        Backend::Local => {
            let why = "it isolates by means that only Linux has";
            Err(Error::unsupported(
                Operation::Create,
                "the backend local",
                why,
            ))
        }
        Backend::Plain => {
            container::require()?;
            container::hide()?;
            Ok(Arc::new(PlainProvider::new(PlainConfig::new())?))
        }
    }
}

fn access(arguments: &Arguments) -> Result<Arc<dyn Access>> {
    let Arguments {
        entra_tenant,
        entra_audience,
        entra_object,
        ..
    } = arguments;
    if let (Some(tenant), Some(audience), Some(object)) =
        (entra_tenant, entra_audience, entra_object)
    {
        let owner = Entra {
            authority: arguments.entra_authority.clone(),
            tenant: tenant.clone(),
            audience: audience.clone(),
            object: object.clone(),
        };
        return Ok(Arc::new(EntraAccess::new(owner)?));
    }
    if let Some(digest) = &arguments.token_digest {
        return Ok(Arc::new(TokenAccess::digest(digest)?));
    }
    let token = match &arguments.token_file {
        Some(file) => std::fs::read(file).map_err(|error| {
            Error::from_io(error, Operation::Connect)
                .with_message("the token's file can't be read")
                .with_host_path(file)
        })?,
        None => match std::env::var("SANDBOX_AGENT_TOKEN") {
            Ok(token) => token.into_bytes(),
            Err(_) => {
                return Err(Error::new(ErrorKind::InvalidInput, Operation::Connect)
                    .with_message("the agent does not know its owner")
                    .with_hint(
                        "give --token-digest, --token-file, the variable SANDBOX_AGENT_TOKEN, or \
                         --entra-tenant, --entra-audience and --entra-object",
                    ));
            }
        },
    };
    Ok(Arc::new(TokenAccess::new(token.trim_ascii())?))
}

#[cfg(unix)]
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
    }
}

#[cfg(not(unix))]
async fn stopped() {
    // Without a handler it ends as the system ends it.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}
