//! Differences between versions of the service's interface: one row for each.
//!
//! A version without a row is refused. The service was seen to take versions that it does not have
//! and to answer as in another one, so that it must never be left to the service to refuse.

use reqwest::Method;
use sandbox_core::Result;
use serde_json::{Value, json};

use super::manage::{NewDiskImage, Usage};
use crate::http::{Http, invalid};

/// A version of the interface.
#[derive(Debug)]
pub(crate) struct Protocol {
    pub(crate) version: &'static str,
    /// Scope of the tokens.
    pub(crate) scope: &'static str,
    /// Method by which sandboxes are created, files written, disk images made.
    pub(crate) create: Method,
    pub(crate) write_file: Method,
    pub(crate) make_image: Method,
    /// Path at which a line of shell is run, and the body that it goes in.
    pub(crate) run: &'static str,
    pub(crate) line: fn(&str) -> Value,
    /// Path of the decisions of the egress policy, and the section of the answer.
    pub(crate) decisions: &'static str,
    pub(crate) decided: &'static str,
    /// Whether a bare array may be the first page of several, asked for by number.
    pub(crate) numbered_pages: bool,
    pub(crate) stream: Stream,
    pub(crate) image: fn(&NewDiskImage) -> Value,
    /// An egress policy as it is sent, from what both versions call the same.
    pub(crate) egress: fn(Value) -> Value,
    /// Whether a rule may be for one scheme alone.
    pub(crate) schemes: bool,
    /// Part of the answer about resources that describes the disk.
    pub(crate) disk: fn(&Value) -> &Value,
}

/// Protocol of `exec/stream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// A program without arguments, input without an end, no version in the request.
    Path,
    /// A program with arguments, an end of input; the session is named first.
    Arguments,
}

/// Every version that is known.
pub(crate) const PROTOCOLS: &[Protocol] = &[
    Protocol {
        version: "2026-02-01-preview",
        scope: "https://dynamicsessions.io/.default",
        create: Method::PUT,
        write_file: Method::PUT,
        make_image: Method::PUT,
        run: "executeShellCommand",
        line: |line| json!({"command": line, "workingDirectory": "/"}),
        decisions: "egress-decisions",
        decided: "networkEgress",
        numbered_pages: false,
        stream: Stream::Path,
        image: older_image,
        egress: |policy| policy,
        schemes: false,
        disk: |stats| &stats["storage"],
    },
    Protocol {
        version: "2026-09-01-preview",
        scope: "https://management.azuredevcompute.io/.default",
        create: Method::POST,
        write_file: Method::POST,
        make_image: Method::POST,
        run: "executeCommand",
        line: |line| json!({"command": "/bin/sh", "args": ["-c", line], "workingDirectory": "/"}),
        decisions: "egressDecisions",
        decided: "http",
        numbered_pages: true,
        stream: Stream::Arguments,
        image: newer_image,
        egress: |policy| json!({"http": policy}),
        schemes: true,
        disk: |stats| &stats["disk"][0],
    },
];

/// The version that is spoken unless another one is asked for: the one that published clients were
/// seen to use with the live service. The newer one takes its place when its live tests pass.
pub(crate) const DEFAULT: &Protocol = &PROTOCOLS[0];

impl Protocol {
    /// The row of this version.
    ///
    /// # Errors
    /// `InvalidInput` with the versions that are known.
    pub(crate) fn of(version: &str) -> Result<&'static Self> {
        let known = PROTOCOLS.iter().find(|known| known.version == version);
        known.ok_or_else(|| {
            let all: Vec<&str> = PROTOCOLS.iter().map(|known| known.version).collect();
            invalid(format!("the api_version {version:?} is not known"))
                .with_hint(format!("known are {}", all.join(", ")))
        })
    }
}

impl Http {
    /// Protocol spoken with the service.
    pub(crate) fn protocol(&self) -> &'static Protocol {
        // A provider is not made with a version that is not known.
        Protocol::of(self.api_version()).unwrap_or(DEFAULT)
    }
}

fn older_image(image: &NewDiskImage) -> Value {
    let mut body = json!({"image": {"base": image.base}, "labels": image.labels});
    if let Some((user, token)) = &image.credentials {
        let token = String::from_utf8_lossy(token.expose());
        body["registryCredentials"] = json!({"username": user, "token": token});
    }
    if let Some(identity) = &image.identity {
        body["managedIdentityResourceId"] = json!(identity);
    }
    body
}

fn newer_image(image: &NewDiskImage) -> Value {
    let mut source = json!({"kind": "registry", "imageUrl": image.base});
    if let Some((user, token)) = &image.credentials {
        let token = String::from_utf8_lossy(token.expose());
        source["authentication"]["registryCredentials"] = json!({"username": user, "token": token});
    }
    if let Some(identity) = &image.identity {
        source["authentication"]["identity"] =
            json!({"type": "UserAssigned", "identityResourceId": identity});
    }
    json!({"source": source, "labels": image.labels})
}

/// A number that a version may write as text.
pub(crate) fn number(of: &Value) -> Option<u64> {
    of.as_u64().or_else(|| of.as_str()?.parse().ok())
}

/// Reads the use of a resource.
pub(crate) fn usage(of: &Value) -> Usage {
    Usage {
        used: number(&of["usedBytes"]).unwrap_or(0),
        total: number(&of["totalBytes"]).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use sandbox_core::ErrorKind;

    use super::*;

    #[test]
    fn an_unknown_version_is_refused_with_those_that_are_known() {
        for known in PROTOCOLS {
            let found = Protocol::of(known.version).expect("known");
            assert_eq!(found.version, known.version);
        }
        for unknown in ["", "2026-09-01", "1999-01-01"] {
            let error = Protocol::of(unknown).expect_err("unknown");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let hint = error.hint().unwrap_or_default();
            assert!(
                PROTOCOLS.iter().all(|known| hint.contains(known.version)),
                "{hint}"
            );
        }
    }

    #[test]
    fn credentials_of_an_image_go_where_the_version_wants_them() {
        let image = NewDiskImage::new("debian:12").credentials("me", "hidden");
        let older = older_image(&image);
        assert_eq!(older["registryCredentials"]["token"], "hidden");
        let newer = newer_image(&image);
        let source = &newer["source"];
        assert_eq!(source["imageUrl"], "debian:12");
        assert_eq!(
            source["authentication"]["registryCredentials"]["username"],
            "me"
        );
    }

    #[test]
    fn numbers_are_read_as_numbers_and_as_text() {
        assert_eq!(number(&json!(7)), Some(7));
        assert_eq!(number(&json!("7")), Some(7));
        assert_eq!(number(&json!("-")), None);
        assert_eq!(number(&json!(null)), None);
    }
}
