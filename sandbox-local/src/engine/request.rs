//! Request to run a program, laid out for the agent.
//! Must never show arguments or variables in `Debug`: they may be secrets.

use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::error::SpawnError;
use crate::protocol::MAX_PAYLOAD;

/// Standard input of a process.
#[derive(Debug, Default)]
pub(crate) enum Stdin {
    /// The sandbox's `/dev/null`.
    #[default]
    Null,
    /// A pipe that [`super::Running`] has the other end of.
    Piped,
    /// A descriptor.
    Given(OwnedFd),
}

/// The two ends of a terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// The host's, which does not block.
    pub(crate) master: OwnedFd,
    /// The program's.
    pub(crate) slave: OwnedFd,
}

/// A process to start.
#[derive(Default)]
pub(crate) struct SpawnRequest {
    /// Paths to try in turn, as execvp does with `PATH`.
    pub(crate) candidates: Vec<Vec<u8>>,
    /// A program handed over as a descriptor instead (no scripts).
    pub(crate) program: Option<OwnedFd>,
    /// The arguments, the program's name first.
    pub(crate) argv: Vec<Vec<u8>>,
    /// Variables as `NAME=value`.
    pub(crate) env: Vec<Vec<u8>>,
    /// Working directory.
    pub(crate) cwd: Vec<u8>,
    /// Standard input.
    pub(crate) stdin: Stdin,
    /// A terminal for all three streams instead of pipes.
    pub(crate) terminal: Option<Terminal>,
    /// Whether `spawn` waits until the program runs, and tells if it does not.
    /// Otherwise the exit tells, which saves a round trip.
    pub(crate) confirm: bool,
    /// When `spawn` gives up waiting.
    pub(crate) deadline: Option<Instant>,
}

impl fmt::Debug for SpawnRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnRequest")
            .field("argv", &self.argv.len())
            .field("env", &self.env.len())
            .field("stdin", &self.stdin)
            .field("confirm", &self.confirm)
            .finish_non_exhaustive()
    }
}

impl SpawnRequest {
    /// The payload of SPAWN: a table of offsets (arguments and variables, each
    /// ended by zero, candidates, working directory), then the strings.
    pub(super) fn payload(&self) -> Result<Vec<u8>, SpawnError> {
        let cwd = std::slice::from_ref(&self.cwd);
        let lists: [(&'static str, &[Vec<u8>], bool); 4] = [
            ("argument", &self.argv, true),
            ("environment", &self.env, true),
            ("program", &self.candidates, false),
            ("working directory", cwd, false),
        ];
        let words: usize = lists
            .iter()
            .map(|(_, list, ended)| list.len() + usize::from(*ended))
            .sum();
        let strings: usize = lists
            .iter()
            .flat_map(|(_, list, _)| *list)
            .map(|s| s.len() + 1)
            .sum();
        let size = 8 * words + strings;
        if size > MAX_PAYLOAD {
            return Err(SpawnError::TooLarge {
                size,
                limit: MAX_PAYLOAD,
            });
        }
        let mut payload = Vec::with_capacity(size);
        let mut next = 8 * words as u64;
        for (what, list, ended) in lists {
            for string in list {
                if string.contains(&0) {
                    return Err(SpawnError::Nul(what));
                }
                payload.extend_from_slice(&next.to_ne_bytes());
                next += string.len() as u64 + 1;
            }
            if ended {
                payload.extend_from_slice(&0_u64.to_ne_bytes());
            }
        }
        for (_, list, _) in lists {
            for string in list {
                payload.extend_from_slice(string);
                payload.push(0);
            }
        }
        Ok(payload)
    }
}
