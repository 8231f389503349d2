//! Scripts for the guest's shell: quoting, packing, and reading what they say.
//!
//! Nothing that a caller gives may be taken for a part of a script.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sandbox_core::{Error, ErrorKind, Operation, Result};

pub(crate) const COMMON: &str = include_str!("common.sh");
pub(crate) const COMMAND: &str = include_str!("command.sh");
pub(crate) const EXEC: &str = include_str!("exec.sh");
pub(crate) const SPAWN: &str = include_str!("spawn.sh");
pub(crate) const STREAM: &str = include_str!("stream.sh");
pub(crate) const TERMINAL: &str = include_str!("terminal.sh");
pub(crate) const BATCH: &str = include_str!("batch.sh");
pub(crate) const FILES: &str = include_str!("files.sh");

/// The largest script that goes along with the request; a larger one is a file.
pub(crate) const INLINE: usize = 60 << 10;

/// Tools that an image must have.
const NEEDS: &str =
    "the image needs a POSIX sh, GNU coreutils, findutils, grep and tar, and util-linux";

/// A script that is being written.
#[derive(Debug, Default)]
pub(crate) struct Script(pub(crate) Vec<u8>);

impl Script {
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Adds what is no text.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds a word that the shell takes byte for byte, with a space before it.
    pub(crate) fn word(mut self, word: &[u8]) -> Self {
        self.0.push(b' ');
        self.quoted(word);
        self
    }

    /// Adds bytes as base64.
    pub(crate) fn base64(self, bytes: &[u8]) -> Self {
        let packed = STANDARD.encode(bytes);
        self.text(&packed)
    }

    pub(crate) fn quoted(&mut self, word: &[u8]) {
        quote(&mut self.0, word);
    }

    /// The script as a request carries it; `None` if it must go as a file.
    pub(crate) fn inline(&self) -> Option<String> {
        if self.0.len() > INLINE {
            return None;
        }
        match std::str::from_utf8(&self.0) {
            Ok(text) => Some(text.to_owned()),
            Err(_) => {
                let packed = STANDARD.encode(&self.0);
                Some(format!("eval \"$(printf %s {packed} | base64 -d)\""))
            }
        }
    }
}

/// Adds a word that the shell takes byte for byte.
pub(crate) fn quote(to: &mut Vec<u8>, word: &[u8]) {
    to.push(b'\'');
    for byte in word {
        match byte {
            b'\'' => to.extend_from_slice(b"'\\''"),
            _ => to.push(*byte),
        }
    }
    to.push(b'\'');
}

/// Output of a script, in lines.
#[derive(Debug)]
pub(crate) struct Said<'a> {
    pub(crate) words: Vec<&'a str>,
    pub(crate) rest: std::str::Lines<'a>,
}

/// Takes apart what a script says.
pub(crate) fn said(text: &str, op: Operation) -> Result<Said<'_>> {
    let mut rest = text.lines();
    match rest.next() {
        Some(line) if !line.is_empty() => Ok(Said {
            words: line.split(' ').collect(),
            rest,
        }),
        _ => Err(garbled(op)),
    }
}

pub(crate) fn garbled(op: Operation) -> Error {
    Error::new(ErrorKind::Other, op)
        .with_message("the answer of the guest's shell can't be understood")
        .with_hint(NEEDS)
}

/// Refusal of an image without a tool that the scripts use.
pub(crate) fn lacking(op: Operation, tool: &str) -> Error {
    Error::new(ErrorKind::Unsupported, op)
        .with_message(format!("the image has no `{tool}`"))
        .with_hint(NEEDS)
}

pub(crate) fn decode(line: Option<&str>, op: Operation) -> Result<Bytes> {
    let line = line.unwrap_or_default();
    let bytes = STANDARD.decode(line.trim()).map_err(|_| garbled(op))?;
    Ok(bytes.into())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A file that was missing a moment ago may be there when it is asked why it was.
    #[test]
    #[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    fn what_has_appeared_meanwhile_was_missing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        for (path, why) in [
            ("file", "E NOENT"),
            ("missing/deep", "E NOENT"),
            ("file/below", "E NOTDIR"),
            ("file/below/deep", "E NOTDIR"),
        ] {
            let path = dir.path().join(path);
            let script = format!("{COMMON}climb \"$0\"");
            let mut shell = std::process::Command::new("sh");
            let output = shell.arg("-c").arg(script).arg(path).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(said.trim(), why, "{output:?}");
        }
    }
}
