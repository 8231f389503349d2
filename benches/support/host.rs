//! The host side of a bench: scratch directories, trees to copy, what machine this is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sandbox_testkit::Scratch;

use super::Outcome;

pub(crate) const KIB: [u8; 1024] = [b'x'; 1024];

/// A directory on the filesystem where sandboxes keep what they write, unless
/// `SANDBOX_BENCH_DIR` names another.
pub(crate) fn scratch() -> Outcome<Scratch> {
    let base = std::env::var_os("SANDBOX_BENCH_DIR").map(PathBuf::from);
    let base = base.unwrap_or_else(|| PathBuf::from("/var/tmp"));
    let scratch = tempfile::Builder::new()
        .prefix("sandbox-bench-")
        .tempdir_in(base)?;
    let scratch = Scratch::of(scratch.keep());
    // The local backend has ext4 put its directories apart, or making files gets slow by what
    // earlier rounds removed. Baselines get the same, where there is such a thing.
    let _ = Command::new("chattr")
        .arg("+T")
        .arg(scratch.path())
        .stderr(Stdio::null())
        .status();
    Ok(scratch)
}

/// Makes a directory with this many files of 1 KiB, a hundred in each directory below it.
pub(crate) fn tree(at: &Path, files: u64) -> Outcome<()> {
    for file in 0..files {
        let dir = at.join((file / 100).to_string());
        if file % 100 == 0 {
            fs::create_dir_all(&dir)?;
        }
        fs::write(dir.join((file % 100).to_string()), KIB)?;
    }
    Ok(())
}

/// Runs a command to its end with no input, and fails with what it wrote if it fails.
pub(crate) fn run(command: &mut Command) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next_back().unwrap_or("no message");
        return Err(format!("{:?}: {}: {said}", command.get_program(), output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether this process is root's.
pub(crate) fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}

/// One line about the machine, for the head of a report.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo");
    let kib: u64 = memory
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0);
    let load = read("/proc/loadavg");
    format!(
        "Linux {}, {cpus} cores, {} GiB, as {}, load {}",
        kernel.trim(),
        kib >> 20,
        if is_root() {
            "root"
        } else {
            "an ordinary user"
        },
        load.split_whitespace().next().unwrap_or("unknown"),
    )
}
