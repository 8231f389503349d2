//! The system calls that confine what is to run, as typed steps of a plan:
//! names, limits, credentials, Landlock, seccomp. Each takes a label first; none
//! must guess a flag that the caller did not give.

use rustix::process::Resource;

use super::plan::{Arg, Plan, Slot, Step};
use super::plan_calls::Label;

impl Plan {
    /// sethostname(2).
    pub(crate) fn sethostname(&mut self, label: impl Into<Label>, name: &str) -> Step<'_> {
        let len = name.len() as u64;
        let name = self.path(name).into();
        self.call(label, libc::SYS_sethostname, &[name, len.into()])
    }

    /// prlimit64(2) of the agent itself, soft and hard.
    pub(crate) fn set_limit(
        &mut self,
        label: impl Into<Label>,
        resource: Resource,
        soft: u64,
        hard: u64,
    ) -> Step<'_> {
        let limit = self.words(&[soft, hard]).into();
        self.call(
            label,
            libc::SYS_prlimit64,
            &[0.into(), (resource as u32).into(), limit, Arg::Null],
        )
    }

    /// prctl(2).
    pub(crate) fn prctl(
        &mut self,
        label: impl Into<Label>,
        option: i32,
        args: [u64; 4],
    ) -> Step<'_> {
        let [a, b, c, d] = args;
        let args = [option.into(), a.into(), b.into(), c.into(), d.into()];
        self.call(label, libc::SYS_prctl, &args)
    }

    /// capset(2) of the agent itself.
    pub(crate) fn capset(
        &mut self,
        label: impl Into<Label>,
        effective: u64,
        permitted: u64,
        inheritable: u64,
    ) -> Step<'_> {
        const VERSION_3: u32 = 0x2008_0522;
        let header = self.words(&[VERSION_3.into()]).into();
        let sets = [effective, permitted, inheritable];
        let mut bytes = Vec::with_capacity(24);
        for half in [0, 32] {
            for set in sets {
                bytes.extend_from_slice(&((set >> half) as u32).to_ne_bytes());
            }
        }
        let sets = self.data(&bytes).into();
        self.call(label, libc::SYS_capset, &[header, sets])
    }

    /// setresuid(2), all three.
    pub(crate) fn setuid(&mut self, label: impl Into<Label>, uid: u32) -> Step<'_> {
        self.call(
            label,
            libc::SYS_setresuid,
            &[uid.into(), uid.into(), uid.into()],
        )
    }

    /// setresgid(2), all three.
    pub(crate) fn setgid(&mut self, label: impl Into<Label>, gid: u32) -> Step<'_> {
        self.call(
            label,
            libc::SYS_setresgid,
            &[gid.into(), gid.into(), gid.into()],
        )
    }

    /// setgroups(2) to none. A user without rights on the host cannot: its
    /// groups stay, and have no name in the sandbox.
    pub(crate) fn clear_groups(&mut self, label: impl Into<Label>) -> Step<'_> {
        self.call(label, libc::SYS_setgroups, &[0.into(), Arg::Null])
    }

    /// Brings the loopback interface of the sandbox's own network up.
    pub(crate) fn loopback_up(&mut self, label: impl Into<Label>) {
        let label = label.into();
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        let args = [libc::AF_INET.into(), kind.into(), 0.into()];
        let socket = self.call(label.clone(), libc::SYS_socket, &args).result();
        // struct ifreq: the name, then the flags.
        let mut request = [0_u8; 40];
        request[..2].copy_from_slice(b"lo");
        let flags = (libc::IFF_UP | libc::IFF_RUNNING) as u16;
        request[16..18].copy_from_slice(&flags.to_ne_bytes());
        let request = self.data(&request).into();
        let set_flags = u64::from(libc::SIOCSIFFLAGS as u32);
        self.call(
            label.clone(),
            libc::SYS_ioctl,
            &[socket.into(), set_flags.into(), request],
        );
        self.close(label, socket);
    }

    /// landlock_create_ruleset(2); `attributes` as the kernel's structure.
    pub(crate) fn landlock_ruleset(
        &mut self,
        label: impl Into<Label>,
        attributes: &[u64],
    ) -> Step<'_> {
        let size = 8 * attributes.len() as u64;
        let attributes = self.words(attributes).into();
        self.call(
            label,
            libc::SYS_landlock_create_ruleset,
            &[attributes, size.into(), 0.into()],
        )
    }

    /// landlock_add_rule(2) for what is beneath `parent`.
    pub(crate) fn landlock_allow(
        &mut self,
        label: impl Into<Label>,
        ruleset: Slot,
        access: u64,
        parent: Slot,
    ) -> Step<'_> {
        const PATH_BENEATH: u32 = 1;
        // A packed structure: access, then the descriptor.
        let rule = self.words(&[access, 0]);
        self.store_descriptor(rule.at(8), parent);
        let args = [ruleset.into(), PATH_BENEATH.into(), rule.into(), 0.into()];
        self.call(label, libc::SYS_landlock_add_rule, &args)
    }

    /// landlock_restrict_self(2).
    pub(crate) fn landlock_restrict(
        &mut self,
        label: impl Into<Label>,
        ruleset: Slot,
        flags: u32,
    ) -> Step<'_> {
        self.call(
            label,
            libc::SYS_landlock_restrict_self,
            &[ruleset.into(), flags.into()],
        )
    }

    /// seccomp(2): install a filter, given as encoded `sock_filter`s (eight bytes
    /// each).
    pub(crate) fn seccomp_filter(
        &mut self,
        label: impl Into<Label>,
        program: &[u8],
        flags: u32,
    ) -> Step<'_> {
        const SET_MODE_FILTER: u32 = 1;
        let code = self.data(program);
        // struct sock_fprog: length, padding, pointer.
        let head = self.words(&[u64::from((program.len() / 8) as u16).to_le(), 0]);
        self.store_address(head.at(8), code);
        self.call(
            label,
            libc::SYS_seccomp,
            &[SET_MODE_FILTER.into(), flags.into(), head.into()],
        )
    }
}
