//! The kit against the sandboxes that a machine has, as a table.
//!
//! `scoreboard [--peer NAME]... [--from DIRECTORY]... [--out DIRECTORY]` runs the cases about commands and isolation
//! through an adapter for each peer that is installed, and writes `scoreboard.md` and
//! `scoreboard.json`. An adapter uses its peer as the peer's documentation says (`peers.rs` has the
//! command lines). What a peer does not offer is told as "not offered"; the cases about files are
//! left out where a peer has no operations on files, because they would test the adapter.
//!
//! Columns may be made apart: `--from` takes those of a `scoreboard.json` that was written before,
//! each with its time and load, and then only the peers that are named are run.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[cfg(target_os = "linux")]
extern crate sandbox_core as sandbox;

#[cfg(target_os = "linux")]
#[path = "../../../examples/custom_backend/bubblewrap.rs"]
mod bubblewrap;
#[cfg(target_os = "linux")]
mod ours;
#[cfg(target_os = "linux")]
mod peers;
#[cfg(target_os = "linux")]
#[path = "../../../examples/custom_backend/process.rs"]
mod process;
#[cfg(target_os = "linux")]
#[path = "../../../examples/custom_backend/program.rs"]
mod program;
#[cfg(target_os = "linux")]
#[path = "../../../examples/custom_backend/provider.rs"]
mod provider;
#[cfg(target_os = "linux")]
#[path = "../../../examples/custom_backend/sandbox_of_processes.rs"]
mod sandbox_of_processes;
#[cfg(target_os = "linux")]
mod table;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    match from_default_signals().and_then(|()| run()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("scoreboard: {why}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the peers of the scoreboard need Linux");
}

/// Starts this program again if it ignores signals, as under nohup(1) or in the background of a shell:
/// a peer's launcher would hand that on, and what its commands do would be told of the peer.
#[cfg(target_os = "linux")]
fn from_default_signals() -> Result<(), Box<dyn std::error::Error>> {
    use std::os::unix::process::CommandExt as _;
    /// SIGPIPE, which Rust's programs ignore and their children do not.
    const PIPE: u64 = 1 << 12;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mut lines = status.lines();
    let ignored = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.unwrap_or("0").trim(), 16)?;
    if ignored & !PIPE == 0 {
        return Ok(());
    }
    let mut again = std::process::Command::new("env");
    again.arg("--default-signal").arg(std::env::current_exe()?);
    let error = again.args(std::env::args_os().skip(1)).exec();
    Err(format!("it ignores signals, and env(1) can't start it without: {error}").into())
}

#[cfg(target_os = "linux")]
fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut only = Vec::new();
    let mut columns = Vec::new();
    let mut whole = true;
    let mut out = std::path::PathBuf::from("docs");
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or("each option takes a value")?;
        match argument.as_str() {
            "--peer" => only.push(value),
            "--from" => {
                whole = false;
                let file = std::path::Path::new(&value).join("scoreboard.json");
                columns.extend(table::columns(&std::fs::read_to_string(file)?)?);
            }
            "--out" => out = value.into(),
            _ => {
                let known = "there are --peer, --from, --out";
                return Err(format!("unknown option {argument}; {known}").into());
            }
        }
    }
    let mut missing = Vec::new();
    for contestant in ours::all().into_iter().chain(peers::all()) {
        let is_named = only.iter().any(|name| name == contestant.name);
        let is_there = columns
            .iter()
            .any(|column: &table::Column| column.name == contestant.name);
        if !is_named && (!only.is_empty() || is_there) {
            continue;
        }
        let version = match (contestant.version)() {
            Ok(version) => version,
            Err(why) => {
                eprintln!("{}: not here: {why}", contestant.name);
                missing.push((contestant.name, why));
                continue;
            }
        };
        if !is_named && !whole {
            continue;
        }
        eprintln!("{} {version}", contestant.name);
        let began = table::Began::now()?;
        let started = std::time::Instant::now();
        let report = sandbox_testkit::run_blocking((contestant.fixture)(), table::is_compared)?;
        eprintln!(
            "{}: {} passed, {} failed, {:.0} s",
            contestant.name,
            report.passed(),
            report.failed().count(),
            started.elapsed().as_secs_f64()
        );
        columns.push(table::Column {
            name: contestant.name.to_owned(),
            used_as: contestant.used_as.to_owned(),
            version,
            began,
            seconds: started.elapsed().as_secs(),
            cases: report.cases,
        });
    }
    std::fs::create_dir_all(&out)?;
    let table = table::Table::new(columns, missing)?;
    std::fs::write(out.join("scoreboard.json"), table.json()?)?;
    std::fs::write(out.join("scoreboard.md"), table.markdown())?;
    Ok(())
}

/// One column of the table.
#[cfg(target_os = "linux")]
struct Contestant {
    name: &'static str,
    /// Use of it, for the reader.
    used_as: &'static str,
    /// Version, or why it is not here.
    version: fn() -> Result<String, String>,
    fixture: fn() -> std::sync::Arc<dyn sandbox_testkit::Fixture>,
}
