"""Microsoft's management clients, unchanged, against the emulator's management plane."""

import json
import os
import time
import uuid

from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.appcontainers import ContainerAppsAPIClient
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.authorization.models import RoleAssignmentCreateParameters
from azure.mgmt.containerregistry import ContainerRegistryManagementClient

SAID = json.loads(os.environ["TLS_EMULATOR"])
GROUP = "rg"
IMAGE = "r.azurecr.io/x@sha256:" + "0" * 64


class Token:
    def get_token(self, *scopes, **_):
        return AccessToken(SAID["armToken"], int(time.time()) + 3600)

    def get_token_info(self, *scopes, **_):
        from azure.core.credentials import AccessTokenInfo

        return AccessTokenInfo(SAID["armToken"], int(time.time()) + 3600)


def client(kind, *where):
    return kind(
        Token(),
        SAID["subscription"],
        *where,
        credential_scopes=["https://management.azure.com/.default"],
        connection_verify=SAID["caFile"],
        polling_interval=0,
    )


apps = client(ContainerAppsAPIClient, SAID["endpoint"])
roles = AuthorizationManagementClient(
    Token(),
    SAID["subscription"],
    base_url=SAID["endpoint"],
    credential_scopes=["https://management.azure.com/.default"],
    connection_verify=SAID["caFile"],
)

registries = ContainerRegistryManagementClient(
    Token(),
    SAID["subscription"],
    base_url=SAID["endpoint"],
    credential_scopes=["https://management.azure.com/.default"],
    connection_verify=SAID["caFile"],
    polling_interval=0,
)


def until(what, holds):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError(f"it never came to that: {what}")


def environments():
    made = apps.managed_environments.begin_create_or_update(
        GROUP, "env", {"location": "westus2", "tags": {"a": "1"}, "properties": {}}
    ).result()
    assert made.properties.provisioning_state == "Succeeded", made
    assert made.properties.default_domain
    apps.managed_environments.begin_update(GROUP, "env", {"location": "westus2", "tags": {"b": "2"}}).result()
    assert apps.managed_environments.get(GROUP, "env").tags == {"a": "1", "b": "2"}
    for found in (apps.managed_environments.list_by_resource_group(GROUP), apps.managed_environments.list_by_subscription()):
        assert [one.name for one in found] == ["env"]
    assert [one.limit for one in apps.managed_environment_usages.list(GROUP, "env")][0] == 100
    assert {one.name.value for one in apps.usages.list("westus2")} >= {"ManagedEnvironmentCount"}
    return made.id


def groups():
    made = apps.sandbox_groups.begin_create_or_update(GROUP, "group", {"location": "westus2", "properties": {}}).result()
    assert made.properties.provisioning_state == "Succeeded"
    apps.sandbox_groups.begin_update(GROUP, "group", {"tags": {"b": "2"}}).result()
    assert apps.sandbox_groups.get(GROUP, "group").tags == {"b": "2"}
    for found in (apps.sandbox_groups.list_by_resource_group(GROUP), apps.sandbox_groups.list_by_subscription()):
        assert [one.name for one in found] == ["group"]
    connection = apps.vnet_connections.create_or_update(
        GROUP, "group", "net", {"properties": {"subnetId": "/subscriptions/s/subnets/n"}}
    )
    assert connection.name == "net"
    apps.sandbox_groups.begin_delete(GROUP, "group").result()


def pools():
    body = {
        "location": "westus2",
        "properties": {
            "poolManagementType": "Dynamic",
            "containerType": "PythonLTS",
            "scaleConfiguration": {"maxConcurrentSessions": 10},
            "dynamicPoolConfiguration": {
                "lifecycleConfiguration": {"lifecycleType": "Timed", "cooldownPeriodInSeconds": 300}
            },
        },
    }
    made = apps.container_apps_session_pools.begin_create_or_update(GROUP, "pool1", body).result()
    assert made.properties.pool_management_endpoint.endswith("/sessionPools/pool1")
    more = {"properties": {"scaleConfiguration": {"maxConcurrentSessions": 20}}}
    apps.container_apps_session_pools.begin_update(GROUP, "pool1", more).result()
    changed = apps.container_apps_session_pools.get(GROUP, "pool1").properties
    assert changed.container_type == "PythonLTS" and changed.scale_configuration.max_concurrent_sessions == 20
    pools = apps.container_apps_session_pools
    for found in (pools.list_by_resource_group(GROUP), pools.list_by_subscription()):
        assert [one.name for one in found] == ["pool1"]
    apps.container_apps_session_pools.begin_delete(GROUP, "pool1").result()
    try:
        apps.container_apps_session_pools.get(GROUP, "pool1")
    except ResourceNotFoundError as gone:
        assert gone.error.code == "ResourceNotFound"
    else:
        raise AssertionError("it is there")


