//! Three sides of every change: what it began with, what it became, and what the target has.
//!
//! A change must never be taken whose target is neither: that is a conflict, listed before anything
//! is written.

use std::collections::{BTreeSet, HashSet};

use sandbox_core::{Change, ChangeKind, Changes, FileKind, FileVersion, GuestPath, Skipped};

use super::is_automation;
use crate::leads_out;

/// Options of putting changes in place.
///
/// ```
/// use sandbox_transfer::changes::ApplyOptions;
/// let look = ApplyOptions::new().dry_run(true);
/// assert!(!look.automation);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApplyOptions {
    /// Whether hooks, CI definitions and settings that are obeyed by themselves are put in place
    /// too ([`is_automation`]). Default: no; they are listed apart.
    pub automation: bool,
    /// Whether to look only: everything is compared and nothing is written. Default: no.
    pub dry_run: bool,
}

impl ApplyOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether hooks and CI definitions are put in place too.
    #[must_use]
    pub fn automation(mut self, automation: bool) -> Self {
        self.automation = automation;
        self
    }

    /// Sets whether to look only.
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }
}

/// A change whose target has something else than the change began with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conflict {
    /// Path relative to the directory.
    pub path: GuestPath,
    /// State of the target.
    pub reason: String,
}

/// Report of putting changes in place.
///
/// If there is any conflict nothing was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct ApplyReport {
    /// Changes that were put in place; of a dry run or with conflicts, those that would be.
    pub applied: Vec<GuestPath>,
    /// Changes that the target has already.
    pub unchanged: Vec<GuestPath>,
    /// Changes whose target has something else. With any of them nothing was written.
    pub conflicts: Vec<Conflict>,
    /// Changes of what runs or is obeyed by itself, which were not asked for.
    pub automation: Vec<GuestPath>,
    /// Changes that are never put in place, and why: links that lead out, FIFOs, names that are no
    /// names.
    pub left_out: Vec<Skipped>,
}

/// Decision about one change.
enum Judgement {
    Take,
    Has,
    Conflict(&'static str),
}

/// A plan: what is to be put in place, and the report of all else.
pub(super) struct Plan<'a> {
    pub(super) take: Vec<&'a Change>,
    pub(super) report: ApplyReport,
    made: BTreeSet<&'a GuestPath>,
    /// Directories that become something else.
    gone: BTreeSet<&'a GuestPath>,
}

/// State of a target at a path.
pub(super) enum Found {
    /// This, or nothing.
    Entry(Option<FileVersion>),
    /// No directory for it.
    NoParent,
    /// A link or a file is where one of its directories should be.
    Blocked,
}

impl<'a> Plan<'a> {
    pub(super) fn new(changes: &'a Changes) -> Self {
        let is_dir = |side: &Option<FileVersion>| {
            side.as_ref()
                .is_some_and(|side| side.kind == FileKind::Directory)
        };
        let paths = |keep: &dyn Fn(&Change) -> bool| {
            let kept = changes.entries.iter().filter(|change| keep(change));
            kept.map(|change| &change.path).collect()
        };
        Self {
            take: Vec::new(),
            report: ApplyReport::default(),
            made: paths(&|change| is_dir(&change.after)),
            gone: paths(&|change| !is_dir(&change.after) && change.after.is_some()),
        }
    }

    /// Whether a change may be looked at further: its target is to be compared.
    pub(super) fn admits(&mut self, change: &Change, options: &ApplyOptions) -> bool {
        if let Some(reason) = hostile(change) {
            self.report
                .left_out
                .push(Skipped::new(&change.path, reason));
            return false;
        }
        if !options.automation && is_automation(change.path.as_bytes()) {
            self.report.automation.push(change.path.clone());
            return false;
        }
        true
    }

    /// Leaves a change out.
    pub(super) fn leave(&mut self, change: &Change, reason: impl Into<String>) {
        self.report
            .left_out
            .push(Skipped::new(&change.path, reason));
    }

