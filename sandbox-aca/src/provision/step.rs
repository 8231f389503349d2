//! Each call of the control plane in the words of a person: what it does, the `az` command
//! that does the same, the role that it needs. Errors are made of it.
//!
//! A secret must never be in a command.

use std::fmt;

use sandbox_core::{Error, ErrorKind, Operation};

use super::id::ResourceId;
use super::role::Role;
use crate::http::Failure;

/// Answer of a service to a request that it refused. Errors of this module have it as their
/// [`source`](std::error::Error::source):
///
/// ```
/// # use std::error::Error as _;
/// use sandbox_aca::provision::Refusal;
/// fn code(error: &sandbox_core::Error) -> Option<&str> {
///     let refusal = error.source()?.downcast_ref::<Refusal>()?;
///     Some(refusal.code.as_str())
/// }
/// # assert_eq!(code(&sandbox_core::Error::new(
/// #     sandbox_core::ErrorKind::Busy, sandbox_core::Operation::Provision)), None);
/// ```
///
/// Source: <https://github.com/microsoft/api-guidelines/blob/vNext/azure/Guidelines.md>
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The status of HTTP; `None` if an operation that was accepted failed later.
    pub status: Option<u16>,
    /// The service's code, such as `AuthorizationFailed`.
    pub code: String,
    /// The service's words, shortened.
    pub message: String,
    /// The service's identifier of the request, which its support asks for.
    pub request_id: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, message, .. } = self;
        match self.status {
            Some(status) => write!(f, "{status} {code}: {message}"),
            None => write!(f, "{code}: {message}"),
        }
    }
}

impl std::error::Error for Refusal {}

/// One call.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// "create the container app a".
    pub(super) what: String,
    /// The command that does the same.
    pub(super) az: String,
    pub(super) role: Role,
    /// Resource that the role is needed for.
    pub(super) scope: ResourceId,
}

impl Step {
    /// The error of a request that failed.
    pub(super) fn failed(&self, failure: Failure) -> Error {
        let Failure { error, status, .. } = &failure;
        let message = format!("can't {}: {}", self.what, error.message());
        let told = Error::new(error.kind(), Operation::Provision)
            .with_message(message)
            .with_retryable(error.is_retryable() && !failure.unknown)
            .with_hint(self.hint(&failure));
        match status {
            Some(_) => told.with_source(Refusal {
                status: *status,
                code: failure.title,
                message: failure.detail,
                request_id: Some(failure.request).filter(|id| !id.is_empty()),
            }),
            None => told.with_source(failure.error),
        }
    }

    /// The error of an operation that was accepted and then failed.
    pub(super) fn gone_wrong(&self, code: &str, message: &str) -> Error {
        let told = match (code, message) {
            ("", "") => "the service gives no reason".to_owned(),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        };
        Error::new(ErrorKind::Other, Operation::Provision)
            .with_message(format!("can't {}: the operation failed: {told}", self.what))
            .with_hint(self.by_hand())
            .with_source(Refusal {
                status: None,
                code: code.to_owned(),
                message: message.to_owned(),
                request_id: None,
            })
    }

    /// The error of a wait that was given up.
    pub(super) fn overdue(&self, waited: std::time::Duration, last: &str) -> Error {
        let message = format!(
            "can't {}: it was not done after {} s; the service last said {last}",
            self.what,
            waited.as_secs(),
        );
        Error::unanswered(Operation::Provision, message).with_hint(format!(
            "the service goes on with it: ask again later; {}",
            self.by_hand()
        ))
    }

    /// An error of this step.
    pub(super) fn error(&self, kind: ErrorKind, why: impl fmt::Display) -> Error {
        Error::new(kind, Operation::Provision).with_message(format!("can't {}: {why}", self.what))
    }

    fn by_hand(&self) -> String {
        format!("the same by hand: {}", self.az)
    }

    fn hint(&self, failure: &Failure) -> String {
        let Self { role, scope, .. } = self;
        let by_hand = self.by_hand();
        match (failure.status, failure.title.as_str()) {
            (Some(403), _) => format!(
                "the caller needs the role \"{name}\" (new roles take minutes): az role assignment create --role \"{name}\" --assignee CALLER --scope {scope}; {by_hand}",
                name = role.name(),
            ),
            (_, "MissingSubscriptionRegistration") => format!(
                "the subscription does not know the provider yet: az provider register --namespace Microsoft.App --wait; {by_hand}"
            ),
            (Some(401), _) => match failure.error.hint() {
                Some(hint) => format!("{hint}; {by_hand}"),
                None => by_hand,
            },
            _ if failure.unknown => format!(
                "whether it was done is not known: ask for what there is before it is done again; {by_hand}"
            ),
            _ => by_hand,
        }
    }
}
