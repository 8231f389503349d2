//! Tokens: made by the emulator, shaped like those of Microsoft Entra, checked for audience and
//! expiry.
//!
//! They prove nothing to anybody else: the signature is a random number of this process.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::reply::{Reply, problem};
use super::state::State;

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

impl State {
    /// A token for this audience, valid for so many seconds.
    pub(super) fn mint(&self, audience: &str, seconds: i64) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let claims = json!({
            "aud": audience,
            "exp": now().saturating_add(seconds),
            "iss": "https://emulator.invalid/",
        });
        let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
        format!("{header}.{claims}.{}", self.signature)
    }

    /// Whether a request may pass; the answer to it if not.
    pub(super) fn authorize(&self, header: Option<&str>) -> Result<(), Reply> {
        let refuse = |why: &str| problem(401, "Unauthorized", why);
        let token = header
            .and_then(|header| header.strip_prefix("Bearer "))
            .ok_or_else(|| refuse("a bearer token is required"))?;
        let parts: Vec<&str> = token.split('.').collect();
        let [_, claims, signature] = parts[..] else {
            return Err(refuse("the token is malformed"));
        };
        if signature != self.signature {
            return Err(refuse("the token's signature is not valid"));
        }
        let claims: Value = URL_SAFE_NO_PAD
            .decode(claims)
            .ok()
            .and_then(|claims| serde_json::from_slice(&claims).ok())
            .ok_or_else(|| refuse("the token is malformed"))?;
        let audience = claims["aud"].as_str().unwrap_or_default();
        let audience = audience.trim_end_matches('/');
        if !self.options.audiences.iter().any(|known| known == audience) {
            return Err(refuse("the token's audience is wrong"));
        }
        if claims["exp"].as_i64().unwrap_or(0) <= now() {
            return Err(refuse("the token has expired"));
        }
        if self.options.forbidden {
            return Err(Reply::empty(403));
        }
        Ok(())
    }

    /// What the managed identity endpoint of App Service says, for `IDENTITY_ENDPOINT`.
    pub(super) fn identity(&self, resource: &str) -> Reply {
        Reply::json(
            200,
            json!({
                "access_token": self.mint(resource, 3600),
                "expires_on": (now() + 3600).to_string(),
                "resource": resource,
                "token_type": "Bearer",
            }),
        )
    }
}
