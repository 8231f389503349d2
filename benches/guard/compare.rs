//! Runs the work under strace, and holds the counts against those that are kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::trace::{Calls, Counts, count};
use super::work::NAMES;
use crate::support::report::Table;
use crate::support::{Outcome, host};

/// Tolerated excess over the kept count, as a part of it: a host has other directories to
/// mount, a kernel other ways to do it.
const MARGIN: f64 = 0.10;
/// Number of calls below which one more is already a finding: such work does not depend on the
/// host.
const FEW: f64 = 50.0;
const ONE: f64 = 0.9;

const HOW: &str = "If it is on purpose: `cargo bench --bench guard -- --bless` writes the counts \
                   of today to benches/guard.json; say in the commit what they buy.";

/// Whether no count has risen.
#[allow(clippy::print_stdout)]
pub(crate) fn run(bless: bool) -> Outcome<bool> {
    let mut now = traced()?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/guard.json");
    let mut all: Value = serde_json::from_slice(&fs::read(&file)?)?;
    // Root does other things than an ordinary user.
    let user = if host::is_root() { "root" } else { "user" };
    if bless {
        all[user] = json!(now);
        fs::write(&file, format!("{all:#}\n"))?;
        println!("written: {}", file.display());
    }
    let kept = from_json(&all[user]);
    // On a busy machine the background work of one step can fall into the next: what it adds is not
    // there each time.
    for _ in 0..2 {
        if !any_risen(&kept, &now) {
            break;
        }
        keep_the_fewer(&mut now, traced()?);
    }
    let mut table = Table::new(["System calls a round", "by", "kept", "now", ""]);
    let mut why = Vec::new();
    for (work, parties) in &now {
        for (who, calls) in parties {
            let none = Calls::new();
            let before = kept.get(work).and_then(|parties| parties.get(who));
            let before = before.unwrap_or(&none);
            let (old, new, margin) = compared(before, calls);
            let verdict = if new > old + margin {
                why.push(format!("{work}, {who}: {}", differences(before, calls)));
                "**risen**"
            } else if new < old - margin {
                "fallen: bless it to keep it"
            } else {
                "as before"
            };
            table.row(vec![
                work.clone(),
                who.clone(),
                format!("{old:.1}"),
                format!("{new:.1}"),
                verdict.into(),
            ]);
        }
    }
    println!("{table}");
    for line in &why {
        println!("- {line}");
    }
    if !why.is_empty() {
        println!("\n{HOW}");
    }
    Ok(why.is_empty())
}

/// All calls before and now, and by how much they may differ.
fn compared(before: &Calls, now: &Calls) -> (f64, f64, f64) {
    let sum = |calls: &Calls| calls.values().sum::<f64>() + 0.0;
    let old = sum(before);
    let margin = if old < FEW { ONE } else { old * MARGIN };
    (old, sum(now), margin)
}

fn any_risen(kept: &Counts, now: &Counts) -> bool {
    let none = Calls::new();
    now.iter().any(|(work, parties)| {
        parties.iter().any(|(who, calls)| {
            let before = kept.get(work).and_then(|parties| parties.get(who));
            let (old, new, margin) = compared(before.unwrap_or(&none), calls);
            new > old + margin
        })
    })
}

/// Of each work and party the trace with fewer calls.
fn keep_the_fewer(now: &mut Counts, again: Counts) {
    for (work, parties) in again {
        let known = now.entry(work).or_default();
        for (who, calls) in parties {
            let sum = |calls: &Calls| calls.values().sum::<f64>();
            match known.get(&who) {
                Some(before) if sum(before) <= sum(&calls) => {}
                _ => {
                    known.insert(who, calls);
                }
            }
        }
    }
}

/// Differences, the largest first.
fn differences(before: &Calls, now: &Calls) -> String {
    let mut changes: Vec<(f64, &str)> = before
        .keys()
        .chain(now.keys())
        .map(|name| {
            let of = |calls: &Calls| calls.get(name).copied().unwrap_or_default();
            (of(now) - of(before), name.as_str())
        })
        .filter(|(change, _)| change.abs() > 0.05)
        .collect();
    changes.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()).then(a.1.cmp(b.1)));
    changes.dedup();
    let words = changes.iter().take(8);
    let words = words.map(|(change, name)| format!("{change:+.1} {name}"));
    words.collect::<Vec<_>>().join(", ")
}

fn traced() -> Outcome<Counts> {
    let dir = host::scratch()?;
    let log = dir.path().join("strace.log");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-s", "200", "-o"])
        .arg(&log)
        .arg(std::env::current_exe()?)
        .arg("--work")
        // Nothing else is in it, and it goes with the log.
        .env("SANDBOX_STATE_DIR", dir.path().join("state"))
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| format!("strace: {error} (Debian's package `strace`)"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("the work failed under strace: {said}").into());
    }
    let log = fs::read(log)?;
    let counts = count(&String::from_utf8_lossy(&log));
    match NAMES.iter().find(|name| !counts.contains_key(**name)) {
        Some(name) => Err(format!("the trace has nothing of {name:?}").into()),
        None => Ok(counts),
    }
}

fn from_json(value: &Value) -> Counts {
    let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let calls = |value: &Value| -> Calls {
        let fields = fields(value).into_iter();
        fields
            .map(|(name, count)| (name, count.as_f64().unwrap_or_default()))
            .collect()
    };
    let parties = |value: &Value| -> BTreeMap<String, Calls> {
        let fields = fields(value).into_iter();
        fields.map(|(who, value)| (who, calls(&value))).collect()
    };
    let works = fields(value).into_iter();
    works.map(|(work, value)| (work, parties(&value))).collect()
}
