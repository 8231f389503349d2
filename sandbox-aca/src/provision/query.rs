//! Queries of a Log Analytics workspace: what was written minutes ago and longer.
//!
//! Source: <https://learn.microsoft.com/azure/azure-monitor/logs/api/request-format>

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use sandbox_core::{ErrorKind, Operation, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::app::App;
use super::id::{ResourceId, name};
use super::plane::ControlPlane;
use super::role::Role;
use super::step::Step;
use crate::auth::Tokens;
use crate::http::{Http, Plane, Request};

/// Scope of the tokens for queries.
const SCOPE: &str = "https://api.loganalytics.io/.default";

/// The result of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Table {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows; values other than texts are as JSON has them, and `null` is `None`.
    pub rows: Vec<Vec<Option<String>>>,
}

impl Table {
    /// The values of a column, from the first row to the last.
    pub fn column(&self, name: &str) -> Vec<&str> {
        let at = self.columns.iter().position(|column| column == name);
        let rows = self.rows.iter();
        rows.filter_map(|row| row.get(at?)?.as_deref()).collect()
    }
}

/// Tables that an environment's logs are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogTables {
    /// Tables of Azure Monitor: `ContainerAppConsoleLogs`.
    #[default]
    AzureMonitor,
    /// Tables of the older way: `ContainerAppConsoleLogs_CL`.
    LogAnalytics,
}

#[derive(Serialize)]
struct Query<'a> {
    query: &'a str,
    timespan: String,
}

#[derive(Deserialize)]
struct Answer {
    tables: Vec<TableWire>,
}

#[derive(Deserialize)]
struct TableWire {
    columns: Vec<Column>,
    rows: Vec<Vec<Value>>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
}

impl ControlPlane {
    /// Asks a workspace, by its customer id, about the time from `since` ago until now. What was
    /// written in the last minutes may be missing.
    ///
    /// # Errors
    /// What the service answers. Dropping the future stops the waiting.
    pub async fn query(&self, workspace: &str, query: &str, since: Duration) -> Result<Table> {
        let workspace = name("workspace", workspace)?;
        let config = self.config();
        let step = Step {
            what: "query the logs".into(),
            az: format!(
                "az monitor log-analytics query --workspace {workspace} --analytics-query QUERY"
            ),
            role: Role::LOG_READER,
            scope: self.resource_group().clone(),
        };
        let plane = Plane {
            endpoint: config.logs_endpoint.clone(),
            prefix: Vec::new(),
            api_version: String::new(),
            ca_file: config.ca_file.clone(),
            role: "Log Analytics Reader",
            resource: self.resource_group().to_string(),
            role_wait: Duration::ZERO,
        };
        let tokens = Tokens::new(Arc::clone(&config.credential), SCOPE.to_owned());
        let http = Http::new(plane, tokens)?;
        let body = Query {
            query,
            timespan: format!("PT{}S", since.as_secs()),
        };
        let body = serde_json::to_vec(&body).map_err(|e| {
            let why = "the query can't be written as JSON";
            step.error(ErrorKind::InvalidInput, why).with_source(e)
        })?;
        let path = ["v1", "workspaces", workspace, "query"];
        let mut request = Request::new(Method::POST, &path);
        // A question changes nothing.
        request.repeat = true;
        let request = request.with_body("application/json", body.into());
        let bytes = http.send(Operation::Provision, request).await;
        let bytes = bytes.map_err(|failure| step.failed(failure))?;
        let answer: Answer = super::arm::parse(&step, &bytes)?;
        let Some(table) = answer.tables.into_iter().next() else {
            return Ok(Table::default());
        };
        let cell = |value: Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        };
        let row = |row: Vec<Value>| row.into_iter().map(cell).collect();
        Ok(Table {
            columns: table
                .columns
                .into_iter()
                .map(|column| column.name)
                .collect(),
            rows: table.rows.into_iter().map(row).collect(),
        })
    }
}

impl App {
    /// The query for what the app's containers wrote, newest first.
    pub fn console_query(&self, tables: LogTables, lines: u32) -> String {
        let id: &ResourceId = &self.target.id;
        // The name has no character that would end the text.
        let name = id.name();
        match tables {
            LogTables::AzureMonitor => format!(
                "ContainerAppConsoleLogs | where ContainerAppName == '{name}' | order by TimeGenerated desc | take {lines} | project TimeGenerated, RevisionName, ContainerName, Log"
            ),
            LogTables::LogAnalytics => format!(
                "ContainerAppConsoleLogs_CL | where ContainerAppName_s == '{name}' | order by TimeGenerated desc | take {lines} | project TimeGenerated, RevisionName=RevisionName_s, ContainerName=ContainerName_s, Log=Log_s"
            ),
        }
    }
}
