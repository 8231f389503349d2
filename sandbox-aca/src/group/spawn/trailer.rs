//! Finds the beginning and the end of a stream: a mark that the guest's shell writes before the first byte
//! and behind the last.
//!
//! Bytes are held back only while they may be the beginning of the mark.

/// Finds the beginning of a stream: the mark that the guest's shell writes behind what it itself says.
#[derive(Debug)]
pub(super) struct Lead {
    mark: Vec<u8>,
    held: Vec<u8>,
    is_over: bool,
}

impl Lead {
    pub(super) fn new(mark: &str) -> Self {
        Self {
            mark: [b"\0", mark.as_bytes(), b"\n"].concat(),
            held: Vec::new(),
            is_over: false,
        }
    }

    /// Takes the next bytes, and gives those of the stream.
    pub(super) fn take(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        if self.is_over {
            return bytes;
        }
        self.held.append(&mut bytes);
        let mut windows = self.held.windows(self.mark.len());
        if let Some(at) = windows.position(|window| window == self.mark) {
            self.is_over = true;
            return self.held.split_off(at + self.mark.len());
        }
        // No more than may be the beginning of the mark.
        let thrown = self.held.len().saturating_sub(self.mark.len() - 1);
        self.held.drain(..thrown);
        Vec::new()
    }
}

/// Result of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Bytes of the stream.
    pub(super) bytes: Vec<u8>,
    /// Text behind the mark, once it is there in full.
    pub(super) end: Option<String>,
}

/// Looks for NUL, mark, text, newline.
#[derive(Debug)]
pub(super) struct Trailer {
    mark: Vec<u8>,
    held: Vec<u8>,
    ended: bool,
}

impl Trailer {
    pub(super) fn new(mark: &str) -> Self {
        Self {
            mark: [b"\0", mark.as_bytes()].concat(),
            held: Vec::new(),
            ended: false,
        }
    }

    /// Takes the next bytes; what comes behind the end is thrown away.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Step {
        let mut step = Step {
            bytes: Vec::new(),
            end: None,
        };
        if self.ended {
            return step;
        }
        self.held.extend_from_slice(bytes);
        let mut from = 0;
        loop {
            let nul = self.held[from..].iter().position(|byte| *byte == 0);
            let Some(at) = nul.map(|at| from + at) else {
                step.bytes.append(&mut self.held);
                return step;
            };
            let rest = &self.held[at..];
            if rest.len() < self.mark.len() && self.mark.starts_with(rest) {
                step.bytes.extend(self.held.drain(..at));
                return step;
            }
            if !rest.starts_with(&self.mark) {
                from = at + 1;
                continue;
            }
            let said = &rest[self.mark.len()..];
            if let Some(line) = said.iter().position(|byte| *byte == b'\n') {
                let text = String::from_utf8_lossy(&said[..line]).trim().to_owned();
                step.end = Some(text);
                self.ended = true;
            }
            step.bytes.extend(self.held.drain(..at));
            return step;
        }
    }

    /// Bytes that were held back when the stream broke off.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

/// Takes bytes in parts of each size, for [`crate::fuzzing`]: where they are cut changes nothing.
#[cfg(test)]
pub(crate) fn fuzzed(whole: &[u8]) {
    let in_parts = |size: usize| {
        let mut trailer = Trailer::new("end-x");
        let (mut bytes, mut end) = (Vec::new(), None);
        for part in whole.chunks(size) {
            let step = trailer.take(part);
            bytes.extend(step.bytes);
            end = end.or(step.end);
        }
        if end.is_none() {
            bytes.extend(trailer.rest());
        }
        (bytes, end)
    };
    let at_once = in_parts(whole.len().max(1));
    for size in [1, 2, 7] {
        assert_eq!(in_parts(size), at_once, "in parts of {size}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_begins_behind_the_mark_however_it_is_cut() {
        for said in [&b""[..], b"sh: warning\n", b"\0end", b"\0end-x", b"\0\0"] {
            let all = [said, b"\0end-x\nerr\0end-x\n"].concat();
            for part in 1..=all.len() {
                let mut lead = Lead::new("end-x");
                let taken = all.chunks(part).flat_map(|part| lead.take(part.to_vec()));
                assert_eq!(
                    taken.collect::<Vec<_>>(),
                    b"err\0end-x\n",
                    "{said:?} by {part}"
                );
            }
        }
        let mut lead = Lead::new("end-x");
        assert_eq!(lead.take(vec![b'x'; 1 << 20]), b"");
        assert!(lead.held.len() < 16);
    }

    #[test]
    fn the_end_is_found_wherever_the_bytes_are_cut() {
        let whole = b"a\0b\0\0end\0end-x 256 -\nlate";
        for size in 1..=whole.len() {
            let mut trailer = Trailer::new("end-x");
            let (mut bytes, mut end) = (Vec::new(), None);
            for part in whole.chunks(size) {
                let step = trailer.take(part);
                bytes.extend(step.bytes);
                end = end.or(step.end);
            }
            assert_eq!(bytes, b"a\0b\0\0end", "in parts of {size}");
            assert_eq!(end.as_deref(), Some("256 -"), "in parts of {size}");
        }
    }

    #[test]
    fn nothing_is_held_back_that_is_no_beginning() {
        let mut trailer = Trailer::new("end-x");
        assert_eq!(trailer.take(b"abc").bytes, b"abc");
        assert_eq!(trailer.take(b"\0").bytes, b"");
        assert_eq!(trailer.take(b"e").bytes, b"");
        assert_eq!(trailer.take(b"f").bytes, b"\0ef");
        assert_eq!(trailer.take(b"\0end").bytes, b"");
        assert_eq!(trailer.rest(), b"\0end");
    }
}
