//! Specification of a tenant's app.
//!
//! By default it can be reached from its environment only, has one replica, and no identity that
//! its code could use.

use sandbox_core::{ErrorKind, Result, Secret};
use serde::Serialize;

use super::super::container::{Container, Wire as ContainerWire};
use super::super::id::{ClientId, PrincipalId, ResourceId};
use super::super::plane::ControlPlane;
use super::super::resource::{Desired, Identity};
use super::super::step::Step;

/// Source of the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretSource {
    /// The value itself.
    Value(Secret),
    /// A secret of a key vault, by its URL, read as this identity, which the code does not see.
    KeyVault(String, ResourceId),
}

/// Whether callers must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ClientCertificates {
    /// None is asked for.
    #[default]
    Ignore,
    /// A certificate is optional; one that is shown is passed on to the app.
    Accept,
    /// A certificate is required. The service takes any that its owner holds the key of, self-signed ones
    /// too: the app must compare `X-Forwarded-Client-Cert` with whom it expects.
    Require,
}

/// Way in which an app is reached.
///
/// Source: <https://learn.microsoft.com/azure/container-apps/ingress-overview>
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ingress {
    /// The port that the container listens at.
    pub port: u16,
    /// Whether it is reached from outside of the environment. Default: no.
    pub external: bool,
    /// The only addresses that are let in, as IPv4 ranges. Default: all that can reach it.
    pub allow: Vec<String>,
    /// Whether callers must show a certificate.
    pub certificates: ClientCertificates,
}

impl Ingress {
    /// Returns an ingress from the environment only, at this port of the container.
    pub fn internal(port: u16) -> Self {
        Self {
            port,
            external: false,
            allow: Vec::new(),
            certificates: ClientCertificates::default(),
        }
    }

    /// Returns an ingress from everywhere that the environment can be reached from.
    pub fn external(port: u16) -> Self {
        Self {
            external: true,
            ..Self::internal(port)
        }
    }

    /// Lets these addresses in and no others: `10.0.0.0/24`.
    #[must_use]
    pub fn allow(mut self, range: impl Into<String>) -> Self {
        self.allow.push(range.into());
        self
    }

    sandbox_core::setters! {
        /// Asks callers for certificates.
        certificates: ClientCertificates,
    }
}

/// Allowed callers of an app: the service refuses requests without their token before the app sees
/// them. An audience alone would let in whatever gets a token for it, so that a principal or an
/// application is asked for as well.
///
/// Source: <https://learn.microsoft.com/azure/container-apps/authentication-entra>
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnerAuth {
    /// The directory of the owner, by its identifier.
    pub tenant: String,
    /// The application that tokens are for.
    pub client: ClientId,
    /// Audiences that tokens are for; `api://CLIENT` if there is none.
    pub audiences: Vec<String>,
    /// The principals that are let in.
    pub principals: Vec<PrincipalId>,
    /// The applications that are let in.
    pub applications: Vec<ClientId>,
    /// Paths that need no token, such as that of a probe.
    pub open_paths: Vec<String>,
}

impl OwnerAuth {
    /// Lets this principal in, with tokens for this application of this directory.
    pub fn principal(tenant: impl Into<String>, client: ClientId, principal: PrincipalId) -> Self {
        Self {
            principals: vec![principal],
            ..Self::none(tenant, client)
        }
    }

    /// Lets this application in, with tokens for that one of this directory.
    pub fn application(tenant: impl Into<String>, client: ClientId, application: ClientId) -> Self {
        Self {
            applications: vec![application],
            ..Self::none(tenant, client)
        }
    }

    fn none(tenant: impl Into<String>, client: ClientId) -> Self {
        Self {
            tenant: tenant.into(),
            client,
            audiences: Vec::new(),
            principals: Vec::new(),
            applications: Vec::new(),
            open_paths: Vec::new(),
        }
    }

    /// Takes tokens for this audience.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// Needs no token for this path.
    #[must_use]
    pub fn open_path(mut self, path: impl Into<String>) -> Self {
        self.open_paths.push(path.into());
        self
    }
}

