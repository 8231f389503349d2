//! Glob patterns on paths and programs.
//!
//! It must never say that nothing matches below a directory where something could.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};
use sandbox_core::{Error, ErrorKind, Operation, Result};

/// Patterns in the order in which they were added.
#[derive(Clone, Debug, Default)]
pub(super) struct Patterns(Vec<Pattern>);

#[derive(Clone)]
struct Pattern {
    text: String,
    matcher: GlobMatcher,
    /// The directory that everything that matches lies in, without a slash at its end.
    within: String,
    /// Matcher of what a pattern ending in `/**` covers whole.
    tree: Option<GlobMatcher>,
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

fn invalid(pattern: &str, why: impl fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidInput, Operation::Connect)
        .with_message(format!("the pattern {pattern:?} can't be right: {why}"))
}

/// Checks a pattern on paths.
pub(super) fn path(pattern: &str) -> Result<()> {
    if !pattern.starts_with('/') && !pattern.starts_with("**/") {
        return Err(invalid(pattern, "it starts neither with / nor with **/")
            .with_hint("patterns are for absolute paths, such as /workspace/**"));
    }
    let names = pattern.strip_prefix('/').unwrap_or(pattern);
    let is_void = |name: &str| matches!(name, "" | "." | "..");
    match pattern != "/" && names.split('/').any(is_void) {
        false => Ok(()),
        true => Err(invalid(
            pattern,
            "no path would match it: a name in it is empty, . or ..",
        )
        .with_hint("a directory with all that is in it is /directory/**")),
    }
}

/// Checks a pattern on programs.
pub(super) fn program(pattern: &str) -> Result<()> {
    match pattern {
        "" => Err(invalid(pattern, "it is empty")),
        pattern if pattern.contains('/') => path(pattern),
        _ => Ok(()),
    }
}

fn glob(pattern: &str) -> Result<GlobMatcher> {
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| invalid(pattern, error.kind()))
}

impl Patterns {
    pub(super) fn add(&mut self, pattern: &str) -> Result<()> {
        let literal = pattern.find(['*', '?', '[', '{', '\\']);
        let within = match literal {
            Some(at) => pattern[..at]
                .rfind('/')
                .map_or("", |slash| &pattern[..slash]),
            None => pattern,
        };
        let tree = pattern.strip_suffix("/**").map(|top| match top {
            // Everything there is.
            "" | "**" => glob("**"),
            top => glob(top),
        });
        self.0.push(Pattern {
            text: pattern.to_owned(),
            matcher: glob(pattern)?,
            within: within.to_owned(),
            tree: tree.transpose()?,
        });
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pattern that an absolute path matches.
    pub(super) fn path(&self, path: &str) -> Option<&str> {
        let hit = self.0.iter().find(|pattern| {
            let tree = pattern.tree.as_ref();
            pattern.matcher.is_match(path) || tree.is_some_and(|tree| tree.is_match(path))
        });
        hit.map(|pattern| &*pattern.text)
    }

    /// The pattern that a path matches or, if a whole tree is meant, that something in it could.
    pub(super) fn hit(&self, path: &str, tree: bool) -> Option<&str> {
        match (self.path(path), tree) {
            (None, true) => self.below(path),
            (hit, _) => hit,
        }
    }

    /// The pattern that something below a directory could match.
    pub(super) fn below(&self, directory: &str) -> Option<&str> {
        let hit = self.0.iter().find(|pattern| {
            is_in(&pattern.within, directory) || {
                // A pattern with a wildcard may reach down from above.
                pattern.within != pattern.text && is_in(directory, &pattern.within)
            }
        });
        hit.map(|pattern| &*pattern.text)
    }

    /// Whether a path is allowed, and everything below it if a whole tree is meant.
    pub(super) fn allows(&self, path: &str, tree: bool) -> bool {
        if !tree {
            return self.path(path).is_some();
        }
        self.0.iter().any(|pattern| {
            pattern
                .tree
                .as_ref()
                .is_some_and(|top| top.is_match(path) || pattern.matcher.is_match(path))
        })
    }

    /// The pattern that a program could match: as [`program`](Self::program), or where `PATH` may
    /// find its name.
    pub(super) fn could_run(&self, program: &str) -> Option<&str> {
        let by_name = || {
            let mut patterns = self
                .0
                .iter()
                .filter(|pattern| pattern.within == pattern.text);
            patterns.find(|pattern| pattern.text.rsplit('/').next() == Some(program))
        };
        self.program(program)
            .or_else(|| by_name().map(|pattern| &*pattern.text))
    }

    /// The pattern that a program matches: by its path, or by its name.
    pub(super) fn program(&self, program: &str) -> Option<&str> {
        let name = program.rsplit('/').next().unwrap_or(program);
        let hit = self.0.iter().find(|pattern| {
            let subject = if pattern.text.contains('/') {
                program
            } else {
                name
            };
            pattern.matcher.is_match(subject)
        });
        hit.map(|pattern| &*pattern.text)
    }
}

/// Whether a path is a directory or lies in it.
fn is_in(path: &str, directory: &str) -> bool {
    let directory = directory.trim_end_matches('/');
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
