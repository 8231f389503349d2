//! The table: one row a case, one column a sandbox.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sandbox_testkit::{Outcome, Report};

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
    pub(crate) name: &'static str,
    pub(crate) used_as: &'static str,
    pub(crate) version: String,
    pub(crate) report: Report,
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
        let date = std::process::Command::new("date")
            .args(["-u", "+%F"])
            .output()?;
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        // Without what a distribution or a provider adds to it.
        let kernel = kernel
            .split(['-', '\n'])
            .next()
            .unwrap_or_default()
            .to_owned();
        Ok(Self {
            columns,
            missing,
            kernel,
            date: String::from_utf8_lossy(&date.stdout).trim().to_owned(),
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
                    "cases": column.report.cases,
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
             ## Who was asked\n\n| | Version | Used as | yes | no | – |\n|---|---|---|---|---|---|\n",
            env!("CARGO_PKG_VERSION"),
            self.date,
            self.kernel,
        );
        for column in &self.columns {
            let failed = broken(&column.report).count();
            let passed = column.report.passed();
            let rest = column.report.cases.len() - failed - passed;
            // Writing to a string does not fail.
            let _ = writeln!(
                out,
                "| {} | {} | {} | {passed} | {failed} | {rest} |",
                column.name,
                cell(&column.version),
                cell(column.used_as)
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
            .flat_map(|column| column.report.cases.iter().map(|case| case.name.as_str()))
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
                .map(|column| column.report.cases.iter().find(|case| case.name == name))
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
            if broken(&column.report).next().is_none() {
                continue;
            }
            let _ = writeln!(out, "\n### {}\n", column.name);
            for (name, why) in broken(&column.report) {
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
fn broken(report: &Report) -> impl Iterator<Item = (&str, &str)> {
    report.failed().filter(|(_, why)| !is_of_time(why))
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
