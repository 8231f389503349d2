//! Scripts for the guest's `/bin/sh`, and how arbitrary bytes get into them.
//!
//! Invariant: nothing of the caller becomes script; it arrives as the value of a variable, byte for
//! byte, quoted or in octal.

pub(crate) mod frame;
pub(crate) mod stage;

use std::fmt::Write as _;

/// The supervisor of a command.
const EXEC: &str = include_str!("exec.sh");
/// The file operations.
const FILES: &str = include_str!("files.sh");

/// A script under construction.
#[derive(Debug)]
pub(crate) struct Script(String);

impl Script {
    /// A script that only sets the locale, in which every byte is a character.
    pub(crate) fn new(nonce: &str) -> Self {
        Self(format!(
            "LC_ALL=C; export LC_ALL; umask 022\nnonce={nonce}\n"
        ))
    }

    /// Sets a variable to these bytes.
    pub(crate) fn set(mut self, name: &str, value: &[u8]) -> Self {
        self.assign(name, value);
        self
    }

    /// Adds a line, which must not hold anything of the caller's.
    pub(crate) fn line(mut self, line: &str) -> Self {
        self.0.push_str(line);
        self.0.push('\n');
        self
    }

    fn assign(&mut self, name: &str, value: &[u8]) {
        match plain(value) {
            Some(quoted) => {
                let _ = writeln!(self.0, "{name}={quoted}");
            }
            None => {
                // A command substitution drops newlines at the end: the x keeps them.
                let _ = writeln!(
                    self.0,
                    "{name}=$(printf '{}x'); {name}=${{{name}%x}}",
                    octal(value)
                );
            }
        }
    }

    /// Calls a function with these arguments.
    pub(crate) fn call(mut self, function: &str, arguments: &[&[u8]]) -> Self {
        let words = self.words(arguments);
        let _ = writeln!(self.0, "{function} {words}");
        self
    }

    /// Makes these the positional parameters; `raw` ones before them are our own script.
    pub(crate) fn parameters(mut self, raw: &[String], arguments: &[&[u8]]) -> Self {
        let words = self.words(arguments);
        let _ = writeln!(self.0, "set -- {} {words}", raw.join(" "));
        self
    }

    /// Words for a command line; what can't be quoted is put into variables before.
    pub(crate) fn words(&mut self, arguments: &[&[u8]]) -> String {
        let mut words = String::new();
        for (index, argument) in arguments.iter().enumerate() {
            match plain(argument) {
                Some(quoted) => words.push_str(&quoted),
                None => {
                    let name = format!("v{index}");
                    self.assign(&name, argument);
                    let _ = write!(words, "\"${name}\"");
                }
            }
            words.push(' ');
        }
        words
    }

    /// Writes base64 text into a file of the guest's, from the script itself.
    pub(crate) fn file_from_base64(self, variable: &str, encoded: &str) -> Self {
        self.line(&format!("{variable}=$(mktemp)"))
            .decode(&format!("\"${variable}\""), encoded)
    }

    /// Writes what base64 text stands for to a place that the script names.
    pub(crate) fn decode(mut self, to: &str, encoded: &str) -> Self {
        let _ = writeln!(self.0, "base64 -d >{to} <<'SANDBOX-INPUT'");
        for line in encoded.as_bytes().chunks(4096) {
            self.0.push_str(&String::from_utf8_lossy(line));
            self.0.push('\n');
        }
        self.0.push_str("SANDBOX-INPUT\n");
        self
    }

    /// The text of the script alone.
    pub(crate) fn text(self) -> String {
        self.0
    }

    /// The text of the script, followed by the supervisor.
    pub(crate) fn supervise(self) -> String {
        self.0 + EXEC
    }

    /// The text of the script between the file operations and this call.
    pub(crate) fn files(self, call: &str) -> String {
        format!("{FILES}{}{call}\n", self.0)
    }
}

/// Single quotes, if the value is text that a query carries as it is.
fn plain(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    if text
        .chars()
        .any(|c| c.is_control() && c != '\n' && c != '\t')
    {
        return None;
    }
    Some(format!("'{}'", text.replace('\'', "'\\''")))
}

fn octal(value: &[u8]) -> String {
    value.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "\\{byte:03o}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_arrive_as_they_are() {
        for bytes in [
            &b"it's $HOME `x` \"q\" \\ \n\n"[..],
            b"\xff\x01\n\n",
            b"",
            b"-n",
        ] {
            let script = Script::new("n").set("a", bytes).line("printf %s \"$a\"");
            let mut shell = std::process::Command::new("/bin/sh");
            let output = shell.arg("-c").arg(script.0).output();
            assert_eq!(
                output.map(|output| output.stdout).ok().as_deref(),
                Some(bytes)
            );
        }
    }
}
