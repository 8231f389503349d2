//! Tokens: made by the emulator, shaped like those of Microsoft Entra, checked for audience and
//! expiry.
//!
//! They prove nothing elsewhere: they are signed with a random number of this process.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::reply::{Reply, coded};
use super::state::State;

/// Audiences of the management plane.
const ARM: &[&str] = &[
    "https://management.azure.com",
    "https://management.core.windows.net",
];

/// The audience that the newer version of the sandboxes' data plane takes alone.
const NEWER: &str = "https://management.azuredevcompute.io";

/// The principal (and application) whose tokens the emulator gives, unless another is named.
pub const PRINCIPAL: &str = "00000000-0000-0000-0000-0000000000aa";

/// Plane that a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plane {
    Data,
    /// The data plane of sandboxes in its newer version.
    Newer,
    Arm,
    /// Queries of logs.
    Logs,
}

impl State {
    /// A token for this audience, valid for so many seconds.
    pub(super) fn mint(&self, audience: &str, seconds: i64) -> String {
        self.mint_for(PRINCIPAL, audience, seconds)
    }

    /// A token of this principal, which is an application of the same identifier too.
    pub(super) fn mint_for(&self, principal: &str, audience: &str, seconds: i64) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let claims = json!({
            "aud": audience,
            "exp": self.seconds().saturating_add(seconds),
            "iss": "https://emulator.invalid/",
            "oid": principal,
            "appid": principal,
        });
        let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
        let signature = self.signature(&header, &claims);
        format!("{header}.{claims}.{signature}")
    }

    /// The signature of a token's other parts.
    fn signature(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{header}.{claims}.{}", self.secret, self.secret);
        URL_SAFE_NO_PAD.encode(Sha256::digest(signed))
    }

    /// Seconds since 1970.
    pub(super) fn seconds(&self) -> i64 {
        i64::try_from(self.clock.wall().as_secs()).unwrap_or(i64::MAX)
    }

    /// The audience of a token that is one of ours and has not expired; the answer if it is not.
    pub(super) fn genuine(&self, header: Option<&str>) -> Result<String, Reply> {
        let claims = self.claims(header)?;
        let audience = claims["aud"].as_str().unwrap_or_default();
        Ok(audience.trim_end_matches('/').to_owned())
    }

    /// Claims of a token that is one of ours and has not expired; the answer if it is not.
    pub(super) fn claims(&self, header: Option<&str>) -> Result<Value, Reply> {
        let token = header
            .and_then(|header| header.strip_prefix("Bearer "))
            .ok_or_else(|| refuse("a bearer token is required"))?;
        let parts: Vec<&str> = token.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err(refuse("the token is malformed"));
        };
        if signature != self.signature(header, claims) {
            return Err(refuse("the token's signature is not valid"));
        }
        let claims: Value = URL_SAFE_NO_PAD
            .decode(claims)
            .ok()
            .and_then(|claims| serde_json::from_slice(&claims).ok())
            .ok_or_else(|| refuse("the token is malformed"))?;
        if claims["exp"].as_i64().unwrap_or(0) <= self.seconds() {
            return Err(refuse("the token has expired"));
        }
        Ok(claims)
    }

    /// Whether a request may pass; the answer to it if not.
    pub(super) fn authorize(&self, header: Option<&str>, plane: Plane) -> Result<(), Reply> {
        let audience = self.genuine(header)?;
        let options = self.options();
        let fits = match plane {
            Plane::Newer if !options.any_scope => audience == NEWER,
            Plane::Data | Plane::Newer => options.audiences.contains(&audience),
            Plane::Arm => ARM.contains(&audience.as_str()),
            Plane::Logs => audience == "https://api.loganalytics.io",
        };
        if !fits {
            return Err(refuse("the token's audience is wrong"));
        }
        // The role is one of the data plane.
        let early = self.clock.now() < options.role_after;
        if plane != Plane::Arm && (options.forbidden || early) {
            return Err(match options.empty_forbidden {
                true => Reply::empty(403),
                false => {
                    let why = "the caller has no role for this";
                    coded(403, "Forbidden", why, json!("Forbidden"))
                }
            });
        }
        Ok(())
    }
}

fn refuse(why: &str) -> Reply {
    coded(401, "Unauthorized", why, json!("Unauthorized"))
}
