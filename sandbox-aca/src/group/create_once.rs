//! Creates sandboxes, snapshots and images: once, and found again if the answer is lost.
//!
//! A request that creates something is never sent twice, unless the service proves that it did not
//! accept it. What may have been created although no answer came is not left behind.

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{Labels, Operation};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::group::delete_on_drop::{DeleteOnDrop, Made};
use crate::http::{Failure, Http, Request, parse};

/// The label that finds what was created though no answer came; never shown.
pub(crate) const CREATE_LABEL: &str = "sandbox-create";
/// Number of looks at what may have been created that the caller waits for.
const LOOKS: u32 = 4;
/// For how long the service may still be at a creation that it has not answered: its gateway gives
/// up after 600 seconds.
const STILL_CREATING: Duration = Duration::from_secs(900);
/// The first and the longest pause between looks when the caller has gone.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The identifier in an answer or in an entry of a list.
fn id(of: &Value) -> Option<&str> {
    let id = of["id"].as_str().or(of["diskImage"]["id"].as_str());
    id.or(of["diskImageId"].as_str())
}

/// Mark that tells something that was created for a request from everything else.
#[derive(Clone, Debug)]
enum Mark {
    /// The value of the label.
    Label(String),
    /// The snapshot, of which nothing else is made.
    Snapshot(String),
}

impl Mark {
    fn fits(&self, entry: &Value) -> bool {
        match self {
            Self::Label(nonce) => entry["labels"][CREATE_LABEL] == json!(nonce),
            Self::Snapshot(id) => {
                let source = &entry["sourcesRef"]["snapshot"]["id"];
                *source == json!(id) || entry["snapshotId"] == json!(id)
            }
        }
    }

    /// The labels that the service can be asked for.
    fn labels(&self) -> Labels {
        match self {
            Self::Label(nonce) => Labels::from([(CREATE_LABEL.to_owned(), nonce.clone())]),
            Self::Snapshot(_) => Labels::new(),
        }
    }
}

impl Http {
    /// Sends a request that creates something with labels in `collection`. Gives the identifier and
    /// what the service shows.
    pub(crate) async fn make(
        self: &Arc<Self>,
        op: Operation,
        request: Request<'_>,
        mut body: Value,
        collection: &'static str,
    ) -> Result<(String, Value), Failure> {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        body["labels"][CREATE_LABEL] = json!(nonce);
        let mark = Mark::Label(nonce);
        self.make_found(op, request, &body, collection, mark).await
    }

    /// Makes a sandbox that bears no label. If `snapshot` is of this creation alone, it tells the
    /// sandbox from others; otherwise what may have been made can't be found.
    pub(crate) async fn make_unlabelled(
        self: &Arc<Self>,
        op: Operation,
        request: Request<'_>,
        body: &Value,
        snapshot: Option<&str>,
    ) -> Result<(String, Value), Failure> {
        match snapshot {
            Some(id) => {
                let mark = Mark::Snapshot(id.to_owned());
                self.make_found(op, request, body, "sandboxes", mark).await
            }
            None => self.make_once(op, request, body).await,
        }
    }

    async fn make_found(
        self: &Arc<Self>,
        op: Operation,
        request: Request<'_>,
        body: &Value,
        collection: &'static str,
        mark: Mark,
    ) -> Result<(String, Value), Failure> {
        let failure = match self.make_once(op, request, body).await {
            Err(failure) if failure.unknown => failure,
            made => return made,
        };
        for look in 0..LOOKS {
            tokio::time::sleep(Duration::from_millis(200) * look).await;
            if let Some(found) = self.look_for(op, collection, &mark).await {
                return Ok(found);
            }
        }
        self.collect(op, collection, mark);
        Err(failure)
    }

    /// Creates something without looking for what may have been made.
    async fn make_once(
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

    async fn look_for(
        &self,
        op: Operation,
        collection: &str,
        mark: &Mark,
    ) -> Option<(String, Value)> {
        let all = match collection {
            // The only ones that the service can be asked for by a label.
            "sandboxes" => self.list(op, &mark.labels()).await,
            _ => self.pages(op, &[collection], Vec::new()).await,
        };
        let mut all = all.unwrap_or_default().into_iter();
        let found = all.find(|one| mark.fits(one))?;
        Some((id(&found)?.to_owned(), found))
    }

    /// Looks in the background for what the service may still be creating, and deletes it.
    fn collect(self: &Arc<Self>, op: Operation, collection: &'static str, mark: Mark) {
        let http = Arc::clone(self);
        tokio::spawn(async move {
            let look = || http.look_for(op, collection, &mark);
            if let Some((id, _)) = look_on(look).await {
                let made = match collection {
                    "sandboxes" => Made::Sandbox(id),
                    "snapshots" => Made::Snapshot(id),
                    _ => Made::Image(id),
                };
                drop(DeleteOnDrop::new(&http, made));
            }
        });
    }
}

/// Looks until something is found, for as long as the service may still be creating it.
async fn look_on<T, F: Future<Output = Option<T>>>(mut look: impl FnMut() -> F) -> Option<T> {
    let begun = Instant::now();
    let (mut pause, longest) = PAUSES;
    while begun.elapsed() < STILL_CREATING {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
        if let Some(found) = look().await {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After which the service's gateway says that it does not know.
    const GATEWAY: Duration = Duration::from_secs(600);

    #[tokio::test(start_paused = true)]
    async fn what_is_created_when_the_gateway_has_given_up_is_found() {
        for created in [Duration::ZERO, GATEWAY, GATEWAY + Duration::from_secs(240)] {
            let begun = Instant::now();
            let look = || std::future::ready((begun.elapsed() >= created).then_some(()));
            assert!(look_on(look).await.is_some(), "after {created:?}");
            let late = begun.elapsed() - created;
            assert!(late <= PAUSES.1, "{late:?} after it was created");
        }
        // The control: looks that find nothing end.
        let mut looks = 0;
        let look = || {
            looks += 1;
            std::future::ready(None::<()>)
        };
        assert!(look_on(look).await.is_none());
        assert!((10..60).contains(&looks), "{looks} looks");
    }
}
