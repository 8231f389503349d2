//! Imports and exports as routes: an archive in, an archive out in frames.
//!
//! Invariant: nothing of an export is held in memory but the frames under way.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use bytes::{Bytes, BytesMut};
use sandbox_core::{Error, Operation, Result, Sandbox};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, watch};

use super::archive;
use super::asked::Asked;
use super::body::Incoming;
use super::reply::{Reply, respond};
use super::state::State;
use super::used::sandbox_of;
use super::work::run;
use crate::wire::{self, frame};

pub(super) async fn import(
    state: &Arc<State>,
    asked: &Asked,
    body: Body,
) -> Result<Response<Body>> {
    let operation = asked.operation;
    let (name, wait) = (asked.name()?, asked.wait()?);
    let most = state.config.max_archive;
    let stored = Incoming::new(body, state.config.idle_time, operation).store(most);
    let (head, archive) = stored.await?;
    let work = || {
        let request: wire::Import = serde_json::from_slice(&head).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            asked.invalid(format!(
                "the head is not an import's, at line {line} column {column}"
            ))
        })?;
        let (held, sandbox) = sandbox_of(state, asked)?;
        let staged = state.staged.clone();
        Ok(async move {
            let _held = held;
            let report = archive::import(sandbox, request, archive, most, &staged).await?;
            Ok((Reply::json(&wire::Imported { report }, operation)?, None))
        })
    };
    run(state, asked, name, wait, work()).await
}

pub(super) async fn export(
    state: &Arc<State>,
    asked: &Asked,
    body: Body,
) -> Result<Response<Body>> {
    let operation = asked.operation;
    let body = Incoming::new(body, state.config.idle_time, operation)
        .buffer(asked.length(), wire::MAX_HEAD, &state.buffered)
        .await?;
    let request: wire::Export = asked.parse(&body)?;
    let (held, sandbox) = sandbox_of(state, asked)?;
    let place = state.place(operation)?;
    let most = state.config.max_archive;
    let (sender, receiver) = mpsc::channel::<Bytes>(4);
    let staged = state.staged.clone();
    tokio::spawn(async move {
        let _held = (held, place);
        let work = async {
            if let Err(error) = send_export(&sender, sandbox, request, most, &staged).await {
                let problem = serde_json::to_vec(&wire::Problem::new(error));
                let problem = problem.unwrap_or_default();
                let _ = sender.send(framed(frame::ERROR, &problem)).await;
            }
        };
        let beat = async {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                // A client that is slow has frames enough.
                let _ = sender.try_send(framed(frame::HEARTBEAT, b""));
            }
        };
        tokio::select! {
            () = work => {}
            () = sender.closed() => {}
            () = beat => {}
        }
    });
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(bytes), receiver))
    });
    let body = Body::from_stream(frames);
    Ok(respond(StatusCode::OK, "application/octet-stream", body))
}

/// Sends an export as frames; an error if it can't be made.
async fn send_export(
    sender: &mpsc::Sender<Bytes>,
    sandbox: Arc<dyn Sandbox>,
    request: wire::Export,
    most: u64,
    staged: &watch::Sender<()>,
) -> Result<()> {
    const OP: Operation = Operation::ExportDir;
    let (head, archive) = archive::export(sandbox, request, most, staged).await?;
    let head = Reply::json(&head, OP)?.body;
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX).to_be_bytes();
    let first = [&length[..], &head].concat();
    // The client has gone if it takes no more.
    if sender.send(framed(frame::DATA, &first)).await.is_err() {
        return Ok(());
    }
    let mut archive = tokio::fs::File::from_std(archive);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = archive.read(&mut buffer).await;
        let read = read.map_err(|error| Error::from_io(error, OP))?;
        if read == 0 {
            let _ = sender.send(framed(frame::END, b"")).await;
            return Ok(());
        }
        let part = buffer.get(..read).unwrap_or_default();
        if sender.send(framed(frame::DATA, part)).await.is_err() {
            return Ok(());
        }
    }
}

fn framed(kind: u8, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(frame::HEAD + bytes.len());
    frame.extend_from_slice(&frame::head(kind, bytes.len()));
    frame.extend_from_slice(bytes);
    frame.freeze()
}
