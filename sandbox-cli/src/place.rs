//! The sandbox that a command of the user's runs in: a fresh one, or one that there is.
//!
//! Invariant: a sandbox that is not to be kept is closed however the work in it ended.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sandbox::{
    Access, Error, GuestUser, Mount, Network, Operation, Resources, Sandbox, SandboxId,
    SandboxSpec, SnapshotId, Source,
};
use serde_json::json;

use crate::arguments::{NetworkChoice, PlaceOptions};
use crate::show::{Failure, complain};
use crate::stock::connect;
use crate::values::Label;

/// The sandbox to work in, and whether it stays.
pub(crate) async fn place(
    uri: &str,
    options: &PlaceOptions,
) -> Result<(Arc<dyn Sandbox>, bool), Failure> {
    if let Some(id) = &options.attach {
        let provider = connect(uri).await?;
        return Ok((provider.attach(&SandboxId::new(id)).await?, true));
    }
    let spec = spec(options)?;
    let provider = connect(uri).await?;
    Ok((provider.create(spec).await?, options.keep))
}

/// Closes the sandbox, or lets go of it, however the work in it ended.
pub(crate) async fn leave(
    sandbox: Arc<dyn Sandbox>,
    stays: bool,
    options: &PlaceOptions,
    json: bool,
    done: Result<u8, Failure>,
) -> Result<u8, Failure> {
    if !stays {
        return match crate::stop::closed(sandbox.close()).await {
            Ok(closed) => {
                let code = done?;
                closed?;
                Ok(code)
            }
            Err(signal) => Ok(signal),
        };
    }
    if options.keep {
        let id = sandbox.info().id;
        match json {
            true => complain(&json!({ "sandbox": id }).to_string()),
            false => complain(&format!(
                "sandbox: {id} is kept; --attach {id} uses it again"
            )),
        }
    }
    done
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let path = std::path::absolute(path);
    Ok(path.map_err(|error| Error::from_io(error, Operation::Create))?)
}

fn spec(options: &PlaceOptions) -> Result<SandboxSpec, Failure> {
    let mut limits = Resources::new();
    limits.memory = options.memory;
    limits.cpus = options.cpus;
    limits.pids = options.pids;
    limits.disk = options.disk;
    let network = match options.network {
        NetworkChoice::Off => Network::Off,
        NetworkChoice::Open => Network::Open,
    };
    let mut spec = SandboxSpec::new()
        .resources(limits)
        .network(network)
        .lasting(options.keep);
    for Label(key, value) in &options.label {
        spec = spec.label(key, value);
    }
    if let Some(workdir) = &options.workdir {
        spec = spec.workdir(workdir.as_str());
    }
    for mounted in &options.mount {
        let host = absolute(&mounted.host)?;
        let mut mount = Mount::read_only(host, mounted.guest.as_str());
        if mounted.writable {
            mount.access = Access::ReadWrite;
        }
        spec = spec.mount(mount);
    }
    for variable in &options.env {
        spec = spec.env(variable.name.as_str(), variable.value.as_bytes());
    }
    if let Some(image) = &options.image {
        spec = spec.source(Source::Image(image.clone()));
    }
    if let Some(root) = &options.root {
        spec = spec.source(Source::RootDir(absolute(root)?));
    }
    if let Some(id) = &options.snapshot {
        spec = spec.source(Source::Snapshot(SnapshotId::new(id)));
    }
    if options.as_root {
        spec = spec.user(GuestUser::Root);
    }
    Ok(spec)
}
