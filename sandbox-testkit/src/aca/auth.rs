//! Tokens: made by the emulator, shaped like those of Microsoft Entra, checked for audience and
//! expiry.
//!
//! They prove nothing to anybody else: the signature is a random number of this process.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::reply::{Reply, problem};
use super::state::State;

/// Audiences of the management plane.
const ARM: &[&str] = &[
    "https://management.azure.com",
    "https://management.core.windows.net",
];

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plane {
    Data,
    Arm,
}

impl State {
    /// A token for this audience, valid for so many seconds.
    pub(super) fn mint(&self, audience: &str, seconds: i64) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let claims = json!({
            "aud": audience,
            "exp": self.now().saturating_add(seconds),
            "iss": "https://emulator.invalid/",
        });
        let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
        format!("{header}.{claims}.{}", self.signature)
    }

    /// Seconds since 1970.
    fn now(&self) -> i64 {
        i64::try_from(self.clock.wall().as_secs()).unwrap_or(i64::MAX)
    }

    /// Whether a request may pass; the answer to it if not.
    pub(super) fn authorize(&self, header: Option<&str>, plane: Plane) -> Result<(), Reply> {
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
        let options = self.options();
        let fits = match plane {
            Plane::Data => options.audiences.iter().any(|known| known == audience),
            Plane::Arm => ARM.contains(&audience),
        };
        if !fits {
            return Err(refuse("the token's audience is wrong"));
        }
        if claims["exp"].as_i64().unwrap_or(0) <= self.now() {
            return Err(refuse("the token has expired"));
        }
        // The role is one of the data plane.
        let early = self.clock.now() < options.role_after;
        if plane == Plane::Data && (options.forbidden || early) {
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
                "expires_on": (self.now() + 3600).to_string(),
                "resource": resource,
                "token_type": "Bearer",
            }),
        )
    }
}
