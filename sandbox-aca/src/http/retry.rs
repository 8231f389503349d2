//! When a request is sent again: only where nothing came of it, or twice is the same as once.

use std::time::{Duration, SystemTime};

use reqwest::header::HeaderMap;
use serde_json::Value;

use super::Failure;

/// Number of times that a request is sent for one reason.
const ATTEMPTS: u32 = 5;
/// The longest that is waited before a request is sent again.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// One request's history.
#[derive(Debug)]
pub(super) struct Attempts {
    /// Number of times that it was sent.
    pub(super) count: u32,
    /// Whether a token was refused already.
    pub(super) refused: bool,
    /// Whether a 403 may still be a role that has not arrived, and a 404 a group that has not.
    pub(super) role_may_come: bool,
    /// Whether it may be sent again when its outcome is unknown.
    pub(super) repeat: bool,
}

impl Attempts {
    /// Limit of the time for the request in all: a role or a group that has just been made is
    /// waited for as long as was asked for, which is longer than one request takes.
    pub(super) fn patience(
        &self,
        failure: &Failure,
        timeout: Duration,
        role_wait: Duration,
    ) -> Duration {
        let arriving = failure.status == Some(403) || failure.is_of_group();
        match arriving && self.role_may_come {
            true => timeout.max(role_wait),
            false => timeout,
        }
    }

    /// Pause before it is sent again; `None` if it must not be.
    pub(super) fn wait(&self, failure: &Failure, asked: Option<Duration>) -> Option<Duration> {
        let more = self.count < ATTEMPTS;
        // "At once" is what a clock that goes wrong says too: it is no reason to hammer.
        let asked = asked.filter(|wait| !wait.is_zero());
        let wait = || Some(asked.unwrap_or(backoff(self.count)));
        match failure.status {
            Some(401) if !self.refused => Some(Duration::ZERO),
            // Refused before anything was done: exec and create too.
            Some(429) if more => wait(),
            Some(403) if self.role_may_come => Some(backoff(self.count)),
            Some(404) if self.role_may_come && failure.is_of_group() => Some(backoff(self.count)),
            // What is not there does not come.
            Some(501) => None,
            Some(408 | 500..=599) if more && self.repeat => wait(),
            None if more && (self.repeat || !failure.unknown) => Some(backoff(self.count)),
            _ => None,
        }
    }
}

/// Pause that the service asks for: in milliseconds, as HTTP has it, or in the body.
pub(crate) fn asked(headers: &HeaderMap, body: &[u8]) -> Option<Duration> {
    let text = |name| {
        let text = headers.get(name).and_then(|text| text.to_str().ok());
        text.map(str::trim)
    };
    for name in ["retry-after-ms", "x-ms-retry-after-ms"] {
        if let Some(millis) = text(name).and_then(|text| text.parse().ok()) {
            return Some(Duration::from_millis(millis));
        }
    }
    let date = |name| text(name).and_then(|text| httpdate::parse_http_date(text).ok());
    if let Some(seconds) = text("retry-after").and_then(|text| text.parse().ok()) {
        return Some(Duration::from_secs(seconds));
    }
    if let Some(at) = date("retry-after") {
        // By the service's own clock: this host's may be wrong. What has passed is no wait.
        let now = date("date").unwrap_or_else(SystemTime::now);
        return Some(at.duration_since(now).unwrap_or_default());
    }
    let body: Value = serde_json::from_slice(body).ok()?;
    Some(Duration::from_secs(body["retryAfterSeconds"].as_u64()?))
}

fn backoff(attempt: u32) -> Duration {
    let base = Duration::from_millis(200 << attempt.min(6));
    // Some of a random number's bits, so that clients do not come back together.
    base + Duration::from_millis(u64::from(uuid::Uuid::new_v4().as_bytes()[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &'static str)], body: &str) -> Option<Duration> {
        let pairs = headers.iter().map(|(name, value)| {
            let name = reqwest::header::HeaderName::from_static(name);
            (name, reqwest::header::HeaderValue::from_static(value))
        });
        asked(&pairs.collect(), body.as_bytes())
    }

    #[test]
    fn a_wait_is_read_in_every_form() {
        const BODY: &str = r#"{"retryAfterSeconds":30}"#;
        const PAST: &str = "Wed, 21 Oct 2015 07:28:00 GMT";
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(read(&[], BODY), seconds(30));
        assert_eq!(read(&[("retry-after", "7")], BODY), seconds(7));
        assert_eq!(read(&[("retry-after", PAST)], ""), seconds(0));
        let far = read(&[("retry-after", "Fri, 31 Dec 2117 23:59:59 GMT")], "");
        assert!(far > Some(LONGEST_WAIT), "{far:?}");
        for name in ["retry-after-ms", "x-ms-retry-after-ms"] {
            let both = [(name, "1500"), ("retry-after", "2")];
            assert_eq!(read(&both, BODY), Some(Duration::from_millis(1500)));
        }
        for text in ["", "soon", "-1", "1.5"] {
            assert_eq!(read(&[("retry-after", text)], ""), None, "{text:?}");
            assert_eq!(read(&[("retry-after-ms", text)], BODY), seconds(30));
        }
    }

    #[test]
    fn a_role_is_waited_for_beyond_the_time_of_one_request() {
        let error = sandbox_core::Error::new(
            sandbox_core::ErrorKind::PermissionDenied,
            sandbox_core::Operation::Create,
        );
        let mut failure = Failure::before(error);
        failure.status = Some(403);
        let mut attempts = Attempts {
            count: 9,
            refused: false,
            role_may_come: true,
            repeat: false,
        };
        let seconds = Duration::from_secs;
        let patience = |attempts: &Attempts, failure: &Failure| {
            attempts.patience(failure, seconds(60), seconds(900))
        };
        assert_eq!(patience(&attempts, &failure), seconds(900));
        failure.status = Some(500);
        assert_eq!(patience(&attempts, &failure), seconds(60));
        failure.status = Some(403);
        attempts.role_may_come = false;
        assert_eq!(patience(&attempts, &failure), seconds(60));
    }

    #[test]
    fn a_date_is_taken_by_the_clock_of_the_service() {
        let headers = [
            ("date", "Wed, 21 Oct 2015 07:28:00 GMT"),
            ("retry-after", "Wed, 21 Oct 2015 07:28:05 GMT"),
        ];
        assert_eq!(read(&headers, ""), Some(Duration::from_secs(5)));
    }
}
