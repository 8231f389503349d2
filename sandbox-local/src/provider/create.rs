//! Creates a sandbox: one of the pool, or a new one, whose required isolation was probed.

use std::sync::Arc;

use sandbox_core::backend::{Settings, blocking};
use sandbox_core::{Env, Operation, Result, SandboxId, SandboxSpec};

use super::LocalProvider;
use super::pool::Pooled;
use crate::egress;
use crate::isolation;
use crate::lasting;
use crate::lasting::kept::Kept;
use crate::layers::base::{GUEST_HOME, GUEST_USER, ROOT_HOME, ROOT_USER};
use crate::runtime;
use crate::sandbox::capability::CAPABILITIES;
use crate::sandbox::running::Running;
use crate::sandbox::{LocalSandbox, Origin};
use crate::start::blueprint::Blueprint;
use crate::start::host::{Host, new_id};
use crate::start::prepared::Prepared;
use crate::walk::Cancel;

const OP: Operation = Operation::Create;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl LocalProvider {
    pub(super) async fn create_local(&self, spec: SandboxSpec) -> Result<Arc<LocalSandbox>> {
        runtime::require(OP)?;
        let FirstRun {
            host,
            id,
            blueprint,
            running,
        } = self.first_run(spec).await?;
        if let Err(error) = isolation::require(&running, &blueprint, &self.proven).await {
            running.shut_down().await;
            return Err(error);
        }
        let settings = settings(&blueprint);
        let (running, kept) = match blueprint.spec.lasting {
            true => kept(&host, &id, &blueprint, &settings, running).await?,
            false => (running, None),
        };
        if kept.is_some() {
            self.remember(&id, &host);
        }
        let origin = Origin {
            host,
            open: self.open.clone(),
            labels: blueprint.spec.labels.clone(),
            settings,
            blueprint,
            parent: None,
            kept,
            restarted: false,
        };
        Ok(LocalSandbox::open(origin, id, running))
    }

    /// The first run: one that waits, or a new one.
    async fn first_run(&self, mut spec: SandboxSpec) -> Result<FirstRun> {
        spec.validate()?;
        spec.require(&CAPABILITIES, OP)?;
        spec.network = spec.network.settle(&CAPABILITIES);
        if spec.lasting {
            lasting::check(&spec)?;
        } else if let Some(Pooled { id, blueprint, run }) = self.pool.take(&spec) {
            let running = Running::new(run, &self.host, blueprint.new_egress(), OP)?;
            let blueprint = Arc::new(Blueprint { spec, ..blueprint });
            let host = self.host.clone();
            return Ok(FirstRun {
                host,
                id,
                blueprint,
                running,
            });
        }
        let host = self.host.clone();
        // An image that is being unpacked is given up with the future.
        let cancel = Cancel::default();
        let _stop = cancel.on_drop();
        // In one piece: each change of threads would cost as much as many of its system calls.
        blocking(OP, move || {
            let id = new_id(OP)?;
            let host = match spec.lasting {
                true => Arc::new(lasting::new_host(&host.config, &id)?),
                false => host,
            };
            let blueprint = Arc::new(Blueprint::new(&host, spec, &cancel)?);
            let run = Prepared::first(&host, &blueprint)
                .map_err(|error| error.with_sandbox(id.clone()))?;
            let running = Running::new(run, &host, blueprint.new_egress(), OP)?;
            Ok(FirstRun {
                host,
                id,
                blueprint,
                running,
            })
        })
        .await
    }
}

/// A sandbox that is started and not handed out yet.
struct FirstRun {
    host: Arc<Host>,
    id: SandboxId,
    blueprint: Arc<Blueprint>,
    running: Running,
}

/// Writes down a lasting sandbox. If the future is dropped it does not last.
async fn kept(
    host: &Arc<Host>,
    id: &SandboxId,
    blueprint: &Arc<Blueprint>,
    settings: &Settings,
    mut running: Running,
) -> Result<(Running, Option<Arc<Kept>>)> {
    let (host, id, blueprint) = (host.clone(), id.clone(), blueprint.clone());
    let settings = settings.clone();
    let written = blocking(OP, move || {
        let unclaimed = running.keep_first(&host, &id, &blueprint, &settings)?;
        Ok((running, unclaimed))
    });
    let (running, unclaimed) = written.await?;
    Ok((running, unclaimed.claim()))
}

fn settings(blueprint: &Blueprint) -> Settings {
    let (user, home) = match blueprint.is_root() {
        true => (ROOT_USER, ROOT_HOME),
        false => (GUEST_USER, GUEST_HOME),
    };
    let base = Env::new()
        .set("PATH", PATH)
        .set("HOME", home)
        .set("USER", user)
        .set("LOGNAME", user)
        .set("SHELL", "/bin/sh")
        .set("LANG", "C.UTF-8");
    let mut settings = Settings::new(blueprint.workdir.clone(), &base);
    if let Some(image) = &blueprint.image {
        let own = match image.is_of_host {
            true => Env::new(),
            false => Env::new()
                .set("HOME", image.home.as_str())
                .set("USER", image.user.as_str())
                .set("LOGNAME", image.user.as_str()),
        };
        let variables = image.config.variables();
        let own = variables.fold(own, |env, (name, value)| env.set(name, value));
        own.apply_to(&mut settings.env);
    }
    egress::environment(blueprint.egress.as_ref()).apply_to(&mut settings.env);
    blueprint.spec.env.apply_to(&mut settings.env);
    settings
}
