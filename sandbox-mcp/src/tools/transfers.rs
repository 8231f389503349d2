//! The tool that copies files of a sandbox to the host.

use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::model::RequestMetaObject;
use rmcp::service::RequestContext;
use rmcp::{Peer, RoleServer, tool, tool_router};
use sandbox_core::ExportOptions;

use super::Tools;
use super::call::{SKIPPED, path, said, under};
use crate::arguments::Export;
use crate::export;
use crate::results::Exported;

#[tool_router(router = transfers, vis = "pub(super)")]
impl Tools {
    #[tool(
        name = "export",
        description = "Copies a directory of a sandbox to the host, below the operator's export root. It lands complete or not at all.",
        annotations(
            title = "Export a directory",
            read_only_hint = false,
            destructive_hint = false,
            open_world_hint = false
        )
    )]
    async fn export(
        &self,
        Parameters(what): Parameters<Export>,
        meta: RequestMetaObject,
        peer: Peer<RoleServer>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Exported>, String> {
        let to = export::target(self.shared.options.export_root.as_deref(), &what.to)?;
        let sandbox = self.sandbox(&what.sandbox_id).await?;
        let from = path(what.path);
        let exporting = sandbox.export_dir(&from, &to, ExportOptions::new());
        let report = under(&meta, &peer, &context, exporting)
            .await?
            .map_err(said)?;
        let skipped = report.skipped.iter().take(SKIPPED);
        Ok(Json(Exported {
            host_path: to.display().to_string(),
            files: report.files,
            bytes: report.bytes,
            skipped: skipped
                .map(|left| format!("{}: {}", left.path, left.reason))
                .collect(),
        }))
    }
}
