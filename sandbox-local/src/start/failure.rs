//! Why a sandbox could not be started, in words, with what to do about it.

use std::fs;
use std::path::PathBuf;

use rustix::io::Errno;
use sandbox_core::{Error, ErrorKind, Operation, Result};

use crate::engine::StartError;
use crate::start::cgroup::NoCgroup;
use crate::start::idmap::IdmapError;

/// A host path that can't be given to the guest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The mount's host path can't be opened.
    #[error("take hold of {}: {errno}", host.display())]
    Hold {
        /// Which.
        host: PathBuf,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The guest can't be made its owner.
    #[error("mount {} for writing: {source}", host.display())]
    Owner {
        /// Which.
        host: PathBuf,
        /// Cause of the failure.
        source: IdmapError,
    },
}

/// The error of a start that failed.
pub(crate) fn start(error: StartError, operation: Operation) -> Error {
    let errno = error.errno();
    let message = format!("the sandbox could not be set up: {error}");
    let kind = match (&error, errno) {
        (_, Some(Errno::NOSPC | Errno::DQUOT)) => ErrorKind::StorageFull,
        (_, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN)) => {
            ErrorKind::LimitExceeded
        }
        (StartError::TimedOut(_), _) => ErrorKind::Unavailable,
        (StartError::Step { .. } | StartError::Op { .. } | StartError::Serving { .. }, _) => {
            ErrorKind::Isolation
        }
        _ => ErrorKind::Other,
    };
    let told = Error::new(kind, operation)
        .with_message(message)
        .with_retryable(false);
    let told = match remedy(&error, errno) {
        Some(remedy) => told.with_hint(remedy),
        None => told,
    };
    told.with_source(error)
}

/// Whether a start under a limit on memory failed for lack of it; `killed` if the kernel has ended
/// a process for that.
pub(crate) fn is_memory(error: &StartError, killed: bool) -> bool {
    // The kernel's words for an argument that it has no page for.
    matches!(error.errno(), Some(Errno::NOMEM | Errno::TOOBIG))
        || matches!(error, StartError::Died(_)) && killed
}

/// The error of a sandbox that its own limit on memory leaves no room for.
pub(crate) fn memory(
    bytes: u64,
    error: impl std::error::Error + Send + Sync + 'static,
    operation: Operation,
) -> Error {
    Error::new(ErrorKind::LimitExceeded, operation)
        .with_message(format!(
            "the sandbox's limit on memory of {bytes} bytes has no room for its own processes: \
             {error}"
        ))
        .with_hint("give it more (`Resources::memory`): every sandbox needs some mebibytes")
        .with_source(error)
}

/// The error of a mount that the guest can't be given.
pub(crate) fn setup(error: SetupError, operation: Operation) -> Error {
    let host = match &error {
        SetupError::Hold { host, .. } | SetupError::Owner { host, .. } => host.clone(),
    };
    let told = match &error {
        SetupError::Hold { errno, .. } => {
            let forbidden = *errno == Errno::PERM;
            let told = Error::from_io((*errno).into(), operation)
                .with_message("a mount's host path can't be used");
            if forbidden {
                told.with_hint(MAY_NOT_MOUNT)
            } else {
                told
            }
        }
        SetupError::Owner {
            source: IdmapError::Namespace(why),
            ..
        } => {
            let spent = why.errno().and_then(|errno| Some((errno, used_up(errno)?)));
            let told = match spent {
                Some((errno, hint)) => Error::from_io(errno.into(), operation).with_hint(hint),
                None => Error::new(ErrorKind::Isolation, operation),
            };
            told.with_message(error.to_string())
        }
        SetupError::Owner { .. } => Error::new(ErrorKind::Unsupported, operation)
            .with_message(error.to_string())
            .with_hint(NO_OWNER_MAP),
    };
    told.with_host_path(host).with_source(error)
}

const MAY_NOT_MOUNT: &str = "root without CAP_SYS_ADMIN can mount host paths only for reading; grant \
    it, mount read-only, or run as the ordinary user who owns the path";

const NO_OWNER_MAP: &str = "as root, mounting for writing needs a filesystem whose owners can be \
    mapped (ext4, xfs, btrfs; tmpfs since Linux 6.3; not overlayfs, NFS or proc): use a directory \
    on one, mount read-only, or run as the ordinary user who owns the path";

