//! The seccomp filter of every sandbox: which system calls are refused, and how.
//!
//! A deny list, because toolchains of every kind have to run; what it refuses is what only an
//! attacker needs, or what reaches kernel code that namespaces don't cover. It is the last fence:
//! namespaces, the missing capabilities and the mount table hold without it.
//!
//! Why not a crate: the filter needs an x32 check, several errno values and a binary search in one
//! program, which `seccompiler` (one action per filter, linear) does not give.
//!
//! Must never allow a way to a new user namespace: it is what every other fence stands on.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod program;
pub(crate) mod shared;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

use program::{Check, Rule};

use crate::layers::base::GUEST_ID;

/// Success, without anything done.
const DONE: u16 = 0;
const EPERM: u16 = libc::EPERM as u16;
const ENOSYS: u16 = libc::ENOSYS as u16;
const EINVAL: u16 = libc::EINVAL as u16;
const EAFNOSUPPORT: u16 = libc::EAFNOSUPPORT as u16;
const EPROTONOSUPPORT: u16 = libc::EPROTONOSUPPORT as u16;

/// Refused whatever the arguments.
const DENIED: &[i64] = &[
    // The mount table.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    SYS_OPEN_TREE_ATTR,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    // Other namespaces, and files by handle, past every directory permission.
    libc::SYS_setns,
    SYS_LISTNS,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // The kernel itself.
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    // Keyrings are not namespaced by all kernels.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Widens races in the kernel; io_uring also does what other filters refuse.
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_kcmp,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
    // Memory out of the kernel's own sight: it splits the kernel's mappings and forbids hibernation.
    SYS_MEMFD_SECRET,
];

/// Answered with success for a guest that is root: in a namespace with one user there is nothing that
/// they could change, and programs that install others end where they fail.
const ANSWERED: &[i64] = &[
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
];

/// Terminal ioctls that push input into another's terminal.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;
/// Sets a line discipline: loads modules of the kernel that only modems have a use for.
const TIOCSETD: u32 = 0x5423;

/// The protocols of IPv4 and IPv6 that programs have a use for: any, ICMP, TCP, UDP, ICMPv6. Others
/// (SCTP, DCCP, L2TP, MPTCP, UDP-Lite) load modules of the kernel, for any user.
const PROTOCOLS: [u32; 5] = [0, 1, 6, 17, 58];

/// The socket families that programs have a use for.
const FAMILIES: [u32; 4] = [
    libc::AF_UNIX as u32,
    libc::AF_INET as u32,
    libc::AF_INET6 as u32,
    libc::AF_NETLINK as u32,
];

// Calls that libc names for some targets or not yet; the numbers are the same everywhere.
const SYS_OPEN_TREE_ATTR: i64 = 467;
const SYS_LISTNS: i64 = 470;
const SYS_FCHMODAT2: i64 = 452;
const SYS_MEMFD_SECRET: i64 = 447;

/// Huge pages: reserved for what the whole machine runs, and charged to no limit on memory.
const MAP_HUGETLB: u32 = libc::MAP_HUGETLB as u32;
const MFD_HUGETLB: u32 = libc::MFD_HUGETLB;
const SHM_HUGETLB: u32 = 0o4000;

/// Set-user-ID and set-group-ID.
const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;

/// Flags that make open(2) look at its mode: `O_CREAT`, and `O_TMPFILE` without `O_DIRECTORY`.
const CREATES: u32 = (libc::O_CREAT | libc::O_TMPFILE & !libc::O_DIRECTORY) as u32;

/// The filter as the kernel takes it: an array of `struct sock_filter`.
///
/// A guest that can leave files on the host could leave a program there that runs as their owner,
/// when any user starts it: then no file gets a set-user-ID or set-group-ID bit, wherever it is.
///
/// A guest that is root is told that it changed owners, users and capabilities, and made devices.
pub(crate) fn filter(writes_to_host: bool, root: bool) -> Vec<u8> {
    program::compile(arch::AUDIT_ARCH, arch::X32_BIT, rules(writes_to_host, root))
}

