//! Inputs that can be anything, for the readers of what an engine and a guest's script answer. Only
//! in tests.

use sandbox_testkit::fuzz::attack;

use crate::guest::frame::Frame;
use crate::session::client::fuzzed;

/// An engine's answer: errors, data, or neither.
fn reply(bytes: &[u8]) {
    fuzzed(bytes);
}

/// The answer of a guest's script, read to its end in both ways.
fn frame(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(mut frame) = Frame::parse(&text, "n1") {
        while frame.line().is_ok() {}
        assert!(frame.line().is_err(), "an end is an end");
    }
    if let Ok(mut frame) = Frame::parse(&text, "n1") {
        // Each takes at least a line.
        let blocks = text.lines().count() + 1;
        let ended = (0..blocks).any(|_| frame.bytes().is_err() && frame.lines().is_err());
        assert!(ended, "more blocks than lines");
    }
}

#[test]
fn an_engines_answers_can_be_anything() {
    let kept: &[&[u8]] = &[
        br#"{"data":{"container":{"id":"x"}}}"#,
        br#"{"errors":[{"message":"process exited","extensions":{"exitCode":1,"stderr":"a\nb"}}]}"#,
        br#"{"errors":[{"message":"missing shared result","path":["node"]}]}"#,
        br#"{"errors":[{"message":"failed to resolve image: not found"}]}"#,
        br#"{"data":null}"#,
        br#"[]"#,
        b"Bad Gateway",
    ];
    attack("dagger-reply", kept, reply);
}

#[test]
fn a_scripts_answer_can_be_anything() {
    let kept: &[&[u8]] = &[
        b"noise\nframe n1\nok\nYWJj\nZGVm\n.\nend n1\n",
        b"frame n1\n.\n.\n\nend n1",
        b"frame n1\nend n2\nend n1\n",
    ];
    attack("dagger-frame", kept, frame);
}
