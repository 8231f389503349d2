//! Faults of imports and exports.

use std::path::Path;

use sandbox_core::{
    DirEntry, Error, ErrorKind, ExistingDir, ExportOptions, GuestPath, ImportOptions, ListOptions,
    Operation, Result, Sandbox, SandboxExt as _, TransferReport,
};

use super::Mutant;

pub(super) async fn import(
    mutant: Mutant,
    inner: &dyn Sandbox,
    from: &Path,
    to: &GuestPath,
    mut options: ImportOptions,
) -> Result<TransferReport> {
    match mutant {
        Mutant::MirrorIgnored => options.mirror = false,
        Mutant::ProgressUntold => options.progress = None,
        Mutant::ImportExcludesIgnored => options.excludes.clear(),
        Mutant::IgnoreFilesUnheeded => options.ignore_files = false,
        Mutant::ImportWritesInto => {
            let listed = ListOptions::new().recursive(true);
            let there = inner.list_dir(to, listed).await.unwrap_or_default();
            let denied = |entry: &DirEntry| {
                entry.metadata.is_file() && entry.metadata.mode.bits() & 0o200 == 0
            };
            if let Some(entry) = there.iter().find(|entry| denied(entry)) {
                let error = Error::new(ErrorKind::PermissionDenied, Operation::ImportDir);
                return Err(error.with_path(to.join(&entry.path)));
            }
        }
        _ => {}
    }
    inner.import_dir(from, to, options).await
}

pub(super) async fn export(
    mutant: Mutant,
    inner: &dyn Sandbox,
    from: &GuestPath,
    to: &Path,
    mut options: ExportOptions,
) -> Result<TransferReport> {
    match mutant {
        Mutant::ExportExcludesIgnored => options.excludes.clear(),
        Mutant::ExportAlwaysReplaces => options.existing = ExistingDir::Replace,
        Mutant::MustBeAbsentTakesEmpty if options.existing == ExistingDir::MustBeAbsent => {
            options.existing = ExistingDir::MustBeEmpty;
        }
        // These are the fault itself; where it can't be planted there is none.
        Mutant::ParentsMade => {
            drop(to.parent().map(std::fs::create_dir_all));
        }
        Mutant::FileReplaced if !to.is_dir() => drop(std::fs::remove_file(to)),
        _ => {}
    }
    let mut done = inner.export_dir(from, to, options).await;
    match (mutant, &mut done) {
        (Mutant::UnreadableNotTold, Ok(report)) => {
            report.skipped.clear();
            report.skipped_total = 0;
        }
        (Mutant::TimesLost, Ok(_)) => {
            let now = std::time::SystemTime::now();
            for entry in std::fs::read_dir(to).into_iter().flatten().flatten() {
                let file = std::fs::File::open(entry.path());
                drop(file.and_then(|file| file.set_modified(now)));
            }
        }
        (Mutant::HolesFilled, Ok(_)) => {
            for entry in std::fs::read_dir(to).into_iter().flatten().flatten() {
                let content = std::fs::read(entry.path());
                drop(content.and_then(|content| std::fs::write(entry.path(), content)));
            }
        }
        // These are the fault itself; where it can't be planted there is none.
        (Mutant::ExportLetsLinksOut, Ok(report)) => {
            for skipped in &report.skipped {
                let at = from.join(&skipped.path);
                let link = inner.stat(&at).await?.link_target;
                let link = link.map(|link| link.to_string()).unwrap_or_default();
                let at = to.join(skipped.path.to_string());
                drop(std::os::unix::fs::symlink(link, at));
            }
        }
        (Mutant::MergeFollowsLinks, Err(_)) => drop(std::fs::write(to.join("sub/f"), "new")),
        (Mutant::ExportLeavesAPart, Err(_)) => drop(std::fs::create_dir(to)),
        (Mutant::ExportKeepsLinks, Ok(report)) => {
            use std::os::unix::ffi::OsStrExt as _;
            for skipped in &report.skipped {
                let name = std::ffi::OsStr::from_bytes(skipped.path.as_bytes());
                drop(std::os::unix::fs::symlink("/etc/hostname", to.join(name)));
            }
        }
        (Mutant::ExportSetsUid, Ok(_)) => {
            use std::os::unix::fs::PermissionsExt as _;
            for entry in std::fs::read_dir(to).into_iter().flatten().flatten() {
                let mode = std::fs::Permissions::from_mode(0o4755);
                drop(std::fs::set_permissions(entry.path(), mode));
            }
        }
        _ => {}
    }
    done
}