fn rules(writes_to_host: bool, root: bool) -> Vec<Rule> {
    let mut rules: Vec<Rule> = DENIED
        .iter()
        .chain(arch::DENIED)
        .map(|number| Rule {
            number: *number as u32,
            check: Check::Always(EPERM),
        })
        .collect();
    let mut rule = |number: i64, check| {
        rules.push(Rule {
            number: number as u32,
            check,
        })
    };
    // glibc and musl fall back to clone, whose flags a filter can see.
    rule(libc::SYS_clone3, Check::Always(ENOSYS));
    for number in [libc::SYS_clone, libc::SYS_unshare] {
        rule(
            number,
            Check::AnyBit {
                arg: 0,
                bits: libc::CLONE_NEWUSER as u32,
                errno: EPERM,
            },
        );
    }
    rule(
        libc::SYS_socket,
        Check::Protocols {
            families: vec![
                // What lists interfaces and addresses. The others are charged to nothing, and some
                // carry news of the whole machine (uevents reach every network namespace that
                // belongs to the initial user namespace).
                (
                    vec![libc::AF_NETLINK as u32],
                    vec![libc::NETLINK_ROUTE as u32],
                ),
                (
                    vec![libc::AF_INET as u32, libc::AF_INET6 as u32],
                    PROTOCOLS.to_vec(),
                ),
            ],
            others: vec![libc::AF_UNIX as u32],
            family_errno: EAFNOSUPPORT,
            protocol_errno: EPROTONOSUPPORT,
        },
    );
    // One call takes what the whole machine has of it (fs.aio-max-nr).
    rule(libc::SYS_io_setup, Check::Always(ENOSYS));
    // A lease holds up every program that opens the file, on the host too.
    rule(
        libc::SYS_fcntl,
        Check::In {
            arg: 1,
            mask: u32::MAX,
            values: vec![libc::F_SETLEASE as u32],
            errno: EPERM,
        },
    );
    // Leaves a device behind. As filesystems without it answer.
    rule(
        libc::SYS_renameat2,
        Check::AnyBit {
            arg: 4,
            bits: libc::RENAME_WHITEOUT,
            errno: EINVAL,
        },
    );
    // To numbers that the sandbox does not have the kernel says EINVAL, which fakeroot and others
    // that can do without don't expect.
    let (own, answer) = if root { (0, DONE) } else { (GUEST_ID, EPERM) };
    let owner = |first| Check::NotBothIn {
        first,
        values: vec![own, u32::MAX],
        errno: answer,
    };
    if root {
        for number in ANSWERED {
            rule(*number, Check::Always(DONE));
        }
    }
    for number in arch::CHOWN.iter().copied().chain([libc::SYS_fchown]) {
        rule(number, owner(1));
    }
    rule(libc::SYS_fchownat, owner(2));
    rule(
        libc::SYS_socketpair,
        Check::NotIn {
            arg: 0,
            values: FAMILIES.to_vec(),
            errno: EAFNOSUPPORT,
        },
    );
    rule(
        libc::SYS_ioctl,
        Check::In {
            arg: 1,
            mask: u32::MAX,
            values: vec![TIOCSTI, TIOCLINUX, TIOCSETD],
            errno: EPERM,
        },
    );
    // As a kernel without them answers; what asks for them falls back to ordinary pages.
    let huge = |arg, bits, errno| Check::AnyBit { arg, bits, errno };
    rule(libc::SYS_mmap, huge(3, MAP_HUGETLB, EINVAL));
    rule(libc::SYS_memfd_create, huge(1, MFD_HUGETLB, EINVAL));
    rule(libc::SYS_shmget, huge(2, SHM_HUGETLB, EPERM));
    // A FIFO or a socket may be made, a device not.
    let make = |arg| {
        let devices = vec![libc::S_IFCHR, libc::S_IFBLK];
        let bits = if writes_to_host { SET_ID } else { 0 };
        Check::AnyBitOrIn {
            arg,
            bits,
            mask: libc::S_IFMT,
            values: devices,
            errno: if writes_to_host { EPERM } else { answer },
        }
    };
    rule(libc::SYS_mknodat, make(2));
    if let Some(mknod) = arch::MKNOD {
        rule(mknod, make(1));
    }
    // Limits of other processes: init has the same uid as the guest.
    rule(
        libc::SYS_prlimit64,
        Check::NonZero {
            first: 0,
            second: 2,
            errno: EPERM,
        },
    );
    if writes_to_host {
        no_set_id(&mut rules);
    }
    rules
}

/// Every call that gives a mode to something that is not a directory. mkdir(2) is not among them:
/// the kernel takes these bits out of its mode.
fn no_set_id(rules: &mut Vec<Rule>) {
    let mut rule = |number: i64, check| {
        rules.push(Rule {
            number: number as u32,
            check,
        })
    };
    let mode = |arg| Check::AnyBit {
        arg,
        bits: SET_ID,
        errno: EPERM,
    };
    for number in arch::SET_MODE.iter().copied().chain([libc::SYS_fchmod]) {
        rule(number, mode(1));
    }
    for number in [libc::SYS_fchmodat, SYS_FCHMODAT2] {
        rule(number, mode(2));
    }
    let open = |first| Check::AnyBitOfBoth {
        first,
        first_bits: CREATES,
        second: first + 1,
        second_bits: SET_ID,
        errno: EPERM,
    };
    rule(libc::SYS_openat, open(2));
    if let Some(number) = arch::OPEN {
        rule(number, open(1));
    }
    // Its mode is behind a pointer, where a filter can't see it; programs fall back to openat.
    rule(libc::SYS_openat2, Check::Always(ENOSYS));
}

