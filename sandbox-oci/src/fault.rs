//! Faults of an image, as the source of the errors that tell of them.

use sandbox_core::{Error, ErrorKind, Operation};

use crate::digest::Digest;

/// Fault of an image: the [`source`](std::error::Error::source) of an error of this crate, for
/// callers that tell them apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageFault {
    /// The content is not what its digest says.
    #[error("{what} has the digest {found} and not {expected}: it was altered or cut short")]
    Digest {
        /// Name of what was read.
        what: String,
        /// Digest that was asked for.
        expected: Digest,
        /// Digest of what was found.
        found: Digest,
    },
    /// The content has another size than its descriptor says.
    #[error("{what} has {found} bytes and not {expected}: it was altered or cut short")]
    Size {
        /// Name of what was read.
        what: String,
        /// Size that was asked for.
        expected: u64,
        /// Size that was found.
        found: u64,
    },
    /// The image is for other machines.
    #[error("the image is not for {wanted} but for {}", found.join(", "))]
    Platform {
        /// Platform that was asked for.
        wanted: String,
        /// Platforms that the image has.
        found: Vec<String>,
    },
    /// The image is more than its limits allow.
    #[error("the image has more than {limit} {what}")]
    Limit {
        /// Name of what is limited, in the plural.
        what: &'static str,
        /// Limit.
        limit: u64,
    },
    /// The image can't be read.
    #[error("the image is not sound: {why}")]
    Malformed {
        /// Reason.
        why: String,
    },
    /// Nothing has this name.
    #[error("{what} was not found")]
    NotFound {
        /// Name of what is missing.
        what: String,
    },
    /// The image needs something that is not supported.
    #[error("{what} is not supported")]
    Unsupported {
        /// Name of what the image has.
        what: String,
    },
}

impl ImageFault {
    /// The error that tells of it.
    pub(crate) fn into_error(self) -> Error {
        let (kind, hint) = match &self {
            Self::Digest { .. } | Self::Size { .. } => (
                ErrorKind::Other,
                Some("get the image again from where it comes from; nothing of it was used"),
            ),
            Self::Platform { .. } => (
                ErrorKind::Unsupported,
                Some("name an image that was built for this machine"),
            ),
            Self::Limit { .. } => (ErrorKind::LimitExceeded, None),
            Self::Malformed { .. } => (ErrorKind::InvalidInput, None),
            Self::NotFound { .. } => (ErrorKind::NotFound, None),
            Self::Unsupported { .. } => (ErrorKind::Unsupported, None),
        };
        let error = Error::new(kind, Operation::Create).with_message(self.to_string());
        let error = match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        };
        error.with_source(self)
    }
}

pub(crate) fn malformed(why: impl Into<String>) -> Error {
    ImageFault::Malformed { why: why.into() }.into_error()
}

/// The error of an input or output, unless it carries a fault of ours.
pub(crate) fn io(error: std::io::Error, what: &str) -> Error {
    if let Some(fault) = carried(&error) {
        return fault.into_error();
    }
    let message = format!("{what}: {error}");
    Error::from_io(error, Operation::Create).with_message(message)
}

/// The fault that an error of a reader carries.
pub(crate) fn carried(error: &(dyn std::error::Error + 'static)) -> Option<ImageFault> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(fault) = error.downcast_ref::<ImageFault>() {
            return Some(fault.clone());
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && let Some(inner) = io.get_ref()
        {
            let inner: &(dyn std::error::Error + 'static) = inner;
            if let Some(fault) = carried(inner) {
                return Some(fault);
            }
        }
        next = error.source();
    }
    None
}
