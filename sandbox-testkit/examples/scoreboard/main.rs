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
    match run() {
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
