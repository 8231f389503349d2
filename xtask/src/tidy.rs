//! Rules of CONTRIBUTING.md about the text of the repository.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::{Result, output_of};

/// Words that make a reader decode a sentence: say who or what is meant.
const WORDS: [&str; 4] = ["nobody", "whoever", "somebody", "anybody"];

/// Beginnings of a summary line that does not stand alone in an index page.
const SUMMARIES: [&str; 9] = [
    "What ",
    "Who ",
    "Where ",
    "How ",
    "It ",
    "Its ",
    "The same ",
    "So ",
    "Has ",
];

/// The crates that `sandbox-core` may bring, itself included, and with every feature.
const CORE_DEPENDENCIES: usize = 18;

const README_LINES: usize = 150;

/// No file that is written by hand is larger; what a program made by the way may be.
const FILE_BYTES: u64 = 256 * 1024;

/// Checks all rules and tells every breach.
pub(crate) fn check(root: &Path) -> Result<()> {
    let files = output_of(Command::new("git").current_dir(root).args(["ls-files"]))?;
    let mut problems = Vec::new();
    for name in files.lines() {
        let path = root.join(name);
        if path.metadata().is_ok_and(|found| found.len() > FILE_BYTES) {
            problems.push(format!(
                "{name}: larger than {FILE_BYTES} bytes; make it when it is needed, or leave it out"
            ));
        }
        // A file that is removed and not yet committed.
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => rust(name, &text, &mut problems),
            Some("md") => links(root, name, &text, &mut problems),
            _ => {}
        }
        if name == "README.md" && text.lines().count() >= README_LINES {
            problems.push(format!(
                "{name}: {README_LINES} lines or more; move what is for few to docs/"
            ));
        }
    }
    let tree = output_of(Command::new(env!("CARGO")).current_dir(root).args([
        "tree",
        "--quiet",
        "--package",
        "sandbox-core",
        "--all-features",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]))?;
    let crates: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    if crates.len() > CORE_DEPENDENCIES {
        problems.push(format!(
            "sandbox-core brings {} crates, more than {CORE_DEPENDENCIES}: {crates:?}",
            crates.len()
        ));
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(problems.join("\n").into())
}

fn rust(name: &str, text: &str, problems: &mut Vec<String>) {
    let test = name.split('/').any(|part| {
        matches!(
            part,
            "tests" | "benches" | "fuzz" | "candidates" | "broken-crate"
        )
    });
    let first = text.lines().next().unwrap_or_default();
    if !test && !first.starts_with("//!") && !first.starts_with("#![doc") {
        problems.push(format!(
            "{name}: no `//!` header that says what the file is for"
        ));
    }
    let is_sys = name.contains("/sys/") || name.ends_with("/sys.rs");
    let mut before = None;
    let mut has_example = false;
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let code = line.split("//").next().unwrap_or_default();
        let unsafe_code = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
            .iter()
            .any(|form| code.contains(form));
        if unsafe_code && !test && !is_sys && !name.starts_with("xtask/") {
            problems.push(format!(
                "{name}:{number}: unsafe code outside of a module `sys`"
            ));
        }
        let summary = documentation(line);
        if let (Some(summary), None) = (summary, before)
            && !name.contains("/candidates/")
            && !name.contains("broken-crate")
            && SUMMARIES.iter().any(|word| summary.starts_with(word))
        {
            problems.push(format!(
                "{name}:{number}: a summary line is a verb or a noun phrase that stands alone"
            ));
        }
        has_example |= summary.is_some_and(|text| text.starts_with("```"));
        if let Some(item) = code.trim_start().strip_prefix("pub struct ")
            && item
                .split(|c: char| !c.is_alphanumeric())
                .next()
                .is_some_and(|item| item.ends_with("Options"))
            && !test
            && !has_example
        {
            problems.push(format!(
                "{name}:{number}: an option type has an example in its documentation"
            ));
        }
        // Attributes stand between documentation and its item; an empty line ends both.
        has_example &= !line.trim().is_empty();
        before = summary;
        if let Some((_, comment)) = line.split_once("//") {
            let comment = comment.to_lowercase();
            for word in comment.split(|c: char| !c.is_alphabetic()) {
                if WORDS.contains(&word) {
                    problems.push(format!(
                        "{name}:{number}: \"{word}\": say who or what is meant"
                    ));
                }
            }
        }
    }
}

/// The text of a line of documentation.
fn documentation(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let text = line.strip_prefix("///").or(line.strip_prefix("//!"))?;
    Some(text.trim_start())
}

/// Links to files of the repository must lead to one.
fn links(root: &Path, name: &str, text: &str, problems: &mut Vec<String>) {
    let directory = Path::new(name).parent().unwrap_or(Path::new(""));
    for part in text.split("](").skip(1) {
        let Some((target, _)) = part.split_once(')') else {
            continue;
        };
        let target = target.split('#').next().unwrap_or_default();
        let is_file = target.contains('.') && !target.contains("::") && !target.contains(':');
        if is_file && !root.join(directory).join(target).exists() {
            problems.push(format!("{name}: the link to {target} leads nowhere"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(name: &str, text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        rust(name, text, &mut problems);
        problems
    }

    #[test]
    fn each_rule_finds_its_breach_and_lets_the_rest_pass() {
        assert!(problems_of("a/src/lib.rs", "//! A file.\n// Words.\n").is_empty());
        assert_eq!(problems_of("a/src/lib.rs", "use x;\n").len(), 1);
        let code = "//! A file.\nlet x = unsafe { f() };\n";
        assert_eq!(problems_of("a/src/lib.rs", code).len(), 1);
        assert!(problems_of("a/src/sys/mod.rs", code).is_empty());
        let summary = "//! A file.\n\n/// What it is.\n/// What follows may begin so.\nstruct S;\n";
        assert_eq!(problems_of("a/src/lib.rs", summary).len(), 1);
        let options = "//! A file.\n\n/// Options.\n#[derive(Debug)]\npub struct AOptions {\n";
        assert_eq!(problems_of("a/src/lib.rs", options).len(), 1);
        let example = options.replace("/// Options.", "/// Options.\n///\n/// ```\n/// ```");
        assert!(problems_of("a/src/lib.rs", &example).is_empty());
        let comment = format!("//! A file.\n// What {}{} reads.\n", "no", "body");
        assert_eq!(problems_of("a/src/lib.rs", &comment).len(), 1);
    }
}
