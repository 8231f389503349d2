//! Local sandboxes in which the doubles run commands: one provider for all doubles of a process.
//!
//! A provider copies parts of the host's settings for its first sandbox, which takes longer than
//! what most tests of a double do.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sandbox_core::Result;
use sandbox_local::{LocalConfig, LocalProvider};

/// A provider, as long as a double has it.
type Shared = Mutex<Weak<LocalProvider>>;

static USUAL: Shared = Mutex::new(Weak::new());
static PATIENT: Shared = Mutex::new(Weak::new());

/// The provider of this process; the first double makes it, the last one ends it.
pub(crate) fn provider() -> Result<Arc<LocalProvider>> {
    shared(&USUAL, LocalConfig::default())
}

/// The provider of this process whose commands last as long as a process holds their output.
pub(crate) fn patient() -> Result<Arc<LocalProvider>> {
    const DAY: Duration = Duration::from_secs(86_400);
    shared(&PATIENT, LocalConfig::default().output_grace(DAY))
}

fn shared(of: &Shared, config: LocalConfig) -> Result<Arc<LocalProvider>> {
    let mut shared = of.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(provider) = shared.upgrade() {
        return Ok(provider);
    }
    let made = Arc::new(LocalProvider::new(config)?);
    *shared = Arc::downgrade(&made);
    Ok(made)
}
