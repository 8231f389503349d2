//! Bodies that come back: read whole within a limit, or frame by frame.
//!
//! It must never wait for a server that has fallen silent, nor hold more than a limit allows.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use sandbox_core::{Error, ErrorKind, Operation, Result};
use serde::de::DeserializeOwned;

use super::call::unknown;
use crate::wire;

/// The longest silence within a body.
pub(super) const SILENCE: Duration = Duration::from_secs(20);

/// Returns what reqwest says, with its causes and without the address.
pub(super) fn told(error: &reqwest::Error) -> String {
    let mut said = Vec::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(cause) = next {
        said.push(cause.to_string());
        next = cause.source();
    }
    match said.is_empty() {
        true => "the connection broke".into(),
        false => said.join(": "),
    }
}

/// Reads a body whole, within a limit.
pub(super) async fn collect(mut response: Response, most: usize) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    loop {
        match tokio::time::timeout(SILENCE, response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                if body.len() + chunk.len() > most {
                    return Err("the answer is larger than any may be".into());
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Ok(None)) => return Ok(body.freeze()),
            Ok(Err(error)) => return Err(told(&error)),
            Err(_) => return Err("the server fell silent".into()),
        }
    }
}

pub(super) fn parse<T: DeserializeOwned>(body: &[u8], operation: Operation) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        // The text of it may quote what is confidential.
        let at = format!("line {} column {}", error.line(), error.column());
        let error = Error::new(ErrorKind::Other, operation)
            .with_message(format!("the server's answer is not understood, at {at}"));
        unknown(error)
    })
}

/// A body in frames.
#[derive(Debug)]
pub(super) struct Frames {
    response: Response,
    buffer: BytesMut,
}

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) data: Bytes,
}

/// The longest frame.
const FRAME: usize = 16 << 20;

impl Frames {
    pub(super) fn new(response: Response) -> Self {
        Self {
            response,
            buffer: BytesMut::new(),
        }
    }

    /// The next frame.
    ///
    /// # Errors
    /// Why the connection is of no more use.
    pub(super) async fn next(&mut self) -> Result<Frame, String> {
        loop {
            if let Some(frame) = cut(&mut self.buffer)? {
                return Ok(frame);
            }
            match tokio::time::timeout(SILENCE, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => self.buffer.extend_from_slice(&chunk),
                Ok(Ok(None)) => return Err("the answer ended within a stream".into()),
                Ok(Err(error)) => return Err(told(&error)),
                Err(_) => return Err("the server fell silent".into()),
            }
        }
    }
}

/// Cuts the first frame off, if it is there whole.
fn cut(buffer: &mut BytesMut) -> Result<Option<Frame>, String> {
    let Some([kind, a, b, c, d]) = buffer.first_chunk::<{ wire::frame::HEAD }>().copied() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let known = [
        wire::frame::DATA,
        wire::frame::END,
        wire::frame::HEARTBEAT,
        wire::frame::MORE,
        wire::frame::ERROR,
    ];
    if !known.contains(&kind) || length > FRAME {
        return Err("the server sent bytes that can't be read as a frame".into());
    }
    if buffer.len() < wire::frame::HEAD + length {
        return Ok(None);
    }
    let mut frame = buffer.split_to(wire::frame::HEAD + length);
    let data = frame.split_off(wire::frame::HEAD).freeze();
    Ok(Some(Frame { kind, data }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_wherever_they_are_split_and_garbage_is_refused() {
        let whole = b"D\0\0\0\x03abcH\0\0\0\0E\0\0\0\0";
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for byte in whole {
            buffer.extend_from_slice(&[*byte]);
            while let Some(frame) = cut(&mut buffer).unwrap() {
                frames.push((frame.kind, frame.data));
            }
        }
        let expected: [(u8, &[u8]); 3] = [(b'D', b"abc"), (b'H', b""), (b'E', b"")];
        let expected = expected.map(|(kind, data)| (kind, Bytes::from_static(data)));
        assert_eq!(frames, expected);
        for garbage in [&b"Z\0\0\0\0"[..], b"D\xff\xff\xff\xff", b"<html>"] {
            assert!(cut(&mut BytesMut::from(garbage)).is_err());
        }
    }

    /// Cuts frames off bytes that come in parts of each size: where they are cut changes nothing, and
    /// no frame is longer than it may be.
    fn in_parts_of_each_size(whole: &[u8]) {
        let in_parts = |size: usize| {
            let mut buffer = BytesMut::new();
            let mut frames = Vec::new();
            for part in whole.chunks(size) {
                buffer.extend_from_slice(part);
                loop {
                    match cut(&mut buffer) {
                        Ok(Some(frame)) => {
                            assert!(frame.data.len() <= FRAME);
                            frames.push((frame.kind, frame.data));
                        }
                        Ok(None) => break,
                        Err(_) => return (frames, true),
                    }
                }
            }
            (frames, false)
        };
        let at_once = in_parts(whole.len().max(1));
        for size in [1, 5, 64] {
            assert_eq!(in_parts(size), at_once, "in parts of {size}");
        }
    }

    #[test]
    fn a_stream_of_frames_can_be_anything() {
        let kept: &[&[u8]] = &[
            b"D\0\0\0\x03abcH\0\0\0\0E\0\0\0\0",
            b"D\0\0\x01\0a",
            b"D\xff\xff\xff\xff",
            b"X\0\0\0\x02{}M\0\0\0\0",
            b"<html>",
        ];
        sandbox_testkit::fuzz::attack("remote-frames", kept, in_parts_of_each_size);
    }
}
