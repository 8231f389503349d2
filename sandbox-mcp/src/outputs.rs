//! Whole outputs of commands, kept for a while so that a client can read on.
//!
//! It must never keep more than its bound, whatever programs write.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sandbox_core::CapturedStream;

use crate::arguments::Stream;
use crate::results::{OutputOut, Text};

/// Bytes of a stream that a result holds at each end.
const END: usize = 16 << 10;
/// Bytes that are kept in all.
const BOUND: usize = 64 << 20;
/// Bytes that one call of output_read gives.
pub(crate) const PAGE: u64 = 32 << 10;

#[derive(Debug, Default)]
pub(crate) struct Outputs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    kept: VecDeque<Kept>,
    bytes: usize,
    next: u64,
}

#[derive(Debug)]
struct Kept {
    id: String,
    stdout: CapturedStream,
    stderr: CapturedStream,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.stdout.bytes.len() + self.stderr.bytes.len()
    }
}

impl Outputs {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an output of a sandbox, if one of its streams does not fit into a result.
    pub(crate) fn keep(
        &self,
        sandbox: &str,
        stdout: CapturedStream,
        stderr: CapturedStream,
    ) -> Option<String> {
        if stdout.bytes.len() <= 2 * END && stderr.bytes.len() <= 2 * END {
            return None;
        }
        let mut state = self.lock();
        state.next += 1;
        let id = format!("{sandbox}-{}", state.next);
        let kept = Kept {
            id: id.clone(),
            stdout,
            stderr,
        };
        state.bytes += kept.bytes();
        state.kept.push_back(kept);
        while state.bytes > BOUND && state.kept.len() > 1 {
            if let Some(oldest) = state.kept.pop_front() {
                state.bytes -= oldest.bytes();
            }
        }
        Some(id)
    }

    /// A part of a kept stream.
    pub(crate) fn read(
        &self,
        id: &str,
        stream: Stream,
        offset: u64,
        limit: u64,
    ) -> Option<OutputOut> {
        let state = self.lock();
        let kept = state.kept.iter().find(|kept| kept.id == id)?;
        let stream = match stream {
            Stream::Stdout => &kept.stdout,
            Stream::Stderr => &kept.stderr,
        };
        let length = stream.bytes.len() as u64;
        let from = offset.min(length);
        let to = from.saturating_add(limit.clamp(1, PAGE)).min(length);
        let part = stream
            .bytes
            .get(from as usize..to as usize)
            .unwrap_or_default();
        let whole = whole_characters(part, to == length);
        let next = from + whole as u64;
        Some(OutputOut {
            text: String::from_utf8_lossy(&part[..whole]).into_owned(),
            next_offset: (next < length).then_some(next),
            kept_bytes: length,
            total_bytes: stream.total,
        })
    }
}

/// Length of the part that does not end within a character.
fn whole_characters(part: &[u8], is_end: bool) -> usize {
    match std::str::from_utf8(part) {
        Err(error) if !is_end && error.error_len().is_none() && error.valid_up_to() > 0 => {
            error.valid_up_to()
        }
        _ => part.len(),
    }
}

/// A stream as a result shows it: whole, or its two ends.
pub(crate) fn show(stream: &CapturedStream) -> Text {
    let bytes = &stream.bytes;
    let total_bytes = stream.total;
    if bytes.len() <= 2 * END {
        return Text {
            head: stream.to_string_lossy().into_owned(),
            tail: None,
            truncated: stream.is_truncated(),
            next_offset: None,
            total_bytes,
        };
    }
    let head = whole_characters(&bytes[..END], false);
    let mut from = bytes.len() - END;
    // Not within a character.
    while from < bytes.len() && bytes[from] & 0xc0 == 0x80 {
        from += 1;
    }
    Text {
        head: String::from_utf8_lossy(&bytes[..head]).into_owned(),
        tail: Some(String::from_utf8_lossy(&bytes[from..]).into_owned()),
        truncated: true,
        next_offset: Some(head as u64),
        total_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_output_is_read_on_without_a_gap_and_within_characters() {
        let text = "äöü€".repeat(20_000);
        let stream = CapturedStream::new(text.clone(), text.len() as u64);
        let shown = show(&stream);
        assert!(shown.truncated && !shown.head.contains('\u{fffd}'));
        let outputs = Outputs::default();
        let id = outputs
            .keep("s", stream, CapturedStream::default())
            .unwrap();
        let mut read = shown.head;
        let mut offset = shown.next_offset;
        while let Some(from) = offset {
            let part = outputs.read(&id, Stream::Stdout, from, u64::MAX).unwrap();
            read += &part.text;
            offset = part.next_offset;
        }
        assert!(read == text);
        assert!(text.ends_with(&shown.tail.unwrap()));
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes() {
        let outputs = Outputs::default();
        let big = || CapturedStream::new(vec![b'x'; 16 << 20], 16 << 20);
        let ids: Vec<_> = (0..6)
            .map(|_| outputs.keep("s", big(), CapturedStream::default()).unwrap())
            .collect();
        assert!(outputs.lock().bytes <= BOUND);
        assert!(outputs.read(&ids[0], Stream::Stdout, 0, 1).is_none());
        assert!(outputs.read(&ids[5], Stream::Stdout, 0, 1).is_some());
        let small = CapturedStream::new("x", 1);
        assert!(
            outputs
                .keep("s", small, CapturedStream::default())
                .is_none()
        );
    }
}
