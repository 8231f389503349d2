//! The host's directories that a client may name.
//!
//! A client must never reach a path of the host that does not lie below a root of the operator.

use std::path::{Component, Path, PathBuf};

/// A name below the export root: plain components only, of which none is there as a link.
pub(crate) fn target(root: Option<&Path>, to: &str) -> Result<PathBuf, String> {
    let Some(root) = root else {
        return Err(
            "exports are off: the operator named no export root (--export-root DIRECTORY)".into(),
        );
    };
    let relative = Path::new(to);
    let plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if to.is_empty() || !plain || to.contains('\0') {
        return Err(format!(
            "{to:?} does not name a place below the export root: use a relative path without \"..\""
        ));
    }
    let root = root
        .canonicalize()
        .map_err(|error| format!("the export root can't be used: {error}"))?;
    let target = root.join(relative);
    let parent = target.parent().unwrap_or(&root);
    // What lies between must exist, and lead nowhere else.
    let real = parent.canonicalize().map_err(|error| {
        format!("the directory above {to:?} can't be used: {error}; export to a plain name")
    })?;
    if real != parent {
        return Err(format!("{to:?} leads out of the export root by a link"));
    }
    Ok(target)
}

/// A directory below one of the import roots, with links resolved.
pub(crate) fn source(roots: &[PathBuf], from: &str) -> Result<PathBuf, String> {
    if roots.is_empty() {
        return Err(
            "imports are off: the operator named no import root (--import-root DIRECTORY)".into(),
        );
    }
    let path = Path::new(from)
        .canonicalize()
        .map_err(|error| format!("{from:?} can't be imported: {error}"))?;
    let allowed = roots
        .iter()
        .filter_map(|root| root.canonicalize().ok())
        .any(|root| path.starts_with(root));
    if allowed {
        return Ok(path);
    }
    Err(format!(
        "{from:?} does not lie below an import root of the operator"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn no_name_leads_out_of_the_roots() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        std::fs::create_dir_all(root.join("inner")).unwrap();
        std::fs::create_dir(place.path().join("other")).unwrap();
        std::os::unix::fs::symlink("../other", root.join("link")).unwrap();
        for to in [
            "",
            "/etc/x",
            "..",
            "../x",
            "a/../../x",
            "./../x",
            "link/x",
            "a\0b",
            "missing/x",
        ] {
            assert!(target(Some(&root), to).is_err(), "{to:?}");
        }
        assert!(target(None, "x").is_err());
        for to in ["x", "inner/x"] {
            assert!(target(Some(&root), to).is_ok(), "{to:?}");
        }
        let roots = [root.clone()];
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        assert!(source(&roots, &text(root.join("inner"))).is_ok());
        for from in [
            root.join("link"),
            root.join("inner/../../other"),
            "/etc".into(),
        ] {
            assert!(source(&roots, &text(from.clone())).is_err(), "{from:?}");
        }
        assert!(source(&[], &text(root)).is_err());
    }
}
