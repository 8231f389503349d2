//! The time that sessions go by: monotonic within a process, on the wall in the journal.
//!
//! It must never go backwards while a process lives, whatever is done to the machine's clock.

use std::fmt;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

/// A clock: the system's, or one that a test moves by hand.
///
/// Times are [`SystemTime`]s. Those of the system's clock start with the time on the wall when the
/// clock was made and advance with the monotonic clock, so that a correction of the machine's time
/// neither expires nor preserves a session.
#[derive(Clone)]
pub struct Clock(Kind);

#[derive(Clone)]
enum Kind {
    System { wall: SystemTime, start: Instant },
    Manual(watch::Receiver<SystemTime>),
}

/// Moves a clock that [`Clock::manual`] made. A clock whose hand is dropped stands still.
#[derive(Debug)]
pub struct ClockHand(watch::Sender<SystemTime>);

impl ClockHand {
    /// Moves the clock forward and wakes what waits for a time that has come.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now += by);
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl Clock {
    /// The system's clock, from now on.
    pub fn system() -> Self {
        Self(Kind::System {
            wall: SystemTime::now(),
            start: Instant::now(),
        })
    }

    /// A clock that stands at `start` until its hand moves it; for tests.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use sandbox_sessions::Clock;
    /// let (clock, hand) = Clock::manual(SystemTime::UNIX_EPOCH);
    /// hand.advance(Duration::from_secs(60));
    /// assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(60));
    /// ```
    pub fn manual(start: SystemTime) -> (Self, ClockHand) {
        let (sender, receiver) = watch::channel(start);
        (Self(Kind::Manual(receiver)), ClockHand(sender))
    }

    /// The time now.
    pub fn now(&self) -> SystemTime {
        match &self.0 {
            Kind::System { wall, start } => *wall + start.elapsed(),
            Kind::Manual(now) => *now.borrow(),
        }
    }

    /// Waits until a time has come. Dropping the future stops the waiting.
    pub async fn sleep_until(&self, until: SystemTime) {
        match &self.0 {
            Kind::System { .. } => {
                let left = until.duration_since(self.now()).unwrap_or_default();
                tokio::time::sleep(left).await;
            }
            Kind::Manual(now) => {
                let mut now = now.clone();
                if now.wait_for(|now| *now >= until).await.is_err() {
                    // The hand is gone: the clock stands still.
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Kind::System { .. } => "system",
            Kind::Manual(_) => "manual",
        };
        write!(f, "Clock({kind})")
    }
}
