//! Stock of a provider: its sandboxes and snapshots.

use std::sync::Arc;

use sandbox::{Error, ErrorKind, Labels, Operation, Provider, SandboxStatus, SnapshotId};
use serde_json::json;

use crate::arguments::{LsOptions, ReapOptions, SnapshotAction, SnapshotOptions};
use crate::show::{Failure, ago, complain, failed_value, print, print_json, table, tell_failed};
use crate::values::Label;

/// The provider that the command line names.
pub(crate) async fn connect(uri: &str) -> Result<Arc<dyn Provider>, Failure> {
    let selection = sandbox::connect_chain(uri).await?;
    for (rejected, error) in &selection.rejected {
        complain(&format!("sandbox: not {rejected}: {error}"));
    }
    if !selection.rejected.is_empty() {
        complain(&format!("sandbox: using {}", selection.uri));
    }
    Ok(selection.provider)
}

fn labels(given: Vec<Label>) -> Labels {
    given
        .into_iter()
        .map(|Label(key, value)| (key, value))
        .collect()
}

fn pairs(labels: &Labels) -> String {
    let each = labels.iter().map(|(k, v)| format!("{k}={v}"));
    each.collect::<Vec<_>>()
        .join(",")
        .escape_debug()
        .to_string()
}

pub(crate) async fn list(uri: &str, options: LsOptions, json: bool) -> Result<u8, Failure> {
    let provider = connect(uri).await?;
    let found = provider.list(&labels(options.label)).await?;
    if json {
        print_json(&json!(found))?;
        return Ok(0);
    }
    let rows: Vec<_> = found
        .iter()
        .map(|info| {
            vec![
                info.id.to_string(),
                ago(info.created),
                info.status.as_str().to_owned(),
                info.workdir.to_string_lossy().escape_debug().to_string(),
                pairs(&info.labels),
            ]
        })
        .collect();
    print(table(&["ID", "AGE", "STATUS", "WORKDIR", "LABELS"], &rows).as_bytes())?;
    Ok(0)
}

pub(crate) async fn reap(uri: &str, options: ReapOptions, json: bool) -> Result<u8, Failure> {
    let provider = connect(uri).await?;
    let found = provider.list(&labels(options.label)).await?;
    let old = found.into_iter().filter(|info| match options.older_than {
        Some(age) => info.created.elapsed().is_ok_and(|since| since > age),
        None => true,
    });
    let mut closed = Vec::new();
    let mut failed = Vec::new();
    for info in old {
        if info.status == SandboxStatus::OpenElsewhere {
            let id = &info.id;
            complain(&format!("sandbox: left {id}: another process has it open"));
            continue;
        }
        if options.dry_run {
            closed.push(info.id.to_string());
            continue;
        }
        match provider.destroy(&info.id).await {
            Ok(()) => closed.push(info.id.to_string()),
            // It ended by itself meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => failed.push((info.id.to_string(), error)),
        }
    }
    match json {
        true => print_json(&json!({
            "closed": closed, "failed": failed_value(&failed), "dry-run": options.dry_run,
        }))?,
        false => print(
            closed
                .iter()
                .map(|id| format!("{id}\n"))
                .collect::<String>()
                .as_bytes(),
        )?,
    }
    Ok(tell_failed(&failed, json))
}

pub(crate) async fn snapshots(
    uri: &str,
    options: SnapshotOptions,
    json: bool,
) -> Result<u8, Failure> {
    let provider = connect(uri).await?;
    match options.action {
        None => {}
        #[cfg(all(feature = "local", target_os = "linux"))]
        Some(SnapshotAction::Export { id, file }) => {
            crate::images::export(id, file, json).await?;
            return Ok(0);
        }
        #[cfg(all(feature = "registry", target_os = "linux"))]
        Some(SnapshotAction::Push { id, reference }) => {
            crate::images::push(id, reference, json).await?;
            return Ok(0);
        }
        Some(SnapshotAction::Rm { id }) => {
            let (mut deleted, mut failed) = (Vec::new(), Vec::new());
            for id in id {
                match provider.delete_snapshot(&SnapshotId::new(&id)).await {
                    Ok(()) => deleted.push(id),
                    Err(error) => failed.push((id, error)),
                }
            }
            if json {
                print_json(&json!({ "deleted": deleted, "failed": failed_value(&failed) }))?;
            }
            return Ok(tell_failed(&failed, json));
        }
    }
    let found = provider.list_snapshots(&labels(options.label)).await?;
    if json {
        print_json(&serde_json::to_value(&found).map_err(|error| {
            Error::new(ErrorKind::Other, Operation::ListSnapshots).with_source(error)
        })?)?;
        return Ok(0);
    }
    let rows: Vec<_> = found
        .iter()
        .map(|snapshot| {
            vec![
                snapshot.id.to_string(),
                snapshot.created.map_or_else(|| "?".into(), ago),
                snapshot
                    .size
                    .map_or_else(|| "?".into(), |size| size.to_string()),
                pairs(&snapshot.labels),
            ]
        })
        .collect();
    print(table(&["ID", "AGE", "BYTES", "LABELS"], &rows).as_bytes())?;
    Ok(0)
}
