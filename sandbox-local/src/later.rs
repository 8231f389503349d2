//! Moments after a time that a caller gave, which may be beyond every clock. Must never overflow.

use std::time::{Duration, Instant};

/// A wait in the place of one that is beyond the clock.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The moment after so long.
pub(crate) fn after(wait: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(wait).unwrap_or_else(|| now + FAR)
}