def app(environment):
    body = {
        "location": "westus2",
        "properties": {
            "environmentId": environment,
            "configuration": {
                "secrets": [{"name": "k", "value": "hidden"}],
                "ingress": {"external": False, "targetPort": 80},
            },
            "template": {
                "containers": [{"name": "main", "image": IMAGE, "command": ["sh", "-c", "echo up; exec sleep 1000"]}],
                "scale": {"minReplicas": 1, "maxReplicas": 1},
            },
        },
    }
    made = apps.container_apps.begin_create_or_update(GROUP, "app1", body).result()
    assert made.properties.configuration.ingress.fqdn.startswith("app1.internal.")
    assert made.properties.configuration.secrets[0].value is None
    assert apps.container_apps.list_secrets(GROUP, "app1").value[0].value == "hidden"
    [revision] = apps.container_apps_revisions.list_revisions(GROUP, "app1")
    assert revision.name == made.properties.latest_revision_name == "app1--0000001"

    def runs():
        replicas = apps.container_apps_revision_replicas.list_replicas(GROUP, "app1", revision.name).value
        return replicas and replicas[0].properties.containers[0].ready and replicas[0]

    replica = until("the replica runs", runs)
    shown = apps.container_apps_revision_replicas.get_replica(GROUP, "app1", revision.name, replica.name)
    assert shown.properties.containers[0].log_stream_endpoint
    assert apps.container_apps_revisions.get_revision(GROUP, "app1", revision.name).properties.health_state == "Healthy"
    assert apps.container_apps.get_auth_token(GROUP, "app1").properties.token
    apps.container_apps_auth_configs.create_or_update(
        GROUP, "app1", "current", {"properties": {"platform": {"enabled": True}}}
    )
    assert apps.container_apps_auth_configs.get(GROUP, "app1", "current").properties.platform.enabled
    apps.container_apps_auth_configs.delete(GROUP, "app1", "current")
    apps.container_apps_revisions.deactivate_revision(GROUP, "app1", revision.name)
    assert not apps.container_apps_revisions.get_revision(GROUP, "app1", revision.name).properties.active
    apps.container_apps_revisions.activate_revision(GROUP, "app1", revision.name)
    assert apps.container_apps_revisions.get_revision(GROUP, "app1", revision.name).properties.active
    assert [one.name for one in apps.container_apps.list_by_subscription()] == ["app1"]
    apps.container_apps.begin_stop(GROUP, "app1").result()
    assert apps.container_apps.get(GROUP, "app1").properties.running_status == "Stopped"
    apps.container_apps.begin_start(GROUP, "app1").result()
    apps.container_apps_revisions.restart_revision(GROUP, "app1", revision.name)
    body["properties"]["template"]["containers"][0]["env"] = [{"name": "A", "value": "1"}]
    apps.container_apps.begin_update(GROUP, "app1", body).result()
    assert apps.container_apps.get(GROUP, "app1").properties.latest_revision_name == "app1--0000002"
    apps.container_apps.begin_delete(GROUP, "app1").result()
    assert not list(apps.container_apps.list_by_resource_group(GROUP))


