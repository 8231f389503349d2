//! The Dagger engine double as a program, in the place of the Dagger CLI.
//!
//! `_EXPERIMENTAL_DAGGER_CLI_BIN=dagger-double` makes an SDK talk to it: like `dagger session` it
//! prints its port and token and ends when its input does. It must never be used to isolate
//! anything.

#[cfg(target_os = "linux")]
#[tokio::main]
async fn main() -> std::io::Result<()> {
    use std::io::Write as _;

    use sandbox_testkit::dagger::{DaggerDouble, Quirks};
    use tokio::io::AsyncReadExt as _;

    let double = DaggerDouble::start(Quirks::default()).await?;
    let session = serde_json::json!({"port": double.port(), "session_token": double.token()});
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{session}")?;
    stdout.flush()?;
    let mut input = tokio::io::stdin();
    let mut buffer = [0; 256];
    while input.read(&mut buffer).await? > 0 {}
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::io::Result<()> {
    Err(std::io::Error::other(
        "the double runs commands in local sandboxes, which need Linux",
    ))
}
