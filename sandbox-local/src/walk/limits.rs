//! Limits of a walk, and the reasons that end it early.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use sandbox_core::{Error, ErrorKind, Operation};

use crate::config::{DEFAULT_TREE_DEPTH, DEFAULT_TREE_ENTRIES, DEFAULT_TREE_NAMES, LocalConfig};

/// The deepest tree that a walk goes down: so many directories one below the other.
pub(crate) const DEEPEST: usize = DEFAULT_TREE_DEPTH;

/// Cost that a walk may have for the host, however the guest made the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Entries in all.
    pub(crate) entries: u64,
    /// Directories one below the other; never more than [`DEEPEST`].
    pub(crate) depth: usize,
    /// Bytes of names of directories that wait for their turn.
    pub(crate) names: usize,
}

impl Limits {
    /// For a tree of a guest.
    pub(crate) const DEFAULT: Self = Self {
        entries: DEFAULT_TREE_ENTRIES,
        depth: DEEPEST,
        names: DEFAULT_TREE_NAMES,
    };

    /// Returns the limits as the embedder has set them.
    pub(crate) fn of(config: &LocalConfig) -> Self {
        Self {
            entries: config.tree_entries,
            depth: config.tree_depth,
            names: config.tree_names,
        }
    }

    /// # Errors
    /// [`Stop::Limit`] for a directory with so many above it.
    pub(crate) fn check_depth(&self, above: usize) -> Result<(), Stop> {
        if above > self.depth {
            return Err(Stop::Limit {
                what: "directories one below the other",
                limit: self.depth as u64,
            });
        }
        Ok(())
    }

    /// # Errors
    /// [`Stop::Limit`] for more entries than there may be.
    pub(crate) fn check(&self, entries: u64) -> Result<(), Stop> {
        if entries > self.entries {
            return Err(Stop::Limit {
                what: "entries",
                limit: self.entries,
            });
        }
        Ok(())
    }
}

/// Tells a walk on another thread to stop. Clones are the same flag.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Makes the walk stop at the next entry.
    pub(crate) fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// [`Stop::Cancelled`] once it is set.
    pub(crate) fn check(&self) -> Result<(), Stop> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Stop::Cancelled),
            false => Ok(()),
        }
    }

    /// Sets the flag when the result is dropped.
    pub(crate) fn on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }
}

/// See [`Cancel::on_drop`].
#[derive(Debug)]
pub(crate) struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Why a walk ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// The system refused something.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The tree is more than a walk may cost.
    #[error("the tree has more than {limit} {what}")]
    Limit {
        /// Name of what is limited, in the plural.
        what: &'static str,
        /// Limit.
        limit: u64,
    },
    /// Something moved that should have stood still.
    #[error("the tree changed at the same time")]
    Changed,
    /// The caller no longer waits for the result.
    #[error("cancelled")]
    Cancelled,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::STALE => Self::Changed,
            Errno::OVERFLOW => Self::Limit {
                what: "directories one below the other",
                limit: DEEPEST as u64,
            },
            errno => Self::Io(errno.into()),
        }
    }
}

impl Stop {
    /// Turns it into an error of an operation that was to do `what`.
    pub(crate) fn into_error(self, operation: Operation, what: &str) -> Error {
        let new = |kind| Error::new(kind, operation).with_message(format!("{what}: {self}"));
        match &self {
            Self::Limit { .. } => new(ErrorKind::LimitExceeded).with_hint(
                "remove what the sandbox no longer needs and try again, or raise the limits of trees \
                 in LocalConfig",
            ),
            Self::Changed => new(ErrorKind::Busy).with_retryable(true),
            Self::Cancelled => new(ErrorKind::Other),
            Self::Io(_) => match self {
                Self::Io(error) => {
                    let message = format!("{what}: {error}");
                    Error::from_io(error, operation).with_message(message)
                }
                _ => new(ErrorKind::Other),
            },
        }
    }
}
