//! A shell in a sandbox, in your terminal: `cargo run --example terminal [PROGRAM [ARGUMENT]...]`.
//!
//! Where standard input is no terminal it shows a short conversation instead.
#![allow(clippy::print_stdout)] // An example talks to its user.

#[cfg(unix)]
mod shell;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    #[cfg(unix)]
    return shell::run();
    #[cfg(not(unix))]
    Err("terminals need a Unix host".into())
}
