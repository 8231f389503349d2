//! The program `sandbox`: sandboxes from the command line.
//!
//! It must never choose a weaker sandbox than was asked for, or print a secret. What goes to
//! standard output is the command's, or the answer that was asked for; everything else goes to
//! standard error.

mod arguments;
mod doctor;
#[cfg(all(feature = "local", target_os = "linux"))]
mod images;
#[cfg(feature = "mcp")]
mod mcp;
mod place;
mod review;
mod run;
#[cfg(feature = "remote")]
mod serve;
mod show;
mod stock;
mod stop;
mod terminal;
mod values;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use arguments::{Action, Arguments};
use show::{FAILED, Failure};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            show::complain(&format!("sandbox: no threads can be had: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    let done = runtime.block_on(act(arguments));
    // A read of standard input may be under way, which nothing can stop.
    runtime.shutdown_background();
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.tell(json);
            ExitCode::from(failure.code)
        }
    }
}

async fn act(arguments: Arguments) -> Result<u8, Failure> {
    let Arguments {
        provider,
        json,
        action,
    } = arguments;
    match action {
        Action::Run(options) => run::run(&provider, *options, json).await,
        Action::Shell(options) => terminal::shell(&provider, *options, json).await,
        Action::Doctor => doctor::doctor(&provider, json).await,
        Action::Ls(options) => stock::list(&provider, options, json).await,
        Action::Reap(options) => stock::reap(&provider, options, json).await,
        #[cfg(all(feature = "local", target_os = "linux"))]
        Action::Images(options) => images::images(options, json).await,
        Action::Snapshots(options) => stock::snapshots(&provider, options, json).await,
        #[cfg(feature = "remote")]
        Action::Serve(options) => serve::serve(&provider, options, json).await,
        #[cfg(feature = "mcp")]
        Action::Mcp(options) => mcp::mcp(&provider, options).await,
        Action::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "sandbox", &mut text);
            show::print(&text)?;
            Ok(0)
        }
    }
}
