//! Raw HTTP: one connection that is kept, a request written, an answer read. What a remote backend
//! is compared with; no client could do less.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

use crate::support::Outcome;

/// A connection to a double.
pub(crate) struct Raw {
    stream: BufStream<TcpStream>,
    head: String,
}

impl Raw {
    /// `authorization` is the whole value of the header.
    pub(crate) async fn connect(port: u16, authorization: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufStream::new(stream),
            head: format!(
                "HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: {authorization}\r\n\
                 content-type: application/json\r\n"
            ),
        })
    }

    /// Sends JSON and gives the JSON that comes back; an answer that is no success is an error.
    pub(crate) async fn ask(&mut self, request: &str, body: &Value) -> Outcome<Value> {
        let body = body.to_string();
        let head = format!(
            "{request} {}content-length: {}\r\n\r\n",
            self.head,
            body.len()
        );
        self.stream.write_all(head.as_bytes()).await?;
        self.stream.write_all(body.as_bytes()).await?;
        self.stream.flush().await?;
        let mut status = String::new();
        self.stream.read_line(&mut status).await?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err("the double closed the connection".into());
            }
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
        }
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await?;
        let text = String::from_utf8_lossy(&bytes);
        if !status.contains(" 200 ") {
            return Err(format!("{}: {text}", status.trim()).into());
        }
        let value: Value = serde_json::from_slice(&bytes)?;
        match value.get("errors") {
            Some(errors) => Err(errors.to_string().into()),
            None => Ok(value),
        }
    }
}
