//! Place of the example: a subscription of Azure, or the emulator that started it.

use std::error::Error;
use std::net::SocketAddr;

use sandbox::aca::provision::{ClientId, ControlPlaneConfig, OwnerAuth, PrincipalId, ResourceId};

/// A place to work in.
pub(crate) struct Place {
    pub(crate) config: ControlPlaneConfig,
    /// Login server of the registry.
    pub(crate) registry: String,
    /// The identity that pulls images.
    pub(crate) puller: ResourceId,
    /// Callers that the app lets in.
    pub(crate) owner: OwnerAuth,
    /// Scope of the owner's tokens.
    pub(crate) scope: String,
    /// Whether this runs in the network of the environment.
    pub(crate) is_inside: bool,
    /// Address of the ingress, where the app's name is not resolved.
    pub(crate) dial: Option<SocketAddr>,
}

fn variable(name: &str) -> Result<String, Box<dyn Error>> {
    std::env::var(name).map_err(|_| format!("{name} is not set").into())
}

impl Place {
    pub(crate) fn from_env() -> Result<Self, Box<dyn Error>> {
        match std::env::var("ACA_EMULATOR") {
            Ok(line) => Self::of_emulator(&serde_json::from_str(&line)?),
            Err(_) => Self::of_azure(),
        }
    }

    /// Azure, as these variables say. The application is one whose tokens the owner gets; the owner
    /// is the object identifier of the one who runs this (`az ad signed-in-user show --query id`).
    fn of_azure() -> Result<Self, Box<dyn Error>> {
        let (directory, client) = (
            variable("AZURE_TENANT_ID")?,
            variable("SANDBOX_OWNER_APPLICATION")?,
        );
        let owner = PrincipalId::new(&variable("SANDBOX_OWNER")?)?;
        Ok(Self {
            config: ControlPlaneConfig::new(
                variable("SANDBOX_AZURE_SUBSCRIPTION")?,
                variable("SANDBOX_AZURE_RESOURCE_GROUP")?,
                variable("SANDBOX_AZURE_LOCATION")?,
                "build-push-deploy",
            ),
            registry: variable("SANDBOX_AZURE_REGISTRY")?,
            puller: ResourceId::new(&variable("SANDBOX_AZURE_PULLER")?)?,
            scope: format!("api://{client}/.default"),
            owner: OwnerAuth::principal(directory, ClientId::new(&client)?, owner),
            is_inside: false,
            dial: None,
        })
    }

    /// The emulator, which has told where it is. Tokens come from its managed identity.
    fn of_emulator(told: &serde_json::Value) -> Result<Self, Box<dyn Error>> {
        let text = |key: &str| {
            let text = told[key].as_str().map(str::to_owned);
            text.ok_or(format!(
                "the emulator does not say its {key}: run it with --tls --registry"
            ))
        };
        let (subscription, group) = (text("subscription")?, text("resourceGroup")?);
        let endpoint = text("endpoint")?;
        let client = "11111111-2222-3333-4444-555555555555";
        let puller = format!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers\
             /Microsoft.ManagedIdentity/userAssignedIdentities/puller"
        );
        let owner = PrincipalId::new(&text("principal")?)?;
        Ok(Self {
            config: ControlPlaneConfig::new(subscription, group, "westus2", "build-push-deploy")
                .endpoint(&endpoint)
                .ca_file(text("caFile")?)
                .poll(std::time::Duration::from_millis(100)),
            registry: text("registry")?,
            puller: ResourceId::new(&puller)?,
            scope: format!("api://{client}/.default"),
            owner: OwnerAuth::principal(client, ClientId::new(client)?, owner),
            is_inside: true,
            dial: Some(endpoint.trim_start_matches("https://").parse()?),
        })
    }
}
