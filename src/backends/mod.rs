//! The backends of this crate, each behind its scheme and its feature.
//!
//! It must never name a backend that another build of this crate would not know.

#[cfg(feature = "aca")]
mod aca;
#[cfg(feature = "dagger")]
pub(crate) mod dagger;
#[cfg(feature = "local")]
mod local;
#[cfg(feature = "remote")]
mod remote;

use std::sync::Arc;

use crate::connector::Connector;

/// A scheme of this crate, the feature that brings it, and the connector if this build has it.
type Backend = (&'static str, &'static str, Option<Arc<dyn Connector>>);

macro_rules! connector {
    ($feature:literal, $connector:expr) => {{
        #[cfg(feature = $feature)]
        let connector: Option<Arc<dyn Connector>> = Some(Arc::new($connector));
        #[cfg(not(feature = $feature))]
        let connector: Option<Arc<dyn Connector>> = None;
        connector
    }};
}

/// Every scheme of this crate, also of backends that this build does not have.
pub(crate) fn all() -> [Backend; 7] {
    [
        ("local", "local", connector!("local", local::Local)),
        (
            "local-landlock",
            "local",
            connector!("local", local::Landlock),
        ),
        ("local-plain", "local", connector!("local", local::Plain)),
        ("dagger", "dagger", connector!("dagger", dagger::Dagger)),
        ("aca-sandboxes", "aca", connector!("aca", aca::Sandboxes)),
        ("aca-sessions", "aca", connector!("aca", aca::Sessions)),
        ("remote", "remote", connector!("remote", remote::Remote)),
    ]
}
