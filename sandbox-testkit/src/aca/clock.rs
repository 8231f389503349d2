//! The emulator's time: the host's, and what a test has added to it.
//!
//! Everything that the emulator waits for or lets expire goes by this clock, so that no test has to
//! sleep. It must never go backwards.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    added: watch::Sender<Duration>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            added: watch::Sender::new(Duration::ZERO),
        }
    }

    /// Time since the emulator started.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed().saturating_add(*self.added.borrow())
    }

    /// The date.
    pub(super) fn date(&self) -> SystemTime {
        let now = SystemTime::now();
        now.checked_add(*self.added.borrow()).unwrap_or(now)
    }

    /// Time since 1970.
    pub(super) fn wall(&self) -> Duration {
        self.date().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    pub(super) fn advance(&self, by: Duration) {
        self.added
            .send_modify(|added| *added = added.saturating_add(by));
    }

    /// Waits until so much time has passed, however it passes. May be dropped.
    pub(super) async fn sleep(&self, time: Duration) {
        let mut changes = self.added.subscribe();
        let end = self.now().saturating_add(time);
        loop {
            let left = end.saturating_sub(self.now());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                // It can't fail: the sender is in this clock.
                _ = changes.changed() => {}
            }
        }
    }

    /// Now, as RFC 3339 in UTC.
    pub(super) fn timestamp(&self) -> String {
        rfc3339(self.date())
    }
}

/// A time as RFC 3339 in UTC.
pub(super) fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a date: the era of 400 years, the year in it, the day in that.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}.{:06}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_micros()
    )
}
