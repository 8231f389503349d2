//! A registry like the service's own: Debian's `docker-registry` behind the exchange of tokens of
//! Azure Container Registry.
//!
//! A token of Entra is exchanged for a refresh token, that one for a token for one repository,
//! which the registry checks itself. It must never let in a token that the exchange did not give.
//!
//! Source: <https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md>

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response, header};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SigningKey as _};
use sandbox_core::{Error, ErrorKind, Operation, Result, Sandbox};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::call::query;
use super::forward::through;
use super::reply::Reply;
use super::state::State;
use crate::distribution::{Reference, Session, unpack};

const PROGRAM: &str = "docker-registry";
const ISSUER: &str = "aca-emulator";
const SERVICE: &str = "registry.emulator";

/// Audience of the tokens of Entra that are exchanged.
const ENTRA: &str = "https://containerregistry.azure.net";

/// Audience of refresh tokens.
const REFRESH: &str = "registry-refresh";

/// Time that the registry may take to listen.
const STARTS: Duration = Duration::from_secs(20);

/// Time that it may take to end once it is killed.
const ENDS: Duration = Duration::from_secs(5);

/// A running registry; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Registry {
    address: SocketAddr,
    issuer: Issuer,
    program: Child,
    dir: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // What still writes while its directory is removed leaves a part of it. It has been killed,
        // so this takes as long as the kernel needs.
        let killed = self.program.start_kill();
        let asked = Instant::now();
        while killed.is_ok()
            && asked.elapsed() < ENDS
            && matches!(self.program.try_wait(), Ok(None))
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A pulled image.
#[derive(Debug)]
pub(super) struct Image {
    config: Value,
    layer: Bytes,
}

impl Image {
    pub(super) fn entrypoint(&self) -> Vec<String> {
        let both = [
            &self.config["config"]["Entrypoint"],
            &self.config["config"]["Cmd"],
        ];
        let words = both.into_iter().filter_map(Value::as_array).flatten();
        words
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect()
    }

    pub(super) fn env(&self) -> Vec<(&str, &str)> {
        let all = self.config["config"]["Env"]
            .as_array()
            .into_iter()
            .flatten();
        all.filter_map(|one| one.as_str()?.split_once('='))
            .collect()
    }

    pub(super) fn workdir(&self) -> &str {
        let workdir = self.config["config"]["WorkingDir"].as_str();
        workdir.filter(|workdir| !workdir.is_empty()).unwrap_or("/")
    }

    pub(super) async fn unpack(&self, local: &dyn Sandbox) -> Result<()> {
        unpack(local, &self.layer).await
    }
}

impl Registry {
    /// Address at which images are named.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The directory of its images and its log.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Whether an image is one of this registry.
    pub(super) fn has(&self, image: &str) -> bool {
        Reference::new(image).is_some_and(|image| image.address() == self.address)
    }

    /// Pulls an image as an identity, which has to have been named for this registry.
    pub(super) async fn pull(
        &self,
        image: &str,
        servers: &[String],
    ) -> std::result::Result<Image, String> {
        let server = self.address.to_string();
        if !servers.contains(&server) {
            return Err("401 Unauthorized: no identity is named for the registry".into());
        }
        let image = Reference::new(image).ok_or("the image has no registry")?;
        let access = json!([{"type": "repository", "name": image.name(), "actions": ["pull"]}]);
        let token = self.issuer.token(&access).ok_or("no token could be made")?;
        let session = Session::with_token(&image, token);
        let (config, layer) = session.pull().await?;
        Ok(Image { config, layer })
    }
}

