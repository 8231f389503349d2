//! When a request is sent again: only where nothing came of it, or twice is the same as once.

use std::time::{Duration, SystemTime};

use reqwest::header::HeaderMap;
use serde_json::Value;

use super::Failure;

/// How often a request is sent for one reason.
const ATTEMPTS: u32 = 5;
/// The longest that is waited before a request is sent again.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// One request's history.
#[derive(Debug)]
pub(super) struct Attempts {
    /// How often it was sent.
    pub(super) count: u32,
    /// Whether a token was refused already.
    pub(super) refused: bool,
    /// Whether a 403 may still be a role that has not arrived.
    pub(super) role_may_come: bool,
    /// Whether it may be sent again when nobody knows what came of it.
    pub(super) repeat: bool,
}

impl Attempts {
    /// How long to wait before it is sent again; `None` if it must not be.
    pub(super) fn wait(&self, failure: &Failure, asked: Option<Duration>) -> Option<Duration> {
        let more = self.count < ATTEMPTS;
        let wait = || Some(asked.unwrap_or(backoff(self.count)));
        match failure.status {
            Some(401) if !self.refused => Some(Duration::ZERO),
            // Refused before anything was done: exec and create too.
            Some(429) if more => wait(),
            Some(403) if self.role_may_come => Some(backoff(self.count)),
            // What is not there does not come.
            Some(501) => None,
            Some(408 | 500..=599) if more && self.repeat => wait(),
            None if more && (self.repeat || !failure.unknown) => Some(backoff(self.count)),
            _ => None,
        }
    }
}

/// How long the service asks to wait, in the header or in the body.
pub(super) fn asked(headers: &HeaderMap, body: &[u8]) -> Option<Duration> {
    let header = headers
        .get("retry-after")
        .and_then(|text| text.to_str().ok());
    header.and_then(retry_after).or_else(|| {
        let body: Value = serde_json::from_slice(body).ok()?;
        Some(Duration::from_secs(body["retryAfterSeconds"].as_u64()?))
    })
}

/// A wait as HTTP writes it: seconds or a date; what has passed is no wait.
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text.trim()).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

fn backoff(attempt: u32) -> Duration {
    let base = Duration::from_millis(200 << attempt.min(6));
    // Some of a random number's bits, so that clients do not come back together.
    base + Duration::from_millis(u64::from(uuid::Uuid::new_v4().as_bytes()[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_in_every_form() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::ZERO)
        );
        let far = retry_after("Fri, 31 Dec 2117 23:59:59 GMT");
        assert!(far > Some(LONGEST_WAIT), "{far:?}");
        for text in ["", "soon", "-1", "1.5"] {
            assert_eq!(retry_after(text), None, "{text:?}");
        }
        let body = br#"{"retryAfterSeconds":30}"#;
        let thirty = Some(Duration::from_secs(30));
        assert_eq!(asked(&HeaderMap::new(), body), thirty);
    }
}
