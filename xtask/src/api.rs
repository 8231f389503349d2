//! The public API, kept as text so that a change of it is seen in a review.
//!
//! rustdoc writes the API as JSON, which is unstable: `RUSTC_BOOTSTRAP` lets a stable toolchain do
//! it, in a target directory of its own, and the version of the crate `public-api` must fit the
//! toolchain. Only crates with few dependencies are listed; the facade re-exports them.

use std::path::Path;
use std::process::Command;

use crate::{Result, output_of};

/// Crate and its features.
const LISTED: [(&str, &[&str]); 2] = [
    ("sandbox-core", &["--all-features"]),
    ("sandbox-local", &[]),
];

/// The crates whose types may stand in a public signature.
const ALLOWED: [&str; 8] = [
    "core",
    "alloc",
    "std",
    "bytes",
    "tokio",
    "serde",
    "serde_core",
    "async_trait",
];

/// Compares each listing with the one that is kept, or writes it.
pub(crate) fn check(root: &Path, bless: bool) -> Result<()> {
    let mut problems = String::new();
    for (package, features) in LISTED {
        let listing = listing(root, package, features)?;
        for (crate_name, line) in foreign(&listing) {
            problems += &format!("{package}: a type of `{crate_name}` is public: {line}\n");
        }
        let kept = root.join("docs/api").join(format!("{package}.txt"));
        if bless {
            std::fs::create_dir_all(root.join("docs/api"))?;
            std::fs::write(&kept, &listing)?;
            continue;
        }
        let old = std::fs::read_to_string(&kept).map_err(|error| {
            format!(
                "{}: {error}; `cargo xtask api --bless` writes it",
                kept.display()
            )
        })?;
        problems += &difference(package, &old, &listing);
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(format!("{problems}If the API is meant to change: `cargo xtask api --bless`, and a line in CHANGELOG.md.").into())
}

fn listing(root: &Path, package: &str, features: &[&str]) -> Result<String> {
    let target = root.join("target/xtask-api");
    output_of(
        Command::new(env!("CARGO"))
            .current_dir(root)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", &target)
            .args(["rustdoc", "--quiet", "--lib", "--package", package])
            .args(features)
            .args(["--", "-Z", "unstable-options", "--output-format", "json"]),
    )?;
    let json = target
        .join("doc")
        .join(format!("{}.json", package.replace('-', "_")));
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    Ok(api.to_string())
}

/// The lines that name a crate which must not stand there, with its name.
fn foreign(listing: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for line in listing.lines() {
        for (at, _) in line.match_indices("::") {
            let before = &line[..at];
            let start = before
                .rfind(|c: char| !(c.is_alphanumeric() || c == '_'))
                .map_or(0, |before| before + 1);
            // In the middle of a path, or behind a closing bracket.
            if start == at || before[..start].ends_with("::") {
                continue;
            }
            let name = &before[start..];
            let is_crate = name.starts_with(|c: char| c.is_ascii_lowercase());
            if is_crate && !ALLOWED.contains(&name) && !name.starts_with("sandbox") {
                found.push((name, line));
            }
        }
    }
    found
}

/// Lines that are only in one of the two.
fn difference(package: &str, old: &str, new: &str) -> String {
    let only = |these: &str, others: &str, sign: char| -> String {
        let others: std::collections::HashSet<&str> = others.lines().collect();
        these
            .lines()
            .filter(|line| !others.contains(line))
            .map(|line| format!("{package}: {sign} {line}\n"))
            .collect()
    };
    only(old, new, '-') + &only(new, old, '+')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_type_is_found_wherever_it_stands() {
        let listing = "pub fn sandbox_core::f(x: core::option::Option<http::Uri>) -> bytes::Bytes";
        let names: Vec<&str> = foreign(listing).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["http"]);
    }

    #[test]
    fn a_changed_line_is_told_with_both_sides() {
        assert_eq!(difference("p", "a\nb\n", "a\nc\n"), "p: - b\np: + c\n");
    }
}
