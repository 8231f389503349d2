//! Terminals: what a command gets instead of three pipes.
//!
//! A terminal must never be given to a command that did not ask for one: it changes bytes.

use crate::{Error, ErrorKind, Operation, Result};

/// The value of `TERM` for a command with a terminal whose environment has none.
pub const DEFAULT_TERM: &str = "xterm-256color";

/// The size of a terminal in characters.
///
/// ```
/// use sandbox_core::TerminalSize;
/// let wide = TerminalSize { columns: 132, ..TerminalSize::default() };
/// assert_eq!((wide.rows, wide.columns), (24, 132));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(deny_unknown_fields, rename_all = "kebab-case")
)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl Default for TerminalSize {
    /// 24 rows of 80 columns.
    fn default() -> Self {
        Self {
            rows: 24,
            columns: 80,
        }
    }
}

impl TerminalSize {
    /// Refuses a terminal without any character.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if rows or columns are zero.
    pub fn validate(self, operation: Operation) -> Result<()> {
        if self.rows > 0 && self.columns > 0 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, operation)
            .with_message(format!(
                "a terminal can't have {} rows of {} columns",
                self.rows, self.columns
            ))
            .with_hint("give at least one row and one column"))
    }
}

/// The terminal of a command; see [`Command::terminal`](crate::Command::terminal).
///
/// ```
/// use sandbox_core::{Command, TerminalOptions, TerminalSize};
/// let size = TerminalSize { rows: 50, columns: 132 };
/// let shell = Command::new("sh").terminal(size);
/// let bytes = Command::new("sz").terminal(TerminalOptions::new(size).raw(true));
/// assert!(bytes.terminal.is_some_and(|terminal| terminal.raw));
/// # assert_eq!(shell.terminal, Some(size.into()));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct TerminalOptions {
    /// Size of the terminal when the command starts.
    pub size: TerminalSize,
    /// Whether it starts in raw mode, as `cfmakeraw(3)` sets it: no echo, no lines, no signals from
    /// control characters, no change of newlines. The program may change that at any time.
    #[cfg_attr(feature = "serde", serde(default))]
    pub raw: bool,
}

impl TerminalOptions {
    /// A terminal of this size, with echo and lines.
    pub fn new(size: TerminalSize) -> Self {
        Self { size, raw: false }
    }

    crate::setters! {
        /// Sets whether it starts in raw mode.
        raw: bool,
    }
}

impl From<TerminalSize> for TerminalOptions {
    fn from(size: TerminalSize) -> Self {
        Self::new(size)
    }
}
