//! The system calls that build a file tree, as typed steps of a plan.
//! Each takes a label first; none must guess a flag that the caller did not give.

use std::borrow::Cow;
use std::path::Path;

use super::plan::{Arg, Data, Dir, Plan, Slot, Step};

/// A label of a step.
pub(super) type Label = Cow<'static, str>;

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
    #[allow(clippy::too_many_arguments, reason = "those of the system call")]
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

    /// Adds 64-bit words.
    pub(super) fn words(&mut self, words: &[u64]) -> Data {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.data(&bytes)
    }
}
