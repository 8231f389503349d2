//! Tools that compare a sandbox with its beginning, and put what was changed in place in another.

use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::model::RequestMetaObject;
use rmcp::service::RequestContext;
use rmcp::{Peer, RoleServer, tool, tool_router};
use sandbox_core::{ChangeKind, ChangesOptions, GuestPath, Skipped};
use sandbox_transfer::changes::{ApplyOptions, apply_to_sandbox};

use super::Tools;
use super::call::{ENTRIES, SKIPPED, path, said, under};
use crate::arguments::{Apply, ChangesIn};
use crate::results::{Applied, ChangedEntry, ChangesOut, ConflictOut};

#[tool_router(router = changes, vis = "pub(super)")]
impl Tools {
    #[tool(
        name = "sandbox_changes",
        description = "Lists what differs from the files that a sandbox began with: of a fork, what was done since.",
        annotations(title = "List changes", read_only_hint = true, open_world_hint = false)
    )]
    async fn sandbox_changes(
        &self,
        Parameters(of): Parameters<ChangesIn>,
        meta: RequestMetaObject,
        peer: Peer<RoleServer>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<ChangesOut>, String> {
        let sandbox = self.sandbox(&of.sandbox_id).await?;
        let directory = path(of.path);
        let options = ChangesOptions::new().contents(false);
        let comparing = sandbox.changes(&directory, options);
        let found = under(&meta, &peer, &context, comparing).await?;
        let found = found.map_err(said)?;
        let listed = found.entries.iter().take(ENTRIES);
        let changes: Vec<ChangedEntry> = listed
            .map(|entry| ChangedEntry {
                path: entry.path.to_string(),
                change: match entry.kind() {
                    ChangeKind::Added => "added",
                    ChangeKind::Deleted => "deleted",
                    ChangeKind::Mode => "mode",
                    ChangeKind::Replaced => "replaced",
                    _ => "modified",
                },
            })
            .collect();
        Ok(Json(ChangesOut {
            truncated: changes.len() < found.entries.len(),
            total: found.entries.len(),
            changes,
            skipped: left_out(&found.skipped),
        }))
    }

    #[tool(
        name = "sandbox_apply",
        description = "Puts what was changed in one sandbox, such as a fork, in place in another, such as the one it was forked from. Nothing is written if the other has changed the same files: they are listed as conflicts.",
        annotations(
            title = "Apply changes",
            read_only_hint = false,
            destructive_hint = true,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn sandbox_apply(
        &self,
        Parameters(apply): Parameters<Apply>,
        meta: RequestMetaObject,
        peer: Peer<RoleServer>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Applied>, String> {
        let from = self.sandbox(&apply.sandbox_id).await?;
        let to = self.sandbox(&apply.to).await?;
        let options = ApplyOptions::new()
            .automation(apply.automation)
            .dry_run(apply.dry_run);
        let target = path(apply.to_path.or_else(|| apply.path.clone()));
        let directory = path(apply.path);
        let applying = async {
            let changes = from.changes(&directory, ChangesOptions::new()).await?;
            let skipped = left_out(&changes.skipped);
            let report = apply_to_sandbox(&changes, &*to, &target, &options).await?;
            Ok((skipped, report))
        };
        let applied: sandbox_core::Result<_> = under(&meta, &peer, &context, applying).await?;
        let (mut skipped, report) = applied.map_err(said)?;
        skipped.extend(left_out(&report.left_out));
        let conflicts = report.conflicts.iter().take(ENTRIES);
        Ok(Json(Applied {
            written: !apply.dry_run && report.conflicts.is_empty(),
            total: report.applied.len(),
            applied: listed(&report.applied),
            unchanged: report.unchanged.len(),
            conflicts: conflicts
                .map(|conflict| ConflictOut {
                    path: conflict.path.to_string(),
                    reason: conflict.reason.clone(),
                })
                .collect(),
            automation: listed(&report.automation),
            skipped,
        }))
    }
}

fn listed(paths: &[GuestPath]) -> Vec<String> {
    let paths = paths.iter().take(ENTRIES);
    paths.map(GuestPath::to_string).collect()
}

fn left_out(skipped: &[Skipped]) -> Vec<String> {
    let skipped = skipped.iter().take(SKIPPED);
    skipped
        .map(|left| format!("{}: {}", left.path, left.reason))
        .collect()
}