/// Specification of a tenant's app.
///
/// ```
/// use sandbox_aca::provision::{AppSpec, Container, ResourceId};
/// let environment = ResourceId::new(
///     "/subscriptions/S/resourceGroups/G/providers/Microsoft.App/managedEnvironments/E",
/// )?;
/// let image = format!("acme.azurecr.io/app@sha256:{}", "0".repeat(64));
/// let spec = AppSpec::new(environment, Container::new(image).secret_env("TOKEN", "token"))
///     .secret("token", "a secret");
/// assert!(spec.ingress.is_none());
/// # Ok::<(), sandbox_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppSpec {
    /// The environment that it is in.
    pub environment: ResourceId,
    /// The one container. The image is named by its digest.
    pub container: Container,
    /// Secrets by name, which [`Container::secret_env`] refers to.
    pub secrets: Vec<(String, SecretSource)>,
    /// The registry's server and the identity that pulls from it, which the code never sees.
    pub registry: Option<(String, ResourceId)>,
    /// Identities that the code may use. All code in the app can act as them.
    pub exposed_identities: Vec<ResourceId>,
    /// Way in which it is reached. Default: not at all.
    pub ingress: Option<Ingress>,
    /// Callers that are allowed.
    pub auth: Option<OwnerAuth>,
}

impl AppSpec {
    /// An app of one replica of this container, in this environment, that nothing reaches.
    pub fn new(environment: ResourceId, container: Container) -> Self {
        Self {
            environment,
            container,
            secrets: Vec::new(),
            registry: None,
            exposed_identities: Vec::new(),
            ingress: None,
            auth: None,
        }
    }

    /// Keeps a secret under this name.
    #[must_use]
    pub fn secret(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.secrets
            .push((name.into(), SecretSource::Value(value.into())));
        self
    }

    /// Takes a secret from a key vault, read as this identity, which the code does not see.
    #[must_use]
    pub fn vault_secret(
        mut self,
        name: impl Into<String>,
        url: impl Into<String>,
        identity: ResourceId,
    ) -> Self {
        self.secrets
            .push((name.into(), SecretSource::KeyVault(url.into(), identity)));
        self
    }

    /// Pulls from this registry as this identity, which the code never sees.
    #[must_use]
    pub fn registry(mut self, server: impl Into<String>, identity: ResourceId) -> Self {
        self.registry = Some((server.into(), identity));
        self
    }

    /// Lets the code use this identity: all code in the app can act as it.
    #[must_use]
    pub fn exposed_identity(mut self, identity: ResourceId) -> Self {
        self.exposed_identities.push(identity);
        self
    }

    sandbox_core::setters! {
        /// Is reached so.
        ingress: Some(Ingress),

        /// Lets in only these callers.
        auth: Some(OwnerAuth),
    }

    /// Refuses what the service would take and should not.
    pub(super) fn check(&self, step: &Step) -> Result<()> {
        let refuse = |why: &str| Err(step.error(ErrorKind::InvalidInput, why));
        if !self.container.is_pinned() {
            let why = "the image is not named by its digest (name@sha256:…), so that it could change under its name";
            return Err(step.error(ErrorKind::InvalidInput, why).with_hint(
                "az acr repository show --name REGISTRY --image NAME:TAG --query digest",
            ));
        }
        if let Some(auth) = &self.auth {
            if self.ingress.is_none() {
                return refuse("callers are let in, and there is no ingress");
            }
            if auth.principals.is_empty() && auth.applications.is_empty() {
                return refuse("no principal and no application is let in");
            }
        }
        let exposed = &self.exposed_identities;
        let hidden = self.hidden();
        if exposed.iter().any(|identity| hidden.contains(&identity)) {
            return refuse("an identity that the code must not see is one that it may use");
        }
        Ok(())
    }

    /// Identities that the code must not see.
    fn hidden(&self) -> Vec<&ResourceId> {
        let registry = self.registry.iter().map(|(_, identity)| identity);
        let vaults = self.secrets.iter().filter_map(|(_, source)| match source {
            SecretSource::KeyVault(_, identity) => Some(identity),
            SecretSource::Value(_) => None,
        });
        registry.chain(vaults).collect()
    }

    fn identity(&self) -> Option<Identity> {
        let hidden = self.hidden();
        Identity::assigned(hidden.into_iter().chain(&self.exposed_identities))
    }

