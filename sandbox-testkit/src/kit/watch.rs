//! A layer that knows which calls of a case are under way, so that a hang has a name.
//!
//! It must never change a call.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sandbox_core::Result;
use sandbox_core::layer::{Around, Attempt, Call};

#[derive(Debug)]
struct UnderWay {
    number: u64,
    text: String,
    since: Instant,
}

#[derive(Debug, Default)]
struct Log {
    next: u64,
    calls: Vec<UnderWay>,
}

/// The calls of one case that have begun and not returned.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch(Arc<Mutex<Log>>);

impl Watch {
    /// Puts a call on the list, and takes it off when the guard is dropped.
    fn begin(&self, text: String) -> Guard {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = log.next;
        log.next += 1;
        log.calls.push(UnderWay {
            number,
            text,
            since: Instant::now(),
        });
        Guard {
            watch: self.clone(),
            number,
        }
    }
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if log.calls.is_empty() {
            return f.write_str("no call to the backend was under way");
        }
        f.write_str("calls under way:")?;
        for call in &log.calls {
            let seconds = call.since.elapsed().as_secs_f64();
            write!(f, "\n  {} for {seconds:.1} s", call.text)?;
        }
        Ok(())
    }
}

struct Guard {
    watch: Watch,
    number: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut log = self.watch.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.calls.retain(|call| call.number != self.number);
    }
}

/// A call in one line: operation, program, paths. The kit's own commands have no secrets, but its
/// scripts are long.
fn describe(call: &Call<'_>) -> String {
    let mut text = call.operation().to_string();
    if let Some(command) = call.command() {
        let line = command.argv().join(&b' ');
        let line: String = String::from_utf8_lossy(&line).chars().take(120).collect();
        text += &format!(" {line:?}");
    }
    for path in call.paths().iter().take(3) {
        text += &format!(" {:?}", path.to_string());
    }
    text
}

impl Around for Watch {
    async fn around<T: Send>(&self, call: Call<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        let _guard = self.begin(describe(&call));
        attempt().await
    }
}
