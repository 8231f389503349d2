//! The program `sandbox-mcp`: local sandboxes for an agent, over stdio or HTTP.
//!
//! It must never print anything but the protocol to standard output.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use sandbox_core::Provider;
use sandbox_mcp::{HttpOptions, Server, ServerOptions};
use sandbox_sessions::{Limits, Sessions, SessionsConfig, ShutdownOptions};

type Failed = Box<dyn std::error::Error>;

fn common(command: Command) -> Command {
    command
        .arg(
            Arg::new("export-root")
                .long("export-root")
                .value_name("DIRECTORY")
                .help("Let exports land below this directory of the host")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            Arg::new("import-root")
                .long("import-root")
                .value_name("DIRECTORY")
                .help("Let sandbox_create import directories below this one; may be repeated")
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            Arg::new("allow-network")
                .long("allow-network")
                .help("Let sandboxes reach the network when they ask for it")
                .action(ArgAction::SetTrue),
        )
        .arg(
            Arg::new("idle-timeout")
                .long("idle-timeout")
                .value_name("SECONDS")
                .help("Close a sandbox that was not used for so long")
                .default_value("3600")
                .value_parser(value_parser!(u64).range(1..)),
        )
        .arg(
            Arg::new("most")
                .long("most")
                .value_name("SANDBOXES")
                .help("How many sandboxes there may be")
                .default_value("32")
                .value_parser(value_parser!(u32).range(1..)),
        )
}

fn interface() -> Command {
    let http = common(Command::new("http").about("Serve streamable HTTP at /mcp"))
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("ADDRESS")
                .help("Where to listen")
                .default_value("127.0.0.1:8848")
                .value_parser(value_parser!(SocketAddr)),
        )
        .arg(
            Arg::new("allow-host")
                .long("allow-host")
                .value_name("NAME")
                .help("Serve this name in the Host header too")
                .action(ArgAction::Append),
        )
        .arg(
            Arg::new("allow-origin")
                .long("allow-origin")
                .value_name("ORIGIN")
                .help("Let pages of this origin send requests, such as https://app.example.com:443")
                .action(ArgAction::Append),
        )
        .after_help("The bearer token is taken from the variable SANDBOX_MCP_TOKEN.");
    Command::new("sandbox-mcp")
        .about("Gives an agent sandboxes over the Model Context Protocol")
        .subcommand_required(true)
        .subcommand(common(
            Command::new("stdio").about("Serve one client over standard input and output"),
        ))
        .subcommand(http)
}

#[cfg(target_os = "linux")]
fn provider() -> Result<Arc<dyn Provider>, Failed> {
    let config = sandbox_local::LocalConfig::default();
    Ok(Arc::new(sandbox_local::LocalProvider::new(config)?))
}

#[cfg(not(target_os = "linux"))]
fn provider() -> Result<Arc<dyn Provider>, Failed> {
    Err("local sandboxes need Linux; link sandbox_mcp::Server to another provider".into())
}

fn options(matches: &ArgMatches) -> ServerOptions {
    let mut options = ServerOptions::new().allow_network(matches.get_flag("allow-network"));
    if let Some(root) = matches.get_one::<PathBuf>("export-root") {
        options = options.export_root(root);
    }
    for root in matches
        .get_many::<PathBuf>("import-root")
        .into_iter()
        .flatten()
    {
        options = options.import_root(root);
    }
    options
}

async fn open(matches: &ArgMatches) -> Result<Sessions, Failed> {
    let idle = matches
        .get_one::<u64>("idle-timeout")
        .copied()
        .unwrap_or(3600);
    let most = matches.get_one::<u32>("most").copied().unwrap_or(32);
    let config = SessionsConfig::new()
        .idle_timeout(Duration::from_secs(idle))
        .limits(Limits::new().total(most as usize));
    Ok(Sessions::open(provider()?, config).await?)
}

async fn serve(matches: ArgMatches) -> Result<(), Failed> {
    match matches.subcommand() {
        Some(("http", matches)) => {
            let token = std::env::var("SANDBOX_MCP_TOKEN")
                .map_err(|_| "set SANDBOX_MCP_TOKEN to the token that clients must send")?;
            let mut http = HttpOptions::new(token);
            for host in matches
                .get_many::<String>("allow-host")
                .into_iter()
                .flatten()
            {
                http = http.allow_host(host);
            }
            for origin in matches
                .get_many::<String>("allow-origin")
                .into_iter()
                .flatten()
            {
                http = http.allow_origin(origin);
            }
            let Some(address) = matches.get_one::<SocketAddr>("listen").copied() else {
                return Err("--listen is missing".into());
            };
            let sessions = open(matches).await?;
            let server = Server::new(sessions.clone(), options(matches))?;
            let ready = |address| tell(&format!("listening on http://{address}/mcp"));
            let served = tokio::select! {
                served = server.serve_http(address, http, ready) => served,
                _ = tokio::signal::ctrl_c() => Ok(()),
            };
            sessions.shutdown(ShutdownOptions::new()).await?;
            served?;
        }
        Some((_, matches)) => {
            let server = Server::new(open(matches).await?, options(matches))?;
            server.serve_stdio().await?;
        }
        None => {}
    }
    Ok(())
}

#[allow(clippy::print_stderr)]
fn tell(line: &str) {
    eprintln!("{line}");
}

fn main() -> ExitCode {
    let matches = interface().get_matches();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(&format!("sandbox-mcp: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(serve(matches));
    // Standard input is read by a thread that only its end would end.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("sandbox-mcp: {error}"));
            ExitCode::FAILURE
        }
    }
}
