//! An agent's loop on real input: a crate fails its tests, three candidate patches are tried side
//! by side in forks of one sandbox, and the one that passes is brought out.
//!
//! `cargo run --example quickstart [-- CRATE]`; without an argument the crate is
//! `examples/broken-crate`. Another backend: `SANDBOX_PROVIDER=…`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // An example talks to its user.

mod toolchain;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox::{
    Command, ExportOptions, FileBatch, GuestPath, ImportOptions, Output, Sandbox, SandboxExt,
};
use tokio::task::JoinSet;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Patches of an agent: each replaces `src/merge.rs`.
const CANDIDATES: [(&str, &str); 3] = [
    ("strict", include_str!("candidates/strict.rs")),
    ("sort-by-end", include_str!("candidates/sort_by_end.rs")),
    ("longer-end", include_str!("candidates/longer_end.rs")),
];

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let started = Instant::now();
    let sysroot = toolchain::find()?;
    let selection = sandbox::connect_from_env().await?;
    for (uri, error) in &selection.rejected {
        println!("Not {uri}: {error}");
    }
    let spec = toolchain::spec(&sysroot, &selection.provider.capabilities());
    let sandbox = selection.provider.create(spec).await?;
    println!("Sandbox {} of {}", sandbox.info().id, selection.uri);
    println!("Created in {} ms\n", started.elapsed().as_millis());
    let result = agent(&*sandbox).await;
    let closed = sandbox.close().await;
    let path = result?;
    closed?;
    println!("\nThe result is in {}", path.display());
    println!("Total: {} ms", started.elapsed().as_millis());
    Ok(())
}

/// Everything between the creation of the sandbox and its end.
async fn agent(sandbox: &dyn Sandbox) -> Result<PathBuf> {
    println!("Isolation in force:\n{}", sandbox.isolation().await?);
    let linker = sandbox.sh("command -v cc").await?;
    if !linker.success() {
        return Err("the sandbox has no linker `cc`; `apt-get install gcc` on the host".into());
    }
    let from = match std::env::args_os().nth(1) {
        Some(dir) => std::path::absolute(dir)?,
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/broken-crate"),
    };
    let options = ImportOptions::new().ignore_files(true);
    let brought = sandbox
        .import_dir(&from, &GuestPath::from("."), options)
        .await?;
    println!("Imported {} files of {}\n", brought.files, from.display());

    println!(
        "{:<13}{:>9}{:>10}{:>10}  {:<15}tests",
        "", "fork ms", "write ms", "exec ms", "result"
    );
    let before = sandbox.exec(cargo_test()).await?;
    row("as it is", None, &before)?;

    let mut running = JoinSet::new();
    for (number, (name, source)) in CANDIDATES.into_iter().enumerate() {
        let at = Instant::now();
        let fork = sandbox.fork_one().await?;
        let forked = at.elapsed();
        running.spawn(async move {
            let tried = try_candidate(&*fork, name, source).await;
            (number, name, fork, forked, tried)
        });
    }
    let mut tried = running.join_all().await;
    tried.sort_by_key(|(number, ..)| *number);

    let mut winner: Option<(&str, Arc<dyn Sandbox>)> = None;
    let mut others = Vec::new();
    let mut failure = None;
    for (_, name, fork, forked, result) in tried {
        match result {
            Ok((written, output)) => {
                row(name, Some((forked, written)), &output)?;
                if output.success() && winner.is_none() {
                    winner = Some((name, fork));
                    continue;
                }
            }
            Err(error) => failure = Some(error),
        }
        others.push(fork);
    }
    for fork in others {
        fork.close().await?;
    }
    if let Some(error) = failure {
        return Err(error);
    }
    let (name, fork) = winner.ok_or("no candidate passes the tests")?;
    let path = export(&*fork).await?;
    fork.close().await?;
    println!("\nKept {name}");
    Ok(path)
}

/// Writes the patch in one batch and runs the tests.
async fn try_candidate(
    fork: &dyn Sandbox,
    name: &str,
    source: &'static str,
) -> Result<(Duration, Output)> {
    let at = Instant::now();
    let batch = FileBatch::new().file("src/merge.rs", source).file(
        "PATCH.md",
        format!("Candidate {name}: src/merge.rs replaced.\n"),
    );
    fork.write_files(batch).await?;
    let written = at.elapsed();
    Ok((written, fork.exec(cargo_test()).await?))
}

fn cargo_test() -> Command {
    Command::new("cargo")
        .args(["test", "--offline", "--lib"])
        .timeout(Duration::from_secs(120))
}

/// A line of the table. What did not come as far as to test is an error.
fn row(name: &str, times: Option<(Duration, Duration)>, output: &Output) -> Result<()> {
    let stdout = output.stdout.to_string_lossy();
    let Some(tests) = stdout
        .lines()
        .find_map(|line| line.strip_prefix("test result: "))
    else {
        let stderr = output.stderr.to_string_lossy();
        return Err(format!("{name}: no test ran, {}\n{stderr}", output.status).into());
    };
    let counts: Vec<&str> = tests
        .split(['.', ';'])
        .map(str::trim)
        .filter(|part| part.ends_with("passed") || part.ends_with("failed"))
        .collect();
    let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    let (fork, write) = times.map_or(("-".into(), "-".into()), |(f, w)| (ms(f), ms(w)));
    println!(
        "{name:<13}{fork:>9}{write:>10}{:>10}  {:<15}{}",
        ms(output.duration),
        output.status.to_string(),
        counts.join(", ")
    );
    Ok(())
}

/// Brings the crate out, without what was built, to a directory that did not exist.
async fn export(fork: &dyn Sandbox) -> Result<PathBuf> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let name = format!(
        "sandbox-quickstart-{}-{}",
        std::process::id(),
        now.as_millis()
    );
    let path = std::env::temp_dir().join(name);
    let options = ExportOptions::new().exclude("/target");
    fork.export_dir(&GuestPath::from("."), &path, options)
        .await?;
    Ok(path)
}