    /// Decides about a change by what the target has.
    pub(super) fn judge(&mut self, change: &'a Change, found: Found) {
        let judgement = match found {
            Found::Entry(target) => judge(change, target.as_ref()),
            Found::NoParent if change.after.is_none() => Judgement::Has,
            Found::NoParent if self.parent_is_made(change) => judge(change, None),
            Found::NoParent => Judgement::Conflict("its directory is not there"),
            // A file of the target whose place a directory takes, which the change knows.
            Found::Blocked if self.parent_is_made(change) => judge(change, None),
            Found::Blocked if change.after.is_none() && self.is_below_gone(change) => {
                Judgement::Has
            }
            Found::Blocked => {
                Judgement::Conflict("a link or a file is where one of its directories should be")
            }
        };
        match judgement {
            Judgement::Take => {
                self.report.applied.push(change.path.clone());
                self.take.push(change);
            }
            Judgement::Has => self.report.unchanged.push(change.path.clone()),
            Judgement::Conflict(reason) => self.report.conflicts.push(Conflict {
                path: change.path.clone(),
                reason: reason.into(),
            }),
        }
    }

    /// Directories of the target that must have nothing else in them: they, or one above them,
    /// become something else.
    pub(super) fn emptied(&self) -> Vec<&'a Change> {
        let cleared = Cleared::of(&self.take);
        let is_dir = |change: &Change| {
            let before = change.before.as_ref();
            before.is_some_and(|before| before.kind == FileKind::Directory)
        };
        let emptied = self.take.iter().copied().filter(|change| {
            is_dir(change)
                && (cleared.has(change) || change.after.is_none() && cleared.is_below(change))
        });
        emptied.collect()
    }

    /// Makes conflicts of the directories that have an entry which does not go, by the paths of
    /// their entries.
    pub(super) fn keep_unless_emptied(&mut self, entries: Vec<(&'a Change, Vec<GuestPath>)>) {
        let go: HashSet<&GuestPath> = self
            .take
            .iter()
            .filter(|change| change.after.is_none())
            .map(|change| &change.path)
            .collect();
        let kept = entries
            .iter()
            .filter(|(_, entries)| !entries.iter().all(|entry| go.contains(entry)));
        let kept: HashSet<&GuestPath> = kept.map(|(change, _)| &change.path).collect();
        self.take.retain(|change| !kept.contains(&change.path));
        self.report.applied.retain(|path| !kept.contains(path));
        for path in kept {
            self.report.conflicts.push(Conflict {
                path: path.clone(),
                reason: "it has something else in it, and becomes something else".into(),
            });
        }
        self.report
            .conflicts
            .sort_by(|one, other| one.path.cmp(&other.path));
    }

    fn parent_is_made(&self, change: &Change) -> bool {
        change
            .path
            .parent()
            .is_some_and(|parent| self.made.contains(&parent))
    }

    fn is_below_gone(&self, change: &Change) -> bool {
        let mut at = change.path.parent();
        while let Some(path) = at {
            if self.gone.contains(&path) {
                return true;
            }
            at = path.parent();
        }
        false
    }
}

/// Paths of the directories that become something else, and of what becomes a directory: what is
/// there now goes before anything comes.
pub(super) struct Cleared<'a>(HashSet<&'a [u8]>);

