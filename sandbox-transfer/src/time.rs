//! Times of files as system calls have them.
//!
//! Must never fail: a time that can't be said is clamped.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970, which are negative before it, and the nanoseconds after them.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use sandbox_transfer::since_epoch;
/// assert_eq!(since_epoch(UNIX_EPOCH + Duration::from_millis(1500)), (1, 500_000_000));
/// assert_eq!(since_epoch(UNIX_EPOCH - Duration::from_millis(1500)), (-2, 500_000_000));
/// ```
pub fn since_epoch(time: SystemTime) -> (i64, u32) {
    let before = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => {
            let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            return (seconds, since.subsec_nanos());
        }
        Err(before) => before.duration(),
    };
    let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
    match before.subsec_nanos() {
        0 => (-whole, 0),
        nanoseconds => (-whole - 1, 1_000_000_000 - nanoseconds),
    }
}

/// The inverse of [`since_epoch`]; nothing for a time that the system can't have.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use sandbox_transfer::from_epoch;
/// assert_eq!(from_epoch(-2, 500_000_000), Some(UNIX_EPOCH - Duration::from_millis(1500)));
/// ```
pub fn from_epoch(seconds: i64, nanoseconds: u32) -> Option<SystemTime> {
    let far = Duration::from_secs(seconds.unsigned_abs());
    let whole = match seconds < 0 {
        true => UNIX_EPOCH.checked_sub(far)?,
        false => UNIX_EPOCH.checked_add(far)?,
    };
    whole.checked_add(Duration::from_nanos(nanoseconds.min(999_999_999).into()))
}
