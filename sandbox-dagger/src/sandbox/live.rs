//! Reads what the supervisor of a spawned command writes, in any slices: while it comes, and whole.
//!
//! Invariant: a piece is handed on only if it is complete and the next in order. What is lost,
//! doubled or out of order is found, and nothing is read any more from there on: the rest is in the
//! engine's answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;

use crate::guest::frame::Broken;
use crate::session::logs::Record;

/// The largest line: of base64, or of the supervisor's own words.
const MAX_LINE: usize = 4 << 10;
/// The largest piece, in base64: of 48 KiB, with its ends of lines.
const MAX_PIECE: usize = 80 << 10;

/// Both streams of a command.
#[derive(Debug)]
pub(crate) struct Live {
    nonce: String,
    /// The step of the query that runs the command.
    span: Option<String>,
    streams: [Stream; 2],
    /// Why the command was not started.
    pub(crate) refused: Option<String>,
    /// Whether it was.
    pub(crate) started: bool,
    /// Wait status that the supervisor says at its end, with what was written to each stream.
    code: Option<String>,
    totals: Vec<u64>,
    /// Whether it told them a second time.
    confirmed: bool,
    /// Number of bytes that it wrote to disk.
    pub(crate) written: u64,
}

#[derive(Debug, Default)]
struct Stream {
    time: u64,
    line: String,
    piece: String,
    pieces: u64,
    part: Part,
    /// Number of bytes handed on.
    handed: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Before,
    Pieces,
    After,
    Ended,
}

impl Live {
    pub(crate) fn new(nonce: &str) -> Self {
        Self {
            nonce: nonce.to_owned(),
            span: None,
            streams: Default::default(),
            refused: None,
            started: false,
            code: None,
            totals: Vec::new(),
            confirmed: false,
            written: 0,
        }
    }

    /// Reads what the engine kept of both streams.
    pub(crate) fn whole(nonce: &str, streams: [&str; 2]) -> Result<(Self, [BytesMut; 2]), Broken> {
        let (mut live, mut bytes) = (Self::new(nonce), Default::default());
        for (index, text) in streams.into_iter().enumerate() {
            live.text(index, text, &mut bytes)?;
        }
        match live.ended() {
            true => Ok((live, bytes)),
            false => Err(Broken("the guest's script was cut short")),
        }
    }

    /// Whether everything was read that the supervisor writes. Where it refused the command there
    /// is nothing else.
    pub(crate) fn ended(&self) -> bool {
        let ended = |stream: &Stream| stream.part == Part::Ended;
        ended(&self.streams[0]) && (self.refused.is_some() || ended(&self.streams[1]))
    }

    /// Number of bytes handed on of each stream.
    pub(crate) fn handed(&self) -> [u64; 2] {
        [self.streams[0].handed, self.streams[1].handed]
    }

    /// The status that the supervisor told, if all that was written before was read.
    pub(crate) fn code(&self) -> Result<&str, Broken> {
        match &self.code {
            Some(code) if self.confirmed && self.totals == self.handed() => Ok(code),
            Some(_) => Err(Broken("a part of its output is missing")),
            None => Err(Broken("no exit code")),
        }
    }

    /// Takes a record of the query, and adds what it completes to `out`.
    pub(crate) fn record(
        &mut self,
        record: &Record,
        out: &mut [BytesMut; 2],
    ) -> Result<(), Broken> {
        // Other steps of the query show the same text again.
        match &self.span {
            Some(span) if *span != record.span => return Ok(()),
            Some(_) => {}
            None if record.text.starts_with(&format!("frame {}\n", self.nonce)) => {
                self.span = Some(record.span.clone());
            }
            None => return Ok(()),
        }
        let index = usize::from(record.is_stderr);
        let stream = &mut self.streams[index];
        if record.time < stream.time {
            return Err(Broken("its output is out of order"));
        }
        stream.time = record.time;
        self.text(index, &record.text, out)
    }

    fn text(&mut self, index: usize, text: &str, out: &mut [BytesMut; 2]) -> Result<(), Broken> {
        let mut rest = text;
        while let Some((line, after)) = rest.split_once('\n') {
            rest = after;
            let mut whole = std::mem::take(&mut self.streams[index].line);
            whole.push_str(line);
            self.line(index, whole.trim_end_matches('\r'), &mut out[index])?;
        }
        let line = &mut self.streams[index].line;
        line.push_str(rest);
        match line.len() > MAX_LINE {
            true => Err(Broken("a line is too long")),
            false => Ok(()),
        }
    }

    fn line(&mut self, index: usize, line: &str, out: &mut BytesMut) -> Result<(), Broken> {
        let is = |word: &str| line.strip_prefix(word) == Some(&self.nonce);
        let stream = &mut self.streams[index];
        match stream.part {
            Part::Before if is("frame ") => stream.part = Part::Pieces,
            // The engine's own words.
            Part::Before => {}
            Part::Pieces if line == "started" && index == 0 => self.started = true,
            Part::Pieces if line.starts_with("no ") && index == 0 => {
                self.refused = Some(line["no ".len()..].to_owned());
                stream.part = Part::After;
            }
            Part::Pieces if line == "." => stream.part = Part::After,
            Part::Pieces => return stream.piece_line(line, out),
            Part::After if is("end ") => stream.part = Part::Ended,
            Part::After if index == 0 => self.told(line)?,
            Part::After | Part::Ended => return Err(Broken("there is more than the end")),
        }
        Ok(())
    }