#[cfg(test)]
mod tests {
    use super::program::tests::run;
    use super::*;

    const ALLOW: u32 = 0x7fff_0000;
    const KILL: u32 = 0x8000_0000;

    fn errno(number: u16) -> u32 {
        0x0005_0000 | u32::from(number)
    }

    fn decide(number: i64, args: [u64; 6]) -> u32 {
        run(&filter(false, false), arch::AUDIT_ARCH, number as u32, args)
    }

    #[test]
    fn what_the_list_names_is_refused_and_its_neighbours_are_not() {
        let denied: std::collections::BTreeSet<i64> =
            DENIED.iter().chain(arch::DENIED).copied().collect();
        let checked: Vec<u32> = rules(false, false).iter().map(|rule| rule.number).collect();
        for number in 0..500 {
            let expected = if denied.contains(&number) {
                errno(EPERM)
            } else {
                ALLOW
            };
            if denied.contains(&number) || !checked.contains(&(number as u32)) {
                assert_eq!(decide(number, [0; 6]), expected, "system call {number}");
            }
        }
    }

    #[test]
    fn arguments_decide_where_they_should() {
        let user = libc::CLONE_NEWUSER as u64;
        let none = u64::from(u32::MAX);
        let cases: [(i64, [u64; 6], u32); 38] = [
            (libc::SYS_socket, [16, 3, 0, 0, 0, 0], ALLOW),
            (
                libc::SYS_socket,
                [16, 3, 15, 0, 0, 0],
                errno(EPROTONOSUPPORT),
            ),
            (
                libc::SYS_socket,
                [0x1_0000_0010, 3, 0x1_0000_000f, 0, 0, 0],
                errno(EPROTONOSUPPORT),
            ),
            (libc::SYS_socket, [16, 3, 0x1_0000_0000, 0, 0, 0], ALLOW),
            (libc::SYS_socket, [2, 1, 6, 0, 0, 0], ALLOW),
            (libc::SYS_socket, [10, 2, 58, 0, 0, 0], ALLOW),
            (
                libc::SYS_socket,
                [2, 1, 132, 0, 0, 0],
                errno(EPROTONOSUPPORT),
            ),
            (
                libc::SYS_socket,
                [0x1_0000_000a, 1, 0x1_0000_0106, 0, 0, 0],
                errno(EPROTONOSUPPORT),
            ),
            (libc::SYS_socket, [1, 1, 132, 0, 0, 0], ALLOW),
            (libc::SYS_ioctl, [0, 0x5423, 0, 0, 0, 0], errno(EPERM)),
            (libc::SYS_mmap, [0, 0, 0, 0x4_0022, 0, 0], errno(EINVAL)),
            (libc::SYS_mmap, [0, 0, 0, 0x22, 0, 0], ALLOW),
            (libc::SYS_memfd_create, [0, 5, 0, 0, 0, 0], errno(EINVAL)),
            (libc::SYS_shmget, [0, 0, 0o4600, 0, 0, 0], errno(EPERM)),
            (libc::SYS_fcntl, [3, 1024, 0, 0, 0, 0], errno(EPERM)),
            (
                libc::SYS_fcntl,
                [3, 0x1_0000_0400, 0, 0, 0, 0],
                errno(EPERM),
            ),
            (libc::SYS_fcntl, [3, 1025, 0, 0, 0, 0], ALLOW),
            (libc::SYS_renameat2, [0, 0, 0, 0, 4, 0], errno(EINVAL)),
            (libc::SYS_renameat2, [0, 0, 0, 0, 3, 0], ALLOW),
            (libc::SYS_fchown, [3, 1000, none, 0, 0, 0], ALLOW),
            (libc::SYS_fchown, [3, none, 1000, 0, 0, 0], ALLOW),
            (libc::SYS_fchown, [3, 1000, 0, 0, 0, 0], errno(EPERM)),
            (libc::SYS_fchownat, [3, 1, 7, 1000, 0, 0], errno(EPERM)),
            (libc::SYS_fchownat, [3, 1, 1000, u64::MAX, 0, 0], ALLOW),
            (libc::SYS_clone3, [0; 6], errno(ENOSYS)),
            (libc::SYS_clone, [0x11, 0, 0, 0, 0, 0], ALLOW),
            (libc::SYS_clone, [user | 0x11, 0, 0, 0, 0, 0], errno(EPERM)),
            (
                libc::SYS_unshare,
                [user | 0x2_0000, 0, 0, 0, 0, 0],
                errno(EPERM),
            ),
            (libc::SYS_unshare, [0x400, 0, 0, 0, 0, 0], ALLOW),
            (libc::SYS_socket, [1, 1, 0, 0, 0, 0], ALLOW),
            (libc::SYS_socket, [40, 1, 0, 0, 0, 0], errno(EAFNOSUPPORT)),
            (libc::SYS_socket, [38, 1, 0, 0, 0, 0], errno(EAFNOSUPPORT)),
            // The kernel looks at the low half only: the high half must not get it past.
            (
                libc::SYS_ioctl,
                [0, 0x1_0000_5412, 0, 0, 0, 0],
                errno(EPERM),
            ),
            (libc::SYS_ioctl, [0, 0x5401, 0, 0, 0, 0], ALLOW),
            (libc::SYS_mknodat, [0, 0, 0o010_644, 0, 0, 0], ALLOW),
            (libc::SYS_mknodat, [0, 0, 0o060_644, 0, 0, 0], errno(EPERM)),
            (libc::SYS_prlimit64, [0, 7, 1, 0, 0, 0], ALLOW),
            (
                libc::SYS_prlimit64,
                [1, 7, 0x1_0000_0000, 0, 0, 0],
                errno(EPERM),
            ),
        ];
        for (number, args, expected) in cases {
            assert_eq!(
                decide(number, args),
                expected,
                "system call {number} {args:x?}"
            );
        }
        assert_eq!(decide(libc::SYS_prlimit64, [1, 7, 0, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn set_id_bits_are_refused_only_where_the_host_would_see_them() {
        const CREATE: u64 = libc::O_CREAT as u64;
        const TEMPORARY: u64 = libc::O_TMPFILE as u64;
        let mut cases: Vec<(i64, [u64; 6], u16)> = Vec::new();
        let mut case = |number, args: [u64; 4], expected| {
            cases.push((number, [args[0], args[1], args[2], args[3], 0, 0], expected));
        };
        for bits in [0o4755, 0o2755, 0o6000, 0x1_0000_0000 | 0o4000] {
            let regular = bits | u64::from(libc::S_IFREG);
            case(libc::SYS_fchmod, [5, bits, 0, 0], EPERM);
            case(libc::SYS_fchmodat, [5, 1, bits, 0], EPERM);
            case(SYS_FCHMODAT2, [5, 1, bits, 0], EPERM);
            case(libc::SYS_openat, [5, 1, CREATE, bits], EPERM);
            case(libc::SYS_openat, [5, 1, TEMPORARY, bits], EPERM);
            case(libc::SYS_mknodat, [5, 1, bits, 0], EPERM);
            case(libc::SYS_mknodat, [5, 1, regular, 0], EPERM);
            if let (Some(mknod), Some(open)) = (arch::MKNOD, arch::OPEN) {
                case(mknod, [1, regular, 0, 0], EPERM);
                case(open, [1, CREATE, bits, 0], EPERM);
                case(open, [1, TEMPORARY, bits, 0], EPERM);
            }
            for number in arch::SET_MODE {
                case(*number, [1, bits, 0, 0], EPERM);
            }
        }
        case(libc::SYS_openat2, [5, 1, 1, 24], ENOSYS);
        // What is no mode is not looked at; the sticky bit is harmless.
        case(
            libc::SYS_openat,
            [5, 1, libc::O_DIRECTORY as u64, 0o4755],
            0,
        );
        case(libc::SYS_openat, [5, 1, CREATE, 0o1777], 0);
        case(libc::SYS_fchmod, [5, 0o1777, 0, 0], 0);
        case(libc::SYS_fchmodat, [5, 1, 0o755, 0o6000], 0);
        case(libc::SYS_mknodat, [5, 1, 0o010_644, 0], 0);
        for (number, args, expected) in cases {
            let expected = if expected == 0 {
                ALLOW
            } else {
                errno(expected)
            };
            let found = run(&filter(true, false), arch::AUDIT_ARCH, number as u32, args);
            assert_eq!(found, expected, "system call {number} {args:x?}");
            // Such a sandbox may set what it likes on files that only it sees.
            assert_eq!(
                decide(number, args),
                ALLOW,
                "system call {number} {args:x?}"
            );
        }
    }

    #[test]
    fn root_is_told_what_it_changed_and_nothing_else_is_let_through() {
        let none = u64::from(u32::MAX);
        let device = u64::from(libc::S_IFCHR) | 0o600;
        for (number, args, default, root) in [
            (libc::SYS_fchown, [3, 0, none, 0, 0, 0], errno(EPERM), ALLOW),
            (
                libc::SYS_fchown,
                [3, 1000, 0, 0, 0, 0],
                errno(EPERM),
                errno(DONE),
            ),
            (
                libc::SYS_fchownat,
                [3, 1, 1, 1, 0, 0],
                errno(EPERM),
                errno(DONE),
            ),
            (libc::SYS_setuid, [1, 0, 0, 0, 0, 0], ALLOW, errno(DONE)),
            (libc::SYS_setgroups, [0; 6], ALLOW, errno(DONE)),
            (libc::SYS_capset, [1, 1, 0, 0, 0, 0], ALLOW, errno(DONE)),
            (
                libc::SYS_mknodat,
                [3, 1, device, 0x103, 0, 0],
                errno(EPERM),
                errno(DONE),
            ),
        ] {
            assert_eq!(decide(number, args), default, "{number} {args:x?}");
            let found = run(&filter(false, true), arch::AUDIT_ARCH, number as u32, args);
            assert_eq!(found, root, "{number} {args:x?}");
        }
        for number in DENIED.iter().chain(arch::DENIED) {
            let found = run(
                &filter(false, true),
                arch::AUDIT_ARCH,
                *number as u32,
                [0; 6],
            );
            assert_eq!(found, errno(EPERM), "system call {number}");
        }
        // What could be left for another user of the host is refused, not answered.
        let set = u64::from(libc::S_IFREG | libc::S_ISUID);
        let found = run(
            &filter(true, true),
            arch::AUDIT_ARCH,
            libc::SYS_mknodat as u32,
            [3, 1, set, 0, 0, 0],
        );
        assert_eq!(found, errno(EPERM));
    }

    /// The table and the program are two ways to the same decision: compared for every number, and
    /// for every argument at and beside each value that a rule looks for, in both halves.
    #[test]
    fn the_program_decides_as_the_table_does() {
        for (writes_to_host, root) in [(false, false), (true, false), (false, true), (true, true)] {
            let program = filter(writes_to_host, root);
            let table: std::collections::BTreeMap<u32, Rule> = rules(writes_to_host, root)
                .into_iter()
                .map(|rule| (rule.number, rule))
                .collect();
            let decide = |number, args| {
                let check = table.get(&number).map(|rule| &rule.check);
                let refused = check.and_then(|check| check.refuses(args));
                let expected = refused.map_or(ALLOW, errno);
                let found = run(&program, arch::AUDIT_ARCH, number, args);
                assert_eq!(found, expected, "system call {number} {args:x?}");
            };
            for number in (0..2048).chain([u32::MAX >> 2, u32::MAX >> 1]) {
                if arch::X32_BIT.is_some_and(|bit| number & bit != 0) {
                    continue;
                }
                for fill in [0, 1, 0x8000_0000, u64::from(u32::MAX), u64::MAX, 1 << 32] {
                    decide(number, [fill; 6]);
                }
            }
            for (number, rule) in &table {
                let mut values = vec![0, u64::MAX];
                for value in rule.check.constants() {
                    let value = u64::from(value);
                    let beside = [value.wrapping_sub(1), value, value + 1, !value];
                    values.extend(beside);
                    values.extend(beside.map(|value| value | 1 << 32 | 1 << 63));
                }
                for first in &values {
                    for second in &values {
                        for at in 0..5 {
                            let mut args = [0; 6];
                            args[at] = *first;
                            args[at + 1] = *second;
                            decide(*number, args);
                            if at == 0 {
                                decide(*number, [*first, 1, *second, *second, *second, *second]);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn another_architecture_is_killed_and_x32_does_not_exist() {
        const I386: u32 = 0x4000_0003;
        assert_eq!(run(&filter(true, false), I386, 1, [0; 6]), KILL);
        if let Some(bit) = arch::X32_BIT {
            assert_eq!(
                run(&filter(true, false), arch::AUDIT_ARCH, bit | 1, [0; 6]),
                errno(ENOSYS)
            );
        }
    }

    #[test]
    fn a_common_call_is_decided_in_few_instructions() {
        let worst = (0..500)
            .map(|number| {
                super::program::tests::steps(&filter(true, false), arch::AUDIT_ARCH, number)
            })
            .max();
        assert!(worst < Some(24), "{worst:?} instructions");
    }
}
