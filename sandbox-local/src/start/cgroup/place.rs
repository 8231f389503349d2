//! Places of control groups, and making one for each of some controllers.
//!
//! cgroup v2 with delegation first; as root on a v1 or hybrid host, the v1 hierarchies.
//!
//! References: cgroups(7), Documentation/admin-guide/cgroup-v2.rst.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::layers::{Journal, Kind, Record, group};

const MOUNT: &str = "/sys/fs/cgroup";

/// A cgroup, and its entry in the journal until it is removed.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) path: PathBuf,
    pub(super) version: Version,
    record: Record,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// Cgroups without limits and without processes.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) dirs: Vec<Dir>,
    /// For each controller, which of them has it, or why none.
    pub(super) homes: Vec<Result<usize, String>>,
}

impl Dir {
    /// Makes a cgroup, after it was written down for the case that this process dies.
    fn make(path: PathBuf, version: Version, journal: &Journal) -> io::Result<Self> {
        let record = journal.record(Kind::Cgroup, &path)?;
        fs::create_dir(&path)?;
        Ok(Self {
            path,
            version,
            record,
        })
    }

    /// Removes it; hands it back while processes of it are still ending.
    pub(super) fn remove(self) -> Option<Self> {
        match group::remove(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Some(self),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(path = %self.path.display(), %error, "a cgroup is left");
                self.leave();
                None
            }
            _ => None,
        }
    }

    /// Leaves it to the collection, by its entry in the journal.
    pub(super) fn leave(self) {
        std::mem::forget(self.record);
    }
}

impl Fresh {
    /// Whether each controller has a home.
    pub(super) fn is_complete(&self) -> bool {
        self.homes.iter().all(Result::is_ok)
    }
}

/// Makes cgroups of this name for these controllers, as far as they can be had.
pub(super) fn make(
    name: &str,
    controllers: &[&str],
    configured: Option<&Path>,
    journal: &Journal,
) -> Fresh {
    let mut dirs = Vec::new();
    let v2 = v2_child(name, controllers, configured, journal);
    let v2 = v2.map(|(dir, listed)| {
        dirs.push(dir);
        listed
    });
    let mut homes = Vec::new();
    for controller in controllers {
        let by_v2 = match &v2 {
            Ok(listed)
                if listed
                    .split_ascii_whitespace()
                    .any(|one| one == *controller) =>
            {
                Ok(0)
            }
            Ok(_) => Err(format!("cgroup v2: no {controller} controller here")),
            Err(error) => Err(error.to_string()),
        };
        homes.push(match by_v2 {
            Err(v2) if configured.is_none() => match v1_child(name, controller, journal) {
                Ok(dir) => {
                    dirs.push(dir);
                    Ok(dirs.len() - 1)
                }
                Err(v1) => Err(format!("{v2}; cgroup v1: {v1}")),
            },
            by_v2 => by_v2,
        });
    }
    Fresh { dirs, homes }
}

/// A child of the v2 hierarchy and the list of its controllers, if it has any of those that are
/// wanted.
fn v2_child(
    name: &str,
    controllers: &[&str],
    configured: Option<&Path>,
    journal: &Journal,
) -> io::Result<(Dir, String)> {
    let parent = v2_parent(configured)?;
    for controller in controllers {
        // Fails where it is on already or may not be switched; the child shows which.
        let _ = fs::write(
            parent.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
    let dir = Dir::make(parent.join(name), Version::V2, journal)?;
    let listed = fs::read_to_string(dir.path.join("cgroup.controllers"));
    let wanted = |listed: &String| {
        let mut listed = listed.split_ascii_whitespace();
        listed.any(|one| controllers.contains(&one))
    };
    match listed {
        Ok(listed) if wanted(&listed) => Ok((dir, listed)),
        listed => {
            // New and empty, so never busy.
            if let Some(busy) = dir.remove() {
                busy.leave();
            }
            let path = parent.join("cgroup.subtree_control");
            let why = format!("cgroup v2: {} can't be switched on", path.display());
            Err(listed.err().unwrap_or_else(|| io::Error::other(why)))
        }
    }
}

fn v1_child(name: &str, controller: &str, journal: &Journal) -> io::Result<Dir> {
    let parent = v1_parent(controller)?;
    Dir::make(parent.join(name), Version::V1, journal)
}

/// Parent of v2 children: the configured directory, or this process's own cgroup.
fn v2_parent(configured: Option<&Path>) -> io::Result<PathBuf> {
    if let Some(parent) = configured {
        return Ok(parent.to_owned());
    }
    let own = own_cgroup(|id, controllers| id == "0" && controllers.is_empty())?;
    let mounts = [
        Path::new(MOUNT).to_owned(),
        Path::new(MOUNT).join("unified"),
    ];
    let mount = mounts
        .iter()
        .find(|mount| mount.join("cgroup.controllers").exists())
        .ok_or_else(|| io::Error::other("cgroup v2 is not mounted"))?;
    let parent = below(mount, &own);
    let controllers = fs::read_to_string(parent.join("cgroup.controllers"))?;
    if controllers.trim().is_empty() {
        return Err(io::Error::other("cgroup v2 has no controllers here"));
    }
    Ok(parent)
}

fn v1_parent(controller: &str) -> io::Result<PathBuf> {
    let own = own_cgroup(|_, controllers| controllers.split(',').any(|c| c == controller))?;
    let mount = Path::new(MOUNT).join(controller);
    if !mount.exists() {
        return Err(io::Error::other(format!(
            "the {controller} hierarchy is not mounted"
        )));
    }
    Ok(below(&mount, &own))
}

/// The path of this process in the hierarchy that the predicate picks from /proc/self/cgroup.
fn own_cgroup(pick: impl Fn(&str, &str) -> bool) -> io::Result<String> {
    let table = fs::read_to_string("/proc/self/cgroup")?;
    let mut lines = table.lines().map(|line| line.splitn(3, ':'));
    lines
        .find_map(|mut fields| {
            let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            pick(id, controllers).then(|| path.to_owned())
        })
        .ok_or_else(|| io::Error::other("this process is in no such hierarchy"))
}

fn below(mount: &Path, path: &str) -> PathBuf {
    let dir = mount.join(path.trim_start_matches('/'));
    // In a container the path may be the host's, which is not visible.
    if dir.exists() { dir } else { mount.to_owned() }
}
