//! The `hakoniwa` crate as a peer, by the program in `bench-peers`.
//!
//! The program does the work and times it itself, because a crate's user does not pay for the
//! start of a program. It is asked for one round at a time: a line in, a line out.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use super::peer::{Peer, Place, Work};
use crate::support::Outcome;

/// A running `hakoniwa-peer`.
pub(crate) struct Hakoniwa {
    version: String,
    place: Rc<Place>,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Hakoniwa {
    /// Starts the program if it has been built.
    pub(crate) fn start(place: Rc<Place>) -> Result<Self, String> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map(Into::into);
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench-peers/target");
        let program = target
            .into_iter()
            .chain([own])
            .map(|dir: std::path::PathBuf| dir.join("release/hakoniwa-peer"))
            .find(|program| program.is_file())
            .ok_or("not built: `cargo build --release --manifest-path bench-peers/Cargo.toml`")?;
        let failed = |error: std::io::Error| error.to_string();
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("no pipes to it".into());
        };
        let mut stdout = BufReader::new(stdout);
        let mut version = String::new();
        stdout.read_line(&mut version).map_err(failed)?;
        Ok(Self {
            version: version.trim().into(),
            place,
            child,
            stdin,
            stdout,
        })
    }

    /// Sends a line and reads the answer: `ok TEXT` or `error TEXT`.
    fn ask(&mut self, line: &str) -> Outcome<String> {
        writeln!(self.stdin, "{line}")?;
        let mut answer = String::new();
        self.stdout.read_line(&mut answer)?;
        match answer.trim_end().split_once(' ') {
            Some(("ok", text)) => Ok(text.replace("\\n", "\n")),
            _ => Err(answer.into()),
        }
    }
}

impl Peer for Hakoniwa {
    fn name(&self) -> String {
        format!("hakoniwa crate {}", self.version)
    }

    fn note(&self) -> String {
        "a sandbox for each command; files by `tar` inside; same files by `cp -a`".into()
    }

    fn offers(&self, work: Work) -> bool {
        work != Work::Exec
    }

    fn round(&mut self, work: Work) -> Outcome<Duration> {
        let line = match work {
            Work::Hundred => format!("hundred\t{}", self.place.hundred()),
            Work::Fork => {
                let (tree, copy) = (self.place.tree(), self.place.fresh("hakoniwa"));
                format!("fork\t{}\t{}", tree.display(), copy.display())
            }
            Work::Files => {
                let (archive, dir) = (self.place.archive(), self.place.fresh("hakoniwa"));
                format!("files\t{}\t{}", archive.display(), dir.display())
            }
            Work::True | Work::Exec => "hundred\t1".into(),
        };
        Ok(Duration::from_nanos(self.ask(&line)?.parse()?))
    }

    fn probe(&mut self, script: &str) -> Outcome<String> {
        self.ask(&format!("probe\t{script}"))
    }
}

impl Drop for Hakoniwa {
    fn drop(&mut self) {
        // It ends with its input; killing makes sure that waiting does too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
