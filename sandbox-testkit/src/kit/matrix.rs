//! The conformance matrix of a backend as JSON for programs and Markdown for people.
//!
//! The two must say the same, and nothing about the host that made them.

use std::fmt::Write as _;
use std::path::Path;

use sandbox_core::Support;
use serde_json::json;

use crate::kit::{Fixture, Outcome, Report};

/// Writes `conformance-<fixture>.json` and `.md` into `dir`: the version of the kit, the date, the
/// filter of the run, each case with its outcome and how long it took.
pub(super) fn write_matrix(
    dir: &Path,
    fixture: &dyn Fixture,
    report: &Report,
    filter: Option<&str>,
) -> std::io::Result<()> {
    let head = Head::new(filter);
    std::fs::create_dir_all(dir)?;
    let capabilities: Vec<(&str, &str, String)> = fixture
        .capabilities()
        .iter()
        .map(|(capability, support)| {
            let word = match support {
                Support::Full => "full",
                Support::Partial(_) => "partial",
                Support::None(_) => "none",
            };
            (capability.as_str(), word, support.reason().to_owned())
        })
        .collect();
    let table: Vec<_> = capabilities
        .iter()
        .map(|(name, support, text)| json!({"capability": name, "support": support, "text": text}))
        .collect();
    let document = json!({
        "fixture": report.fixture,
        "kit": head.version,
        "date": head.date,
        "filter": head.filter,
        "capabilities": table,
        "cases": report.cases,
    });
    let base = format!("conformance-{}", report.fixture.replace('/', "-"));
    let text = serde_json::to_string_pretty(&document).map_err(std::io::Error::other)?;
    std::fs::write(dir.join(format!("{base}.json")), text + "\n")?;
    std::fs::write(
        dir.join(format!("{base}.md")),
        markdown(&capabilities, report, &head),
    )
}

/// Head of a matrix: the facts of its run.
struct Head {
    version: &'static str,
    date: String,
    filter: Option<String>,
}

impl Head {
    fn new(filter: Option<&str>) -> Self {
        let now = std::time::SystemTime::now();
        let seconds = now
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Self {
            version: env!("CARGO_PKG_VERSION"),
            date: date(seconds),
            filter: filter.map(str::to_owned),
        }
    }
}

/// The day of a moment, in UTC, as `YYYY-MM-DD`. The algorithm is `civil_from_days` of Howard
/// Hinnant's "chrono-Compatible Low-Level Date Algorithms".
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

fn markdown(capabilities: &[(&str, &str, String)], report: &Report, head: &Head) -> String {
    let mut out = format!("# Conformance of `{}`\n\n", report.fixture);
    let failed = report.failed().count();
    let ignored = report.cases.len() - failed - report.passed();
    let filter = match &head.filter {
        Some(filter) => format!(", of the cases with {filter:?} in their names"),
        None => String::new(),
    };
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{} passed, {failed} failed, {ignored} ignored{filter}. Kit {}, {}.\n\n## Capabilities\n\n| Capability | Support | |\n|---|---|---|",
        report.passed(),
        head.version,
        head.date
    );
    for (name, support, text) in capabilities {
        let _ = writeln!(out, "| {name} | {support} | {} |", cell(text));
    }
    out.push_str("\n## Cases\n\n| Case | Outcome | Seconds | |\n|---|---|---|---|\n");
    for case in &report.cases {
        let (outcome, text) = match &case.outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Failed(why) => ("**failed**", why.as_str()),
            Outcome::Ignored(reason) => ("ignored", reason.as_str()),
        };
        let _ = writeln!(
            out,
            "| {} | {outcome} | {:.2} | {} |",
            case.name,
            case.seconds,
            cell(text)
        );
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_798_761_599), "2026-12-31");
        assert_eq!(date(1_798_761_600), "2027-01-01");
    }
}
