//! Inputs that can be anything, for the readers of what the service and a guest's scripts answer,
//! and the writer of forms. Only in tests.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use sandbox_core::Operation;
use sandbox_testkit::fuzz::attack;

use crate::group::fuzzed as stream;
use crate::guest::script;
use crate::http;
use crate::sessions::form;

const OP: Operation = Operation::Exec;

/// A body of the service, as an answer and as a problem.
fn json(bytes: &[u8]) {
    let _ = http::parse(OP, bytes);
    http::fuzzed(bytes);
}

/// A pause that the service asks for: in each header, beside a date of its own, and in the body.
fn retry_after(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (text, date) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    for name in ["retry-after", "retry-after-ms", "x-ms-retry-after-ms"] {
        let mut headers = HeaderMap::new();
        for (name, text) in [(name, text), ("date", date)] {
            if let Ok(text) = HeaderValue::from_bytes(text) {
                headers.insert(HeaderName::from_static(name), text);
            }
        }
        let _ = http::asked(&headers, bytes);
    }
}

/// Words of a guest script: its first line, its words, content as base64.
fn said(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(said) = script::said(&text, OP) {
        for line in said.rest {
            let _ = script::decode(Some(line), OP);
        }
    }
}

/// A stream with its end behind a mark, cut at any place.
fn trailer(bytes: &[u8]) {
    stream(bytes);
}

/// A form: what a reader of forms finds in it is what was put in.
fn multipart(content: &[u8]) {
    const BOUNDARY: &str = "part-0123456789abcdef";
    let body = form(BOUNDARY, "name", content);
    let between = format!("\r\n--{BOUNDARY}").into_bytes();
    // A content with a line that begins as the boundary does is ruled out by
    // the boundary's random digits; the first line begins behind the empty one.
    let lines = [b"\r\n", content].concat();
    if lines.windows(between.len()).any(|part| part == between) {
        return;
    }
    let start = format!("--{BOUNDARY}\r\n").into_bytes();
    let body = body.strip_prefix(&*start).unwrap_or_default();
    let end = body.windows(between.len()).position(|part| part == between);
    let part = body.get(..end.unwrap_or_default()).unwrap_or_default();
    let head = part.windows(4).position(|part| part == b"\r\n\r\n");
    let found = part.get(head.unwrap_or_default() + 4..);
    assert_eq!(found, Some(content));
}

#[test]
fn the_services_answers_can_be_anything() {
    let kept: &[&[u8]] = &[
        br#"{"id":"x","properties":{"status":"Running"},"value":[{"sizeInBytes":3}]}"#,
        br#"{"title":"Conflict","detail":"d","errorCode":"E1","status":409}"#,
        br#"{"error":{"code":"ResourceNotFound","message":"m"}}"#,
        br#"{"errors":{"a":["b"]}}"#,
        b"[]",
        b"<html>",
        b"",
    ];
    attack("aca-json", kept, json);
}

#[test]
fn a_pause_can_be_anything() {
    let kept: &[&[u8]] = &[
        b"7\nWed, 21 Oct 2015 07:28:00 GMT",
        b"Fri, 31 Dec 9999 23:59:59 GMT\nThu, 01 Jan 1970 00:00:00 GMT",
        br#"{"retryAfterSeconds":18446744073709551615}"#,
        b"1.5",
    ];
    attack("retry-after", kept, retry_after);
}

#[test]
fn what_a_script_says_can_be_anything() {
    let kept: &[&[u8]] = &[b"ok 3 4\nYWJj\n", b"\n", b"exit 137 1\n\nAA==\n=\n"];
    attack("aca-said", kept, said);
}

#[test]
fn a_stream_with_an_end_can_be_anything() {
    let kept: &[&[u8]] = &[
        b"a\0b\0\0end\0end-x 256 -\nlate",
        b"\0end-x",
        b"\0\0\0end-x\n",
    ];
    attack("aca-trailer", kept, trailer);
}

#[test]
fn the_file_in_a_form_can_be_anything() {
    let kept: &[&[u8]] = &[
        b"content",
        b"\r\n\r\n",
        b"--part-0123456789abcdef--\r\n",
        b"\r\n--part-",
    ];
    attack("aca-multipart", kept, multipart);
}
