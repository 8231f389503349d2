//! Work that every sandbox of the comparison is asked to do, and the place where it does it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Effort, Outcome, host};

/// The kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A sandbox is created, runs `true`, and is gone.
    True,
    /// `true` in a sandbox that is running already.
    Exec,
    /// A sandbox is created, runs `true` a hundred times, and is gone; a hundred sandboxes where
    /// none can run a second command.
    Hundred,
    /// A second sandbox with the same 1,000 files as a first, one of which has just changed, has
    /// run `true`. Taking it away is not timed.
    Fork,
    /// 1,000 files of 1 KiB appear in a sandbox.
    Files,
}

impl Work {
    pub(crate) const ALL: [Self; 5] = [
        Self::True,
        Self::Exec,
        Self::Hundred,
        Self::Fork,
        Self::Files,
    ];

    /// The name on the command line and in JSON.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::True => "true",
            Self::Exec => "exec",
            Self::Hundred => "hundred",
            Self::Fork => "fork",
            Self::Files => "files",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::True => "One `true`: create, run, gone",
            Self::Exec => "`true` in a running sandbox",
            Self::Hundred => "100 × `true`",
            Self::Fork => "Second sandbox with the same 1,000 files, then `true`",
            Self::Files => "1,000 files of 1 KiB written",
        }
    }
}

/// One sandbox of the comparison.
pub(crate) trait Peer {
    /// The name.
    fn name(&self) -> String;

    /// Note on how it works, where that is not plain.
    fn note(&self) -> String {
        String::new()
    }

    /// Whether it has such a thing.
    fn offers(&self, work: Work) -> bool;

    /// One round of work that it [offers](Peer::offers).
    fn round(&mut self, work: Work) -> Outcome<Duration>;

    /// Runs a shell script in a fresh sandbox and returns its output.
    fn probe(&mut self, script: &str) -> Outcome<String>;

    /// Whether it asks for Landlock: whether it got it cannot be seen from inside.
    fn landlock(&self) -> &'static str {
        "no"
    }

    /// Lets go of what it keeps between rounds.
    fn finish(&mut self) {}
}

/// A program that is not there, as a line of the tables.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) name: String,
    pub(crate) why: String,
}

/// Files that the peers work on, the same for all.
#[derive(Debug)]
pub(crate) struct Place {
    dir: sandbox_testkit::Scratch,
    pub(crate) effort: Effort,
    pub(crate) files: u64,
}

impl Place {
    pub(crate) fn new(effort: Effort) -> Outcome<Self> {
        let dir = host::scratch()?;
        let place = Self {
            dir,
            effort,
            files: effort.pick(50, 1_000, 1_000),
        };
        place.make_root()?;
        host::tree(&place.tree(), place.files)?;
        host::run(
            std::process::Command::new("tar")
                .arg("-cf")
                .arg(place.archive())
                .arg("-C")
                .arg(place.tree())
                .arg("."),
        )?;
        Ok(place)
    }

    /// Number of repetitions that stand for "a hundred".
    pub(crate) fn hundred(&self) -> usize {
        self.effort.pick(3, 100, 100)
    }

    /// A root directory for those that need one: links into the host's `/usr`, which is bound in
    /// read-only, so that all run the same programs.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// The tree of 1,000 files that is there already.
    pub(crate) fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    /// Path of the tree as an archive.
    pub(crate) fn archive(&self) -> PathBuf {
        self.dir.path().join("tree.tar")
    }

    /// A new name in the scratch directory.
    pub(crate) fn fresh(&self, what: &str) -> PathBuf {
        static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.dir.path().join(format!("{what}-{number}"))
    }

    fn make_root(&self) -> Outcome<()> {
        let root = self.root();
        for dir in [
            "usr",
            "etc",
            "proc",
            "sys",
            "dev",
            "tmp",
            "run",
            "workspace",
        ] {
            fs::create_dir_all(root.join(dir))?;
        }
        for dir in ["bin", "sbin", "lib", "lib32", "lib64"] {
            let host = Path::new("/").join(dir);
            if let Ok(target) = fs::read_link(&host) {
                std::os::unix::fs::symlink(target, root.join(dir))?;
            }
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n")?;
        fs::write(root.join("etc/group"), "root:x:0:\n")?;
        // systemd-nspawn takes a directory without it for no system.
        fs::write(root.join("etc/os-release"), "ID=bench\n")?;
        Ok(())
    }
}

/// The version that a program tells, or why there is none.
pub(crate) fn version(program: &str) -> Result<String, String> {
    let said = std::process::Command::new(program)
        .arg("--version")
        .output();
    let said = said.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "not installed".to_owned(),
        _ => error.to_string(),
    })?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let number = text
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    Ok(number.unwrap_or("of an unknown version").to_owned())
}
