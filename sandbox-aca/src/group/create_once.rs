//! Makes sandboxes, snapshots and images: once, and found again if the answer is lost.
//!
//! A request that makes something is never sent twice, unless the service proves that it did not
//! accept it.

use std::time::Duration;

use sandbox_core::{Labels, Operation};
use serde_json::{Value, json};

use crate::http::{Failure, Http, Request, parse};

/// The label that finds what was made though no answer came; not shown to anybody.
pub(crate) const CREATE_LABEL: &str = "sandbox-create";
/// How often what may have been made is looked for: the service may still be at it.
const LOOKS: u32 = 4;

/// The identifier in an answer or in an entry of a list.
fn id(of: &Value) -> Option<&str> {
    let id = of["id"].as_str().or(of["diskImage"]["id"].as_str());
    id.or(of["diskImageId"].as_str())
}

impl Http {
    /// Sends a request that makes something with labels into `collection`. Gives the identifier
    /// and what the service shows.
    pub(crate) async fn make(
        &self,
        op: Operation,
        request: Request<'_>,
        mut body: Value,
        collection: &str,
    ) -> Result<(String, Value), Failure> {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        body["labels"][CREATE_LABEL] = json!(nonce);
        match self.make_once(op, request, &body).await {
            Err(failure) if failure.unknown => {
                let found = self.look_for(op, collection, &nonce).await;
                let made = found.and_then(|made| Some((id(&made)?.to_owned(), made)));
                made.ok_or(failure)
            }
            made => made,
        }
    }

    /// The same without a mark.
    pub(crate) async fn make_once(
        &self,
        op: Operation,
        request: Request<'_>,
        body: &Value,
    ) -> Result<(String, Value), Failure> {
        let made = parse(op, &self.send(op, request.json(body)).await?)?;
        match id(&made).map(str::to_owned) {
            Some(id) => Ok((id, made)),
            None => Err(Failure::garbled(op)),
        }
    }

    async fn look_for(&self, op: Operation, collection: &str, nonce: &str) -> Option<Value> {
        for look in 0..LOOKS {
            tokio::time::sleep(Duration::from_millis(200) * look).await;
            let all = match collection {
                // The only ones that the service can be asked for by a label.
                "sandboxes" => {
                    let labels = Labels::from([(CREATE_LABEL.to_owned(), nonce.to_owned())]);
                    self.list(op, &labels).await
                }
                _ => self.pages(op, &[collection], Vec::new()).await,
            };
            let mut all = all.unwrap_or_default().into_iter();
            if let Some(found) = all.find(|one| one["labels"][CREATE_LABEL] == nonce) {
                return Some(found);
            }
        }
        None
    }
}
