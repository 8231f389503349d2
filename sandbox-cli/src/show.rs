//! Output for the user: answers, and errors with what to do about them.
//!
//! It must never send what a guest wrote to the terminal in a message of its own without escaping
//! it.

use std::io::Write as _;

use sandbox::{Error, ErrorKind, Operation};
use serde_json::{Value, json};

/// The program's own failure, as in `env`, `timeout` and `docker run`.
pub(crate) const FAILED: u8 = 125;

/// Why the program fails, and with which exit status.
pub(crate) struct Failure {
    pub(crate) code: u8,
    error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        // A backend has limits of its own for what is no command.
        let of_a_command = matches!(error.operation(), Operation::Exec | Operation::Spawn);
        let code = match error.kind() {
            ErrorKind::Timeout if of_a_command => 124,
            ErrorKind::NotExecutable => 126,
            ErrorKind::CommandNotFound => 127,
            _ => FAILED,
        };
        Self { code, error }
    }
}

impl Failure {
    /// The error by itself.
    #[cfg(any(feature = "mcp", all(feature = "local", target_os = "linux")))]
    pub(crate) fn into_error(self) -> Error {
        self.error
    }

    pub(crate) fn tell(&self, json: bool) {
        if json {
            let told = json!({ "error": error_value(&self.error) });
            // Nothing is left to tell it with.
            let _ = print(format!("{told}\n").as_bytes());
            return;
        }
        let error = &self.error;
        let mut text = format!("sandbox: {error}");
        let mut next = std::error::Error::source(error);
        // Below the message, because it says more about the same.
        if let Some(cause) = next.take() {
            text += &format!("\n  because: {}", cause.to_string().escape_debug());
        }
        complain(&text);
    }
}

/// An error as JSON.
pub(crate) fn error_value(error: &Error) -> Value {
    json!({
        "kind": error.kind(),
        "operation": error.operation().as_str(),
        "message": error.message(),
        "hint": error.hint(),
        "text": error.to_string(),
    })
}

/// Writes to standard output.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    match written {
        // The reader has had enough: `sandbox ls | head -1`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| {
            Failure::from(
                Error::from_io(error, Operation::Connect)
                    .with_message("standard output can't be written to"),
            )
        }),
    }
}

/// Writes a line of JSON.
pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    print(format!("{value}\n").as_bytes())
}

/// Writes a line to standard error.
pub(crate) fn complain(text: &str) {
    // Nothing is left to tell it with.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A table whose columns are as wide as they must be.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let head = head.get(column).map_or(0, |head| head.chars().count());
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
            .max(head)
    };
    let line = |cells: &[String]| {
        let cells = cells.iter().enumerate().map(|(column, cell)| {
            let room = width(column) - cell.chars().count();
            format!("{cell}{}", " ".repeat(room))
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rows = rows.iter().map(|row| line(row));
    std::iter::once(line(&head)).chain(rows).collect()
}

/// Tells what could not be done to each of some things, where it could to the others: on standard error,
/// or as a part of the answer. Gives the exit status.
pub(crate) fn tell_failed(failed: &[(String, Error)], json: bool) -> u8 {
    for (id, error) in failed.iter().filter(|_| !json) {
        complain(&format!("sandbox: {id}: {error}"));
    }
    if failed.is_empty() { 0 } else { FAILED }
}

/// Failures as JSON, each with what it is about.
pub(crate) fn failed_value(failed: &[(String, Error)]) -> Value {
    let each = failed.iter();
    each.map(|(id, error)| json!({ "id": id, "error": error_value(error) }))
        .collect()
}

/// A time ago, as a reader says it.
pub(crate) fn ago(time: std::time::SystemTime) -> String {
    let seconds = time.elapsed().map_or(0, |age| age.as_secs());
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use sandbox::{Error, ErrorKind, Operation};

    use super::{FAILED, Failure};

    #[test]
    fn the_status_of_a_timeout_is_for_commands() {
        let code = |operation| Failure::from(Error::new(ErrorKind::Timeout, operation)).code;
        assert_eq!(code(Operation::Spawn), 124);
        assert_eq!(code(Operation::Exec), 124);
        assert_eq!(code(Operation::Create), FAILED);
        assert_eq!(code(Operation::Snapshot), FAILED);
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [
            vec!["a".into(), "bb".into()],
            vec!["ccc".into(), "d".into()],
        ];
        let text = super::table(&["ID", "X"], &rows);
        assert_eq!(text, "ID   X\na    bb\nccc  d\n");
    }
}
