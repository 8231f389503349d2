//! A case of the kit.
//!
//! Invariant: a case reports by returning; a panic is a defect of the case, which the runner
//! catches all the same.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use sandbox_core::Capability;

use crate::kit::{Context, Verdict};

/// A case that is running.
pub type CaseFuture = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// One promise of the contract, checked.
#[derive(Clone, Copy)]
pub struct Case {
    /// The name: `group::what_is_promised`.
    pub name: &'static str,
    /// The capabilities that the backend must declare for the promise to apply.
    pub needs: &'static [Capability],
    /// The capability whose absence this case checks: it runs only where that is not declared.
    pub lacks: Option<Capability>,
    /// Whether the sandbox's processes must be processes of this host.
    pub of_this_host: bool,
    /// Whether the fixture must be able to destroy a sandbox behind its handle.
    pub sabotages: bool,
    /// Runs it.
    pub run: fn(Context) -> CaseFuture,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("name", &self.name)
            .field("needs", &self.needs)
            .field("lacks", &self.lacks)
            .finish_non_exhaustive()
    }
}

/// The table of a module's cases: `cases! { "group": name, other [Exec, Fork], … }`.
/// With `of_this_host` before the list they run only where processes are the host's.
macro_rules! cases {
    ($group:literal: $($list:tt)+) => {
        pub(crate) const CASES: &[$crate::kit::Case] = $crate::kit::cases!(@ false, $group, $($list)+);
    };
    ($group:literal of_this_host: $($list:tt)+) => {
        pub(crate) const OF_THIS_HOST: &[$crate::kit::Case] =
            $crate::kit::cases!(@ true, $group, $($list)+);
    };
    (@ $host:literal, $group:literal, $($name:ident $([$($need:ident),+ $(,)?])?),+ $(,)?) => {
        &[$(
            $crate::kit::Case {
                name: concat!($group, "::", stringify!($name)),
                needs: &[$($(sandbox_core::Capability::$need),+)?],
                lacks: None,
                of_this_host: $host,
                sabotages: false,
                run: |cx| Box::pin($name(cx)),
            },
        )+]
    };
}
pub(crate) use cases;
