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
use rmcp::handler::server::tool::ToolCallContext;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, Implementation, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, tool_handler};
use sandbox_core::Sandbox;
use tracing::Instrument as _;

use crate::shared::Shared;
use crate::trace;

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
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let known = self.tool_router.get(&request.name);
        let span = trace::span(known.map_or("unknown", |tool| &tool.name), &context.meta);
        let call = ToolCallContext::new(self, request, context);
        let result = self.tool_router.call(call).instrument(span.clone()).await;
        trace::ended(&span, &result);
        result
    }

    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("sandbox", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }
}
