//! Configuration of plain mode: where its sandboxes lie, and how long output is waited for.
//!
//! It must never have a setting that reads like isolation.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::DEFAULT_OUTPUT_GRACE;

/// Configuration of a [`PlainProvider`](crate::PlainProvider).
///
/// ```
/// use sandbox_local::PlainConfig;
/// let config = PlainConfig::new().base_dir("/var/tmp");
/// assert_eq!(config.base_dir, std::path::Path::new("/var/tmp"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlainConfig {
    /// The existing directory of the host that has the sandboxes' directories. Default: the host's
    /// temporary directory.
    pub base_dir: PathBuf,
    /// Time for which the output of a command is still read after its main process has ended, as
    /// [`LocalConfig::output_grace`](crate::LocalConfig::output_grace). Default: 100 ms.
    pub output_grace: Duration,
}

impl Default for PlainConfig {
    fn default() -> Self {
        Self {
            base_dir: std::env::temp_dir(),
            output_grace: DEFAULT_OUTPUT_GRACE,
        }
    }
}

impl PlainConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the directory that has the sandboxes' directories.
    #[must_use]
    pub fn base_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.base_dir = dir.into();
        self
    }

    /// Reads a command's output for this long after its end if nothing comes.
    #[must_use]
    pub fn output_grace(mut self, grace: Duration) -> Self {
        self.output_grace = grace;
        self
    }
}
