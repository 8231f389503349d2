//! The tools, each a thin call on a session, by what they act on.
//!
//! A tool must never say in prose alone what a client could act on, and never run on after its call was
//! cancelled.

mod call;
mod changes;
mod commands;
mod files;
mod jobs;
mod sandboxes;
mod transfers;

use std::sync::Arc;

use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::model::{Implementation, ServerCapabilities, ServerConfig};
use rmcp::{ServerHandler, tool_handler};
use sandbox_core::Sandbox;

use crate::shared::Shared;

const INSTRUCTIONS: &str = "Sandboxes for running code that was not reviewed. sandbox_create gives a \
    sandbox_id that every other tool takes. Commands run in a Linux sandbox with files of its own; the \
    host sees none of them until export. `ran` in a result says whether a command ran: only \
    `not_started` is safe to run again. Long output is cut in the middle: read on with output_read. \
    Start servers and long tasks with job_start and read them with job_read.";

/// The tools of one connection.
#[derive(Clone)]
pub(crate) struct Tools {
    shared: Arc<Shared>,
    tool_router: ToolRouter<Self>,
}

impl Tools {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let tool_router = Self::sandboxes()
            + Self::changes()
            + Self::commands()
            + Self::jobs()
            + Self::files()
            + Self::transfers();
        Self {
            shared,
            tool_router,
        }
    }

    async fn sandbox(&self, id: &str) -> Result<Arc<dyn Sandbox>, String> {
        Ok(self.shared.session(id).await?.sandbox().clone())
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("sandbox", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }
}
