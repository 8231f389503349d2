//! A command's terminal over a WebSocket: its bytes in binary messages, `{"rows": 24, "columns": 80}` as
//! text when the page has another size.

use std::error::Error;

use axum::extract::ws::{Message, WebSocket};
use futures_util::{SinkExt as _, StreamExt as _};
use sandbox::{Process, TerminalSize};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Carries both directions until one side goes away. The command ends when this does.
pub(crate) async fn relay(
    mut process: Process,
    socket: WebSocket,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (Some(mut keys), Some(mut shown)) = (process.stdin.take(), process.stdout.take()) else {
        return Ok(());
    };
    let (mut to_page, mut from_page) = socket.split();
    // Side by side: the terminal takes no more keys while what it shows is not read.
    let showing = async {
        let mut piece = vec![0; 64 << 10];
        loop {
            match shown.read(&mut piece).await? {
                0 => return Ok(to_page.close().await?),
                count => {
                    let bytes = piece[..count].to_vec();
                    to_page.send(Message::Binary(bytes.into())).await?;
                }
            }
        }
    };
    let typing = async {
        while let Some(message) = from_page.next().await {
            match message? {
                Message::Binary(bytes) => keys.write_all(&bytes).await?,
                Message::Text(text) => {
                    let asked: Value = serde_json::from_str(&text).unwrap_or_default();
                    let size =
                        |name: &str| asked[name].as_u64().and_then(|n| u16::try_from(n).ok());
                    if let (Some(rows), Some(columns)) = (size("rows"), size("columns")) {
                        process.resize(TerminalSize { rows, columns }).await?;
                    }
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
        Ok(())
    };
    tokio::select! {
        shown = showing => shown,
        typed = typing => typed,
    }
}
