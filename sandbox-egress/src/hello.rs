//! The first message of a TLS connection: which server it asks for.
//!
//! It is read whole before anything goes out, by rustls' own parser. What can't be judged is
//! refused: no server name, an encrypted one, anything that is not TLS.
//!
//! References: RFC 8446 4.1.2 and 5.1; RFC 9849 (Encrypted Client Hello).

use std::time::Duration;

use rustls::server::Acceptor;
use sandbox_core::canonical_host;
use tokio::io::{AsyncRead, AsyncReadExt};

/// A first message has a few hundred bytes; with post-quantum keys two thousand.
const LONGEST: usize = 16 * 1024;
/// Limit of the time for a first message to come.
const PATIENCE: Duration = Duration::from_secs(5);

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// A first message that can be judged.
pub(crate) struct Hello {
    /// All that was read, to be sent on.
    pub(crate) bytes: Vec<u8>,
    /// The server name in canonical form.
    pub(crate) name: String,
}

/// Reads it, within its limits; otherwise says why not.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Hello, &'static str> {
    match tokio::time::timeout(PATIENCE, whole(stream)).await {
        Ok(read) => read,
        Err(_) => Err("the first TLS message did not come within 5 seconds"),
    }
}

async fn whole(stream: &mut (impl AsyncRead + Unpin)) -> Result<Hello, &'static str> {
    let mut acceptor = Acceptor::default();
    let mut bytes = Vec::new();
    let mut fed = 0;
    while bytes.len() < LONGEST {
        let mut some = (&mut *stream).take((LONGEST - bytes.len()) as u64);
        match some.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err("the connection ended before its first TLS message"),
            Ok(_) => {}
        }
        if bytes.first() != Some(&HANDSHAKE) || bytes.get(1).is_some_and(|major| *major != 3) {
            return Err("it is not TLS");
        }
        while fed < bytes.len() {
            let mut rest = bytes.get(fed..).unwrap_or_default();
            let before = rest.len();
            let read = acceptor.read_tls(&mut rest);
            if read.is_err() || rest.len() == before {
                return Err("the first TLS message can't be read");
            }
            fed += before - rest.len();
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let name = accepted
                        .client_hello()
                        .server_name()
                        .and_then(canonical_host);
                    return judge(bytes, name);
                }
                Err(_) => return Err("the first TLS message can't be read"),
            }
        }
    }
    Err("the first TLS message has more than 16 KiB")
}

fn judge(bytes: Vec<u8>, name: Option<String>) -> Result<Hello, &'static str> {
    let Some(extensions) = extensions(&bytes) else {
        return Err("the first TLS message can't be read");
    };
    if extensions.contains(&ENCRYPTED_CLIENT_HELLO) {
        return Err("the TLS server name is encrypted (ECH), so that it can't be compared");
    }
    match name {
        Some(name) => Ok(Hello { bytes, name }),
        None => Err("there is no TLS server name to compare"),
    }
}

/// A cursor that yields nothing once something is missing.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        let taken = self.take(bytes)?;
        Some(
            taken
                .iter()
                .fold(0, |number, byte| number << 8 | usize::from(*byte)),
        )
    }

    /// Bytes behind a length of so many bytes.
    fn vector(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let length = self.number(bytes)?;
        self.take(length)
    }
}

