//! Local sandboxes in which the doubles run commands: one provider for all doubles of a process.
//!
//! A provider copies parts of the host's settings when it is made, which takes longer than what
//! most tests of a double do.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use sandbox_core::Result;
use sandbox_local::{LocalConfig, LocalProvider};

/// The provider, as long as a double has it.
static SHARED: Mutex<Weak<LocalProvider>> = Mutex::new(Weak::new());

/// The provider of this process; the first double makes it, the last one ends it.
pub(crate) fn provider() -> Result<Arc<LocalProvider>> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(provider) = shared.upgrade() {
        return Ok(provider);
    }
    let made = Arc::new(LocalProvider::new(LocalConfig::default())?);
    *shared = Arc::downgrade(&made);
    Ok(made)
}
