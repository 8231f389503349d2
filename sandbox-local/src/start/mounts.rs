//! The mounts of a spec, checked: where they go and whether they can.
//!
//! Must refuse what would be hidden by another mount, or could not be put in place: no option is
//! accepted and ignored.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use sandbox_core::{Access, Error, ErrorKind, GuestPath, Mount, Operation, Result};

const OP: Operation = Operation::Create;

/// Paths that belong to the sandbox itself, with all below them.
const RESERVED: [&str; 2] = ["/proc", "/dev"];

/// A mount of the spec, resolved.
#[derive(Clone, Debug)]
pub(crate) struct Bind {
    pub(crate) host: PathBuf,
    pub(crate) guest: GuestPath,
    pub(crate) read_only: bool,
    /// Whether what belongs to the owner of its top is the guest's: so for a mount of the spec, not
    /// for the host's programs.
    pub(crate) is_guests: bool,
}

/// Resolves and checks mounts that are to be added to those that are there, and to the root's own
/// links.
pub(crate) fn resolve(mounts: &[Mount], there: &[Bind], links: &[GuestPath]) -> Result<Vec<Bind>> {
    let mut binds: Vec<Bind> = Vec::with_capacity(mounts.len());
    for mount in mounts {
        let guest = mount.guest.resolve(&GuestPath::root(), OP)?;
        let refused = |why: String| {
            Error::new(ErrorKind::InvalidInput, OP)
                .with_message(why)
                .with_path(&guest)
        };
        let within = |dir: &GuestPath| guest.strip_prefix(dir).is_some();
        let reserved = RESERVED.iter().any(|own| within(&GuestPath::from(*own)));
        if guest == GuestPath::root() || reserved {
            return Err(refused(
                "this place is the sandbox's own and can't be mounted on".into(),
            ));
        }
        if let Some(link) = links.iter().find(|link| within(link)) {
            let why = format!("{link} is a link here, which a mount below it would replace");
            return Err(refused(why).with_hint("mount it below what the link leads to"));
        }
        if binds.iter().any(|bind| bind.guest == guest) {
            return Err(refused("two mounts have the same place".into()));
        }
        binds.push(Bind {
            host: mount.host.clone(),
            guest,
            read_only: mount.access == Access::ReadOnly,
            is_guests: true,
        });
    }
    for bind in &binds {
        let is_dir = is_dir(&bind.host)?;
        let others = there
            .iter()
            .chain(&binds)
            .filter(|other| other.guest != bind.guest);
        let around = others
            .filter_map(|other| Some((other, bind.guest.strip_prefix(&other.guest)?)))
            .min_by_key(|(_, below)| below.as_bytes().len());
        if let Some((other, below)) = around {
            check_place(bind, other, &path(&below), is_dir)?;
        }
    }
    Ok(binds)
}

/// Places to mount on, each with whether it is a directory.
pub(crate) fn points(binds: &[Bind]) -> Result<Vec<(PathBuf, bool)>> {
    binds
        .iter()
        .map(|bind| Ok((path(&bind.guest), is_dir(&bind.host)?)))
        .collect()
}

fn path(guest: &GuestPath) -> PathBuf {
    PathBuf::from(OsString::from_vec(guest.as_bytes().to_vec()))
}

fn is_dir(host: &Path) -> Result<bool> {
    let found = fs::metadata(host).map_err(|error| {
        Error::from_io(error, OP)
            .with_message("a mount's host path can't be used")
            .with_host_path(host)
    })?;
    Ok(found.is_dir())
}

/// Within another mount no place can be made: it must be there, as no link and through none.
fn check_place(bind: &Bind, other: &Bind, below: &Path, is_dir: bool) -> Result<()> {
    let refused = |why: &str| {
        let message = format!(
            "{why} in {}, which is mounted around it",
            other.host.display()
        );
        Error::new(ErrorKind::InvalidInput, OP)
            .with_message(message)
            .with_path(&bind.guest)
            .with_hint("mount it somewhere else, such as below /mnt or /opt")
    };
    let straight = fs::canonicalize(&other.host).map(|host| host.join(below));
    let found =
        straight.and_then(|straight| Ok((fs::canonicalize(&straight)? == straight, straight)));
    let Ok((is_straight, place)) = found else {
        return Err(refused("there is no place to mount on"));
    };
    if !is_straight {
        return Err(refused(
            "the place to mount on is a link, or leads through one,",
        ));
    }
    if fs::metadata(&place).is_ok_and(|found| found.is_dir() != is_dir) {
        return Err(refused(
            "a directory can't be mounted on a file, nor a file on a directory,",
        ));
    }
    Ok(())
}
