//! The lowest layer of every default root: a bare system made of names.
//!
//! `/usr` and its like are mounted from the host; everything else is made here, once per provider.
//! From the host's `/etc` only an allow-list is copied, and of it only what everybody may read:
//! what programs need to find libraries, certificates and interpreters. Must never copy from a home
//! directory, `/var`, `/run`, or anything that could hold a secret.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::identity::Identity;
use crate::layers::{Layer, State};

/// The guest's own user, in the sandbox.
pub(crate) const GUEST_USER: &str = "sandbox";
/// Its number, and its group's.
pub(crate) const GUEST_ID: u32 = 1000;
/// Its home.
pub(crate) const GUEST_HOME: &str = "/home/sandbox";

/// Copied from the host's `/etc` if there: files, links and directories.
const FROM_ETC: &[&str] = &[
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "fonts",
    "java",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "lsb-release",
    "magic",
    "maven",
    "mime.types",
    "os-release",
    "perl",
    "pki",
    "profile",
    "protocols",
    "rpc",
    "services",
    "ssl",
    "terminfo",
    "timezone",
];

/// Also copied: whatever in `/etc` starts with one of these, for versioned names.
const FROM_ETC_PREFIXES: &[&str] = &["java-", "openjdk-", "python3", "python2"];

/// Never copied, even below an allowed directory.
const NEVER: &[&str] = &["/etc/ssl/private", "/etc/pki/private"];

/// More than this in one file is no configuration.
const LARGEST: u64 = 8 << 20;

/// Makes the layer for a root assembled from these directories of the host.
pub(crate) fn build(
    state: &Arc<State>,
    system_dirs: &[PathBuf],
    identity: Option<Identity>,
) -> io::Result<Arc<Layer>> {
    let layer = Layer::create(state)?;
    let mut tree = Tree {
        top: layer.path().to_owned(),
        identity,
    };
    for (dir, mode) in [
        ("dev", 0o755),
        ("proc", 0o555),
        ("etc", 0o755),
        ("home", 0o755),
        ("home/sandbox", 0o755),
        ("opt", 0o755),
        ("run", 0o755),
        ("srv", 0o755),
        ("tmp", 0o1777),
        ("var", 0o755),
        ("var/cache", 0o755),
        ("var/lib", 0o755),
        ("var/log", 0o755),
        ("var/tmp", 0o1777),
    ] {
        tree.dir(dir, mode)?;
    }
    tree.link("var/run", Path::new("/run"))?;
    for dir in system_dirs {
        tree.mount_point(dir)?;
    }
    tree.etc()?;
    Ok(layer)
}

/// Makes the layer that lies on a root directory given by the caller: it hides whatever that has
/// at the places where we mount, links among them.
pub(crate) fn build_bare(state: &Arc<State>, identity: Option<Identity>) -> io::Result<Arc<Layer>> {
    let layer = Layer::create(state)?;
    let tree = Tree {
        top: layer.path().to_owned(),
        identity,
    };
    tree.dir("dev", 0o755)?;
    tree.dir("proc", 0o555)?;
    Ok(layer)
}

