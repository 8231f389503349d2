//! `cargo xtask`: checks of this repository that neither the compiler nor clippy makes.
//!
//! It reads, builds documentation and compares. It must never change a file of the repository,
//! except for the listings of the public API, and those only with `api --bless`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // A program that talks to its user.

mod api;
mod features;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const USAGE: &str = "\
usage: cargo xtask COMMAND
  tidy           file headers, unsafe code, words, links, the core's dependencies
  api            compares the public API with docs/api/*.txt; no dependency's type in a signature
  features       builds the facade and the remote crate without features and with each of them alone
  api --bless    writes docs/api/*.txt anew, for a change of the API that is meant";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["tidy"] => tidy::check(&root()),
        ["features"] => features::check(&root()),
        ["api"] => api::check(&root(), false),
        ["api", "--bless"] => api::check(&root(), true),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's directory.
fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// The standard output of a program that must succeed.
fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}\n{stderr}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
