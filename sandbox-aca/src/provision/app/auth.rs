//! Authentication in front of an app, bound to its owner.
//!
//! Source: <https://learn.microsoft.com/rest/api/containerapps/container-apps-auth-configs>

use reqwest::Method;
use sandbox_core::Result;
use serde::Serialize;

use super::super::arm::Call;
use super::super::id::{ClientId, PrincipalId};
use super::super::plane::ControlPlane;
use super::super::resource::Target;
use super::spec::OwnerAuth;

#[derive(Serialize)]
struct Wire {
    properties: Properties,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    platform: Platform,
    global_validation: GlobalValidation,
    identity_providers: Providers,
}

#[derive(Serialize)]
struct Platform {
    enabled: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GlobalValidation {
    unauthenticated_client_action: &'static str,
    excluded_paths: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Providers {
    azure_active_directory: Entra,
}

#[derive(Serialize)]
struct Entra {
    enabled: bool,
    registration: Registration,
    validation: Validation,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Registration {
    client_id: ClientId,
    open_id_issuer: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Validation {
    allowed_audiences: Vec<String>,
    default_authorization_policy: Policy,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_principals: Option<Principals>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_applications: Vec<ClientId>,
}

#[derive(Serialize)]
struct Principals {
    identities: Vec<PrincipalId>,
}

fn wire(auth: &OwnerAuth) -> Wire {
    let audiences = match auth.audiences.is_empty() {
        true => vec![format!("api://{}", auth.client.as_str())],
        false => auth.audiences.clone(),
    };
    Wire {
        properties: Properties {
            platform: Platform { enabled: true },
            global_validation: GlobalValidation {
                unauthenticated_client_action: "Return401",
                excluded_paths: auth.open_paths.clone(),
            },
            identity_providers: Providers {
                azure_active_directory: Entra {
                    enabled: true,
                    registration: Registration {
                        client_id: auth.client.clone(),
                        open_id_issuer: format!(
                            "https://login.microsoftonline.com/{}/v2.0",
                            auth.tenant
                        ),
                    },
                    validation: Validation {
                        allowed_audiences: audiences,
                        default_authorization_policy: Policy {
                            allowed_principals: (!auth.principals.is_empty()).then(|| Principals {
                                identities: auth.principals.clone(),
                            }),
                            allowed_applications: auth.applications.clone(),
                        },
                    },
                },
            },
        },
    }
}

/// Sets who may call an app. What is set twice is the same as once.
pub(super) async fn set(plane: &ControlPlane, target: &Target, auth: &OwnerAuth) -> Result<()> {
    let options = format!(" --client-id {}", auth.client.as_str());
    let mut step = target.step("set who may call", "auth microsoft update", &options);
    step.az = step.az.replace(" --yes", "");
    let id = target.id.child(&["authConfigs/current"]);
    let call = Call::new(Method::PUT, &id, target.kind.version)
        .body(&wire(auth))
        .repeat();
    plane.sent(&step, call).await.map(drop)
}

/// Lets everyone call an app that can reach it.
pub(super) async fn unset(plane: &ControlPlane, target: &Target) -> Result<()> {
    let step = target.step("let everyone call", "auth update", " --enabled false");
    let id = target.id.child(&["authConfigs/current"]);
    let call = Call::new(Method::DELETE, &id, target.kind.version);
    plane.found(&step, call).await.map(drop)
}
