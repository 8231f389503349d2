//! Images that were not published to the double: this machine's own programs.
//!
//! Invariant: what is handed out is a fork; the base itself never changes.

use std::sync::Arc;

use sandbox_core::{Network, Provider as _, Sandbox, SandboxExt as _, SandboxSpec};

use super::engine::{Engine, Failure};

/// Every image is this machine's own programs; one whose name says that it is missing, or its
/// registry, is missing.
pub(super) async fn base(engine: &Arc<Engine>, image: &str) -> Result<Arc<dyn Sandbox>, Failure> {
    let why = match image {
        image if image.contains("no-such") => Some(format!("{image}: not found")),
        image if image.contains("no-network") => Some(
            "failed to do request: Head \"https://no-network/v2/\": dial tcp: lookup no-network: \
             server misbehaving"
                .to_owned(),
        ),
        _ => None,
    };
    if let Some(why) = why {
        return Err(Failure::text(format_args!(
            "failed to resolve image {image:?} (platform: \"linux/amd64\"): {why}"
        )));
    }
    let base = match engine.states.base() {
        Some(base) => base,
        None => {
            let spec = SandboxSpec::new().network(Network::Open);
            let base = engine.provider.create(spec).await?;
            // A local sandbox is made with its workdir, an image is not.
            base.remove_all("/workspace").await?;
            engine.states.set_base(base.clone());
            base
        }
    };
    Ok(base.fork_one().await?)
}