/// The error of a call that the host makes for a sandbox, with what to do if something has run out.
pub(crate) fn io(error: std::io::Error, operation: Operation) -> Error {
    let hint = Errno::from_io_error(&error).and_then(used_up);
    exhausted(Error::from_io(error, operation), hint)
}

/// Adds what to do if something has run out.
pub(crate) fn exhausted(error: Error, hint: Option<&'static str>) -> Error {
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Advice if something has run out, in place of a search for what the host forbids.
pub(crate) fn used_up(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::MFILE => {
            "this process has used up its open files: close sandboxes, or raise the limit \
             (`ulimit -n`, or LimitNOFILE= of its service)"
        }
        Errno::NFILE => "the machine has used up its open files: raise sysctl fs.file-max",
        Errno::NOMEM => {
            "memory ran out, of the machine or of a limit: raise the limit on memory, or close \
             sandboxes"
        }
        Errno::AGAIN | Errno::USERS => {
            "this user has used up its processes: close sandboxes, or raise the limit \
             (`ulimit -u`, or TasksMax= of its service)"
        }
        Errno::NOSPC | Errno::DQUOT => {
            "what the kernel counts for each user or for the machine has run out: disk space, \
             namespaces (sysctl user.max_user_namespaces and its like), mounts (sysctl \
             fs.mount-max) or watches (sysctl fs.epoll.max_user_watches)"
        }
        _ => return None,
    })
}

/// Advice for what usually is in the way, as far as the host shows it.
fn remedy(error: &StartError, errno: Option<Errno>) -> Option<String> {
    let label = match error {
        StartError::Op { label, .. } => label.as_ref(),
        StartError::Step { step, .. } => step,
        _ => "",
    };
    if let Some(hint) = errno.and_then(used_up) {
        return Some(hint.into());
    }
    if label.contains("take hold of") || label.contains("place for") {
        return Some("check that the path of the mount exists and leads through no link".into());
    }
    let in_state = label.contains("state directory") || label.contains("the layers");
    if in_state && errno == Some(Errno::ACCESS) {
        return Some(
            "root's sandboxes run as an unprivileged user, who must get through every directory \
             above the state directory: `chmod o+x` them, or choose another with \
             SANDBOX_STATE_DIR"
                .into(),
        );
    }
    if label.contains("root overlay") && errno == Some(Errno::INVAL) {
        return Some(
            "the state directory must be on ext4, xfs, btrfs or tmpfs; choose one with \
             SANDBOX_STATE_DIR (in a container: a volume)"
                .into(),
        );
    }
    let sysctl = |path: &str| {
        fs::read_to_string(path)
            .ok()
            .map(|text| text.trim().to_owned())
    };
    if sysctl("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        return Some("user namespaces are off: sysctl user.max_user_namespaces=15000".into());
    }
    if sysctl("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return Some(
            "user namespaces are off for ordinary users: \
             sysctl kernel.unprivileged_userns_clone=1"
                .into(),
        );
    }
    let restricted = sysctl("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    if restricted.as_deref() == Some("1") {
        return Some(
            "AppArmor restricts user namespaces (the default of Ubuntu since 23.10): \
             sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give this program a \
             profile with the rule `userns,`"
                .into(),
        );
    }
    if !matches!(errno, Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS)) {
        return None;
    }
    if fs::exists("/.dockerenv").unwrap_or(false)
        || fs::exists("/run/.containerenv").unwrap_or(false)
    {
        return Some(
            "in a container: start it with --security-opt seccomp=unconfined \
             --security-opt apparmor=unconfined --security-opt systempaths=unconfined (they are \
             the container's fences, not the sandbox's)"
                .into(),
        );
    }
    Some("the host forbids this; Linux 5.12 or later with user namespaces is needed".into())
}

/// The error of a limit that can't be had.
pub(crate) fn no_cgroup(missing: NoCgroup, operation: Operation) -> Error {
    Error::new(ErrorKind::Isolation, operation)
        .with_message(format!(
            "the limit on {} can't be enforced",
            missing.control
        ))
        .with_hint(missing.reason.clone())
        .with_source(missing)
}

/// A bounded upper layer needs a tmpfs that keeps attributes.
pub(crate) fn check_tmpfs_upper(operation: Operation) -> Result<()> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    let version = (numbers.next(), numbers.next());
    match version {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < (6, 6) => {
            Err(Error::new(ErrorKind::Isolation, operation)
                .with_message("the limit on disk can't be enforced")
                .with_hint(format!("it needs Linux 6.6 or later; this is {release}")))
        }
        _ => Ok(()),
    }
}
