//! The Dagger engine double as a program, in the place of the Dagger CLI.
//!
//! `_EXPERIMENTAL_DAGGER_CLI_BIN=dagger-double` makes an SDK talk to it: like `dagger session` it
//! prints its port and token and ends when its input does, or with SIGTERM or SIGINT. It must never
//! be used to isolate anything.

#[cfg(target_os = "linux")]
#[tokio::main]
async fn main() -> std::io::Result<()> {
    use std::io::{Read as _, Write as _};

    use sandbox_testkit::dagger::{DaggerDouble, Quirks};
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let double = DaggerDouble::start(Quirks::default()).await?;
    let session = serde_json::json!({"port": double.port(), "session_token": double.token()});
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{session}")?;
    stdout.flush()?;
    let (over, input_ended) = tokio::sync::oneshot::channel();
    // A thread of the runtime that reads would hold its end up.
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut buffer = [0; 256];
        while input.read(&mut buffer).is_ok_and(|read| read > 0) {}
        // What no longer waits for it has ended.
        let _ = over.send(());
    });
    tokio::select! {
        _ = input_ended => {}
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::io::Result<()> {
    Err(std::io::Error::other(
        "the double runs commands in local sandboxes, which need Linux",
    ))
}
