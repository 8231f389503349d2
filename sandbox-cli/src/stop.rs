//! The end of this program: the signals to stop, and its exit status.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::show::complain;

/// The exit status after an interrupt, as a shell has it.
pub(crate) const INTERRUPTED: u8 = 130;

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

/// Waits for a signal that ends this program; gives the exit status for it. An interrupt does not
/// while a command has it passed on.
pub(crate) async fn ended_by(passed_on: &AtomicBool) -> u8 {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind: SignalKind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
        u8::try_from(128 + kind.as_raw_value()).unwrap_or(255)
    };
    let interrupt = async {
        let Ok(mut signal) = signal(SignalKind::interrupt()) else {
            return std::future::pending().await;
        };
        loop {
            signal.recv().await;
            if !passed_on.load(Ordering::Relaxed) {
                return INTERRUPTED;
            }
        }
    };
    tokio::select! {
        code = wait(SignalKind::terminate()) => code,
        code = wait(SignalKind::hangup()) => code,
        code = interrupt => code,
    }
}

/// Waits for something to be closed, unless another signal comes: who asks twice does not want to wait
/// for a backend that does not answer. `Err` with the exit status for that signal.
pub(crate) async fn closed<T>(closing: impl Future<Output = T>) -> Result<T, u8> {
    let none_passed_on = AtomicBool::new(false);
    tokio::select! {
        closed = closing => Ok(closed),
        code = ended_by(&none_passed_on) => {
            complain("sandbox: ended before everything was closed; `sandbox ls` shows what is left");
            Err(code)
        }
    }
}

/// The exit status of this program for that of a command.
pub(crate) fn code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}
