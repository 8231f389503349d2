//! The facade and the remote crate with one feature at a time, as an application that depends on them
//! has them.
//!
//! In a build of the whole workspace other packages turn features on, so that a part that needs
//! another's feature still compiles there. Must never select more than one package's library.

use std::path::Path;
use std::process::Command;

use crate::{Result, output_of};

/// The packages, each with the directory of its manifest.
const PACKAGES: [(&str, &str); 2] = [("sandbox", ""), ("sandbox-remote", "sandbox-remote")];

/// Checks each library without features and with each of them alone, without warnings.
pub(crate) fn check(root: &Path) -> Result<()> {
    for (package, directory) in PACKAGES {
        let manifest = std::fs::read_to_string(root.join(directory).join("Cargo.toml"))?;
        check_each(root, package, &manifest)?;
    }
    Ok(())
}

fn check_each(root: &Path, package: &str, manifest: &str) -> Result<()> {
    for feature in std::iter::once("").chain(features(manifest)) {
        let mut check = Command::new(env!("CARGO"));
        check.current_dir(root).args([
            "clippy",
            "--quiet",
            "--package",
            package,
            "--lib",
            "--no-deps",
            "--no-default-features",
            "--features",
            feature,
            "--",
            "-D",
            "warnings",
        ]);
        output_of(&mut check)?;
    }
    Ok(())
}

/// The names of the features of a manifest, but for the default.
fn features(manifest: &str) -> impl Iterator<Item = &str> {
    manifest
        .lines()
        .skip_while(|line| *line != "[features]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name)
        .filter(|name| *name != "default")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_features_of_the_packages_are_found() {
        let manifest = include_str!("../../Cargo.toml");
        let found: Vec<_> = super::features(manifest).collect();
        for feature in ["aca", "dagger", "local", "remote", "serde", "sessions"] {
            assert!(found.contains(&feature), "{feature} in {found:?}");
        }
        assert!(!found.contains(&"default"));
        let manifest = include_str!("../../sandbox-remote/Cargo.toml");
        let found: Vec<_> = super::features(manifest).collect();
        assert_eq!(found, ["client", "server"]);
    }
}
