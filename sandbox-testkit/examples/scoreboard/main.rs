//! The kit against the sandboxes that a machine has, as a table.
//!
//! `scoreboard [--peer NAME]... [--out DIRECTORY]` runs the cases about commands and isolation
//! through an adapter for each peer that is installed, and writes `scoreboard.md` and
//! `scoreboard.json`. An adapter uses its peer as the peer's documentation says (`peers.rs` has the
//! command lines). What a peer does not offer is told as "not offered"; the cases about files are
//! left out where a peer has no operations on files, because they would test the adapter.
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
    let mut out = std::path::PathBuf::from("docs");
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or("each option takes a value")?;
        match argument.as_str() {
            "--peer" => only.push(value),
            "--out" => out = value.into(),
            _ => return Err(format!("unknown option {argument}; there are --peer, --out").into()),
        }
    }
    let mut columns = Vec::new();
    let mut missing = Vec::new();
    for contestant in ours::all().into_iter().chain(peers::all()) {
        if !only.is_empty() && !only.iter().any(|name| name == contestant.name) {
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
        eprintln!("{} {version}", contestant.name);
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
            name: contestant.name,
            used_as: contestant.used_as,
            version,
            report,
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
