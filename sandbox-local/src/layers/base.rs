//! The lowest layer of every default root: a bare system made of names.
//!
//! `/usr` and its like are mounted from the host; everything else is made here, once per provider that
//! needs it, or taken over from one that is gone ([`handed_on`]).
//! Of the host's settings only an allow-list is copied ([`settings`]), and of it only what
//! everybody may read. Must never copy from a home directory, `/run`, or anything that could hold a
//! secret.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use sandbox_core::{Error, ErrorKind, Operation, Result};

use super::found::{self, Entry, Fingerprint, is_for_all};
use super::{handed_on, settings};
use crate::guest_user::GuestUser;
use crate::layers::{Layer, State};

/// The guest's own user, in the sandbox.
pub(crate) const GUEST_USER: &str = "sandbox";
/// Number of the guest's user, and of its group, unless it is root.
pub(crate) const GUEST_ID: u32 = 1000;
/// Home of the guest's user.
pub(crate) const GUEST_HOME: &str = "/home/sandbox";

/// Name and home of a guest that is root.
pub(crate) const ROOT_USER: &str = "root";
pub(crate) const ROOT_HOME: &str = "/root";

/// Makes the layer for a root assembled from these directories of the host, with these of its files
/// and directories besides the settings that every root has; or takes one that a provider before made and
/// that would come out the same.
pub(crate) fn build(
    state: &Arc<State>,
    system_dirs: &[PathBuf],
    settings: &[PathBuf],
    guest_user: Option<GuestUser>,
) -> io::Result<Arc<Layer>> {
    let found = found::find(Path::new("/"), settings);
    // Before anything is read: what changes from here on makes another one.
    let fingerprint = Fingerprint::new(&found, system_dirs);
    if let Some(layer) = fingerprint.and_then(|fingerprint| handed_on::take(state, fingerprint)) {
        return Ok(layer);
    }
    let layer = Layer::create(state)?;
    let tree = Tree {
        top: layer.path().to_owned(),
        guest_user,
    };
    for (dir, mode) in [
        ("dev", 0o755),
        ("proc", 0o555),
        ("etc", 0o755),
        ("home", 0o755),
        ("home/sandbox", 0o755),
        ("opt", 0o755),
        ("root", 0o700),
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
    tree.settings(Path::new("/"), &found)?;
    tree.own_etc()?;
    if let Some(fingerprint) = fingerprint {
        handed_on::give(state, &layer, fingerprint);
    }
    Ok(layer)
}

/// Makes the layer that lies on a root directory given by the caller: it hides whatever that has
/// at the places where we mount, links among them.
pub(crate) fn build_bare(
    state: &Arc<State>,
    guest_user: Option<GuestUser>,
) -> io::Result<Arc<Layer>> {
    let layer = Layer::create(state)?;
    let tree = Tree {
        top: layer.path().to_owned(),
        guest_user,
    };
    tree.dir("dev", 0o755)?;
    tree.dir("proc", 0o555)?;
    Ok(layer)
}

/// Makes the layer that lies on an image: what we mount on, and these files, which the image can't
/// have or may have another way.
pub(crate) fn build_image(
    state: &Arc<State>,
    files: &[(&str, String)],
    guest_user: Option<GuestUser>,
) -> io::Result<Arc<Layer>> {
    let layer = build_files(state, files, guest_user)?;
    let tree = Tree {
        top: layer.path().to_owned(),
        guest_user,
    };
    tree.dir("dev", 0o755)?;
    tree.dir("proc", 0o555)?;
    Ok(layer)
}

/// Makes a layer with only these mount points; the flag says whether it is for a directory.
pub(crate) fn build_mount_points(
    state: &Arc<State>,
    points: &[(PathBuf, bool)],
    guest_user: Option<GuestUser>,
) -> io::Result<Arc<Layer>> {
    let layer = Layer::create(state)?;
    let tree = Tree {
        top: layer.path().to_owned(),
        guest_user,
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

/// Makes a layer with only these files, and the directories that they are in.
pub(crate) fn build_files(
    state: &Arc<State>,
    files: &[(&str, String)],
    guest_user: Option<GuestUser>,
) -> io::Result<Arc<Layer>> {
    let layer = Layer::create(state)?;
    let tree = Tree {
        top: layer.path().to_owned(),
        guest_user,
    };
    for (path, content) in files {
        let path = Path::new(path);
        if let Some(parent) = path.parent() {
            tree.dirs(parent)?;
        }
        tree.file(path, content.as_bytes())?;
    }
    Ok(layer)
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Files of a default root that are never the host's.
fn own_etc() -> [(&'static str, String); 6] {
    let id = GUEST_ID;
    let user = GUEST_USER;
    let passwd = format!(
        "root:x:0:0:root:/root:/usr/sbin/nologin\n\
         {user}:x:{id}:{id}:{user}:{GUEST_HOME}:/bin/sh\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    );
    [
        ("etc/hostname", "sandbox\n".into()),
        (
            "etc/hosts",
            "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n".into(),
        ),
        (
            "etc/nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n".into(),
        ),
        ("etc/shells", "/bin/sh\n".into()),
        ("etc/passwd", passwd),
        (
            "etc/group",
            format!("root:x:0:\n{user}:x:{id}:\nnogroup:x:65534:\n"),
        ),
    ]
}

/// Refuses settings that were named and that no root could get.
pub(crate) fn check_settings(paths: &[PathBuf]) -> Result<()> {
    paths.iter().try_for_each(|path| {
        let refused = |why: &str| {
            Err(Error::new(ErrorKind::InvalidInput, Operation::Connect)
                .with_message(format!("a setting can't be copied: {why}"))
                .with_host_path(path))
        };
        let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || !path.components().all(is_plain) {
            return refused("its path is not absolute, or has `..` in it");
        }
        if own_etc()
            .iter()
            .any(|(own, _)| Path::new(own) == relative(path))
        {
            return refused("every sandbox has a file of its own there");
        }
        if settings::has_secret_name(path) {
            return refused("it has the name of a secret");
        }
        let read = || -> io::Result<Option<&str>> {
            let found = fs::symlink_metadata(path)?;
            Ok(
                if found.is_symlink() || found.is_dir() && is_for_all(&found) {
                    None
                } else if !found.is_file() || !is_for_all(&found) {
                    Some("not everybody may read it")
                } else if found.len() > settings::LARGEST {
                    Some("it is larger than 16 MiB")
                } else if settings::has_secret_text(&fs::read(path)?) {
                    Some("there is a secret in it")
                } else {
                    None
                },
            )
        };
        match read() {
            Ok(None) => Ok(()),
            Ok(Some(why)) => refused(why),
            Err(error) => Err(Error::from_io(error, Operation::Connect).with_host_path(path)),
        }
    })
}

/// The layer being filled. No sandbox has it yet, so plain paths are safe.
struct Tree {
    top: PathBuf,
    guest_user: Option<GuestUser>,
}

impl Tree {
    fn own(&self, path: &Path) -> io::Result<()> {
        self.guest_user
            .map_or(Ok(()), |guest_user| guest_user.own(path))
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

    /// Copies settings of the host.
    fn settings(&self, host: &Path, found: &[Entry]) -> io::Result<()> {
        let mut left = settings::MOST;
        for entry in found {
            if entry.is_listed {
                self.dirs(entry.path.parent().unwrap_or(Path::new("")))?;
            }
            self.copy(host, entry, &mut left)?;
        }
        Ok(())
    }

    /// Writes made-up files where the host's would tell of it or its users.
    fn own_etc(&self) -> io::Result<()> {
        own_etc()
            .iter()
            .try_for_each(|(path, content)| self.file(path, content.as_bytes()))
    }

    /// Copies one thing of the host's, unless it is there already: what everybody may read, links
    /// as links. What vanishes meanwhile, may not be read or looks like a secret is left out.
    fn copy(&self, host: &Path, entry: &Entry, left: &mut u64) -> io::Result<()> {
        let (path, found) = (&entry.path, &entry.metadata);
        let from = host.join(path);
        if self.top.join(path).symlink_metadata().is_ok() {
            return Ok(());
        }
        if found.is_symlink() {
            return fs::read_link(from).map_or(Ok(()), |target| self.link(path, &target));
        }
        if found.is_dir() && is_for_all(found) {
            self.dir(path, 0o755)?;
        } else if found.is_file()
            && is_for_all(found)
            && found.len() <= settings::LARGEST.min(*left)
            && let Ok(source) = fs::File::open(&from)
            && let Some(length) = self.copy_content(source, path)?
        {
            *left = left.saturating_sub(length);
            // Scripts among them.
            let mode = if found.mode() & 0o001 != 0 {
                0o755
            } else {
                0o644
            };
            let path = self.top.join(path);
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
            self.own(&path)?;
        }
        Ok(())
    }

    /// Copies a file piece by piece, as the host keeps what it ever had to hold in memory. Gives its
    /// length, or nothing if it can't be read or has a secret in it, and then it is not there.
    fn copy_content(&self, mut source: fs::File, path: &Path) -> io::Result<Option<u64>> {
        let path = self.top.join(path);
        let mut copy = fs::File::create_new(&path)?;
        let mut piece = vec![0; 64 << 10];
        // What a secret may have begun in.
        let (mut kept, mut length) = (0, 0);
        loop {
            let read = match source.read(&mut piece[kept..]) {
                Ok(0) => return Ok(Some(length)),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let end = kept + read;
            // It may grow meanwhile.
            if settings::has_secret_text(&piece[..end]) || length > settings::LARGEST {
                break;
            }
            copy.write_all(&piece[kept..end])?;
            length += read as u64;
            let first = end.saturating_sub(settings::LONGEST_SECRET);
            piece.copy_within(first..end, 0);
            kept = end - first;
        }
        fs::remove_file(&path)?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_along_and_secrets_among_them_do_not() {
        let host = tempfile::tempdir().unwrap();
        let made = tempfile::tempdir().unwrap();
        let write = |path: &str, mode: u32, text: &str| {
            let path = host.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        };
        let shared = [
            "etc/php/8.2/cli/php.ini",
            "etc/maven/m2.conf",
            "etc/java-17-openjdk/security/java.security",
            "etc/ssl/certs/one.crt",
            "etc/services",
            "var/lib/texmf/web2c/pdftex/pdflatex.fmt",
            "var/lib/aspell/en.rws",
            "opt/more/settings",
        ];
        for path in shared {
            write(path, 0o644, "harmless");
        }
        // Read in two pieces.
        let across = "x".repeat((64 << 10) - 5) + "PRIVATE KEY-----";
        let secret = [
            ("etc/maven/settings.xml", 0o644, "<password>x</password>"),
            ("etc/php/8.2/cli/of-nobody-else.ini", 0o640, "x"),
            ("etc/php/8.2/auth.ini", 0o644, "<password>x</password>"),
            ("etc/ssl/private/server.pem", 0o644, "x"),
            ("etc/ssl/server.key", 0o644, "x"),
            ("etc/ssl/all.pem", 0o644, "-----BEGIN PRIVATE KEY-----"),
            ("etc/ssl/long.pem", 0o644, &across),
            ("etc/xdg/credentials", 0o644, "x"),
            ("etc/java-17-openjdk/jmxremote.password", 0o644, "x"),
            ("etc/shadow", 0o644, "x"),
            ("etc/passwd", 0o644, "x"),
            ("etc/machine-id", 0o644, "x"),
            ("etc/hostname", 0o644, "x"),
            ("etc/gitconfig", 0o644, "x"),
            ("etc/pip.conf", 0o644, "x"),
            ("etc/npmrc", 0o644, "x"),
            ("etc/environment", 0o644, "x"),
            ("etc/postgresql/15/main/pg_hba.conf", 0o644, "x"),
            ("etc/new-in-a-later-release", 0o644, "x"),
            ("var/lib/php/sessions/sess_1", 0o644, "x"),
            ("var/lib/postgresql/15/main/PG_VERSION", 0o644, "x"),
            ("var/lib/mysql/ibdata1", 0o644, "x"),
        ];
        for (path, mode, text) in secret {
            write(path, mode, text);
        }
        symlink("/usr/bin/vim.basic", host.path().join("etc/php/editor")).unwrap();
        let tree = Tree {
            top: made.path().to_owned(),
            guest_user: None,
        };
        let found = found::find(host.path(), &["/opt/more".into()]);
        tree.settings(host.path(), &found).unwrap();
        for path in shared {
            assert_eq!(
                fs::read(made.path().join(path)).unwrap(),
                b"harmless",
                "{path}"
            );
        }
        for (path, ..) in secret {
            assert!(!made.path().join(path).exists(), "{path}");
        }
        let link = fs::read_link(made.path().join("etc/php/editor")).unwrap();
        assert_eq!(link, Path::new("/usr/bin/vim.basic"));
    }

    /// Whatever the host is that this runs on.
    #[test]
    fn what_comes_along_from_this_host_is_nothing_that_only_some_may_read() {
        let made = tempfile::tempdir().unwrap();
        let tree = Tree {
            top: made.path().to_owned(),
            guest_user: None,
        };
        let root = Path::new("/");
        tree.settings(root, &found::find(root, &[])).unwrap();
        let mut pending = vec![made.path().to_owned()];
        let mut files = 0;
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(dir).unwrap().flatten() {
                let path = entry.path();
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    pending.push(path);
                    continue;
                }
                if !kind.is_file() {
                    continue;
                }
                files += 1;
                let on_host = Path::new("/").join(path.strip_prefix(made.path()).unwrap());
                let mode = fs::metadata(&on_host).unwrap().mode();
                assert!(mode & 0o004 != 0, "{}", on_host.display());
                for above in on_host.ancestors().skip(1) {
                    let mode = fs::metadata(above).unwrap().mode();
                    assert!(
                        mode & 0o001 != 0,
                        "{} of {}",
                        above.display(),
                        on_host.display()
                    );
                }
                let content = fs::read(&path).unwrap();
                for secret in [
                    "PRIVATE KEY",
                    "<password>",
                    "authToken",
                    "aws_secret_access_key",
                ] {
                    let found = content
                        .windows(secret.len())
                        .any(|at| at == secret.as_bytes());
                    assert!(!found, "{secret} in {}", on_host.display());
                }
            }
        }
        assert!(files > 10, "{files} files");
    }
}