def job(environment):
    body = {
        "location": "westus2",
        "properties": {
            "environmentId": environment,
            "configuration": {"triggerType": "Manual", "replicaTimeout": 60, "replicaRetryLimit": 0},
            "template": {"containers": [{"name": "main", "image": IMAGE}]},
        },
    }
    apps.jobs.begin_create_or_update(GROUP, "job1", body).result()
    changed = {"properties": {"configuration": {"triggerType": "Manual", "replicaTimeout": 90}}}
    apps.jobs.begin_update(GROUP, "job1", changed).result()
    assert apps.jobs.get(GROUP, "job1").properties.configuration.replica_timeout == 90
    for found in (apps.jobs.list_by_resource_group(GROUP), apps.jobs.list_by_subscription()):
        assert [one.name for one in found] == ["job1"]
    assert not apps.jobs.list_secrets(GROUP, "job1").value
    override = {"containers": [{"name": "main", "image": IMAGE, "command": ["sh", "-c", "exit 7"]}]}
    started = apps.jobs.begin_start(GROUP, "job1", override).result()

    def over():
        [one] = [one for one in apps.jobs_executions.list(GROUP, "job1") if one.name == started.name]
        return one.properties.status != "Running" and one

    ended = until("the execution ends", over)
    assert ended.properties.status == "Failed"
    assert ended.properties.detailed_status.replicas[0].containers[0].code == 7
    assert apps.job_execution(GROUP, "job1", started.name).properties.status == "Failed"
    override["containers"][0]["command"] = ["sleep", "1000"]
    started = apps.jobs.begin_start(GROUP, "job1", override).result()
    apps.jobs.begin_stop_execution(GROUP, "job1", started.name).result()
    apps.jobs.begin_suspend(GROUP, "job1").result()
    apps.jobs.begin_resume(GROUP, "job1").result()
    apps.jobs.begin_delete(GROUP, "job1").result()


def assign(scope):
    name = str(uuid.uuid4())
    role = f"/subscriptions/{SAID['subscription']}/providers/Microsoft.Authorization/roleDefinitions/"
    [executor] = roles.role_definitions.list(scope, filter="roleName eq 'Azure ContainerApps Session Executor'")
    assert executor.id == role + "0fb8eba5-a2bb-4abe-b1c1-49dfad359bb0"
    assert roles.role_definitions.get(scope, executor.name).role_name == executor.role_name
    assert roles.role_definitions.get_by_id(executor.id).role_name == executor.role_name
    body = RoleAssignmentCreateParameters(
        role_definition_id=executor.id,
        principal_id="11111111-2222-3333-4444-555555555555",
        principal_type="ServicePrincipal",
    )
    made = roles.role_assignments.create(scope, name, body)
    assert made.name == name
    try:
        roles.role_assignments.create(scope, str(uuid.uuid4()), body)
    except HttpResponseError as there:
        assert there.status_code == 409 and there.error.code == "RoleAssignmentExists"
    else:
        raise AssertionError("it was made twice")
    assert roles.role_assignments.get(scope, name).principal_id == body.principal_id
    assert roles.role_assignments.get_by_id(made.id).name == name
    whose = f"principalId eq '{body.principal_id}'"
    for found in (
        roles.role_assignments.list_for_scope(scope),
        roles.role_assignments.list_for_scope(scope, filter=whose),
        roles.role_assignments.list_for_resource_group(GROUP),
        roles.role_assignments.list_for_subscription(),
    ):
        assert [one.name for one in found] == [name]
    roles.role_assignments.delete(scope, name)
    assert not list(roles.role_assignments.list_for_scope(scope))


def images():
    body = {"location": "westus2", "sku": {"name": "Basic"}, "tags": {"a": "1"}}
    named = {"name": "images1", "type": "Microsoft.ContainerRegistry/registries"}
    assert registries.registries.check_name_availability(named).name_available
    made = registries.registries.begin_create(GROUP, "images1", body).result()
    assert registries.registries.check_name_availability(named).reason == "AlreadyExists"
    assert made.login_server == "images1.azurecr.io", made
    assert made.provisioning_state == "Succeeded" and not made.admin_user_enabled
    registries.registries.begin_update(GROUP, "images1", {"tags": {"b": "2"}}).result()
    assert registries.registries.get(GROUP, "images1").tags == {"a": "1", "b": "2"}
    for found in (registries.registries.list_by_resource_group(GROUP), registries.registries.list()):
        assert [one.name for one in found] == ["images1"]
    try:
        registries.registries.begin_create(GROUP, "images1", {**body, "sku": {"name": "Large"}}).result()
    except HttpResponseError as refused:
        assert refused.status_code == 400
    else:
        raise AssertionError("there is no such size")
    registries.registries.begin_delete(GROUP, "images1").result()
    assert not list(registries.registries.list())


environment = environments()
for step in (groups, pools, images):
    step()
for step in (app, job, assign):
    step(environment)
apps.managed_environments.begin_delete(GROUP, "env").result()
print("azure-mgmt-appcontainers and azure-mgmt-authorization: environments, groups, pools, an app, a job, roles")
print("azure-mgmt-containerregistry: a registry")
