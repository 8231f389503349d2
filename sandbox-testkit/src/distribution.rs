//! Images in a real registry on loopback: pushed and pulled by the distribution protocol, with one
//! layer that is not compressed.
//!
//! It must never send a login to another machine, and never take a blob that is not what its digest
//! says.
//!
//! Source: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use sandbox_core::{Command, Error, ErrorKind, Operation, Sandbox, SandboxExt as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// Place of a layer in a sandbox while it is packed or unpacked.
pub(crate) const LAYER: &str = "/.double-layer.tar";

pub(crate) fn hex(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A reference to an image of a registry on loopback.
#[derive(Debug)]
pub(crate) struct Reference<'a> {
    address: SocketAddr,
    name: &'a str,
    /// Tag or digest.
    version: &'a str,
}

impl<'a> Reference<'a> {
    /// Takes `127.0.0.1:PORT/NAME:TAG` or `…@sha256:…` apart; `None` for any other registry.
    pub(crate) fn new(text: &'a str) -> Option<Self> {
        let (address, rest) = text.split_once('/')?;
        let address: SocketAddr = address.parse().ok()?;
        if !address.ip().is_loopback() {
            return None;
        }
        let (name, version) = match rest.split_once('@') {
            Some((name, digest)) => (name.split(':').next()?, digest),
            None => rest.split_once(':').unwrap_or((rest, "latest")),
        };
        Some(Self {
            address,
            name,
            version,
        })
    }

    /// The registry.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The name without version.
    pub(crate) fn name(&self) -> &str {
        self.name
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

async fn send(to: SocketAddr, request: Request<Full<Bytes>>) -> Result<Answer, String> {
    let told = |error: &dyn std::fmt::Display| format!("{to}: {error}");
    let stream = TcpStream::connect(to).await.map_err(|e| told(&e))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| told(&e))?;
    let connection = tokio::spawn(connection);
    let answer = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok::<_, hyper::Error>(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    };
    let answer = answer.await.map_err(|e| told(&e));
    connection.abort();
    answer
}

/// A registry with the right to use one repository of it.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    to: &'a Reference<'a>,
    bearer: Option<String>,
}

impl<'a> Session<'a> {
    /// A session that has a token already.
    pub(crate) fn with_token(to: &'a Reference<'a>, token: String) -> Self {
        Self {
            to,
            bearer: Some(token),
        }
    }