/// Starts a registry, and what stands before it.
pub(super) async fn start(state: &Arc<State>) -> Result<JoinHandle<()>> {
    let failed = |why: &str, error: std::io::Error| {
        Error::new(ErrorKind::Unavailable, Operation::Connect)
            .with_message(format!("the registry does not start: {why}"))
            .with_hint("it is Debian's package docker-registry")
            .with_source(error)
    };
    let dir = tempfile::tempdir().map_err(|e| failed("no place for its images", e))?;
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.map_err(|e| failed("no port", e))?;
    let address = listener.local_addr().map_err(|e| failed("no port", e))?;
    let (issuer, certificate) =
        Issuer::new().map_err(|e| failed("no key", std::io::Error::other(e)))?;
    let bundle = dir.path().join("issuer.pem");
    std::fs::write(&bundle, certificate).map_err(|e| failed("no place for its certificate", e))?;
    let storage = dir.path().join("images");
    // JSON is YAML.
    let config = json!({
        "version": 0.1,
        "log": {"accesslog": {"disabled": false}},
        "storage": {"filesystem": {"rootdirectory": storage}, "delete": {"enabled": true}},
        "http": {"addr": "127.0.0.1:0", "relativeurls": true},
        "auth": {"token": {
            "realm": format!("http://{address}/oauth2/token"),
            "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle,
        }},
    });
    let file = dir.path().join("config.yml");
    std::fs::write(&file, config.to_string()).map_err(|e| failed("no configuration", e))?;
    // It ends with this process, however that ends.
    let mut program = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", PROGRAM, "serve"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed("setpriv", e))?;
    let inner = tokio::time::timeout(STARTS, listening(&mut program, dir.path())).await;
    let inner = inner.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut));
    let inner = inner
        .and_then(|inner| inner)
        .map_err(|e| failed(PROGRAM, e))?;
    state.has_registry(Registry {
        address,
        issuer,
        dir,
        program,
    });
    let state = Arc::clone(state);
    let app = Router::new().fallback(move |request: Request<Body>| {
        let state = Arc::clone(&state);
        async move { front(&state, inner, request).await }
    });
    Ok(tokio::spawn(async move {
        // Serving ends when the task is aborted, and in no other way.
        let _ = axum::serve(listener, app).await;
    }))
}

/// Waits until the registry says where it listens; its log goes on into a file.
async fn listening(program: &mut Child, dir: &Path) -> std::io::Result<SocketAddr> {
    let log = program
        .stderr
        .take()
        .ok_or(std::io::ErrorKind::BrokenPipe)?;
    let mut lines = BufReader::new(log).lines();
    let mut file = tokio::fs::File::create(dir.join("registry.log")).await?;
    let mut said = String::new();
    while let Some(line) = lines.next_line().await? {
        file.write_all(format!("{line}\n").as_bytes()).await?;
        let place = line.split_once("listening on ").map(|(_, place)| place);
        let place: String = place
            .into_iter()
            .flat_map(str::chars)
            .take_while(|c| c.is_ascii_digit() || ".:".contains(*c))
            .collect();
        if let Ok(address) = place.parse() {
            tokio::spawn(async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    // What can't be written is lost; the program must not wait for it.
                    let _ = file.write_all(format!("{line}\n").as_bytes()).await;
                    let _ = file.flush().await;
                }
            });
            return Ok(address);
        }
        said = line;
    }
    Err(std::io::Error::other(said))
}

/// Answers what is asked of the registry's address: tokens here, the rest by the registry.
async fn front(state: &Arc<State>, inner: SocketAddr, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    state.note_request(&format!("{} {path}", request.method()));
    if let Some(what @ ("exchange" | "token")) = path.strip_prefix("/oauth2/") {
        let reply = tokens(state, what, request).await;
        let reply = reply.unwrap_or_else(|why| {
            let body = json!({"errors": [{"code": "UNAUTHORIZED", "message": why}]});
            Reply::json(401, body)
        });
        return reply.into_response(None);
    }
    let passed = match TcpStream::connect(inner).await {
        Ok(stream) => through(stream, request).await,
        Err(_) => None,
    };
    passed.unwrap_or_else(|| Reply::empty(502).into_response(None))
}

