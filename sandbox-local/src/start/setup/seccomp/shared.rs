//! The filter of a sandbox that has no namespaces: it shares process numbers, users, the network and
//! the names of files with the host.
//!
//! Every rule of other sandboxes, and those that stand here for a namespace. It must never let a
//! program make a socket that has a name in a file: behind some of those are programs of the host
//! that do what they are told.

use super::program::{Check, Rule};
use super::{EAFNOSUPPORT, ENOSYS, EPERM, EPROTONOSUPPORT, PROTOCOLS, SYS_FCHMODAT2, arch, rules};

const EOPNOTSUPP: u16 = libc::EOPNOTSUPP as u16;

/// The calls that a filter can't decide on and a host does in the guest's place: they change what a
/// path leads to, for which Landlock has no right.
pub(crate) fn watched() -> Vec<i64> {
    let mut watched = vec![libc::SYS_fchmodat, SYS_FCHMODAT2, libc::SYS_utimensat];
    // creat(2) is among them, which Landlock decides on.
    let set_mode = arch::SET_MODE.iter().copied();
    watched.extend(set_mode.take(usize::from(!arch::SET_MODE.is_empty())));
    watched
}

/// Memory, queues and semaphores of other processes, and the processes themselves.
const REFUSED: &[(i64, u16)] = &[
    (libc::SYS_shmget, ENOSYS),
    (libc::SYS_shmat, ENOSYS),
    (libc::SYS_shmctl, ENOSYS),
    (libc::SYS_msgget, ENOSYS),
    (libc::SYS_msgsnd, ENOSYS),
    (libc::SYS_msgrcv, ENOSYS),
    (libc::SYS_msgctl, ENOSYS),
    (libc::SYS_semget, ENOSYS),
    (libc::SYS_semop, ENOSYS),
    (libc::SYS_semtimedop, ENOSYS),
    (libc::SYS_semctl, ENOSYS),
    (libc::SYS_mq_open, ENOSYS),
    (libc::SYS_mq_unlink, ENOSYS),
    // What the host's process would be asked to trace ends for it as if it had ended.
    (libc::SYS_ptrace, EPERM),
    (libc::SYS_process_vm_readv, EPERM),
    (libc::SYS_process_vm_writev, EPERM),
    (libc::SYS_pidfd_getfd, EPERM),
    (libc::SYS_process_madvise, EPERM),
    (libc::SYS_migrate_pages, EPERM),
    (libc::SYS_move_pages, EPERM),
    (libc::SYS_ioprio_set, EPERM),
    // Names of files that are written elsewhere.
    (libc::SYS_inotify_init1, ENOSYS),
    (libc::SYS_inotify_add_watch, ENOSYS),
    // By path, past Landlock.
    (libc::SYS_setxattr, EOPNOTSUPP),
    (libc::SYS_lsetxattr, EOPNOTSUPP),
    (libc::SYS_fsetxattr, EOPNOTSUPP),
    (libc::SYS_removexattr, EOPNOTSUPP),
    (libc::SYS_lremovexattr, EOPNOTSUPP),
    (libc::SYS_fremovexattr, EOPNOTSUPP),
    (SYS_SETXATTRAT, ENOSYS),
    (SYS_REMOVEXATTRAT, ENOSYS),
    (SYS_FILE_SETATTR, ENOSYS),
    // The host's mounts.
    (SYS_STATMOUNT, ENOSYS),
    (SYS_LISTMOUNT, ENOSYS),
];

// Calls that libc names for some targets or not yet; the numbers are the same everywhere.
const SYS_STATMOUNT: i64 = 457;
const SYS_LISTMOUNT: i64 = 458;
const SYS_SETXATTRAT: i64 = 463;
const SYS_REMOVEXATTRAT: i64 = 466;
const SYS_FILE_SETATTR: i64 = 469;

