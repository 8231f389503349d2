//! Inputs that can be anything, for the host's reading of what an init sends. Only in tests.

use crate::protocol::{Message, reply};

/// A message of an init: the first one, with its payload, and a later one.
fn agent_reply(bytes: &[u8]) {
    crate::engine::fuzzed(bytes);
}

#[test]
fn replies_of_an_init_can_be_anything() {
    let kinds = [
        reply::READY,
        reply::PLAN_FAILED,
        reply::STARTED,
        reply::EXITED,
        reply::FAILED,
        reply::TREE_KILLED,
        reply::IDLE,
        reply::FROZEN,
        reply::SOCKET,
    ];
    let kept = kinds.map(|kind| {
        let message = Message {
            kind,
            exec: 1,
            a: 1,
            b: 9,
            ..Message::default()
        };
        [&message.encode()[..], b"payload"].concat()
    });
    let kept: Vec<&[u8]> = kept.iter().map(Vec::as_slice).collect();
    sandbox_testkit::fuzz::attack("agent-reply", &kept, agent_reply);
}