async fn tokens(
    state: &Arc<State>,
    what: &str,
    request: Request<Body>,
) -> std::result::Result<Reply, &'static str> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await;
    let body = body.map_err(|_| "the form is too large")?;
    let mut form = query(head.uri.query().unwrap_or_default());
    form.extend(query(&String::from_utf8_lossy(&body)));
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let holds = |token: &str, audience: &str| {
        let known = state.genuine(Some(&format!("Bearer {token}")));
        known.is_ok_and(|known| known == audience)
    };
    if what == "exchange" {
        if field("grant_type") != "access_token" {
            return Err("the grant type is not supported");
        }
        return match holds(field("access_token"), ENTRA) {
            true => {
                let refresh = state.mint(REFRESH, 3 * 3600);
                Ok(Reply::json(200, json!({"refresh_token": refresh})))
            }
            false => Err("the token is not one of Entra for registries"),
        };
    }
    // As `docker login` does, by a user without a name; or by a form.
    let basic = head.headers.get(header::AUTHORIZATION);
    let basic = basic.and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
    let basic = basic.and_then(|basic| STANDARD.decode(basic).ok());
    let basic = basic.and_then(|basic| String::from_utf8(basic).ok());
    let given = match field("grant_type") {
        "refresh_token" => field("refresh_token"),
        "password" => field("password"),
        _ => basic
            .as_deref()
            .and_then(|basic| basic.split_once(':'))
            .map_or("", |(_, word)| word),
    };
    if !holds(given, REFRESH) {
        return Err("the refresh token is not valid");
    }
    let access = match field("scope").splitn(3, ':').collect::<Vec<_>>()[..] {
        [kind @ ("repository" | "registry"), name, actions] => {
            let actions: Vec<&str> = actions.split(',').collect();
            json!([{"type": kind, "name": name, "actions": actions}])
        }
        _ => json!([]),
    };
    let registry = state.registry().ok_or("there is no registry")?;
    let token = registry
        .issuer
        .token(&access)
        .ok_or("no token could be made")?;
    Ok(Reply::json(
        200,
        json!({"access_token": token, "token": token, "expires_in": 300}),
    ))
}

/// Signs the tokens that the registry takes.
struct Issuer {
    key: KeyPair,
    certificate: String,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issuer")
    }
}

impl Issuer {
    /// An issuer and its certificate as PEM.
    fn new() -> std::result::Result<(Self, String), rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, ISSUER);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let pem = certificate.pem();
        let certificate = STANDARD.encode(certificate.der());
        Ok((Self { key, certificate }, pem))
    }

    /// A token for these rights, for five minutes.
    fn token(&self, access: &Value) -> Option<String> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.ok()?.as_secs();
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [self.certificate]});
        let claims = json!({
            "iss": ISSUER, "sub": "", "aud": SERVICE, "access": access,
            "nbf": now.saturating_sub(60), "iat": now, "exp": now + 300,
            "jti": uuid::Uuid::new_v4().to_string(),
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(signed.as_bytes()).ok()?;
        Some(format!(
            "{signed}.{}",
            URL_SAFE_NO_PAD.encode(fixed(&signature)?)
        ))
    }
}

/// The two numbers of a signature in DER, each in 32 bytes (RFC 7518, 3.4).
fn fixed(der: &[u8]) -> Option<[u8; 64]> {
    let [0x30, _, rest @ ..] = der else {
        return None;
    };
    let mut out = [0; 64];
    let mut rest = rest;
    for half in out.chunks_exact_mut(32) {
        let [0x02, length, tail @ ..] = rest else {
            return None;
        };
        let (number, tail) = tail.split_at_checked(usize::from(*length))?;
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let number = number.get(zeros..)?;
        half.get_mut(32_usize.checked_sub(number.len())?..)?
            .copy_from_slice(number);
        rest = tail;
    }
    Some(out)
}
