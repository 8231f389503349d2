//! Tools that make, list, copy and close sandboxes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::{tool, tool_router};
use sandbox_core::{ImportOptions, Network, Resources, SandboxSpec, Source};
use sandbox_sessions::{Filter, Key, SessionId, SessionOptions, Wait};
use tracing::Instrument as _;

use super::Tools;
use super::call::said;
use crate::arguments::{Create, Fork, Nothing, OfSandbox};
use crate::export;
use crate::results::{Done, SandboxOut, Sandboxes};
use crate::shared::Shared;

#[tool_router(router = sandboxes, vis = "pub(super)")]
impl Tools {
    #[tool(
        name = "sandbox_create",
        description = "Creates a sandbox, or gives back the one of that name. It has no network unless asked for and allowed.",
        annotations(
            title = "Create a sandbox",
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn sandbox_create(
        &self,
        Parameters(create): Parameters<Create>,
    ) -> Result<Json<SandboxOut>, String> {
        let options = &self.shared.options;
        let mut spec = SandboxSpec::new().command_timeout(options.command_timeout);
        if create.network {
            if !options.allow_network {
                return Err("the operator does not allow the network (--allow-network)".into());
            }
            spec = spec.network(Network::Open);
        }
        if let Some(image) = create.image {
            let image = Source::Image(image);
            if image.names_host_path() {
                return Err(
                    "an image in a file of the host can't be named: name one of a registry".into(),
                );
            }
            // A name that is pulled is also a message to a host of the caller's choice.
            if !options.allow_network {
                return Err("an image comes over the network, which the operator does not allow (--allow-network)".into());
            }
            spec = spec.source(image);
        }
        if let Some(workdir) = create.workdir {
            spec = spec.workdir(workdir);
        }
        let mut limits = Resources::new();
        if let Some(memory) = create.memory_mib {
            limits = limits.memory(memory.saturating_mul(1 << 20));
        }
        if let Some(pids) = create.pids {
            limits = limits.pids(pids);
        }
        spec = spec.resources(limits);
        for (name, value) in create.env {
            spec = spec.env(name, value);
        }
        let from = match create.import {
            Some(from) => Some(export::source(&options.import_roots, &from)?),
            None => None,
        };
        let name = create.name.unwrap_or_else(fresh);
        let made = made(Arc::clone(&self.shared), name, spec, from);
        let made = tokio::spawn(made.in_current_span());
        made.await.map_err(said)?.map(Json)
    }

    #[tool(
        name = "sandbox_list",
        description = "Lists the sandboxes of this server.",
        annotations(
            title = "List sandboxes",
            read_only_hint = true,
            open_world_hint = false
        )
    )]
    async fn sandbox_list(&self, _: Parameters<Nothing>) -> Result<Json<Sandboxes>, String> {
        let filter = Filter::new().tenant(self.shared.tenant.clone());
        let list = self.shared.sessions().await?.list(&filter);
        let sandboxes = list.iter().map(|info| self.shared.describe(info, None));
        Ok(Json(Sandboxes {
            sandboxes: sandboxes.collect(),
        }))
    }

    #[tool(
        name = "sandbox_close",
        description = "Closes a sandbox: kills what runs and throws its files away. Export first what should stay.",
        annotations(
            title = "Close a sandbox",
            read_only_hint = false,
            destructive_hint = true,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn sandbox_close(
        &self,
        Parameters(of): Parameters<OfSandbox>,
    ) -> Result<Json<Done>, String> {
        let shared = &self.shared;
        let key = Key::new(of.sandbox_id).map_err(said)?;
        let sessions = shared.sessions().await?;
        let done = sessions.info(&shared.tenant, &key).is_some();
        sessions.close(&shared.tenant, key).await.map_err(said)?;
        Ok(Json(Done { done }))
    }

    #[tool(
        name = "sandbox_fork",
        description = "Makes an independent copy of a sandbox with its files, to try something without changing the original.",
        annotations(
            title = "Fork a sandbox",
            read_only_hint = false,
            destructive_hint = false,
            open_world_hint = false
        )
    )]
    async fn sandbox_fork(
        &self,
        Parameters(fork): Parameters<Fork>,
    ) -> Result<Json<SandboxOut>, String> {
        let session = self.shared.session(&fork.sandbox_id).await?;
        let options = SessionOptions::new().wait(Wait::AtMost(Duration::from_secs(20)));
        let name = fork.name.unwrap_or_else(fresh);
        let child = session.fork(name, options).await.map_err(said)?;
        let workdir = Some(child.sandbox().info().workdir.to_string());
        Ok(Json(self.shared.describe(&child.info(), workdir)))
    }
}

/// Makes a session with what it begins with, or finds it. It goes on without its caller, and the next
/// of this name waits for it: neither is given a part for the whole.
async fn made(
    shared: Arc<Shared>,
    name: String,
    spec: SandboxSpec,
    from: Option<PathBuf>,
) -> Result<SandboxOut, String> {
    let _turn = shared.turns.at(&name, "").await;
    let wait = SessionOptions::new().wait(Wait::AtMost(Duration::from_secs(20)));
    let sessions = shared.sessions().await?;
    let session = sessions.get_or_create_with(&shared.tenant, name, spec, wait);
    let session = session.await.map_err(said)?;
    let sandbox = session.sandbox();
    // What is there already may have changes in it.
    if let Some(from) = from
        && session.is_new()
    {
        let options = ImportOptions::new().ignore_files(true);
        let imported = sandbox.import_dir(&from, &".".into(), options).await;
        if let Err(error) = imported {
            session.close().await.map_err(said)?;
            return Err(said(error));
        }
    }
    let workdir = Some(sandbox.info().workdir.to_string());
    Ok(shared.describe(&session.info(), workdir))
}

/// A name for a sandbox that was given none.
fn fresh() -> String {
    SessionId::fresh().to_string()
}

#[cfg(test)]
mod tests {
    use sandbox_core::{Operation, SandboxExt as _};
    use sandbox_sessions::{Sessions, SessionsConfig};
    use sandbox_testkit::model::{Fault, ModelProvider};

    use super::*;
    use crate::{Server, ServerOptions};

    #[tokio::test]
    async fn an_import_whose_caller_went_away_is_there_whole_for_the_next() {
        let host = tempfile::tempdir().unwrap();
        std::fs::write(host.path().join("f"), "whole").unwrap();
        let model = ModelProvider::builder()
            .fault_on(
                Operation::ImportDir,
                [Fault::Delay(Duration::from_millis(100))],
            )
            .build();
        let sessions = Sessions::open(Arc::new(model.clone()), SessionsConfig::new());
        let options = ServerOptions::new().import_root(host.path());
        let server = Server::new(sessions.await.unwrap(), options).unwrap();
        let tools = Tools::new(server.shared.clone());
        let create = || {
            tools.sandbox_create(Parameters(Create {
                name: Some("x".to_owned()),
                import: host.path().to_str().map(str::to_owned),
                ..Create::default()
            }))
        };
        let begun = async {
            let imports =
                |call: &sandbox_testkit::model::Call| call.operation == Operation::ImportDir;
            while !model.calls().iter().any(imports) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = create() => panic!("the import had not ended"),
            () = begun => {}
        }
        create().await.unwrap();
        let session = server.shared.session("x").await.unwrap();
        assert_eq!(session.sandbox().read("f").await.unwrap(), "whole");
    }
}
