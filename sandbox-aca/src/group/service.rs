//! The calls of the data plane, one function each.
//!
//! It must never send exec or create twice unless the service proves that it did not accept it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Method;
use sandbox_core::{Error, ErrorKind, Labels, Operation, Result};
use serde_json::{Value, json};

use crate::guest::transport::TOUCH;
use crate::http::{Failure, Http, Request, parse};

/// Limit of the time for a deletion, until the sandbox is gone.
const DELETION: Duration = Duration::from_secs(60);

fn file_request<'a>(parts: &'a [&'a str], path: &str, limit: u64) -> Request<'a> {
    let mut request = Request::new(Method::GET, parts);
    request.query = vec![("path", path.to_owned())];
    request.timeout = Duration::from_secs(600);
    request.limit = limit;
    request
}

/// Name that tells an entry of a collection from the others.
fn name(entry: &Value) -> &Value {
    let keys = ["id", "volumeName", "name"].iter().map(|key| &entry[*key]);
    let mut keys = keys.filter(|value| !value.is_null());
    keys.next().unwrap_or(&Value::Null)
}

impl Http {
    /// Creates a sandbox; `marks` are the provider's own labels.
    ///
    /// The official SDK refuses labels for a restore and sends the source alone; it is not
    /// documented what the service does with more. So labels are tried, and a restore that is
    /// refused with them and needs none goes without: then a lost answer is made up for if its
    /// snapshot is `own`, one that nothing else is made of.
    pub(crate) async fn create(
        self: &Arc<Self>,
        mut body: Value,
        marks: &Labels,
        own: bool,
    ) -> Result<(String, Value), Failure> {
        const OP: Operation = Operation::Create;
        let method = &self.protocol().create;
        let request = || {
            let mut request = Request::new(method.clone(), &["sandboxes"]);
            request.timeout = Duration::from_secs(300);
            request
        };
        let restore = body["sourcesRef"]["snapshot"].is_object();
        let source = json!({"sourcesRef": body["sourcesRef"]});
        let labels = body["labels"].as_object();
        let unlabelled = labels.is_none_or(serde_json::Map::is_empty);
        for (key, value) in marks {
            body["labels"][key] = json!(value);
        }
        match self.make(OP, request(), body, "sandboxes").await {
            Err(failure) if restore && failure.status == Some(400) => match unlabelled {
                true => {
                    if !marks.is_empty() {
                        tracing::warn!("the service takes no labels with a restore: it has none");
                    }
                    let snapshot = source["sourcesRef"]["snapshot"]["id"].as_str();
                    let snapshot = snapshot.filter(|_| own);
                    self.make_unlabelled(OP, request(), &source, snapshot).await
                }
                false => Err(failure.hint("the service may take no labels here: fork without any")),
            },
            made => made,
        }
    }

    /// Waits until a sandbox runs.
    pub(crate) async fn running(&self, op: Operation, id: &str) -> Result<Value, Failure> {
        let started = Instant::now();
        loop {
            let found = match self.get(op, id).await {
                Ok(found) => found,
                // A new one may not be found everywhere yet.
                Err(failure) if failure.status == Some(404) => json!({"state": "Creating"}),
                Err(failure) => return Err(failure),
            };
            match found["state"].as_str() {
                Some("Running") => return Ok(found),
                Some("Creating" | "Resuming") if started.elapsed() < Duration::from_secs(300) => {}
                state => {
                    let text = format!("the sandbox does not run: {}", state.unwrap_or("no state"));
                    let error = Error::new(ErrorKind::Unavailable, op).with_message(text);
                    return Err(Failure::before(error));
                }
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    pub(crate) async fn get(&self, op: Operation, id: &str) -> Result<Value, Failure> {
        let bytes = self
            .send(op, Request::new(Method::GET, &["sandboxes", id]))
            .await?;
        parse(op, &bytes)
    }

    /// Every sandbox that has these labels.
    pub(crate) async fn list(&self, op: Operation, labels: &Labels) -> Result<Vec<Value>, Failure> {
        let mut query = Vec::new();
        if !labels.is_empty() {
            let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            query.push(("labels", pairs.join(",")));
        }
        self.pages(op, &["sandboxes"], query).await
    }

    /// Every entry of a collection, over all pages. A bare array is one page, or in versions that
    /// number pages the first of several.
    pub(crate) async fn pages(
        &self,
        op: Operation,
        path: &[&str],
        first: Vec<(&'static str, String)>,
    ) -> Result<Vec<Value>, Failure> {
        const PAGES: usize = 1000;
        let mut all = Vec::new();
        let mut next = first.clone();
        for page in 2..PAGES {
            let mut request = Request::new(Method::GET, path);
            request.query = next;
            request.limit = 256 << 20;
            let bytes = self.send(op, request).await?;
            let link = match parse(op, &bytes)? {
                Value::Array(entries) => {
                    // A service that does not number pages gives the same again.
                    let again = |one: &Value| all.iter().any(|known| name(known) == name(one));
                    if entries.first().is_none_or(again) {
                        return Ok(all);
                    }
                    all.extend(entries);
                    if !self.protocol().numbered_pages {
                        return Ok(all);
                    }
                    next = first.clone();
                    next.push(("page", page.to_string()));
                    continue;
                }
                mut page => {
                    match page["value"].take() {
                        Value::Array(entries) => all.extend(entries),
                        _ => return Err(Failure::garbled(op)),
                    }
                    page["nextLink"].as_str().map(str::to_owned)
                }
            };
            let Some(link) = link.filter(|link| !link.is_empty()) else {
                return Ok(all);
            };
            // Only what tells the page is taken from a link: the token goes nowhere else. It may be
            // relative.
            let anywhere = reqwest::Url::parse("https://localhost/");
            let Ok(url) = anywhere.and_then(|base| base.join(&link)) else {
                return Err(Failure::garbled(op));
            };
            next = first.clone();
            for (key, value) in url.query_pairs() {
                let key = match key.as_ref() {
                    "skip" => "skip",
                    "$skip" => "$skip",
                    "$skiptoken" => "$skiptoken",
                    "skipToken" => "skipToken",
                    "continuationToken" => "continuationToken",
                    _ => continue,
                };
                next.push((key, value.into_owned()));
            }
            if next.len() == first.len() {
                return Err(Failure::garbled(op));
            }
        }
        Err(Failure::garbled(op))
    }

    /// Deletes a sandbox and waits until it is gone.
    pub(crate) async fn delete(&self, op: Operation, id: &str) -> Result<(), Failure> {
        match self
            .send(op, Request::new(Method::DELETE, &["sandboxes", id]))
            .await
        {
            Err(failure) if failure.status != Some(404) => return Err(failure),
            _ => {}
        }
        let started = Instant::now();
        loop {
            match self.get(op, id).await {
                Err(failure) if failure.status == Some(404) => return Ok(()),
                Err(failure) => return Err(failure),
                Ok(_) if started.elapsed() > DELETION => {
                    let what = "the service has not deleted the sandbox in a minute";
                    let error = Error::unanswered(op, what);
                    return Err(Failure::unknown(error));
                }
                Ok(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }

    /// Runs a line of shell; `repeat` only for lines that may run twice.
    pub(crate) async fn shell(
        &self,
        op: Operation,
        id: &str,
        line: &str,
        repeat: bool,
        timeout: Duration,
    ) -> Result<String, Failure> {
        let protocol = self.protocol();
        let path = ["sandboxes", id, protocol.run];
        let mut request = Request::new(Method::POST, &path).json(&(protocol.line)(line));
        request.repeat = repeat;
        request.timeout = timeout;
        let bytes = self.send(op, request).await?;
        let mut answer = parse(op, &bytes)?;
        // Without a code its outcome is unknown.
        if answer["exitCode"].as_i64().is_none() {
            return Err(Failure::garbled(op));
        }
        match answer["stdout"].take() {
            Value::String(text) => Ok(text),
            _ => Err(Failure::garbled(op)),
        }
    }

    /// Looks at the guest's root: a use of it that needs it to run, and does not resume it.
    pub(crate) async fn touch(&self, id: &str) -> Result<(), Failure> {
        let path = ["sandboxes", id, "files", "stat"];
        let mut request = Request::new(Method::GET, &path);
        request.query = vec![("path", "/".to_owned())];
        request.timeout = TOUCH;
        self.send(Operation::Connect, request).await.map(drop)
    }

    pub(crate) async fn put_file(
        &self,
        op: Operation,
        id: &str,
        path: &str,
        bytes: Bytes,
    ) -> Result<(), Failure> {
        let parts = ["sandboxes", id, "files"];
        let method = self.protocol().write_file.clone();
        let mut request = Request::new(method, &parts).with_body("application/octet-stream", bytes);
        request.query = vec![("path", path.to_owned()), ("createDirs", "true".into())];
        // The same bytes under the same name: once or twice is the same.
        request.repeat = true;
        request.timeout = Duration::from_secs(600);
        let size = request.body.len() as u64;
        let answer = match self.send(op, request).await? {
            empty if empty.is_empty() => Value::Null,
            answer => parse(op, &answer)?,
        };
        match answer["bytesWritten"].as_u64() {
            Some(written) if written != size => Err(Failure::garbled(op)),
            _ => Ok(()),
        }
    }

    pub(crate) async fn get_file(
        &self,
        op: Operation,
        id: &str,
        path: &str,
        limit: u64,
    ) -> Result<Bytes, Failure> {
        self.send(op, file_request(&["sandboxes", id, "files"], path, limit))
            .await
    }

    /// Takes a snapshot and gives its identifier.
    pub(crate) async fn snapshot(
        self: &Arc<Self>,
        op: Operation,
        id: &str,
        labels: &Labels,
        timeout: Duration,
    ) -> Result<Value, Failure> {
        let path = ["sandboxes", id, "snapshot"];
        let mut request = Request::new(Method::POST, &path);
        request.timeout = timeout;
        let made = self.make(op, request, json!({"labels": labels}), "snapshots");
        made.await.map(|(_, shown)| shown)
    }

    /// Deletes an entry of a collection; `Ok` if there is none.
    pub(crate) async fn delete_entry(
        &self,
        op: Operation,
        collection: &str,
        id: &str,
    ) -> Result<(), Failure> {
        let path = [collection, id];
        match self.send(op, Request::new(Method::DELETE, &path)).await {
            Err(failure) if failure.status == Some(404) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Sets a whole policy: `lifecycle` or `egresspolicy`; or opens a port: `ports/add`.
    pub(crate) async fn policy(
        &self,
        op: Operation,
        id: &str,
        which: &str,
        policy: &Value,
    ) -> Result<(), Failure> {
        let mut path = vec!["sandboxes", id];
        path.extend(which.split('/'));
        let mut request = Request::new(Method::POST, &path).json(policy);
        // It replaces what is there: once or twice is the same.
        request.repeat = true;
        self.send(op, request).await.map(drop)
    }
}
