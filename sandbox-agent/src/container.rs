//! Plain commands in a container, which is all that isolates them: whether there is one, and what of
//! this process they can't read.
//!
//! It must never take a doubt for a yes.

use std::path::Path;

use sandbox_core::{Error, ErrorKind, Operation, Result};

/// Files and variables by which container engines and clouds mark what they run.
const FILES: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];
const VARIABLES: [&str; 3] = ["KUBERNETES_SERVICE_HOST", "CONTAINER_APP_NAME", "container"];

/// Refuses to go on outside of a container.
///
/// # Errors
/// [`ErrorKind::Isolation`].
pub(crate) fn require() -> Result<()> {
    let found = marked(
        |file| Path::new(file).exists(),
        |name| std::env::var_os(name).is_some_and(|value| !value.is_empty()),
    );
    match found {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Isolation, Operation::Create)
            .with_message(
                "the backend plain isolates nothing, and this does not look like a container that \
                 does",
            )
            .with_hint("use the backend local")),
    }
}

/// Closes this process's memory and environment to commands, which run as the same user: its owner's
/// token passes through it. Nothing is closed to root; and a command can still end the agent.
///
/// # Errors
/// What the system says.
#[cfg(target_os = "linux")]
pub(crate) fn hide() -> Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| Error::from_io(errno.into(), Operation::Create))
}

/// Elsewhere no process shows its memory in files.
#[cfg(not(target_os = "linux"))]
pub(crate) fn hide() -> Result<()> {
    Ok(())
}

fn marked(exists: impl Fn(&str) -> bool, set: impl Fn(&str) -> bool) -> bool {
    FILES.into_iter().any(exists) || VARIABLES.into_iter().any(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dockerfile_builds_with_the_rust_that_the_package_needs() {
        let wanted = format!("FROM rust:{}-", env!("CARGO_PKG_RUST_VERSION"));
        assert!(include_str!("../Dockerfile").contains(&wanted), "{wanted}");
    }

    #[test]
    fn only_a_mark_counts() {
        assert!(!marked(|_| false, |_| false));
        assert!(marked(|file| file == "/.dockerenv", |_| false));
        assert!(marked(|_| false, |name| name == "CONTAINER_APP_NAME"));
        assert!(!marked(|file| file == "/etc/passwd", |name| name == "PATH"));
    }
}
