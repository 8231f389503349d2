//! The status of a session.

use std::fmt;

/// Current activity of a session.
///
/// [`Ready`](Status::Ready), [`Working`](Status::Working) and [`Error`](Status::Error) are seen
/// from the commands that run in it. [`Waiting`](Status::Waiting) and
/// [`Thinking`](Status::Thinking) are told with [`Session::report`](crate::Session::report) by what
/// drives an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Status {
    /// No command runs.
    Ready,
    /// A command runs.
    Working,
    /// An agent waits for an answer of its user.
    Waiting,
    /// An agent waits for its model.
    Thinking,
    /// The last command failed, and none has started since.
    Error,
    /// Only its files are kept; the next use creates a sandbox from them.
    Suspended,
    /// Ended.
    Gone,
}

impl Status {
    /// Returns the name of the status: lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Working => "working",
            Self::Waiting => "waiting",
            Self::Thinking => "thinking",
            Self::Error => "error",
            Self::Suspended => "suspended",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
