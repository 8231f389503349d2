//! The system calls that set-ups are made of, as typed steps of a plan.
//! Each takes a label first; none must guess a flag that the caller did not give.

use std::borrow::Cow;
use std::path::Path;

use super::plan::{Arg, Data, Dir, Plan, Slot, Step};

/// A label of a step.
type Label = Cow<'static, str>;

impl Plan {
    fn text(&mut self, text: Option<&str>) -> Arg {
        text.map_or(Arg::Null, |text| self.path(text).into())
    }

    /// mount(2).
    pub(crate) fn mount(
        &mut self,
        label: impl Into<Label>,
        source: Option<&Path>,
        target: impl AsRef<Path>,
        kind: Option<&str>,
        flags: u64,
        options: Option<&str>,
    ) -> Step<'_> {
        let source = source.map_or(Arg::Null, |source| self.path(source).into());
        let target = self.path(target).into();
        let kind = self.text(kind);
        let options = self.text(options);
        self.call(
            label,
            libc::SYS_mount,
            &[source, target, kind, flags.into(), options],
        )
    }

    /// umount2(2).
    pub(crate) fn umount(
        &mut self,
        label: impl Into<Label>,
        target: impl AsRef<Path>,
        flags: i32,
    ) -> Step<'_> {
        let target = self.path(target).into();
        self.call(label, libc::SYS_umount2, &[target, flags.into()])
    }

    /// pivot_root(2).
    pub(crate) fn pivot_root(
        &mut self,
        label: impl Into<Label>,
        new: impl AsRef<Path>,
        old: impl AsRef<Path>,
    ) -> Step<'_> {
        let new = self.path(new).into();
        let old = self.path(old).into();
        self.call(label, libc::SYS_pivot_root, &[new, old])
    }

    /// chdir(2).
    pub(crate) fn chdir(&mut self, label: impl Into<Label>, path: impl AsRef<Path>) -> Step<'_> {
        let path = self.path(path).into();
        self.call(label, libc::SYS_chdir, &[path])
    }

    /// fchdir(2).
    pub(crate) fn fchdir(&mut self, label: impl Into<Label>, dir: Slot) -> Step<'_> {
        self.call(label, libc::SYS_fchdir, &[dir.into()])
    }

    /// mkdirat(2).
    pub(crate) fn mkdir(
        &mut self,
        label: impl Into<Label>,
        dir: Dir,
        path: impl AsRef<Path>,
        mode: u32,
    ) -> Step<'_> {
        let path = self.path(path).into();
        self.call(label, libc::SYS_mkdirat, &[dir.into(), path, mode.into()])
    }

    /// mknodat(2).
    pub(crate) fn mknod(
        &mut self,
        label: impl Into<Label>,
        dir: Dir,
        path: impl AsRef<Path>,
        mode: u32,
        device: u64,
    ) -> Step<'_> {
        let path = self.path(path).into();
        self.call(
            label,
            libc::SYS_mknodat,
            &[dir.into(), path, mode.into(), device.into()],
        )
    }

    /// openat(2).
    pub(crate) fn open(
        &mut self,
        label: impl Into<Label>,
        dir: Dir,
        path: impl AsRef<Path>,
        flags: i32,
        mode: u32,
    ) -> Step<'_> {
        let path = self.path(path).into();
        self.call(
            label,
            libc::SYS_openat,
            &[dir.into(), path, flags.into(), mode.into()],
        )
    }

    /// close(2).
    pub(crate) fn close(&mut self, label: impl Into<Label>, fd: Slot) -> Step<'_> {
        self.call(label, libc::SYS_close, &[fd.into()])
    }

    /// symlinkat(2).
    pub(crate) fn symlink(
        &mut self,
        label: impl Into<Label>,
        target: impl AsRef<Path>,
        dir: Dir,
        path: impl AsRef<Path>,
    ) -> Step<'_> {
        let target = self.path(target).into();
        let path = self.path(path).into();
        self.call(label, libc::SYS_symlinkat, &[target, dir.into(), path])
    }

    /// open_tree(2).
    pub(crate) fn open_tree(
        &mut self,
        label: impl Into<Label>,
        dir: Dir,
        path: impl AsRef<Path>,
        flags: u32,
    ) -> Step<'_> {
        let path = self.path(path).into();
        self.call(
            label,
            libc::SYS_open_tree,
            &[dir.into(), path, flags.into()],
        )
    }

    /// move_mount(2).
    pub(crate) fn move_mount(
        &mut self,
        label: impl Into<Label>,
        from: (Dir, &Path),
        to: (Dir, &Path),
        flags: u32,
    ) -> Step<'_> {
        let from_path = self.path(from.1).into();
        let to_path = self.path(to.1).into();
        let args = [from.0.into(), from_path, to.0.into(), to_path, flags.into()];
        self.call(label, libc::SYS_move_mount, &args)
    }

    /// mount_setattr(2) with attributes to set and clear, and a propagation.
    pub(crate) fn mount_setattr(
        &mut self,
        label: impl Into<Label>,
        dir: Dir,
        path: impl AsRef<Path>,
        flags: i32,
        set: u64,
        clear: u64,
        propagation: u64,
    ) -> Step<'_> {
        let path = self.path(path).into();
        let words = [set, clear, propagation, 0];
        let attributes = self.words(&words).into();
        let args = [dir.into(), path, flags.into(), attributes, 32_u64.into()];
        self.call(label, libc::SYS_mount_setattr, &args)
    }

    /// fsopen(2).
    pub(crate) fn fsopen(&mut self, label: impl Into<Label>, kind: &str, flags: u32) -> Step<'_> {
        let kind = self.path(kind).into();
        self.call(label, libc::SYS_fsopen, &[kind, flags.into()])
    }

    /// fsconfig(2) with a string.
    pub(crate) fn fsconfig_string(
        &mut self,
        label: impl Into<Label>,
        fs: Slot,
        key: &str,
        value: impl AsRef<Path>,
    ) -> Step<'_> {
        const SET_STRING: u32 = 1;
        let key = self.path(key).into();
        let value = self.path(value).into();
        self.call(
            label,
            libc::SYS_fsconfig,
            &[fs.into(), SET_STRING.into(), key, value, 0.into()],
        )
    }

    /// fsconfig(2) with a flag.
    pub(crate) fn fsconfig_flag(
        &mut self,
        label: impl Into<Label>,
        fs: Slot,
        key: &str,
    ) -> Step<'_> {
        const SET_FLAG: u32 = 0;
        let key = self.path(key).into();
        self.call(
            label,
            libc::SYS_fsconfig,
            &[fs.into(), SET_FLAG.into(), key, Arg::Null, 0.into()],
        )
    }

    /// fsconfig(2) with a descriptor.
    pub(crate) fn fsconfig_fd(
        &mut self,
        label: impl Into<Label>,
        fs: Slot,
        key: &str,
        value: Slot,
    ) -> Step<'_> {
        const SET_FD: u32 = 5;
        let key = self.path(key).into();
        let args = [fs.into(), SET_FD.into(), key, Arg::Null, value.into()];
        self.call(label, libc::SYS_fsconfig, &args)
    }

    /// fsconfig(2): create the superblock.
    pub(crate) fn fsconfig_create(&mut self, label: impl Into<Label>, fs: Slot) -> Step<'_> {
        const CMD_CREATE: u32 = 6;
        let args = [fs.into(), CMD_CREATE.into(), Arg::Null, Arg::Null, 0.into()];
        self.call(label, libc::SYS_fsconfig, &args)
    }

    /// fsmount(2).
    pub(crate) fn fsmount(
        &mut self,
        label: impl Into<Label>,
        fs: Slot,
        flags: u32,
        attributes: u32,
    ) -> Step<'_> {
        self.call(
            label,
            libc::SYS_fsmount,
            &[fs.into(), flags.into(), attributes.into()],
        )
    }

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
        resource: u32,
        soft: u64,
        hard: u64,
    ) -> Step<'_> {
        let limit = self.words(&[soft, hard]).into();
        self.call(
            label,
            libc::SYS_prlimit64,
            &[0.into(), resource.into(), limit, Arg::Null],
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
    /// groups stay, and are nobody's in the sandbox.
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
        let set_flags = libc::SIOCSIFFLAGS as u64;
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
        self.store_slot32(rule.at(8), parent);
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

    fn words(&mut self, words: &[u64]) -> Data {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.data(&bytes)
    }
}
