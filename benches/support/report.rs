//! Reports of a bench: Markdown on standard output, JSON under the target directory.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Outcome;

/// A table in Markdown.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            head: head.map(str::to_owned).into(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn with_head(head: Vec<String>) -> Self {
        Self {
            head,
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The head and the rows.
    pub(crate) fn cells(&self) -> (&[String], &[Vec<String>]) {
        (&self.head, &self.rows)
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut line = |cells: &[String]| {
            let mut text = String::from("|");
            for cell in cells {
                // A bar would end the cell.
                let _ = write!(text, " {} |", cell.replace('|', "\\|"));
            }
            writeln!(f, "{text}")
        };
        line(&self.head)?;
        line(&vec!["---".to_owned(); self.head.len()])?;
        self.rows.iter().try_for_each(|row| line(row))
    }
}

/// A time with three digits that count.
pub(crate) fn time(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    let (value, unit) = match us {
        us if us < 1.0 => (us * 1e3, "ns"),
        us if us < 1e3 => (us, "µs"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let digits = if value < 10.0 {
        2
    } else {
        usize::from(value < 100.0)
    };
    format!("{value:.digits$} {unit}")
}

/// A ratio with as many digits as mean anything.
pub(crate) fn ratio(ratio: f64) -> String {
    if ratio < 0.095 {
        format!("{ratio:.3}×")
    } else if ratio < 9.95 {
        format!("{ratio:.2}×")
    } else {
        format!("{ratio:.0}×")
    }
}

/// The directory of a bench's reports: `target/sandbox-bench`.
pub(crate) fn dir() -> PathBuf {
    // `target/tmp`, made by cargo for every bench.
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().unwrap_or(tmp).join("sandbox-bench")
}

/// Writes a report's JSON and says where. Another user's target directory is no reason to lose the
/// figures, which have been printed.
pub(crate) fn save(name: &str, value: &serde_json::Value) -> Outcome<()> {
    let text = serde_json::to_vec_pretty(value)?;
    let file = dir().join(format!("{name}.json"));
    match fs::create_dir_all(dir()).and_then(|()| fs::write(&file, text)) {
        Ok(()) => eprintln!("written: {}", file.display()),
        Err(error) => eprintln!("not written: {}: {error}", file.display()),
    }
    Ok(())
}
