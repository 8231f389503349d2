//! Logins at registries: a token of Entra is exchanged for one of the registry, for engines that
//! push.
//!
//! A token must never be sent to a server that is not Azure's, and never be shown.
//!
//! Source: <https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md>

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use sandbox_core::{ErrorKind, Operation, Result, Secret};
use serde::Deserialize;

use super::plane::ControlPlane;
use super::role::Role;
use super::step::Step;
use crate::auth::Tokens;
use crate::http::{Http, Plane, Request};

/// Scope of the tokens that registries exchange.
const SCOPE: &str = "https://containerregistry.azure.net/.default";

/// Ends of the names of registries, one for each cloud.
const CLOUDS: [&str; 3] = [".azurecr.io", ".azurecr.us", ".azurecr.cn"];

/// A login at a registry, as `docker login` and Dagger's `withRegistryAuth` take it. The password
/// is a refresh token, valid for about three hours.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RegistryLogin {
    /// The registry: `NAME.azurecr.io`.
    pub server: String,
    /// The user of every token.
    pub user: &'static str,
    /// The refresh token.
    pub password: Secret,
}

#[derive(Deserialize)]
struct Exchanged {
    refresh_token: String,
}

/// The directory that a token is of, as it says itself: nothing is decided by it here.
fn directory(token: &Secret) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        tid: String,
    }
    let claims = std::str::from_utf8(token.expose())
        .ok()?
        .split('.')
        .nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    Some(claims.tid)
}

/// The address of a registry that may get a token of Entra.
fn endpoint(server: &str) -> Option<String> {
    if let Ok(address) = server.parse::<std::net::SocketAddr>() {
        return address
            .ip()
            .is_loopback()
            .then(|| format!("http://{server}"));
    }
    let name = CLOUDS.iter().find_map(|cloud| server.strip_suffix(cloud))?;
    let known = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (!name.is_empty() && name.chars().all(known)).then(|| format!("https://{server}"))
}

impl ControlPlane {
    /// Logs in at a registry as this control plane's credential, without the registry's own
    /// passwords: to push needs the role AcrPush.
    ///
    /// `server` is the registry's login server, `NAME.azurecr.io`; a registry on loopback
    /// (`127.0.0.1:PORT`) is spoken to by plain HTTP. Safe to repeat.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for any other server, which must not get the
    /// token; what the registry answers. Dropping the future stops the waiting.
    ///
    /// ```no_run
    /// # async fn run(azure: sandbox_aca::provision::ControlPlane) -> sandbox_core::Result<()> {
    /// let login = azure.registry_login("tenants.azurecr.io").await?;
    /// println!("docker login {} --username {} --password-stdin", login.server, login.user);
    /// # Ok(()) }
    /// ```
    pub async fn registry_login(&self, server: &str) -> Result<RegistryLogin> {
        let step = Step {
            what: format!("log in at the registry {server}"),
            az: format!("az acr login --name {server} --expose-token"),
            role: Role::ACR_PUSH,
            scope: self.resource_group().clone(),
        };
        let endpoint = endpoint(server).ok_or_else(|| {
            let why = "its name is not one of an Azure registry, so it must not get an Entra token";
            step.error(ErrorKind::InvalidInput, why)
                .with_hint("name it by its login server: NAME.azurecr.io")
        })?;
        let config = self.config();
        let plane = Plane {
            endpoint,
            prefix: Vec::new(),
            api_version: String::new(),
            ca_file: config.ca_file.clone(),
            role: "AcrPush",
            resource: server.to_owned(),
            role_wait: Duration::ZERO,
        };
        let token = config.credential.token(SCOPE).await?.token;
        let directory = directory(&token);
        let held = String::from_utf8_lossy(token.expose());
        let mut form = vec![
            ("grant_type", "access_token"),
            ("service", server),
            ("access_token", held.as_ref()),
        ];
        if let Some(directory) = &directory {
            form.push(("tenant", directory.as_str()));
        }
        let pair = |(name, value): &(&str, &str)| {
            let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
            format!("{name}={value}")
        };
        let form: Vec<String> = form.iter().map(pair).collect();
        let body = Bytes::from(form.join("&"));
        let tokens = Tokens::new(Arc::clone(&config.credential), SCOPE.to_owned());
        let http = Http::new(plane, tokens)?;
        let path = ["oauth2", "exchange"];
        let mut request =
            Request::new(Method::POST, &path).with_body("application/x-www-form-urlencoded", body);
        request.repeat = true;
        // It is in the form.
        request.bare = true;
        let answer = http.send(Operation::Provision, request).await;
        let answer = answer.map_err(|failure| step.failed(failure))?;
        let exchanged: Exchanged = serde_json::from_slice(&answer).map_err(|_| {
            // What it is may be confidential.
            let why = "the registry's answer is not understood";
            step.error(ErrorKind::Other, why)
        })?;
        Ok(RegistryLogin {
            server: server.to_owned(),
            user: "00000000-0000-0000-0000-000000000000",
            password: exchanged.refresh_token.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_registries_of_azure_and_to_loopback() {
        for (server, expected) in [
            ("tenants.azurecr.io", Some("https://tenants.azurecr.io")),
            (
                "tenants-a1b2.azurecr.cn",
                Some("https://tenants-a1b2.azurecr.cn"),
            ),
            ("127.0.0.1:5000", Some("http://127.0.0.1:5000")),
            ("[::1]:5000", Some("http://[::1]:5000")),
            (".azurecr.io", None),
            ("evil.example/.azurecr.io", None),
            ("evil.example#.azurecr.io", None),
            ("a.b.azurecr.io", None),
            ("tenants.azurecr.io.evil.example", None),
            ("10.0.0.1:5000", None),
            ("localhost:5000", None),
            ("https://tenants.azurecr.io", None),
            ("", None),
        ] {
            assert_eq!(endpoint(server).as_deref(), expected, "{server}");
        }
    }
}
