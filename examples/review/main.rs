//! Lets an agent work on a copy of a directory, shows what it changed, and applies or discards it.
//!
//! `cargo run --example review -- [--apply | --discard] DIRECTORY COMMAND…`
//!
//! Without arguments a small project and a scripted agent are made up, and the changes applied.
//! Without `--apply` or `--discard` it asks, if there is a terminal, and otherwise discards.
#![allow(clippy::print_stdout)] // An example talks to its user.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use sandbox::changes::{ApplyOptions, ApplyReport, apply_to_dir, git_patch};
use sandbox::{ChangesOptions, Command, GuestPath, SandboxExt as _, SandboxSpec};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Decision about the changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Ask,
    Apply,
    Discard,
}

/// Stands for an agent: it mends a program, adds a test, and tries to leave a hook behind.
const AGENT: &str = "sed -i 's/sort/sort -n/' median.sh
printf '%s\\n' '. ./median.sh' '[ \"$(printf \"9 10\" | tr \" \" \"\\n\" | median)\" = 9 ]' > test.sh
printf '\\000\\001\\002' > icon.bin
chmod +x test.sh
mkdir -p .git/hooks && printf '#!/bin/sh\\n' > .git/hooks/pre-commit
ln -s /etc/passwd accounts";

#[tokio::main]
async fn main() -> Result<()> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut then = Then::Ask;
    while let Some(flag) = args.first().filter(|arg| arg.starts_with("--")) {
        then = match flag.as_str() {
            "--apply" => Then::Apply,
            "--discard" => Then::Discard,
            other => return Err(format!("{other} is not an option of this program").into()),
        };
        args.remove(0);
    }
    if let [directory, program, rest @ ..] = args.as_slice() {
        let agent = Command::new(program.as_str()).args(rest.iter().map(String::as_str));
        review(Path::new(directory), agent, then).await?;
        return Ok(());
    }
    // The demonstration, which checks itself.
    let project = tempfile::tempdir()?;
    std::fs::write(
        project.path().join("median.sh"),
        "median() { sort | head -n 1; }\n",
    )?;
    let demonstration = match then {
        Then::Ask => Then::Apply,
        then => then,
    };
    let report = review(project.path(), Command::shell(AGENT), demonstration).await?;
    if demonstration == Then::Apply {
        let mended = std::fs::read_to_string(project.path().join("median.sh"))?;
        assert!(mended.contains("sort -n"));
        assert!(!project.path().join(".git").exists());
        assert!(!project.path().join("accounts").exists());
        assert_eq!(report.map(|report| report.applied.len()), Some(3));
    }
    Ok(())
}

/// Runs the agent on a copy of the directory, and shows and settles what it changed.
async fn review(directory: &Path, agent: Command, then: Then) -> Result<Option<ApplyReport>> {
    let provider = sandbox::connect("local:").await?;
    let base = provider.create(SandboxSpec::new()).await?;
    base.import(directory, "project").await?;
    let work = base.fork_one().await?;
    work.chdir("project").await?;
    let output = work.exec(agent).await?;
    print!("{}", output.stdout.to_string_lossy());
    if !output.success() {
        println!("the agent ended with {}", output.status);
    }
    let options = ChangesOptions::new()
        .exclude("/target")
        .exclude("node_modules");
    let changes = work.changes(&GuestPath::from("."), options).await?;
    work.close().await?;
    base.close().await?;
    if changes.is_empty() {
        println!("nothing was changed");
        return Ok(None);
    }
    let patch = git_patch(&changes)?;
    show(&patch.text)?;
    for left in &patch.left_out {
        println!("not shown: {} ({})", left.path, left.reason);
    }
    let apply = match then {
        Then::Apply => true,
        Then::Discard => false,
        Then::Ask => ask("Apply these changes?")?,
    };
    if !apply {
        println!("discarded");
        return Ok(None);
    }
    let directory = PathBuf::from(directory);
    // It blocks: not on a thread of the runtime.
    let apply = move || apply_to_dir(&changes, &directory, &ApplyOptions::new());
    let report = tokio::task::spawn_blocking(apply).await??;
    for conflict in &report.conflicts {
        println!("conflict: {}: {}", conflict.path, conflict.reason);
    }
    for path in &report.automation {
        println!("left out, since it would run by itself: {path}");
    }
    for left in &report.left_out {
        println!("left out: {} ({})", left.path, left.reason);
    }
    match report.conflicts.is_empty() {
        true => println!("{} entries applied", report.applied.len()),
        false => println!("nothing was applied"),
    }
    Ok(Some(report))
}

/// Prints a patch, in colours on a terminal. What a guest wrote goes out without control
/// characters.
fn show(patch: &[u8]) -> Result<()> {
    let colours = std::io::stdout().is_terminal();
    let mut out = std::io::stdout().lock();
    for line in String::from_utf8_lossy(patch).lines() {
        let colour = match line.as_bytes() {
            [b'+', ..] => "\x1b[32m",
            [b'-', ..] => "\x1b[31m",
            [b'@', b'@', ..] => "\x1b[36m",
            [b'd', b'i', b'f', b'f', ..] => "\x1b[1m",
            _ => "",
        };
        let text: String = line
            .chars()
            .filter(|c| !c.is_control() || *c == '\t')
            .collect();
        match colours && !colour.is_empty() {
            true => writeln!(out, "{colour}{text}\x1b[0m")?,
            false => writeln!(out, "{text}")?,
        }
    }
    Ok(())
}

fn ask(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    print!("{question} [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
