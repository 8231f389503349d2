//! Finds sandboxes again: the open ones of this process, and lasting ones, which are started again.

use std::sync::{Arc, PoisonError, Weak};

use sandbox_core::backend::blocking;
use sandbox_core::{Labels, Operation, Result, SandboxId, SandboxInfo};

use super::LocalProvider;
use crate::isolation;
use crate::lasting;
use crate::layers::stack::Stack;
use crate::runtime;
use crate::sandbox::running::Running;
use crate::sandbox::{LocalSandbox, Origin};
use crate::start::blueprint::Blueprint;
use crate::start::host::Host;
use crate::start::prepared::limits;
use crate::walk::Cancel;

const OP: Operation = Operation::Attach;

impl LocalProvider {
    pub(super) async fn attach_local(&self, id: &SandboxId) -> Result<Arc<LocalSandbox>> {
        if let Some(open) = self.open.get(id) {
            return Ok(open);
        }
        runtime::require(OP)?;
        // From beginning to end: a second one would find it stopped as well.
        let turn = self.turns.on(id);
        let _turn = turn.lock().await;
        if let Some(open) = self.open.get(id) {
            return Ok(open);
        }
        let Some(dir) = lasting::find(self.host.state.root(), id) else {
            return self.find(id, OP);
        };
        let named = |error: sandbox_core::Error| {
            let error = error.with_operation(OP);
            error.with_sandbox(id.clone())
        };
        // A fork of it may be open still, which holds its directory.
        let host = self.lasting_host(id);
        let (config, name) = (self.host.config.clone(), id.clone());
        let cancel = Cancel::default();
        let _stop = cancel.on_drop();
        let ready = blocking(OP, move || {
            let host = match host {
                Some(host) => host,
                None => Arc::new(lasting::take_up(&config, &dir, &name)?),
            };
            let kept = host.kept(OP)?;
            let (spec, settings, stack) = kept.to_start()?;
            let blueprint = Arc::new(Blueprint::new(&host, spec, &cancel)?);
            kept.check(blueprint.image.as_ref())?;
            let cgroup = limits(&host, &blueprint, OP)?;
            let egress = blueprint.new_egress();
            // Apart from its files: they are a guest's.
            let (cgroup_of_probe, bare) = (cgroup.clone(), Stack::default());
            let probe = Running::start(&host, &blueprint, cgroup_of_probe, bare, egress, OP)?;
            Ok((host, kept, blueprint, settings, stack, cgroup, probe))
        });
        let (host, kept, blueprint, settings, stack, cgroup, probe) = ready.await.map_err(named)?;
        let required = isolation::require(&probe, &blueprint, &self.proven).await;
        probe.shut_down().await;
        required.map_err(named)?;
        let (start_host, start_kept, start) = (host.clone(), kept.clone(), blueprint.clone());
        let running = blocking(OP, move || {
            let egress = start.new_egress();
            let mut running = Running::start(&start_host, &start, cgroup, stack, egress, OP)?;
            running.begin_with(Stack::default());
            running.keep(start_kept, OP)?;
            Ok(running)
        });
        let running = running.await.map_err(named)?;
        self.remember(id, &host);
        let origin = Origin {
            host,
            open: self.open.clone(),
            labels: blueprint.spec.labels.clone(),
            settings,
            blueprint,
            parent: None,
            kept: Some(kept),
            restarted: true,
        };
        Ok(LocalSandbox::open(origin, id.clone(), running))
    }

    /// The open sandboxes and the lasting ones on the disk.
    pub(super) async fn list_local(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        let mut found = self.open.list(labels);
        let (host, open, labels) = (self.host.clone(), self.open.clone(), labels.clone());
        let lasting = blocking(Operation::List, move || {
            let is_open = |id: &SandboxId| open.has(id);
            Ok(lasting::list(host.state.root(), &labels, is_open))
        });
        for info in lasting.await? {
            if !found.iter().any(|open| open.id == info.id) {
                found.push(info);
            }
        }
        found.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(found)
    }

    /// Removes a lasting sandbox that is not open here, if there is one.
    pub(super) async fn remove_lasting(&self, id: &SandboxId) -> Result<bool> {
        let turn = self.turns.on(id);
        let _turn = turn.lock().await;
        let Some(dir) = lasting::find(self.host.state.root(), id) else {
            return Ok(false);
        };
        let kept = self.lasting_host(id);
        let id = id.clone();
        blocking(Operation::Destroy, move || match kept {
            // A fork of it holds its directory, which goes with that.
            Some(host) => host.kept(Operation::Destroy)?.forget().map_err(|error| {
                sandbox_core::Error::from_io(error, Operation::Destroy).with_sandbox(id)
            }),
            None => lasting::remove(&dir, &id),
        })
        .await?;
        Ok(true)
    }

    fn lasting_host(&self, id: &SandboxId) -> Option<Arc<Host>> {
        let hosts = self.lasting.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(id).and_then(Weak::upgrade)
    }

    /// Notes who holds the directory of a lasting sandbox, forks of it among them.
    pub(super) fn remember(&self, id: &SandboxId, host: &Arc<Host>) {
        // Every change is a single call: a panic elsewhere leaves it valid.
        let mut hosts = self.lasting.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, host| host.strong_count() > 0);
        hosts.insert(id.clone(), Arc::downgrade(host));
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use sandbox_core::{Sandbox as _, SandboxSpec};

    use super::*;
    use crate::LocalConfig;

    #[tokio::test(flavor = "multi_thread")]
    async fn work_on_one_lasting_sandbox_holds_up_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let provider = LocalProvider::new(LocalConfig::default().state_dir(dir.path())).unwrap();
        let (one, other) = (SandboxId::new("one"), SandboxId::new("other"));
        let turn = provider.turns.on(&one);
        let _turn = turn.lock().await;
        let patience = std::time::Duration::from_secs(60);
        let attached = tokio::time::timeout(patience, provider.attach_local(&other)).await;
        let kind = attached.expect("it waits").map(drop).unwrap_err().kind();
        assert_eq!(kind, sandbox_core::ErrorKind::NotFound);
        assert!(!provider.remove_lasting(&other).await.unwrap());
        // The control: the same one waits.
        assert!(provider.turns.on(&one).try_lock().is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_sandbox_ends_with_its_last_handle_also_while_it_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let provider = LocalProvider::new(LocalConfig::default().state_dir(dir.path())).unwrap();
        let sandbox = provider.create_local(SandboxSpec::new()).await.unwrap();
        let id = sandbox.info().id;
        let facts = provider.open.facts(&id).unwrap();
        // The list waits here, in the middle of a look.
        let settings = facts.settings.write().unwrap();
        let held = (Arc::strong_count(&facts), Arc::strong_count(&sandbox));
        let open = provider.open.clone();
        let list = thread::spawn(move || open.list(&Labels::new()));
        while held == (Arc::strong_count(&facts), Arc::strong_count(&sandbox)) {
            thread::yield_now();
        }
        drop(sandbox);
        assert!(provider.open.get(&id).is_none());
        let error = provider.find(&id, OP).unwrap_err();
        assert_eq!(error.kind(), sandbox_core::ErrorKind::NotFound, "{error}");
        assert!(!provider.open.has(&id));
        drop(settings);
        list.join().unwrap();
    }
}
