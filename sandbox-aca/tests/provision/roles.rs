//! Role assignments, and the wait until they have arrived.

use std::time::Duration;

use sandbox_aca::provision::{PrincipalId, PrincipalType, Role, SandboxGroupSpec};
use sandbox_aca::{AcaSandboxProvider, StaticToken};
use sandbox_core::{ErrorKind, Provider as _, SandboxSpec};

use super::{SUBSCRIPTION, start};

fn principal() -> PrincipalId {
    PrincipalId::new("11111111-2222-3333-4444-555555555555").expect("a principal")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_assigned_once_and_found_under_another_name() {
    let (emulator, plane) = start(|options| options.new_principals = true).await;
    let group = plane.sandbox_group("group").expect("a name");
    group
        .ensure(&SandboxGroupSpec::new())
        .await
        .expect("a group");
    let role = &Role::SANDBOX_GROUP_DATA_OWNER;
    let kind = PrincipalType::ServicePrincipal;
    let first = group.grant(&principal(), kind).await.expect("a role");
    let second = group.grant(&principal(), kind).await.expect("a role");
    assert_eq!(first, second);
    let all = plane.role_assignments(group.id()).await.expect("a list");
    assert_eq!(all, [first]);
    plane
        .unassign(role, &principal(), group.id())
        .await
        .expect("it goes");
    plane
        .unassign(role, &principal(), group.id())
        .await
        .expect("nothing to do");
    // An assignment of other origin says the same under another name.
    let token = emulator.arm_token();
    let url = format!(
        "{}{}/providers/Microsoft.Authorization/roleAssignments/99999999-2222-3333-4444-555555555555?api-version=2022-04-01",
        emulator.endpoint(),
        group.id()
    );
    let body = format!(
        r#"{{"properties":{{"principalId":"{}","principalType":"ServicePrincipal","roleDefinitionId":"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions/{}"}}}}"#,
        principal().as_str(),
        role.id()
    );
    super::put(&url, &token, body).await;
    let found = group.grant(&principal(), kind).await.expect("a role");
    assert!(found.id.name().starts_with("99999999"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_has_not_arrived_is_waited_for() {
    let (emulator, plane) = start(|options| options.role_after = Duration::from_secs(3600)).await;
    let group = plane.sandbox_group("group").expect("a name");
    group
        .ensure(&SandboxGroupSpec::new())
        .await
        .expect("a group");
    let config = group.config().await.expect("a configuration");
    let token = std::sync::Arc::new(StaticToken::new(emulator.token()));
    let provider = AcaSandboxProvider::new(config.credential(token)).expect("a provider");
    let probe = || provider.create(SandboxSpec::new());
    let short = plane.arrived(Duration::from_millis(100), probe).await;
    let error = short.expect_err("it has not arrived");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    let arrives = async {
        // After at least one refusal more.
        let before = emulator.requests("/sandboxes");
        while emulator.requests("/sandboxes") < before + 2 {
            tokio::task::yield_now().await;
        }
        emulator.advance(Duration::from_secs(3600));
    };
    let within = Duration::from_secs(120);
    let (sandbox, ()) = tokio::join!(plane.arrived(within, probe), arrives);
    let sandbox = sandbox.expect("a sandbox");
    sandbox.close().await.expect("it closes");
}
