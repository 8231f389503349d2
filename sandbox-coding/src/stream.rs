//! Reading of an agent's own stream: which line tells which status.
//!
//! It must never grow with what a guest writes, nor take a line for more than a hint: a status is
//! shown, nothing is decided by it.

use std::collections::BTreeMap;

use sandbox_sessions::Status;
use serde::Deserialize;
use serde_json::Value;

/// The longest line that is looked at and given out; the rest of a longer one is left out.
pub(crate) const LONGEST_LINE: usize = 1 << 20;

/// One rule of a preset: a line of JSON with these values tells this status.
///
/// ```
/// use sandbox_coding::Presets;
/// let preset = r#"
///     title = "Mine"
///     command = ["mine"]
///     stream = [{ when = { "/type" = "done" }, status = "waiting" }]
/// "#;
/// let presets = Presets::new().with("mine", preset)?;
/// assert_eq!(presets.get("mine")?.stream.len(), 1);
/// # Ok::<(), sandbox_coding::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct StreamRule {
    /// Values by JSON pointer (RFC 6901); all of them must be there.
    pub when: BTreeMap<String, Value>,
    /// Status that such a line tells: working, waiting, thinking or error.
    pub status: Status,
}

impl StreamRule {
    fn fits(&self, line: &Value) -> bool {
        let has = |(pointer, value): (&String, &Value)| line.pointer(pointer) == Some(value);
        self.when.iter().all(has)
    }
}

/// The status that a line tells by the first rule that fits.
pub(crate) fn status(rules: &[StreamRule], line: &str) -> Option<Status> {
    if rules.is_empty() || !line.trim_start().starts_with('{') {
        return None;
    }
    let line: Value = serde_json::from_str(line).ok()?;
    rules
        .iter()
        .find(|rule| rule.fits(&line))
        .map(|rule| rule.status)
}

/// Lines of bytes that arrive in pieces.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// Bytes since the last line's end, at most [`LONGEST_LINE`] bytes.
    open: Vec<u8>,
    /// Whether the open line had more.
    cut: bool,
    ready: std::collections::VecDeque<(Vec<u8>, bool)>,
}

impl Lines {
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..end]);
            self.finish();
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = LONGEST_LINE - self.open.len();
        self.cut |= bytes.len() > room;
        self.open.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn finish(&mut self) {
        let line = std::mem::take(&mut self.open);
        self.ready.push_back((line, std::mem::take(&mut self.cut)));
    }

    /// The stream has ended: what is open is a line.
    pub(crate) fn end(&mut self) {
        if !self.open.is_empty() {
            self.finish();
        }
    }

    /// The next whole line, and whether its end was left out.
    pub(crate) fn next(&mut self) -> Option<(Vec<u8>, bool)> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_whatever_the_pieces_and_long_ones_are_cut() {
        let mut lines = Lines::default();
        for piece in ["a", "b\nc\n", "", "d"] {
            lines.push(piece.as_bytes());
        }
        lines.end();
        let mut text = Vec::new();
        while let Some((line, cut)) = lines.next() {
            assert!(!cut);
            text.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(text, ["ab", "c", "d"]);

        let piece = vec![b'x'; 300_000];
        for _ in 0..10 {
            lines.push(&piece);
            assert!(lines.open.len() <= LONGEST_LINE);
        }
        lines.push(b"\nnext\n");
        let (line, cut) = lines.next().unwrap();
        assert!(cut && line.len() == LONGEST_LINE);
        assert_eq!(lines.next().unwrap(), (b"next".to_vec(), false));
    }
}
