//! `sandbox images`, and files of snapshots: what the local backend keeps on this host's disk.

use std::path::PathBuf;

use sandbox::local::{LocalConfig, LocalStore, StoredImage};
use sandbox::{Error, ErrorKind, Operation, SnapshotId};
use serde_json::{Value, json};

use crate::arguments::{ImageAction, ImageOptions};
use crate::show::{Failure, failed_value, print, print_json, table, tell_failed};

/// Works with the store on a thread for blocking work.
async fn stored<T: Send + 'static>(
    work: impl FnOnce(&LocalStore) -> sandbox::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let worked = tokio::task::spawn_blocking(move || {
        let store = LocalStore::open(&LocalConfig::default())?;
        work(&store)
    });
    let worked = worked.await.map_err(|error| {
        Error::new(ErrorKind::Other, Operation::Create)
            .with_message("the work on images ended early")
            .with_source(error)
    })?;
    Ok(worked?)
}

fn described(image: &StoredImage) -> Value {
    json!({ "reference": image.reference, "digest": image.digest, "bytes": image.bytes })
}

pub(crate) async fn images(options: ImageOptions, json: bool) -> Result<u8, Failure> {
    match options.action.unwrap_or(ImageAction::Ls) {
        ImageAction::Ls => {
            let images = stored(LocalStore::images).await?;
            if json {
                print_json(&images.iter().map(described).collect())?;
                return Ok(0);
            }
            let rows: Vec<_> = images
                .iter()
                .map(|image| {
                    let digest = image.digest.chars().take(19).collect();
                    let reference = image.reference.escape_debug().to_string();
                    vec![reference, digest, image.bytes.to_string()]
                })
                .collect();
            print(table(&["REFERENCE", "DIGEST", "BYTES"], &rows).as_bytes())?;
        }
        ImageAction::Pull { reference } => {
            let image = stored(move |store| store.unpack_image(&reference)).await?;
            match json {
                true => print_json(&described(&image))?,
                false => print(format!("{}\n", image.digest).as_bytes())?,
            }
        }
        ImageAction::Rm { reference } => {
            let (mut freed, mut gone, mut failed) = (0, Vec::new(), Vec::new());
            for name in reference {
                let known = name.clone();
                match stored(move |store| store.remove_image(&known)).await {
                    Ok(Some(removed)) => {
                        freed += removed.bytes;
                        gone.push(name);
                    }
                    Ok(None) => {
                        let missing = Error::new(ErrorKind::NotFound, Operation::Create);
                        failed.push((name, missing.with_message("there is no such image here")));
                    }
                    Err(failure) => failed.push((name, failure.into_error())),
                }
            }
            if json {
                let failed = failed_value(&failed);
                print_json(&json!({ "removed": gone, "bytes": freed, "failed": failed }))?;
            }
            return Ok(tell_failed(&failed, json));
        }
        ImageAction::Gc { keep } => {
            let keep = keep.unwrap_or(0);
            let removed = stored(move |store| store.collect_images(keep)).await?;
            match json {
                true => {
                    print_json(&json!({ "layers": removed.layers, "bytes": removed.bytes }))?;
                }
                false => {
                    let told = format!("{} layers, {} bytes\n", removed.layers, removed.bytes);
                    print(told.as_bytes())?;
                }
            }
        }
    }
    Ok(0)
}

/// Writes a snapshot to a file.
pub(crate) async fn export(id: String, file: PathBuf, json: bool) -> Result<(), Failure> {
    let (named, to) = (SnapshotId::new(&id), file.clone());
    stored(move |store| store.export_snapshot(&named, &to)).await?;
    if json {
        print_json(&json!({ "exported": id, "file": file }))?;
    }
    Ok(())
}

/// Puts a snapshot into a registry.
#[cfg(feature = "registry")]
pub(crate) async fn push(id: String, reference: String, json: bool) -> Result<(), Failure> {
    let (named, to) = (SnapshotId::new(&id), reference.clone());
    let digest = stored(move |store| store.push_snapshot(&named, &to)).await?;
    match json {
        true => print_json(&json!({ "pushed": id, "reference": reference, "digest": digest })),
        false => print(format!("{digest}\n").as_bytes()),
    }
}
