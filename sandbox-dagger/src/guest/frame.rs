//! Reads the answers of the guest's scripts.
//!
//! Invariant: an answer without its nonce, or cut short, is refused: a program of the guest may
//! have killed the script or written over it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The answer of a script: its lines between `frame` and `end`.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    lines: Vec<&'a str>,
    at: usize,
}

/// The answer can't be read.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) &'static str);

impl<'a> Frame<'a> {
    /// Finds the frame of this nonce.
    pub(crate) fn parse(text: &'a str, nonce: &str) -> Result<Self, Broken> {
        let mut lines = text.lines();
        let is = |line: &str, word: &str| {
            line.strip_prefix(word)
                .is_some_and(|rest| rest.trim() == nonce)
        };
        if !lines.by_ref().any(|line| is(line, "frame ")) {
            return Err(Broken("the guest's script did not answer"));
        }
        let mut kept = Vec::new();
        for line in lines {
            if is(line, "end ") {
                return Ok(Self { lines: kept, at: 0 });
            }
            kept.push(line);
        }
        Err(Broken("the guest's script was cut short"))
    }

    /// Takes the next line.
    pub(crate) fn line(&mut self) -> Result<&'a str, Broken> {
        let line = self.lines.get(self.at).copied();
        self.at += 1;
        line.ok_or(Broken("the answer has too few lines"))
    }

    /// The lines up to the next single dot.
    fn block(&mut self) -> Result<&[&'a str], Broken> {
        let from = self.at;
        while self.line()? != "." {}
        Ok(&self.lines[from..self.at - 1])
    }

    /// The lines up to the next single dot.
    pub(crate) fn lines(&mut self) -> Result<Vec<&'a str>, Broken> {
        self.block().map(<[_]>::to_vec)
    }

    /// The bytes that the lines up to the next single dot are the base64 of.
    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, Broken> {
        let text: String = self.block()?.concat();
        let decoded = STANDARD.decode(text);
        decoded.map_err(|_| Broken("the answer is not base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_and_a_cut_one_is_not() {
        let text = "noise\nframe n1\nok\nYWJj\nZGVm\n.\nend n1\n";
        let mut frame = Frame::parse(text, "n1").ok();
        assert_eq!(
            frame.as_mut().and_then(|frame| frame.line().ok()),
            Some("ok")
        );
        assert_eq!(
            frame.and_then(|mut frame| frame.bytes().ok()).as_deref(),
            Some(&b"abcdef"[..])
        );
        assert!(Frame::parse(text, "n2").is_err());
        assert!(Frame::parse("frame n\nok\n", "n").is_err());
    }
}
