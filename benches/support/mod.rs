//! Shared parts of the benches: interleaved timing, tables, scratch directories.
//!
//! It must never judge: a time claim is made by a ratio in one run, and a bench prints it.

// Each bench uses a part of this.
#![allow(dead_code, clippy::print_stdout, clippy::print_stderr)]

pub(crate) mod host;
pub(crate) mod measure;
pub(crate) mod report;

/// Whatever goes wrong in a bench ends in a line of text.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Thoroughness of a run, from the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// `cargo test --benches`, or `-- --test`: each thing once, on small input.
    Test,
    /// `-- --quick`: a few rounds.
    Quick,
    /// `cargo bench`.
    Full,
}

impl Effort {
    /// Cargo gives `--bench` to benches that it runs for their figures.
    pub(crate) fn from_args() -> Self {
        let has = |flag: &str| std::env::args().any(|arg| arg == flag);
        match (has("--bench") && !has("--test"), has("--quick")) {
            (false, _) => Self::Test,
            (true, true) => Self::Quick,
            (true, false) => Self::Full,
        }
    }

    /// One of three, by how thorough the run is.
    pub(crate) fn pick<T>(self, test: T, quick: T, full: T) -> T {
        match self {
            Self::Test => test,
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

/// The words of the command line that are no options: only what has one of them in its name runs.
pub(crate) fn wanted(name: &str) -> bool {
    let mut words = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let mut any = false;
    words.any(|word| {
        any = true;
        name.contains(&word)
    }) || !any
}
