//! The end of this program: the signals to stop, and its exit status.

/// Waits for an interrupt, a termination or a hang-up.
#[cfg(any(feature = "mcp", feature = "remote"))]
pub(crate) async fn stopped() {
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
        () = wait(SignalKind::hangup()) => {}
    }
}

/// Waits for a signal that ends this program; gives the exit status for it.
pub(crate) async fn ended_by() -> u8 {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind: SignalKind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
        u8::try_from(128 + kind.as_raw_value()).unwrap_or(255)
    };
    tokio::select! {
        code = wait(SignalKind::terminate()) => code,
        code = wait(SignalKind::hangup()) => code,
    }
}

/// The exit status of this program for that of a command.
pub(crate) fn code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}
