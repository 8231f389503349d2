//! The Landlock rules of a sandbox: what of the host's files it may use.
//!
//! It must never name what holds credentials. What is not named can't be opened.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, Result as Sys};

use crate::mutation::{self, Part};
use crate::sys::landlock::{Handled, allow, ruleset};

/// The first version that keeps signals and abstract sockets within a sandbox: Linux 6.12.
pub(super) const NEEDED: u32 = 6;

// linux/landlock.h
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_BLOCK: u64 = 1 << 11;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// Every right of version 6.
const ALL: u64 = (1 << 16) - 1;
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
/// Binding and connecting TCP sockets.
const TCP: u64 = 3;
/// `LANDLOCK_SCOPE_*`: abstract sockets.
const ABSTRACT: u64 = 1;
/// `LANDLOCK_SCOPE_*`: signals.
const SIGNALS: u64 = 2;

/// Below `/etc` and `/var/lib`: what libraries and languages need to work at all.
const SETTINGS: &[&str] = &[
    "/etc/alternatives",
    "/etc/bash.bashrc",
    "/etc/ca-certificates",
    "/etc/debian_version",
    "/etc/dpkg",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/inputrc",
    "/etc/java",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/locale.alias",
    "/etc/locale.conf",
    "/etc/localtime",
    "/etc/lsb-release",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/perl",
    "/etc/php",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/profile",
    "/etc/protocols",
    "/etc/python3",
    "/etc/R",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/terminfo",
    "/etc/timezone",
];

/// For programs that have the host's network.
const NETWORK: &[&str] = &["/etc/hosts", "/etc/resolv.conf", "/run/systemd/resolve"];

/// Files in which the kernel describes the machine, and none of its processes.
const MACHINE: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/version",
    "/proc/sys/kernel/cap_last_cap",
    "/proc/sys/kernel/ngroups_max",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/pid_max",
    "/proc/sys/kernel/random",
    "/proc/sys/kernel/threads-max",
    "/proc/sys/net/core/somaxconn",
    "/proc/sys/vm/max_map_count",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/kernel/mm/transparent_hugepage",
];

const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full"];
const RANDOM: &[&str] = &["/dev/random", "/dev/urandom"];

/// Rules that keep signals within, and do nothing else.
pub(super) fn outer() -> Sys<OwnedFd> {
    ruleset(&Handled {
        files: 0,
        network: 0,
        // The one of signals can't be turned off: what kills in it would kill the host.
        scopes: SIGNALS | unless(Part::FenceScopes, ABSTRACT),
    })
}

/// These rights, unless they are turned off.
fn unless(part: Part, rights: u64) -> u64 {
    if mutation::is_off(part) { 0 } else { rights }
}

/// The rules of a command whose own files are below `root`.
pub(super) fn inner(root: &Path, system_dirs: &[PathBuf], open_network: bool) -> Sys<OwnedFd> {
    let rules = ruleset(&Handled {
        files: ALL,
        network: if open_network {
            0
        } else {
            unless(Part::FenceTcp, TCP)
        },
        scopes: unless(Part::FenceScopes, ABSTRACT | SIGNALS),
    })?;
    if mutation::is_off(Part::FenceFiles) {
        at(&rules, Path::new("/"), ALL)?;
    }
    at(&rules, root, ALL & !(MAKE_CHAR | MAKE_BLOCK))?;
    let read = READ_FILE | READ_DIR;
    for dir in system_dirs {
        known(&rules, dir, read | EXECUTE)?;
    }
    let network = if open_network { NETWORK } else { &[] };
    for path in SETTINGS.iter().chain(MACHINE).chain(RANDOM).chain(network) {
        known(&rules, Path::new(path), read)?;
    }
    for path in DEVICES {
        known(&rules, Path::new(path), READ_FILE | WRITE_FILE | TRUNCATE)?;
    }
    Ok(rules)
}

/// Allows something that a host may not have.
fn known(rules: &OwnedFd, path: &Path, access: u64) -> Sys<()> {
    match at(rules, path, access) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(()),
        done => done,
    }
}

fn at(rules: &OwnedFd, path: &Path, access: u64) -> Sys<()> {
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode);
    let access = match kind {
        FileType::Directory => access,
        _ => access & OF_FILES,
    };
    allow(rules, access, &place)
}