    fn told(&mut self, line: &str) -> Result<(), Broken> {
        let number = |text: &str| text.trim().parse().map_err(|_| Broken("no number"));
        match line.split_once(' ') {
            Some(("exit", code)) => self.code = Some(code.trim().to_owned()),
            Some(("total", total)) => self.totals.push(number(total)?),
            Some(("again", again)) => {
                let mut told = self.code.clone().unwrap_or_default();
                for total in &self.totals {
                    told.push_str(&format!(" {total}"));
                }
                self.confirmed = told == again;
            }
            Some(("written", written)) => self.written = number(written).unwrap_or(0),
            _ => return Err(Broken("its end can't be read")),
        }
        Ok(())
    }
}

impl Stream {
    fn piece_line(&mut self, line: &str, out: &mut BytesMut) -> Result<(), Broken> {
        let Some(end) = line.strip_prefix(';') else {
            if !self.piece.is_empty() {
                self.piece.push('\n');
            }
            self.piece.push_str(line);
            return match self.piece.len() > MAX_PIECE {
                true => Err(Broken("a piece is too long")),
                false => Ok(()),
            };
        };
        let lost = || Broken("a part of its output is missing");
        let mut words = end.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(number)), Some(Ok(length)), None) = (words.next(), words.next(), words.next())
        else {
            return Err(lost());
        };
        let piece = std::mem::take(&mut self.piece);
        if number != self.pieces + 1 || length != piece.len() as u64 {
            return Err(lost());
        }
        self.pieces = number;
        let decoded = STANDARD.decode(piece.replace('\n', ""));
        let decoded = decoded.map_err(|_| Broken("the output is not base64"))?;
        self.handed += decoded.len() as u64;
        out.extend_from_slice(&decoded);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: &str = "frame n\nstarted\nYWJj\nZA==\n;1 9\nZQ==\n;2 4\n.\nexit 256\ntotal 5\ntotal 1\nagain 256 5 1\nwritten 7\nend n\n";
    const ERR: &str = "frame n\nIQ==\n;1 4\n.\nend n\n";

    fn record(text: &str, is_stderr: bool, time: u64) -> Record {
        let (span, text) = ("s".to_owned(), text.to_owned());
        Record {
            span,
            is_stderr,
            time,
            text,
        }
    }

    /// Reads records, and what was handed on.
    fn read(records: &[Record]) -> Result<(Live, [BytesMut; 2]), Broken> {
        let (mut live, mut out) = (Live::new("n"), Default::default());
        for one in records {
            live.record(one, &mut out)?;
        }
        Ok((live, out))
    }

    fn slices(size: usize) -> Vec<Record> {
        let mut all = vec![record(ERR, true, 1)];
        let (head, rest) = OUT.split_at("frame n\n".len());
        all.push(record(head, false, 1));
        let chars: Vec<char> = rest.chars().collect();
        let texts = chars
            .chunks(size)
            .map(|part| part.iter().collect::<String>());
        all.extend(
            texts
                .zip(2..)
                .map(|(text, time)| record(&text, false, time)),
        );
        all
    }

    #[test]
    fn any_slices_give_the_same() {
        for size in 1..40 {
            let (live, out) = read(&slices(size)).expect("it can be read");
            assert_eq!((&out[0][..], &out[1][..]), (&b"abcde"[..], &b"!"[..]));
            assert!(live.ended() && live.started);
            assert_eq!((live.code().ok(), live.written), (Some("256"), 7));
        }
        let (live, out) = Live::whole("n", [OUT, ERR]).expect("it can be read");
        assert_eq!(
            (live.code().ok(), &out[0][..]),
            (Some("256"), &b"abcde"[..])
        );
    }

    #[test]
    fn what_is_lost_doubled_or_out_of_order_is_found() {
        for size in [1, 3, 7, 10] {
            let count = slices(size).len();
            for index in 2..count {
                let mut lost = slices(size);
                lost.remove(index);
                let mut doubled = slices(size);
                doubled.insert(
                    index,
                    record(&slices(size)[index].text, false, index as u64),
                );
                let mut turned = slices(size);
                if index + 1 < count {
                    turned.swap(index, index + 1);
                }
                for (what, records) in [("lost", lost), ("doubled", doubled), ("turned", turned)] {
                    let Ok((live, out)) = read(&records) else {
                        continue;
                    };
                    assert!(b"abcde".starts_with(&out[0]), "{what} {index}: {out:?}");
                    if live.ended()
                        && let Ok(code) = live.code()
                    {
                        assert_eq!(
                            (code, &out[0][..]),
                            ("256", &b"abcde"[..]),
                            "{what} {index}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn records_of_other_steps_and_noise_are_left_out() {
        let mut records = slices(7);
        let mut again = record(OUT, false, 900);
        again.span = "other".into();
        records.insert(0, record("engine says hello\n", false, 0));
        records.push(again);
        let (live, out) = read(&records).expect("it can be read");
        assert!(live.ended());
        assert_eq!(&out[0][..], b"abcde");
    }

    #[test]
    fn a_refusal_ends_without_pieces() {
        let (live, _) = Live::whole("n", ["frame n\nno command-not-found\nend n\n", ""])
            .expect("it can be read");
        assert_eq!(live.refused.as_deref(), Some("command-not-found"));
        assert!(!live.started);
    }
}
