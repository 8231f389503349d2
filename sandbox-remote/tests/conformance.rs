//! The conformance kit against a local backend behind a server: over TCP in CI; over a Unix socket
//! too with `SANDBOX_REMOTE_WHOLE=1`.

#![allow(clippy::unwrap_used)]

#[cfg(target_os = "linux")]
mod fixture;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use fixture::{Over, Remote};
    use sandbox_testkit::Fixture;
    let mut fixtures: Vec<Box<dyn Fixture>> = vec![Box::new(Remote::new(Over::Tcp))];
    if std::env::var_os("SANDBOX_REMOTE_WHOLE").is_some() {
        fixtures.push(Box::new(Remote::new(Over::Unix)));
    }
    sandbox_testkit::main(fixtures)
}

#[cfg(not(target_os = "linux"))]
fn main() {}
