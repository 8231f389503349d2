//! Bad input: each a typed error that names the thing and the remedy, and the sandbox is
//! usable afterwards.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod closed;
mod commands;
mod paths;
mod specs;
#[path = "../support/mod.rs"]
mod support;
mod transfers;

use std::sync::Arc;

use sandbox_core::{Error, ErrorKind, GuestPath, Sandbox};
use support::sh;

/// Differences between expected and actual errors, collected.
#[derive(Default)]
pub(crate) struct Wrong(std::cell::RefCell<Vec<String>>);

impl Wrong {
    /// Checks what an error says, and that the sandbox works still.
    pub(crate) async fn check<T>(
        &self,
        sandbox: &Arc<dyn Sandbox>,
        result: Result<T, Error>,
        kind: ErrorKind,
        words: &[&str],
    ) -> Option<Error> {
        let id = sandbox.info().id.to_string();
        let error = match result {
            Ok(_) => {
                self.0
                    .borrow_mut()
                    .push(format!("{kind:?} {words:?}: went through"));
                return None;
            }
            Err(error) => error,
        };
        let text = error.to_string();
        let said = words.iter().all(|word| text.contains(word)) && text.contains(&id);
        if error.kind() != kind || !said {
            self.0
                .borrow_mut()
                .push(format!("{kind:?} {words:?}: {:?}: {text}", error.kind()));
        }
        assert_eq!(
            sh(sandbox, "echo usable").await,
            "usable\n",
            "after: {text}"
        );
        Some(error)
    }
}

impl Drop for Wrong {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let wrong = self.0.take();
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
    }
}

/// A path in the guest.
pub(crate) fn path(text: &str) -> GuestPath {
    GuestPath::from(text)
}
