//! The conformance matrix of a backend as JSON for programs and Markdown for people.
//!
//! Invariant: the two say the same, and nothing about the host that made them.

use std::fmt::Write as _;
use std::path::Path;

use sandbox_core::Support;
use serde_json::json;

use crate::kit::{Fixture, Outcome, Report};

/// Writes `conformance-<fixture>.json` and `.md` into `dir`.
pub(super) fn write_matrix(
    dir: &Path,
    fixture: &dyn Fixture,
    report: &Report,
) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let capabilities: Vec<(&str, &str, &str)> = fixture
        .capabilities()
        .iter()
        .map(|(capability, support)| {
            let (support, text) = match support {
                Support::Full => ("full", ""),
                Support::Partial(except) => ("partial", except),
                Support::None(reason) => ("none", reason),
            };
            (capability.as_str(), support, text)
        })
        .collect();
    let table: Vec<_> = capabilities
        .iter()
        .map(|(name, support, text)| json!({"capability": name, "support": support, "text": text}))
        .collect();
    let document = json!({
        "fixture": report.fixture,
        "capabilities": table,
        "cases": report.cases,
    });
    let base = format!("conformance-{}", report.fixture.replace('/', "-"));
    let text = serde_json::to_string_pretty(&document).map_err(std::io::Error::other)?;
    std::fs::write(dir.join(format!("{base}.json")), text + "\n")?;
    std::fs::write(
        dir.join(format!("{base}.md")),
        markdown(&capabilities, report),
    )
}

fn markdown(capabilities: &[(&str, &str, &str)], report: &Report) -> String {
    let mut out = format!("# Conformance of `{}`\n\n", report.fixture);
    let failed = report.failed().count();
    let ignored = report.cases.len() - failed - report.passed();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{} passed, {failed} failed, {ignored} ignored\n\n## Capabilities\n\n| Capability | Support | |\n|---|---|---|",
        report.passed()
    );
    for (name, support, text) in capabilities {
        let _ = writeln!(out, "| {name} | {support} | {} |", cell(text));
    }
    out.push_str("\n## Cases\n\n| Case | Outcome | |\n|---|---|---|\n");
    for case in &report.cases {
        let (outcome, text) = match &case.outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Failed(why) => ("**failed**", why.as_str()),
            Outcome::Ignored(reason) => ("ignored", reason.as_str()),
        };
        let _ = writeln!(out, "| {} | {outcome} | {} |", case.name, cell(text));
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