    /// Asks the registry whether it wants a token, and gets one with this login.
    pub(crate) async fn login(
        to: &'a Reference<'a>,
        login: Option<(&str, &str)>,
    ) -> Result<Self, String> {
        let mut session = Self { to, bearer: None };
        let asked = session
            .request(Method::GET, "/v2/", "", Bytes::new())
            .await?;
        if asked.status != StatusCode::UNAUTHORIZED {
            return Ok(session);
        }
        let challenge = asked.headers.get(header::WWW_AUTHENTICATE);
        let challenge = challenge
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let part = |name: &str| {
            let rest = challenge.split_once(&format!("{name}=\""))?.1;
            rest.split_once('"').map(|(value, _)| value)
        };
        let realm = part("realm").and_then(|realm| realm.strip_prefix("http://"));
        let (host, path) = realm
            .and_then(|realm| realm.split_once('/'))
            .ok_or("the registry names no place for tokens")?;
        // The login goes to the registry that it is for.
        if host.parse() != Ok(to.address) {
            return Err(format!("the registry sends logins elsewhere, to {host}"));
        }
        let (user, password) = login.ok_or("401 Unauthorized: no login")?;
        let service = part("service").unwrap_or_default();
        let target = format!(
            "/{path}?service={service}&scope=repository:{}:pull,push",
            to.name
        );
        let basic = STANDARD.encode(format!("{user}:{password}"));
        let request = Request::get(target)
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, format!("Basic {basic}"))
            .body(Full::default())
            .map_err(|e| e.to_string())?;
        let answer = send(to.address, request).await?;
        let token: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let token = token["access_token"].as_str().or(token["token"].as_str());
        match token.filter(|_| answer.status.is_success()) {
            Some(token) => {
                session.bearer = Some(token.to_owned());
                Ok(session)
            }
            None => Err(format!("failed to authorize: {}", answer.status)),
        }
    }

    async fn request(
        &self,
        method: Method,
        target: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<Answer, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, self.to.address.to_string());
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {bearer}"));
        }
        if !kind.is_empty() {
            request = request
                .header(header::CONTENT_TYPE, kind)
                .header(header::ACCEPT, kind);
        }
        let request = request.body(Full::new(body)).map_err(|e| e.to_string())?;
        send(self.to.address, request).await
    }

    /// Uploads a blob; describes it.
    async fn blob(&self, kind: &str, content: Bytes) -> Result<Value, String> {
        let (digest, size) = (format!("sha256:{}", hex(&content)), content.len());
        let target = format!("/v2/{}/blobs/uploads/", self.to.name);
        let begun = self
            .request(Method::POST, &target, "", Bytes::new())
            .await?;
        let place = begun.headers.get(header::LOCATION);
        let place = place.and_then(|place| place.to_str().ok());
        let place = place.ok_or_else(|| format!("no upload was begun: {}", begun.status))?;
        let place = place
            .strip_prefix(&format!("http://{}", self.to.address))
            .unwrap_or(place);
        let mark = if place.contains('?') { '&' } else { '?' };
        let target = format!("{place}{mark}digest={digest}");
        let done = self
            .request(Method::PUT, &target, "application/octet-stream", content)
            .await?;
        match done.status.is_success() {
            true => Ok(json!({"mediaType": kind, "digest": digest, "size": size})),
            false => Err(format!("a blob was not taken: {}", done.status)),
        }
    }

    /// Pushes an image of one layer, whose configuration depends on the layer's digest; gives the
    /// digest of its manifest.
    pub(crate) async fn push(
        &self,
        layer: Bytes,
        config: impl FnOnce(&Value) -> Value,
    ) -> Result<String, String> {
        let layer = self.blob(LAYER_TAR, layer).await?;
        let config = config(&layer["digest"]).to_string();
        let config = self.blob(CONFIG, Bytes::from(config)).await?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
        });
        let manifest = manifest.to_string();
        let digest = format!("sha256:{}", hex(manifest.as_bytes()));
        let target = format!("/v2/{}/manifests/{}", self.to.name, self.to.version);
        let done = self
            .request(Method::PUT, &target, MANIFEST, manifest.into())
            .await?;
        match done.status.is_success() {
            true => Ok(digest),
            false => Err(format!("the manifest was not taken: {}", done.status)),
        }
    }

    async fn get(&self, target: &str, digest: &str) -> Result<Bytes, String> {
        let answer = self
            .request(Method::GET, target, MANIFEST, Bytes::new())
            .await?;
        if !answer.status.is_success() {
            return Err(format!("{}: {}", self.to.name, answer.status));
        }
        match format!("sha256:{}", hex(&answer.body)) == digest {
            true => Ok(answer.body),
            false => Err("a blob is not what its digest says".into()),
        }
    }

    /// Gets the blob of this description.
    async fn described(&self, described: &Value) -> Result<Bytes, String> {
        let digest = described["digest"].as_str().unwrap_or_default();
        let target = format!("/v2/{}/blobs/{digest}", self.to.name);
        self.get(&target, digest).await
    }

    /// Pulls an image of one layer by its digest: its configuration and the layer.
    pub(crate) async fn pull(&self) -> Result<(Value, Bytes), String> {
        let (name, version) = (self.to.name, self.to.version);
        if !version.starts_with("sha256:") {
            return Err("an image is pulled by its digest".into());
        }
        let manifest = self
            .get(&format!("/v2/{name}/manifests/{version}"), version)
            .await?;
        let manifest: Value = serde_json::from_slice(&manifest).map_err(|e| e.to_string())?;
        let config = self.described(&manifest["config"]).await?;
        let config = serde_json::from_slice(&config).map_err(|e| e.to_string())?;
        let layers = manifest["layers"].as_array().map_or(&[][..], Vec::as_slice);
        let [layer] = layers else {
            return Err("images of one layer are read, and no others".into());
        };
        if layer["mediaType"] != LAYER_TAR {
            return Err("layers that are not compressed are read, and no others".into());
        }
        Ok((config, self.described(layer).await?))
    }
}

/// Makes the container's own filesystem what the layer says.
pub(crate) async fn unpack(state: &dyn Sandbox, layer: &[u8]) -> sandbox_core::Result<()> {
    state.write(LAYER, layer.to_vec()).await?;
    // What something else is mounted on stays as it is.
    let script = "cut -d ' ' -f 2 /proc/mounts | grep -v '^/$' | sed 's,^,.,' >/dev/shm/mounts &&
        tar -tf \"$1\" | sed 's,/$,,' | sort >/dev/shm/kept &&
        find . -xdev ! -path \"./${1#/}\" | sort | comm -13 /dev/shm/kept - |
            while IFS= read -r gone; do rm -rf -- \"$gone\"; done
        tar --anchored -X /dev/shm/mounts -xpf \"$1\" -C / 2>&1; e=$?
        rm -f \"$1\" /dev/shm/kept /dev/shm/mounts; exit $e";
    let unpacked = state
        .exec(Command::shell(script).cwd("/").args(["sh", LAYER]))
        .await?;
    match unpacked.success() {
        true => Ok(()),
        false => {
            let why = format!(
                "the layer can't be unpacked: {}",
                unpacked.stdout.to_string_lossy()
            );
            Err(Error::new(ErrorKind::Other, Operation::Create).with_message(why))
        }
    }
}
