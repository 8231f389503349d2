//! The start of a run: from a spec to an init that serves in its finished root.
//!
//! `blueprint` is the spec of a sandbox in the host's terms; `setup` compiles it into the plan that
//! the agent plays; `prepared` starts the init on a stack of layers. Must never run a program of
//! the guest's.

pub(crate) mod blueprint;
pub(crate) mod cgroup;
pub(crate) mod dev;
pub(crate) mod failure;
pub(crate) mod host;
pub(crate) mod idmap;
pub(crate) mod mounts;
pub(crate) mod prepared;
pub(crate) mod setup;
