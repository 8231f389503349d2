//! References: where an image is and which of them is meant.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sandbox_core::{Error, Result};

use crate::digest::Digest;
use crate::fault::malformed;

/// Place of an image.
///
/// ```
/// use sandbox_oci::Reference;
/// let layout: Reference = "oci:/srv/images/base:stable".parse()?;
/// assert!(matches!(layout, Reference::Layout { .. }));
/// let named: Reference = "alpine:3".parse()?;
/// assert_eq!(named.to_string(), "docker.io/library/alpine:3");
/// # Ok::<(), sandbox_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reference {
    /// `oci:PATH[:NAME]`: a directory in the OCI layout, and the name of an image in it.
    Layout {
        /// The directory.
        path: PathBuf,
        /// Name in the index; the only image if there is none.
        name: Option<String>,
    },
    /// `oci-archive:PATH[:NAME]`: such a directory in a tar file.
    LayoutArchive {
        /// The file.
        path: PathBuf,
        /// Name in the index; the only image if there is none.
        name: Option<String>,
    },
    /// `docker-archive:PATH[:NAME]`: a file that `docker save` wrote.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// Name in the archive; the only image if there is none.
        name: Option<String>,
    },
    /// `[docker://][HOST/]NAME[:TAG][@DIGEST]`: in a registry.
    Registry(RegistryName),
}

/// Name of an image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RegistryName {
    /// Host, with its port if it has one.
    pub host: String,
    /// Path of the repository.
    pub repository: String,
    /// Tag; `latest` where neither a tag nor a digest was given.
    pub tag: Option<String>,
    /// Digest of the manifest or index.
    pub digest: Option<Digest>,
}

impl RegistryName {
    /// The tag or digest, as the registry's API takes it.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".into(),
        }
    }
}

/// Splits the name of an image from the path before it: behind the last `:` that has no `/` after.
fn path_and_name(text: &str) -> Result<(PathBuf, Option<String>)> {
    let (path, name) = match text.rsplit_once(':') {
        Some((path, name)) if !name.contains('/') && !PathBuf::from(text).exists() => {
            (path, Some(name))
        }
        _ => (text, None),
    };
    if path.is_empty() || name == Some("") {
        return Err(malformed(format!(
            "the reference {text:?} lacks a path or name"
        )));
    }
    Ok((path.into(), name.map(str::to_owned)))
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, name) = path_and_name(rest)?;
            return Ok(Self::Layout { path, name });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (path, name) = path_and_name(rest)?;
            return Ok(Self::LayoutArchive { path, name });
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            // The name in such an archive is one of a registry, with a tag.
            let whole = PathBuf::from(rest);
            let split = rest.split_once(':').filter(|_| !whole.exists());
            let (path, name) = split.unwrap_or((rest, ""));
            if path.is_empty() {
                return Err(malformed(format!("the reference {text:?} lacks a path")));
            }
            return Ok(Self::DockerArchive {
                path: path.into(),
                name: (!name.is_empty()).then(|| name.to_owned()),
            });
        }
        registry(text.strip_prefix("docker://").unwrap_or(text)).map(Self::Registry)
    }
}

fn registry(text: &str) -> Result<RegistryName> {
    let invalid = |why: &str| malformed(format!("the reference {text:?} can't be: {why}"));
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse()?)),
        None => (text, None),
    };
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
        _ => (rest, None),
    };
    // As docker does: the first part is a host if it looks like one.
    let (host, repository) = match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => ("docker.io", name),
    };
    let repository = match (host, repository.contains('/')) {
        ("docker.io", false) => format!("library/{repository}"),
        _ => repository.to_owned(),
    };
    let is_host = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
    let begins = host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    if !begins || !host.bytes().all(is_host) {
        return Err(invalid("its host has letters that no host has"));
    }
    let is_part = |part: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        part.bytes().all(inner)
            && part
                .bytes()
                .next()
                .is_some_and(|b| b.is_ascii_alphanumeric())
    };
    if repository.len() > 255 || !repository.split('/').all(is_part) {
        return Err(invalid(
            "a name has lower-case letters, digits, '.', '_' and '-' between slashes",
        ));
    }
    let is_tag = |tag: &String| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        (1..=128).contains(&tag.len()) && tag.bytes().all(inner) && !tag.starts_with(['.', '-'])
    };
    if !tag.as_ref().is_none_or(is_tag) {
        return Err(invalid(
            "a tag has at most 128 letters, digits, '.', '_' and '-'",
        ));
    }
    let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
    Ok(RegistryName {
        host: host.into(),
        repository,
        tag,
        digest,
    })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, path, name) = match self {
            Self::Layout { path, name } => ("oci", path, name),
            Self::LayoutArchive { path, name } => ("oci-archive", path, name),
            Self::DockerArchive { path, name } => ("docker-archive", path, name),
            Self::Registry(name) => return name.fmt(f),
        };
        write!(f, "{kind}:{}", path.display())?;
        match name {
            Some(name) => write!(f, ":{name}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_one_place_each() {
        for (text, same) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("a/b:c", "docker.io/a/b:c"),
            ("docker://localhost:5000/x/y", "localhost:5000/x/y:latest"),
            ("127.0.0.1:5000/x:1", "127.0.0.1:5000/x:1"),
            ("oci:/a/b", "oci:/a/b"),
            ("oci:/a/b:tag", "oci:/a/b:tag"),
            ("docker-archive:/a.tar:x/y:1", "docker-archive:/a.tar:x/y:1"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), same);
        }
        let digest = Digest::of(b"x");
        let pinned: Reference = format!("ghcr.io/a/b@{digest}").parse().unwrap();
        assert_eq!(pinned.to_string(), format!("ghcr.io/a/b@{digest}"));
        for text in [
            "",
            "UPPER",
            "a//b",
            "../x",
            "a:",
            "oci:",
            "a@sha512:00",
            "-/x",
            "a b",
            "x:/..",
            "h_st.x/a",
            "docker-archive:",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