    /// The request for it; see [`wire`](Self::wire).
    pub(in super::super) fn desired(
        &self,
        plane: &ControlPlane,
        values: bool,
        open: bool,
    ) -> Result<Desired> {
        let (sent, masked) = (self.wire(values, open), self.wire(false, open));
        // Who may call it is no part of the app, and makes a difference all the same.
        let auth = self.auth.as_ref().map(|auth| format!("{auth:?}"));
        plane.desired_with(&sent, &masked, self.identity().as_ref(), auth.as_deref())
    }

    /// The app as it is sent: with or without the values of its secrets, with or without its
    /// ingress.
    fn wire(&self, values: bool, open: bool) -> Wire {
        let secrets = self.secrets.iter().map(|(name, source)| match source {
            SecretSource::Value(value) => SecretWire {
                name: name.clone(),
                value: values.then(|| String::from_utf8_lossy(value.expose()).into_owned()),
                key_vault_url: None,
                identity: None,
            },
            SecretSource::KeyVault(url, identity) => SecretWire {
                name: name.clone(),
                value: None,
                key_vault_url: Some(url.clone()),
                identity: Some(identity.clone()),
            },
        });
        let registries = self.registry.iter().map(|(server, identity)| Registry {
            server: server.clone(),
            identity: identity.clone(),
        });
        let mut settings: Vec<IdentitySetting> = Vec::new();
        for (identities, lifecycle) in [
            (self.hidden(), "None"),
            (self.exposed_identities.iter().collect(), "Main"),
        ] {
            for identity in identities {
                if !settings.iter().any(|one| one.identity == *identity) {
                    settings.push(IdentitySetting {
                        identity: identity.clone(),
                        lifecycle,
                    });
                }
            }
        }
        Wire {
            environment_id: self.environment.clone(),
            workload_profile_name: "Consumption",
            configuration: Configuration {
                active_revisions_mode: "Single",
                max_inactive_revisions: 5,
                secrets: secrets.collect(),
                registries: registries.collect(),
                identity_settings: settings,
                ingress: self.ingress.as_ref().filter(|_| open).map(ingress),
            },
            template: Template {
                containers: vec![self.container.wire()],
                scale: Scale {
                    min_replicas: 1,
                    max_replicas: 1,
                },
            },
        }
    }
}

fn ingress(ingress: &Ingress) -> IngressWire {
    let rules = ingress.allow.iter().enumerate().map(|(at, range)| IpRule {
        name: format!("allow-{at}"),
        ip_address_range: range.clone(),
        action: "Allow",
    });
    IngressWire {
        external: ingress.external,
        target_port: ingress.port,
        transport: "auto",
        allow_insecure: false,
        client_certificate_mode: ingress.certificates,
        ip_security_restrictions: rules.collect(),
        traffic: vec![Traffic {
            latest_revision: true,
            weight: 100,
        }],
    }
}

/// An app as it is sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    environment_id: ResourceId,
    workload_profile_name: &'static str,
    configuration: Configuration,
    template: Template,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    active_revisions_mode: &'static str,
    max_inactive_revisions: u32,
    secrets: Vec<SecretWire>,
    registries: Vec<Registry>,
    identity_settings: Vec<IdentitySetting>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<IngressWire>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct SecretWire {
    pub(in super::super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) key_vault_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) identity: Option<ResourceId>,
}

#[derive(Serialize)]
pub(in super::super) struct Registry {
    pub(in super::super) server: String,
    pub(in super::super) identity: ResourceId,
}

#[derive(Serialize)]
pub(in super::super) struct IdentitySetting {
    pub(in super::super) identity: ResourceId,
    pub(in super::super) lifecycle: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IngressWire {
    external: bool,
    target_port: u16,
    transport: &'static str,
    allow_insecure: bool,
    client_certificate_mode: ClientCertificates,
    ip_security_restrictions: Vec<IpRule>,
    traffic: Vec<Traffic>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IpRule {
    name: String,
    ip_address_range: String,
    action: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Traffic {
    latest_revision: bool,
    weight: u32,
}

#[derive(Serialize)]
struct Template {
    containers: Vec<ContainerWire>,
    scale: Scale,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Scale {
    min_replicas: u32,
    max_replicas: u32,
}