/// Calls that only one architecture has and that programs have had better ones for since long.
#[cfg(target_arch = "x86_64")]
const OLD: &[(i64, u16)] = &[
    (libc::SYS_utime, EPERM),
    (libc::SYS_utimes, EPERM),
    (libc::SYS_futimesat, EPERM),
    (libc::SYS_inotify_init, ENOSYS),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[(i64, u16)] = &[];

/// The filter, with a network or without any.
pub(crate) fn filter(open_network: bool) -> Vec<u8> {
    super::program::compile(arch::AUDIT_ARCH, arch::X32_BIT, all(open_network))
}

fn all(open_network: bool) -> Vec<Rule> {
    let own = own(open_network);
    let mut rules = rules(true, false);
    rules.retain(|rule| own.iter().all(|other| other.number != rule.number));
    rules.extend(own);
    rules
}

fn own(open_network: bool) -> Vec<Rule> {
    let rule = |number: i64, check| Rule {
        number: number as u32,
        check,
    };
    let mut rules: Vec<Rule> = REFUSED
        .iter()
        .chain(OLD)
        .map(|(number, errno)| rule(*number, Check::Always(*errno)))
        .collect();
    // Of itself alone: by a number it would be another's.
    let only_itself = |arg| Check::NotIn {
        arg,
        values: vec![0],
        errno: EPERM,
    };
    for number in [
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setattr,
    ] {
        rules.push(rule(number, only_itself(0)));
    }
    rules.push(rule(
        libc::SYS_setpriority,
        Check::NotBothIn {
            first: 0,
            values: vec![0],
            errno: EPERM,
        },
    ));
    let owner = |first| Check::NotBothIn {
        first,
        values: vec![u32::MAX],
        errno: EPERM,
    };
    for number in arch::CHOWN.iter().copied().chain([libc::SYS_fchown]) {
        rules.push(rule(number, owner(1)));
    }
    rules.push(rule(libc::SYS_fchownat, owner(2)));
    rules.push(rule(
        libc::SYS_socket,
        if open_network {
            let routes = vec![libc::NETLINK_ROUTE as u32];
            let internet = vec![libc::AF_INET as u32, libc::AF_INET6 as u32];
            Check::Protocols {
                families: vec![
                    (vec![libc::AF_NETLINK as u32], routes),
                    (internet, PROTOCOLS.to_vec()),
                ],
                others: Vec::new(),
                family_errno: EAFNOSUPPORT,
                protocol_errno: EPROTONOSUPPORT,
            }
        } else {
            Check::Always(EAFNOSUPPORT)
        },
    ));
    // One of a pair of datagram sockets can be connected to anything that has a name in a file.
    let connected = [libc::SOCK_STREAM as u32, libc::SOCK_SEQPACKET as u32];
    let others = (0..16).filter(|kind| !connected.contains(kind));
    rules.push(rule(
        libc::SYS_socketpair,
        Check::In {
            arg: 1,
            mask: 0xf,
            values: others.collect(),
            errno: EAFNOSUPPORT,
        },
    ));
    rules
}

/// The filter that watches: every call of [`watched`] is told to the host, if it should be, and
/// pairs of sockets are of the one family that has them.
pub(crate) fn watching(by_host: bool) -> Vec<u8> {
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const TELL: u32 = 0x7fc0_0000; // SECCOMP_RET_USER_NOTIF
    const REFUSE: u32 = 0x0005_0000 | EAFNOSUPPORT as u32;
    let number = |call: i64| call as u32;
    // (code, value, jump if true, jump if false)
    let mut program: Vec<(u16, u32, u8, u8)> = vec![(LOAD, 0, 0, 0)];
    // Pairs of sockets: the family is the first argument.
    program.extend([
        (JUMP_EQUAL, number(libc::SYS_socketpair), 0, 4),
        (LOAD, 16, 0, 0),
        (JUMP_EQUAL, libc::AF_UNIX as u32, 1, 0),
        (RETURN, REFUSE, 0, 0),
        (RETURN, ALLOW, 0, 0),
    ]);
    if by_host {
        for call in watched() {
            if call == libc::SYS_utimensat {
                // Without a path it is about an open file: the second argument, both halves.
                program.extend([
                    (JUMP_EQUAL, number(call), 0, 6),
                    (LOAD, 24, 0, 0),
                    (JUMP_EQUAL, 0, 0, 3),
                    (LOAD, 28, 0, 0),
                    (JUMP_EQUAL, 0, 0, 1),
                    (RETURN, ALLOW, 0, 0),
                    (RETURN, TELL, 0, 0),
                ]);
            } else {
                program.extend([(JUMP_EQUAL, number(call), 0, 1), (RETURN, TELL, 0, 0)]);
            }
        }
    }
    program.push((RETURN, ALLOW, 0, 0));
    let bytes = program.into_iter().flat_map(|(code, value, yes, no)| {
        let [c0, c1] = code.to_ne_bytes();
        let [v0, v1, v2, v3] = value.to_ne_bytes();
        [c0, c1, yes, no, v0, v1, v2, v3]
    });
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use super::super::program::tests::run;
    use super::*;

    const ALLOW: u32 = 0x7fff_0000;
    const TELL: u32 = 0x7fc0_0000;

    fn errno(number: u16) -> u32 {
        0x0005_0000 | u32::from(number)
    }

    fn decide(program: &[u8], number: i64, args: [u64; 6]) -> u32 {
        run(program, arch::AUDIT_ARCH, number as u32, args)
    }

    #[test]
    fn nothing_that_other_sandboxes_are_refused_is_allowed() {
        for open_network in [false, true] {
            let filter = super::filter(open_network);
            for number in super::super::DENIED.iter().chain(arch::DENIED) {
                let found = decide(&filter, *number, [0; 6]);
                assert_eq!(found, errno(EPERM), "system call {number}");
            }
            for (number, expected) in REFUSED.iter().chain(OLD) {
                let found = decide(&filter, *number, [0; 6]);
                assert_eq!(found, errno(*expected), "system call {number}");
            }
            let new_user = libc::CLONE_NEWUSER as u64;
            let found = decide(&filter, libc::SYS_unshare, [new_user, 0, 0, 0, 0, 0]);
            assert_eq!(found, errno(EPERM));
        }
    }

    #[test]
    fn sockets_are_made_as_far_as_the_network_is_open_and_never_with_names_in_files() {
        let (off, open) = (filter(false), filter(true));
        for (family, kind, closed, opened) in [
            (libc::AF_INET, libc::SOCK_STREAM, EAFNOSUPPORT, 0),
            (libc::AF_INET6, libc::SOCK_DGRAM, EAFNOSUPPORT, 0),
            (libc::AF_NETLINK, libc::SOCK_RAW, EAFNOSUPPORT, 0),
            (libc::AF_UNIX, libc::SOCK_STREAM, EAFNOSUPPORT, EAFNOSUPPORT),
            (libc::AF_UNIX, libc::SOCK_DGRAM, EAFNOSUPPORT, EAFNOSUPPORT),
            (
                libc::AF_VSOCK,
                libc::SOCK_STREAM,
                EAFNOSUPPORT,
                EAFNOSUPPORT,
            ),
        ] {
            let args = [family as u64, kind as u64, 0, 0, 0, 0];
            let expected = |errno_or_none| match errno_or_none {
                0 => ALLOW,
                number => errno(number),
            };
            assert_eq!(decide(&off, libc::SYS_socket, args), expected(closed));
            assert_eq!(decide(&open, libc::SYS_socket, args), expected(opened));
        }
        let watching = super::watching(false);
        let flags = libc::SOCK_CLOEXEC as u64;
        for (family, kind, allowed) in [
            (libc::AF_UNIX, libc::SOCK_STREAM, true),
            (libc::AF_UNIX, libc::SOCK_SEQPACKET, true),
            (libc::AF_UNIX, libc::SOCK_DGRAM, false),
            // The kernel makes a datagram socket of it.
            (libc::AF_UNIX, libc::SOCK_RAW, false),
            (libc::AF_TIPC, libc::SOCK_STREAM, false),
            (libc::AF_TIPC, libc::SOCK_SEQPACKET, false),
        ] {
            let args = [family as u64, kind as u64 | flags, 0, 0, 0, 0];
            let both = [&off, &watching].map(|one| decide(one, libc::SYS_socketpair, args));
            assert_eq!(both == [ALLOW; 2], allowed, "{family} {kind}");
        }
    }

    #[test]
    fn others_are_left_alone_and_it_itself_is_not() {
        let filter = super::filter(false);
        for number in [
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_setscheduler,
            libc::SYS_sched_setparam,
            libc::SYS_sched_setattr,
        ] {
            assert_eq!(decide(&filter, number, [0; 6]), ALLOW, "{number}");
            let other = decide(&filter, number, [7, 0, 0, 0, 0, 0]);
            assert_eq!(other, errno(EPERM), "{number}");
        }
        let priority = |args: [u64; 2]| {
            let args = [args[0], args[1], 5, 0, 0, 0];
            decide(&filter, libc::SYS_setpriority, args)
        };
        assert_eq!(priority([0, 0]), ALLOW);
        assert_eq!(priority([0, 7]), errno(EPERM));
        // Of a user: every process of it.
        assert_eq!(priority([2, 0]), errno(EPERM));
        assert_eq!(
            decide(&filter, libc::SYS_fchown, [3, 0, 0, 0, 0, 0]),
            errno(EPERM)
        );
    }

    #[test]
    fn the_host_is_told_of_paths_and_not_of_open_files() {
        let watching = super::watching(true);
        for number in watched() {
            // A path, in either half of its address.
            for path in [0x1000_u64, 1 << 40] {
                let found = decide(&watching, number, [path, path, path, 0, 0, 0]);
                assert_eq!(found, TELL, "{number}");
            }
        }
        let open_file = [3, 0, 0x1000, 0, 0, 0];
        assert_eq!(decide(&watching, libc::SYS_utimensat, open_file), ALLOW);
        for number in [libc::SYS_read, libc::SYS_fchmod, libc::SYS_openat] {
            assert_eq!(decide(&watching, number, [0x1000; 6]), ALLOW, "{number}");
        }
        let by_another_user = super::watching(false);
        let path = [0x1000; 6];
        assert_eq!(decide(&by_another_user, libc::SYS_fchmodat, path), ALLOW);
    }
}
