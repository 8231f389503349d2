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
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

use program::{Check, Rule};

const EPERM: u16 = libc::EPERM as u16;
const ENOSYS: u16 = libc::ENOSYS as u16;
const EAFNOSUPPORT: u16 = libc::EAFNOSUPPORT as u16;

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
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    // Other namespaces, and files by handle, past every directory permission.
    libc::SYS_setns,
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
];

/// Terminal ioctls that push input into another's terminal.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;

/// The socket families that programs have a use for.
const FAMILIES: [u32; 4] = [
    libc::AF_UNIX as u32,
    libc::AF_INET as u32,
    libc::AF_INET6 as u32,
    libc::AF_NETLINK as u32,
];

/// The filter as the kernel takes it: an array of `struct sock_filter`.
pub(crate) fn filter() -> Vec<u8> {
    program::compile(arch::AUDIT_ARCH, arch::X32_BIT, rules())
}

fn rules() -> Vec<Rule> {
    let file_type = libc::S_IFMT;
    let devices = vec![libc::S_IFCHR, libc::S_IFBLK];
    let mut rules: Vec<Rule> = DENIED
        .iter()
        .chain(arch::DENIED)
        .map(|number| Rule { number: *number as u32, check: Check::Always(EPERM) })
        .collect();
    let mut rule = |number: i64, check| rules.push(Rule { number: number as u32, check });
    // glibc and musl fall back to clone, whose flags a filter can see.
    rule(libc::SYS_clone3, Check::Always(ENOSYS));
    for number in [libc::SYS_clone, libc::SYS_unshare] {
        rule(number, Check::AnyBit { arg: 0, bits: libc::CLONE_NEWUSER as u32, errno: EPERM });
    }
    rule(libc::SYS_socket, Check::NotIn { arg: 0, values: FAMILIES.to_vec(), errno: EAFNOSUPPORT });
    rule(
        libc::SYS_socketpair,
        Check::NotIn { arg: 0, values: FAMILIES.to_vec(), errno: EAFNOSUPPORT },
    );
    rule(
        libc::SYS_ioctl,
        Check::In { arg: 1, mask: u32::MAX, values: vec![TIOCSTI, TIOCLINUX], errno: EPERM },
    );
    // A FIFO or a socket may be made, a device not.
    rule(
        libc::SYS_mknodat,
        Check::In { arg: 2, mask: file_type, values: devices.clone(), errno: EPERM },
    );
    if let Some(mknod) = arch::MKNOD {
        rule(mknod, Check::In { arg: 1, mask: file_type, values: devices, errno: EPERM });
    }
    // Limits of other processes: init has the same uid as the guest.
    rule(libc::SYS_prlimit64, Check::NonZero { first: 0, second: 2, errno: EPERM });
    rules
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
        run(&filter(), arch::AUDIT_ARCH, number as u32, args)
    }

    #[test]
    fn what_the_list_names_is_refused_and_its_neighbours_are_not() {
        let denied: std::collections::BTreeSet<i64> =
            DENIED.iter().chain(arch::DENIED).copied().collect();
        let checked: Vec<u32> = rules().iter().map(|rule| rule.number).collect();
        for number in 0..500 {
            let expected = if denied.contains(&number) { errno(EPERM) } else { ALLOW };
            if denied.contains(&number) || !checked.contains(&(number as u32)) {
                assert_eq!(decide(number, [0; 6]), expected, "system call {number}");
            }
        }
    }

    #[test]
    fn arguments_decide_where_they_should() {
        let user = libc::CLONE_NEWUSER as u64;
        let cases: [(i64, [u64; 6], u32); 14] = [
            (libc::SYS_clone3, [0; 6], errno(ENOSYS)),
            (libc::SYS_clone, [0x11, 0, 0, 0, 0, 0], ALLOW),
            (libc::SYS_clone, [user | 0x11, 0, 0, 0, 0, 0], errno(EPERM)),
            (libc::SYS_unshare, [user | 0x2_0000, 0, 0, 0, 0, 0], errno(EPERM)),
            (libc::SYS_unshare, [0x400, 0, 0, 0, 0, 0], ALLOW),
            (libc::SYS_socket, [1, 1, 0, 0, 0, 0], ALLOW),
            (libc::SYS_socket, [40, 1, 0, 0, 0, 0], errno(EAFNOSUPPORT)),
            (libc::SYS_socket, [38, 1, 0, 0, 0, 0], errno(EAFNOSUPPORT)),
            // The kernel looks at the low half only: the high half must not get it past.
            (libc::SYS_ioctl, [0, 0x1_0000_5412, 0, 0, 0, 0], errno(EPERM)),
            (libc::SYS_ioctl, [0, 0x5401, 0, 0, 0, 0], ALLOW),
            (libc::SYS_mknodat, [0, 0, 0o010_644, 0, 0, 0], ALLOW),
            (libc::SYS_mknodat, [0, 0, 0o060_644, 0, 0, 0], errno(EPERM)),
            (libc::SYS_prlimit64, [0, 7, 1, 0, 0, 0], ALLOW),
            (libc::SYS_prlimit64, [1, 7, 0x1_0000_0000, 0, 0, 0], errno(EPERM)),
        ];
        for (number, args, expected) in cases {
            assert_eq!(decide(number, args), expected, "system call {number} {args:x?}");
        }
        assert_eq!(decide(libc::SYS_prlimit64, [1, 7, 0, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn another_architecture_is_killed_and_x32_does_not_exist() {
        const I386: u32 = 0x4000_0003;
        assert_eq!(run(&filter(), I386, 1, [0; 6]), KILL);
        if let Some(bit) = arch::X32_BIT {
            assert_eq!(run(&filter(), arch::AUDIT_ARCH, bit | 1, [0; 6]), errno(ENOSYS));
        }
    }

    #[test]
    fn a_common_call_is_decided_in_few_instructions() {
        let worst = (0..500)
            .map(|number| super::program::tests::steps(&filter(), arch::AUDIT_ARCH, number))
            .max();
        assert!(worst < Some(24), "{worst:?} instructions");
    }
}
