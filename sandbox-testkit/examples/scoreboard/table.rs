//! The table: one row a case, one column a sandbox.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sandbox_testkit::Outcome;
use sandbox_testkit::kit::CaseReport;

/// Groups of cases about what a command gets, does, and can't do.
const GROUPS: [&str; 7] = [
    "exec::",
    "streams::",
    "env::",
    "kill::",
    "spawn::",
    "isolation::",
    "host::",
];

/// Whether a case is in the table.
pub(crate) fn is_compared(case: &str) -> bool {
    GROUPS.iter().any(|group| case.starts_with(group))
}

pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) used_as: String,
    pub(crate) version: String,
    pub(crate) began: Began,
    pub(crate) seconds: u64,
    pub(crate) cases: Vec<CaseReport>,
}

/// The columns of a table that was written before, by this kit on this kernel.
pub(crate) fn columns(json: &str) -> Result<Vec<Column>, Box<dyn std::error::Error>> {
    let document: serde_json::Value = serde_json::from_str(json)?;
    let text = |value: &serde_json::Value, field: &str| {
        let found = value[field].as_str().map(str::to_owned);
        found.ok_or_else(|| format!("the table has no {field:?} where one must be"))
    };
    for (what, here) in [("kit", env!("CARGO_PKG_VERSION")), ("kernel", &kernel()?)] {
        let there = text(&document, what)?;
        if there != here {
            return Err(format!("the table is of {what} {there}, and this one of {here}").into());
        }
    }
    let mut columns = Vec::new();
    for column in document["columns"].as_array().into_iter().flatten() {
        let mut cases = Vec::new();
        for case in column["cases"].as_array().into_iter().flatten() {
            let outcome = match text(case, "outcome")?.as_str() {
                "passed" => Outcome::Passed,
                "failed" => Outcome::Failed(text(case, "reason")?),
                _ => Outcome::Ignored(text(case, "reason")?),
            };
            cases.push(CaseReport {
                name: text(case, "name")?,
                outcome,
                seconds: case["seconds"].as_f64().unwrap_or_default(),
            });
        }
        columns.push(Column {
            name: text(column, "name")?,
            used_as: text(column, "used-as")?,
            version: text(column, "version")?,
            began: Began {
                time: text(column, "began")?,
                load: text(column, "load")?,
            },
            seconds: column["seconds"].as_u64().unwrap_or_default(),
            cases,
        });
    }
    Ok(columns)
}

/// The kernel's version, without what a distribution or a provider adds to it.
fn kernel() -> std::io::Result<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let version = kernel.split(['-', '\n']).next();
    Ok(version.unwrap_or_default().to_owned())
}

/// Moment at which a column began, and how busy the machine was: a case that waits may fail for that
/// alone.
pub(crate) struct Began {
    /// In UTC.
    time: String,
    /// Processes that ran or waited to, on average over the minute before.
    load: String,
}

impl Began {
    pub(crate) fn now() -> std::io::Result<Self> {
        let load = std::fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            time: date("+%F %H:%M")?,
            load: load
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
        })
    }
}

