//! The error of an operation in a sandbox that can't be reached any more, by its reason.

use sandbox_core::{Error, ErrorKind, Operation};

use crate::engine::Lost;
use crate::start::cgroup::Cgroup;

/// Says what took the sandbox away, and what to do about it.
pub(crate) fn error(why: Lost, cgroup: &Cgroup, operation: Operation) -> Error {
    let (message, hint) = match why {
        Lost::Ended if cgroup.has_killed() => (
            "the sandbox's init is gone: the sandbox used more memory than its limit, and the kernel \
             killed processes of it",
            "create another, with a higher limit on memory (`Resources::memory`)",
        ),
        Lost::Ended => (
            "the sandbox's init is gone: it was killed from outside of the sandbox",
            "create another; what kills an init is a signal from the host or the kernel out of \
             memory, which its log says",
        ),
        Lost::GivenUp => (
            "the last handle of the sandbox was dropped, which ends everything in it",
            "keep the sandbox for as long as its processes and their streams are used",
        ),
        Lost::RuntimeEnded => (
            "the tokio runtime that served the sandbox has ended, and with it the sandbox",
            "create the sandbox in a runtime that lives for as long as it is used",
        ),
        Lost::Silent => (
            "the sandbox's init did not answer in time",
            "close the sandbox; it may be starved of processor time",
        ),
    };
    Error::new(ErrorKind::Lost, operation)
        .with_message(message)
        .with_hint(hint)
        .with_source(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_it_away_is_said() {
        let said = [
            (Lost::Ended, "from outside"),
            (Lost::GivenUp, "last handle"),
            (Lost::RuntimeEnded, "runtime"),
            (Lost::Silent, "did not answer"),
        ];
        for (why, word) in said {
            let error = error(why, &Cgroup::none(), Operation::Exec);
            let text = error.to_string();
            for (_, other) in said {
                assert_eq!(text.contains(other), other == word, "{why:?}: {text}");
            }
            assert!(error.hint().is_some(), "{why:?}");
        }
    }
}
