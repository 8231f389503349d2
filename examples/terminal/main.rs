//! A shell in a sandbox: in your terminal, or in a web page.
//!
//! `cargo run --example terminal -- [--web[=ADDRESS]] [PROGRAM [ARGUMENT]...]`
//!
//! Where standard input is no terminal it shows a short conversation instead. With `--web` it prints the
//! address of the page.
#![allow(clippy::print_stdout, clippy::print_stderr)] // An example talks to its user.

#[cfg(unix)]
mod shell;
#[cfg(unix)]
mod socket;
#[cfg(unix)]
mod web;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    #[cfg(unix)]
    return shell::run();
    #[cfg(not(unix))]
    Err("terminals need a Unix host".into())
}