/// The types of the extensions in a message that rustls has read: it does not tell those that it
/// has no use for.
fn extensions(records: &[u8]) -> Option<Vec<u16>> {
    let mut records = Rest(records);
    let mut message = Vec::new();
    // The message, across as many records as it has.
    loop {
        if let Some(&[kind, a, b, c]) = message.get(..4) {
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if kind != CLIENT_HELLO {
                return None;
            }
            if message.len() - 4 >= length {
                message.truncate(4 + length);
                break;
            }
        }
        let kind = records.number(1)?;
        records.take(2)?;
        if kind != usize::from(HANDSHAKE) {
            return None;
        }
        message.extend_from_slice(records.vector(2)?);
    }
    let mut hello = Rest(message.get(4..)?);
    // Version and random; session; ciphers; compressions.
    hello.take(2 + 32)?;
    hello.vector(1)?;
    hello.vector(2)?;
    hello.vector(1)?;
    if hello.0.is_empty() {
        return Some(Vec::new());
    }
    let mut extensions = Rest(hello.vector(2)?);
    let mut types = Vec::new();
    while !extensions.0.is_empty() {
        types.push(u16::try_from(extensions.number(2)?).ok()?);
        extensions.vector(2)?;
    }
    Some(types)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// Returns what rustls' client sends first.
    pub(crate) fn client_hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// Splits a first message into records of `size` bytes.
    fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
        let mut records = Vec::new();
        for part in hello[5..].chunks(size) {
            records.extend_from_slice(&[22, 3, 1]);
            records.extend_from_slice(&(part.len() as u16).to_be_bytes());
            records.extend_from_slice(part);
        }
        records
    }

    /// Adds one more extension to a first message.
    pub(crate) fn with_extension(hello: &[u8], kind: u16, content: &[u8]) -> Vec<u8> {
        let mut message = hello[5..].to_vec();
        let mut at = 4 + 34;
        at += 1 + usize::from(message[at]);
        at += 2 + usize::from(u16::from_be_bytes([message[at], message[at + 1]]));
        at += 1 + usize::from(message[at]);
        let all = u16::from_be_bytes([message[at], message[at + 1]]) + 4 + content.len() as u16;
        message[at..at + 2].copy_from_slice(&all.to_be_bytes());
        let mut extension = kind.to_be_bytes().to_vec();
        extension.extend_from_slice(&(content.len() as u16).to_be_bytes());
        extension.extend_from_slice(content);
        // Not as the last: that is a pre-shared key's place.
        message.splice(at + 2..at + 2, extension);
        let length = (message.len() as u32 - 4).to_be_bytes();
        message[1..4].copy_from_slice(&length[1..]);
        let mut record = vec![22, 3, 1];
        record.extend_from_slice(&(message.len() as u16).to_be_bytes());
        record.extend_from_slice(&message);
        record
    }

    async fn read_all(bytes: &[u8]) -> Result<Hello, &'static str> {
        read(&mut &bytes[..]).await
    }

    #[tokio::test]
    async fn the_name_is_found_however_the_message_is_cut() {
        let hello = client_hello("Allowed.Test");
        let read = read_all(&hello).await.ok().unwrap();
        assert_eq!((read.name.as_str(), &read.bytes), ("allowed.test", &hello));
        for size in [1, 2, 3, 40, 100] {
            let cut = in_records(&hello, size);
            let read = read_all(&cut)
                .await
                .map(|read| (read.name, read.bytes == cut));
            assert_eq!(read, Ok(("allowed.test".into(), true)), "records of {size}");
        }
        // Byte by byte.
        let (mut one, mut other) = tokio::io::duplex(1);
        let sent = hello.clone();
        let send = async move {
            for byte in sent {
                tokio::io::AsyncWriteExt::write_all(&mut one, &[byte])
                    .await
                    .unwrap();
            }
        };
        let (read, ()) = tokio::join!(super::read(&mut other), send);
        assert_eq!(read.map(|read| read.name), Ok("allowed.test".into()));
        // What comes right behind it is kept.
        let mut more = hello.clone();
        more.extend_from_slice(&[20, 3, 3, 0, 1, 1]);
        assert_eq!(read_all(&more).await.map(|read| read.bytes), Ok(more));
    }

    #[tokio::test]
    async fn what_can_not_be_judged_is_refused() {
        let hello = client_hello("allowed.test");
        let why = async |bytes: &[u8]| read_all(bytes).await.err().unwrap_or("allowed");
        assert_eq!(why(b"GET / HTTP/1.1\r\n").await, "it is not TLS");
        assert_eq!(why(&[22, 2, 0]).await, "it is not TLS");
        assert!(
            why(&[22, 3, 1, 0, 40, 9, 9, 9, 9, 9, 9, 9, 9])
                .await
                .contains("TLS message")
        );
        assert!(
            why(&[22, 3, 1, 255, 255, 1, 0, 255, 255])
                .await
                .contains("TLS message")
        );
        // An address is not sent as a name.
        assert!(
            why(&client_hello("192.0.2.1"))
                .await
                .contains("no TLS server name")
        );
        // Outer, its ciphers and configuration, a key of 32 bytes, a payload of 100.
        let mut outer = vec![0, 0, 1, 0, 1, 42, 0, 32];
        outer.extend_from_slice(&[7; 32]);
        outer.extend_from_slice(&[0, 100]);
        outer.extend_from_slice(&[7; 100]);
        let ech = with_extension(&hello, 0xfe0d, &outer);
        assert!(why(&ech).await.contains("encrypted"), "{}", why(&ech).await);
        let ech = in_records(&ech, 50);
        assert!(why(&ech).await.contains("encrypted"));
        let long = with_extension(&hello, 0xfafa, &[0; 15_800]);
        assert_eq!(why(&long).await, "allowed");
        let longer = with_extension(&hello, 0xfafa, &[0; 17_000]);
        assert_ne!(why(&longer).await, "allowed");
        for cut in [1, 5, 6, 40, hello.len() - 1] {
            assert!(why(&hello[..cut]).await.contains("ended"), "{cut}");
        }
        let other = with_extension(&hello, 0x0a0a, &[]);
        assert_eq!(why(&other).await, "allowed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_come_is_waited_for_for_5_seconds() {
        let (one, mut other) = tokio::io::duplex(10);
        let why = read(&mut other).await.err().unwrap();
        assert!(why.contains("5 seconds"), "{why}");
        drop(one);
    }

    #[tokio::test]
    async fn random_changes_do_no_harm_and_never_change_the_name_unseen() {
        let hello = client_hello("allowed.test");
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..3_000 {
            let mut bytes = hello.clone();
            for _ in 0..1 + round % 4 {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(1 + random() as usize % bytes.len());
            if let Ok(read) = read_all(&bytes).await {
                assert!(canonical_host(&read.name).is_some());
                assert_eq!(read.bytes, bytes);
            }
        }
    }
}