/// Makes a layer with only these mount points; the flag says whether it is for a directory.
pub(crate) fn build_mount_points(
    state: &Arc<State>,
    points: &[(PathBuf, bool)],
    identity: Option<Identity>,
) -> io::Result<Arc<Layer>> {
    let layer = Layer::create(state)?;
    let tree = Tree {
        top: layer.path().to_owned(),
        identity,
    };
    for (point, is_dir) in points {
        let relative = relative(point);
        if *is_dir {
            tree.dirs(relative)?;
        } else {
            if let Some(parent) = relative.parent() {
                tree.dirs(parent)?;
            }
            tree.file(relative, b"")?;
        }
    }
    Ok(layer)
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// The layer being filled. Nobody else has it yet, so plain paths are safe.
struct Tree {
    top: PathBuf,
    identity: Option<Identity>,
}

impl Tree {
    fn own(&self, path: &Path) -> io::Result<()> {
        self.identity.map_or(Ok(()), |identity| identity.own(path))
    }

    fn dir(&self, name: impl AsRef<Path>, mode: u32) -> io::Result<()> {
        let path = self.top.join(name);
        DirBuilder::new().recursive(true).create(&path)?;
        // Not by the builder: the umask would take bits away.
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        self.own(&path)
    }

    fn dirs(&self, path: &Path) -> io::Result<()> {
        let mut at = PathBuf::new();
        for part in path.components() {
            at.push(part);
            if !self.top.join(&at).is_dir() {
                self.dir(&at, 0o755)?;
            }
        }
        Ok(())
    }

    fn file(&self, name: impl AsRef<Path>, content: &[u8]) -> io::Result<()> {
        let path = self.top.join(name);
        fs::write(&path, content)?;
        fs::set_permissions(&path, Permissions::from_mode(0o644))?;
        self.own(&path)
    }

    fn link(&self, name: impl AsRef<Path>, target: &Path) -> io::Result<()> {
        let path = self.top.join(name);
        symlink(target, &path)?;
        self.own(&path)
    }

    /// A place for a system directory: a directory to mount on, or the host's link into `/usr`.
    fn mount_point(&self, dir: &Path) -> io::Result<()> {
        match fs::symlink_metadata(dir) {
            Ok(found) if found.is_dir() => self.dirs(relative(dir)),
            Ok(found) if found.is_symlink() => self.link(relative(dir), &fs::read_link(dir)?),
            _ => Ok(()),
        }
    }

    fn etc(&mut self) -> io::Result<()> {
        if let Ok(entries) = fs::read_dir("/etc") {
            for entry in entries.flatten() {
                let name = entry.file_name();
                let Some(name) = name.to_str() else { continue };
                if FROM_ETC.contains(&name)
                    || FROM_ETC_PREFIXES
                        .iter()
                        .any(|prefix| name.starts_with(prefix))
                {
                    self.copy(&entry.path())?;
                }
            }
        }
        let id = GUEST_ID;
        let user = GUEST_USER;
        self.file("etc/hostname", b"sandbox\n")?;
        self.file(
            "etc/hosts",
            b"127.0.0.1 localhost sandbox\n::1 localhost sandbox\n",
        )?;
        self.file(
            "etc/nsswitch.conf",
            b"passwd: files\ngroup: files\nhosts: files dns\n",
        )?;
        self.file("etc/shells", b"/bin/sh\n")?;
        self.file(
            "etc/passwd",
            format!(
                "root:x:0:0:root:/root:/usr/sbin/nologin\n\
                 {user}:x:{id}:{id}:{user}:{GUEST_HOME}:/bin/sh\n\
                 nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            )
            .as_bytes(),
        )?;
        self.file(
            "etc/group",
            format!("root:x:0:\n{user}:x:{id}:\nnogroup:x:65534:\n").as_bytes(),
        )
    }

    /// Copies one thing of the host's `/etc`: what everybody may read, links as links. What
    /// vanishes meanwhile or may not be read is left out.
    fn copy(&self, from: &Path) -> io::Result<()> {
        if NEVER.iter().any(|never| from.starts_with(never)) {
            return Ok(());
        }
        let to = relative(from);
        let Ok(found) = fs::symlink_metadata(from) else {
            return Ok(());
        };
        if found.is_symlink() {
            return fs::read_link(from).map_or(Ok(()), |target| self.link(to, &target));
        }
        if found.is_dir() && found.mode() & 0o005 == 0o005 {
            self.dir(to, 0o755)?;
            for entry in fs::read_dir(from).into_iter().flatten().flatten() {
                self.copy(&entry.path())?;
            }
        } else if found.is_file()
            && found.mode() & 0o004 != 0
            && found.len() <= LARGEST
            && let Ok(content) = fs::read(from)
        {
            self.file(to, &content)?;
        }
        Ok(())
    }
}