fn date(format: &str) -> std::io::Result<String> {
    let output = std::process::Command::new("date")
        .args(["-u", format])
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

pub(crate) struct Table {
    columns: Vec<Column>,
    missing: Vec<(&'static str, String)>,
    kernel: String,
    date: String,
}

impl Table {
    pub(crate) fn new(
        columns: Vec<Column>,
        missing: Vec<(&'static str, String)>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            columns,
            missing,
            kernel: kernel()?,
            date: date("+%F")?,
        })
    }

    pub(crate) fn json(&self) -> serde_json::Result<String> {
        let columns: Vec<_> = self
            .columns
            .iter()
            .map(|column| {
                serde_json::json!({
                    "name": column.name,
                    "version": column.version,
                    "used-as": column.used_as,
                    "began": column.began.time,
                    "load": column.began.load,
                    "seconds": column.seconds,
                    "cases": column.cases,
                })
            })
            .collect();
        let missing: BTreeMap<_, _> = self.missing.iter().cloned().collect();
        let document = serde_json::json!({
            "kit": env!("CARGO_PKG_VERSION"),
            "date": self.date,
            "kernel": self.kernel,
            "columns": columns,
            "not-here": missing,
        });
        Ok(serde_json::to_string_pretty(&document)? + "\n")
    }

    pub(crate) fn markdown(&self) -> String {
        let mut out = format!(
            "# Scoreboard\n\nThe cases of the conformance kit about commands and isolation, run \
             against what one machine has. Kit {}, {}, Linux {}, as root.\n\n\
             ```sh\ncargo run -p sandbox-testkit --example scoreboard\n```\n\n\
             A peer is used as its documentation says, each command by itself; `peers.rs` of that \
             example has the adapters. **yes**: the promise holds. **no**: it does not, and the \
             case that shows it is linked. **–**: the peer does not offer it, or the case would \
             test the adapter. **?**: it did not come to its end in its time, on a machine that did \
             other things as well. What a row says is what this contract asks for; a peer that was made \
             for something else is not worse for it. [The same as JSON](scoreboard.json), with \
             every reason.\n\n\
             ## Who was asked\n\nOn {} processors; the load is that of the minute before a column began. \
             Columns whose times overlap ran side by side.\n\n| | Version | Used as | yes | no | – | ? | Began (UTC), load | Seconds |\n\
             |---|---|---|---|---|---|---|---|---|\n",
            env!("CARGO_PKG_VERSION"),
            self.date,
            self.kernel,
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        );
        for column in &self.columns {
            let failed = broken(&column.cases).count();
            let passed = column.cases.iter();
            let passed = passed
                .filter(|case| case.outcome == Outcome::Passed)
                .count();
            let late = failures(&column.cases).count() - failed;
            let rest = column.cases.len() - failed - passed - late;
            // Writing to a string does not fail.
            let _ = writeln!(
                out,
                "| {} | {} | {} | {passed} | {failed} | {rest} | {late} | {}, {} | {} |",
                column.name,
                cell(&column.version),
                cell(&column.used_as),
                column.began.time,
                column.began.load,
                column.seconds
            );
        }
        if !self.missing.is_empty() {
            out.push_str("\nNot here when this was made:");
            for (name, why) in &self.missing {
                let _ = write!(out, " {name} ({});", cell(why));
            }
            out.push('\n');
        }
        self.rows(&mut out);
        self.reasons(&mut out);
        out
    }

    fn rows(&self, out: &mut String) {
        out.push_str("\n## Which promise holds where\n\n| Case |");
        for column in &self.columns {
            let _ = write!(out, " {} |", column.name);
        }
        out.push_str("\n|---|");
        out.push_str(&"---|".repeat(self.columns.len()));
        out.push('\n');
        let names: Vec<&str> = self
            .columns
            .iter()
            .flat_map(|column| column.cases.iter().map(|case| case.name.as_str()))
            .fold(Vec::new(), |mut names, name| {
                if !names.contains(&name) {
                    names.push(name);
                }
                names
            });
        for name in names {
            let outcomes: Vec<_> = self
                .columns
                .iter()
                .map(|column| column.cases.iter().find(|case| case.name == name))
                .map(|case| case.map(|case| &case.outcome))
                .collect();
            let any_failed = outcomes
                .iter()
                .any(|outcome| matches!(outcome, Some(Outcome::Failed(why)) if !is_of_time(why)));
            let _ = match any_failed {
                true => write!(out, "| {} |", link(name)),
                false => write!(out, "| {name} |"),
            };
            for outcome in outcomes {
                out.push_str(match outcome {
                    Some(Outcome::Passed) => " yes |",
                    Some(Outcome::Failed(why)) if is_of_time(why) => " ? |",
                    Some(Outcome::Failed(_)) => " **no** |",
                    _ => " – |",
                });
            }
            out.push('\n');
        }
    }

    fn reasons(&self, out: &mut String) {
        out.push_str("\n## What was seen\n");
        for column in &self.columns {
            if broken(&column.cases).next().is_none() {
                continue;
            }
            let _ = writeln!(out, "\n### {}\n", column.name);
            for (name, why) in broken(&column.cases) {
                let why: String = why
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .take(200)
                    .collect();
                let _ = writeln!(out, "- {}: {}", link(name), cell(&why));
            }
        }
    }
}

/// Whether a case failed by time alone, which says more about the machine than about the promise.
fn is_of_time(why: &str) -> bool {
    [
        "took longer than",
        "came after",
        "never showed that it was alive",
    ]
    .iter()
    .any(|said| why.contains(said))
}

/// The cases of a report that failed otherwise than by time.
fn broken(cases: &[CaseReport]) -> impl Iterator<Item = (&str, &str)> {
    failures(cases).filter(|(_, why)| !is_of_time(why))
}

fn failures(cases: &[CaseReport]) -> impl Iterator<Item = (&str, &str)> {
    cases.iter().filter_map(|case| match &case.outcome {
        Outcome::Failed(why) => Some((case.name.as_str(), why.as_str())),
        _ => None,
    })
}

/// A case, with its source.
fn link(name: &str) -> String {
    match name.split("::").next() {
        // The reaper's own entry.
        Some("host") if name.ends_with("no_process_is_left") => name.to_owned(),
        Some(group) => format!("[{name}](../sandbox-testkit/src/cases/{group}.rs)"),
        None => name.to_owned(),
    }
}

/// Text of others as one cell: no markup, and nothing of this machine's directories.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '<', '>'], " ")
}
