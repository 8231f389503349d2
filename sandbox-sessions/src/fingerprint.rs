//! Comparison of specifications: what makes two of them the same.
//!
//! It must never hold or depend on the value of a secret.

use sandbox_core::{Env, Network, SandboxSpec};
use sha2::{Digest, Sha256};

use crate::{Error, ErrorKind, Result};

/// A digest of a specification with the names of its secrets, not their values: a secret that was
/// renewed does not make another specification.
pub(crate) fn of(spec: &SandboxSpec) -> Result<String> {
    let mut public = spec.clone();
    let mut secrets = Vec::new();
    let mut env = Env::new();
    for (name, value) in spec.env.iter() {
        env = match value {
            Some(value) if value.is_secret => {
                secrets.push(name.to_vec());
                env
            }
            Some(value) => env.set(name.to_vec(), value.value.clone()),
            None => env.unset(name.to_vec()),
        };
    }
    public.env = env;
    // A policy on egress may hold credentials, which `Debug` leaves out.
    let network = format!("{:?}", std::mem::replace(&mut public.network, Network::Off));
    let text = serde_json::to_vec(&(&public, &network, &secrets)).map_err(|error| {
        Error::new(ErrorKind::InvalidInput)
            .with_message("the specification can't be written down")
            .with_source(error)
    })?;
    let digest = Sha256::digest(&text);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_count_by_name_and_everything_else_by_value() {
        let of = |spec: &SandboxSpec| super::of(spec).unwrap();
        let plain = SandboxSpec::new().env("LANG", "C");
        let secret = |value: &str| plain.clone().secret("TOKEN", value);
        assert_eq!(of(&secret("one")), of(&secret("two")));
        assert_ne!(of(&plain), of(&secret("one")));
        assert_ne!(of(&plain), of(&plain.clone().workdir("/other")));
        assert_ne!(of(&plain), of(&plain.clone().label("a", "b")));
        assert_ne!(of(&plain), of(&SandboxSpec::new().env("LANG", "D")));
        assert_ne!(of(&plain), of(&plain.clone().network(Network::Open)));
    }
}