impl<'a> Cleared<'a> {
    pub(super) fn of(take: &[&'a Change]) -> Self {
        let is_dir = |side: &FileVersion| side.kind == FileKind::Directory;
        let becomes_other = |change: &&&Change| match (&change.before, &change.after) {
            (Some(before), Some(after)) => is_dir(before) != is_dir(after),
            _ => false,
        };
        let cleared = take.iter().filter(becomes_other);
        Self(cleared.map(|change| change.path.as_bytes()).collect())
    }

    /// Whether a change is of such a path.
    pub(super) fn has(&self, change: &Change) -> bool {
        self.0.contains(change.path.as_bytes())
    }

    /// Whether a change is below such a path.
    pub(super) fn is_below(&self, change: &Change) -> bool {
        let path = change.path.as_bytes();
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        ends.filter_map(|(end, _)| path.get(..end))
            .any(|above| self.0.contains(above))
    }
}

/// Why a change is never put in place.
fn hostile(change: &Change) -> Option<&'static str> {
    let path = change.path.as_bytes();
    let is_sound = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
    if !path.split(|b| *b == b'/').all(is_sound) {
        return Some("not a path below the directory");
    }
    let sides = [&change.before, &change.after];
    for side in sides.into_iter().flatten() {
        match side.kind {
            FileKind::File | FileKind::Directory | FileKind::Symlink => {}
            _ => return Some("neither a file, a link nor a directory"),
        }
        if side.kind == FileKind::File && side.content.is_none() {
            return Some("the changes have no contents");
        }
    }
    let after = change.after.as_ref()?;
    if after.kind == FileKind::Symlink {
        let target = after.link_target.as_ref();
        return leads_out(
            path,
            target.map(|target| target.as_bytes()).unwrap_or_default(),
        );
    }
    None
}

/// Decides by three sides.
fn judge(change: &Change, target: Option<&FileVersion>) -> Judgement {
    let (before, after) = (change.before.as_ref(), change.after.as_ref());
    if change.kind() == ChangeKind::Mode
        && let (Some(before), Some(after), Some(target)) = (before, after, target)
    {
        return match target {
            _ if !holds_as(target, after) => Judgement::Conflict("it holds something else there"),
            _ if target.mode == after.mode => Judgement::Has,
            _ if target.mode == before.mode => Judgement::Take,
            _ if runs(before) != runs(after) && runs(target) == runs(before) => Judgement::Take,
            _ => Judgement::Conflict("its permission bits are others there"),
        };
    }
    if same(target, after) {
        return Judgement::Has;
    }
    if same(target, before) {
        return Judgement::Take;
    }
    Judgement::Conflict(match (target, before) {
        (None, _) => "it is not there",
        (Some(_), None) => "something else is there",
        (Some(target), Some(before)) if target.kind != before.kind => {
            "something of another kind is there"
        }
        _ => "it was changed there too",
    })
}

/// Whether two sides are the same as far as a target is compared: kind, content or link target,
/// and whether it may be run.
pub(super) fn same(one: Option<&FileVersion>, other: Option<&FileVersion>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => {
            holds_as(one, other) && (one.kind != FileKind::File || runs(one) == runs(other))
        }
        _ => false,
    }
}

fn holds_as(one: &FileVersion, other: &FileVersion) -> bool {
    one.kind == other.kind
        && match one.kind {
            FileKind::Directory => true,
            FileKind::Symlink => one.link_target == other.link_target,
            _ => one.content.is_some() && one.content == other.content,
        }
}

fn runs(version: &FileVersion) -> bool {
    version.mode.bits() & 0o100 != 0
}

/// The permission bits of what is put in place: those that the target has, unless they were
/// changed. Never setuid, setgid or sticky.
pub(super) fn mode_of(change: &Change, target: Option<u32>) -> u32 {
    let bits = |side: &Option<FileVersion>| side.as_ref().map(|side| side.mode.bits() & 0o777);
    match (bits(&change.before), bits(&change.after), target) {
        (Some(before), Some(after), Some(target)) if before == after => target,
        (_, Some(after), _) => after,
        _ => 0o644,
    }
}

/// Whether the content of a target's file of this size is needed for the comparison.
pub(super) fn is_of_interest(change: &Change, size: u64) -> bool {
    let sides = [&change.before, &change.after].into_iter().flatten();
    sides
        .filter(|side| side.kind == FileKind::File)
        .any(|side| side.size == size)
}
