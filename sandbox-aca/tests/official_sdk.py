"""The official Python SDK of Azure Container Apps Sandboxes against the emulator, unchanged.

The emulator starts this program (official_sdk.sh) with what it is in ACA_EMULATOR and its certificate
in REQUESTS_CA_BUNDLE. Only two things are told to the SDK that a user of Azure does not tell it:
where the data plane is (a parameter of its own) and where the management plane is (a constant of
its module, for which it has no parameter).
"""

import json
import os
import time
import urllib.request
import ssl

from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.containerapps.sandbox import (
    AddPortRequest,
    AddVolumeMountRequest,
    AutoDeletePolicy,
    AutoSuspendPolicy,
    EgressHeader,
    EgressHostRule,
    EgressPolicy,
    LifecyclePolicy,
    PortIpAccessControl,
    PortIpAccessControlRule,
    SandboxGroupClient,
    SandboxGroupManagementClient,
    _sandboxgroup_mgmt_client,
)

EMULATOR = json.loads(os.environ["ACA_EMULATOR"])
ENDPOINT = EMULATOR["endpoint"]
FAST = {"polling_interval": 1}


class Credential:
    """Gives the tokens that the emulator printed."""

    def get_token(self, *scopes, **_):
        arm = any("management.azure.com" in scope for scope in scopes)
        return AccessToken(EMULATOR["armToken" if arm else "token"], int(time.time()) + 3600)


def admin(method, path, body=None):
    """Turns the emulator itself."""
    request = urllib.request.Request(
        f"{ENDPOINT}/.emulator/{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
    )
    context = ssl.create_default_context(cafile=os.environ["REQUESTS_CA_BUNDLE"])
    with urllib.request.urlopen(request, context=context) as response:
        text = response.read()
        return json.loads(text) if text else None


def refused(status, call):
    try:
        call()
    except HttpResponseError as error:
        assert error.status_code == status, error
        return error
    raise AssertionError(f"not refused with {status}")


def management():
    _sandboxgroup_mgmt_client.ARM_BASE = ENDPOINT
    client = SandboxGroupManagementClient(
        Credential(),
        subscription_id=EMULATOR["subscription"],
        resource_group=EMULATOR["resourceGroup"],
    )
    admin("POST", "switches", {"strict-groups": True, "arm-operation": 1500})
    made = client.begin_create_group("sdk", "westus2", tags={"by": "sdk"}, **FAST).result()
    assert made.properties["provisioningState"] == "Succeeded", made
    assert [group.name for group in client.list_groups()] == ["sdk"]
    admin("POST", "switches", {"page": 1})
    client.begin_create_group("other", "westus2", **FAST).result()
    assert {group.name for group in client.list_groups()} == {"sdk", "other"}
    admin("POST", "switches", {"page": None})
    identity = {"type": "SystemAssigned"}
    patched = client.begin_patch_group_identity("sdk", identity, **FAST).result()
    assert patched.identity == identity, patched
    client.create_or_update_vnet_connection("sdk", "net", "/subnets/one")
    client.delete_vnet_connection("sdk", "net")
    client.begin_delete_group("other", **FAST).result()
    try:
        client.get_group("other")
        raise AssertionError("it is still there")
    except ResourceNotFoundError:
        pass
    assert client.get_group("sdk").location == "westus2"
    return client


def create(group):
    sandbox = group.begin_create_sandbox(
        disk="ubuntu",
        labels={"run": "sdk"},
        environment={"COLOUR": "green"},
        ports=[AddPortRequest(port=3000, protocol="Http2")],
        egress_policy=EgressPolicy(default_action="Deny", traffic_inspection="Full"),
        **FAST,
    ).result()
    shown = sandbox.get()
    assert shown.state == "Running" and shown.labels == {"run": "sdk"}, shown
    assert shown.environment == {}, "the environment is shown"
    assert shown.ports[0].port == 3000 and shown.egress_policy.default_action == "Deny"
    ours = [one.id for one in group.list_sandboxes(labels={"run": "sdk"})]
    assert ours == [shown.id]
    assert list(group.list_sandboxes(labels={"run": "other"})) == []
    return sandbox


def paging(group):
    second = group.begin_create_sandbox(preset="code-interpreter", **FAST).result()
    admin("POST", "switches", {"envelope": True, "page": 1})
    assert len(list(group.list_sandboxes())) == 2, "over two pages"
    admin("POST", "switches", {"envelope": False, "page": None})
    second.begin_delete(**FAST).result()
    refused(404, second.get)


def execute(sandbox):
    result = sandbox.exec("echo $COLOUR; echo bad >&2; pwd; exit 3", working_directory="/tmp")
    assert (result.stdout, result.stderr) == ("green\n/tmp\n", "bad\n"), result
    assert result.exit_code == 3, result
    python = sandbox.exec("python3 -c 'print(sum(range(10)))'")
    assert (python.stdout, python.exit_code) == ("45\n", 0), python


def files(sandbox):
    content = bytes(range(256))
    sandbox.write_file("/data/deep/f", content)
    assert sandbox.read_file("/data/deep/f") == content
    sandbox.write_file("/data/run", "#!/bin/sh\necho ran\n", mode="755")
    assert sandbox.exec("/data/run").stdout == "ran\n"
    sandbox.mkdir("/data/made")
    names = {entry.name for entry in sandbox.list_files("/data").entries}
    assert names == {"deep", "run", "made"}, names
    assert sandbox.stat_file("/data/deep/f").size == 256
    refused(404, lambda: sandbox.read_file("/data/none"))
    sandbox.delete_file("/data/deep", recursive=True)
    refused(404, lambda: sandbox.stat_file("/data/deep/f"))
    sandbox.delete_file("/data/deep", recursive=True)


def snapshot_and_restore(group, sandbox):
    sandbox.write_file("/kept", "before")
    taken = sandbox.begin_create_snapshot(name="s", **FAST).result()
    assert taken.labels == {"name": "s"} and taken.resources.memory == "2048Mi", taken
    sandbox.write_file("/kept", "after")
    assert [one.id for one in group.list_snapshots()] == [taken.id]
    restored = group.begin_create_sandbox(snapshot_id=taken.id, **FAST).result()
    assert restored.read_file("/kept") == b"before"
    assert sandbox.read_file("/kept") == b"after"
    assert restored.exec("echo $COLOUR").stdout == "green\n"
    restored.begin_delete(**FAST).result()
    group.begin_delete_snapshot(taken.id, **FAST).result()
    assert list(group.list_snapshots()) == []


def stop_and_resume(sandbox):
    admin("POST", "switches", {"stopping": 1500, "resuming": 1500})
    stopped = sandbox.begin_stop(**FAST).result()
    assert stopped.state == "Stopped", stopped
    assert stopped.state_details.stopped_reason == "UserStopped", stopped
    refused(409, lambda: sandbox.exec("true"))
    resumed = sandbox.begin_resume(**FAST).result()
    assert resumed.state == "Running", resumed
    assert sandbox.exec("cat /kept").stdout == "after"
    admin("POST", "switches", {"stopping": 0, "resuming": 0})
    # Nobody uses it for five minutes: the service suspends it, and the SDK wakes it up.
    admin("POST", "clock", {"advanceSeconds": 300})
    assert sandbox.get().state_details.stopped_reason == "Idle"
    sandbox.ensure_running()
    assert sandbox.exec("true").exit_code == 0


def lifecycle(sandbox):
    sandbox.set_lifecycle_policy(
        LifecyclePolicy(
            auto_suspend=AutoSuspendPolicy(enabled=True, interval=600, mode="Disk"),
            auto_delete=AutoDeletePolicy(enabled=True, delete_interval_seconds=86400),
        )
    )
    policy = sandbox.get().lifecycle
    assert policy.auto_suspend.interval == 600, policy
    assert policy.auto_delete.delete_interval_seconds == 86400, policy


def ports(sandbox):
    access = PortIpAccessControl(
        default_action="Deny",
        rules=[
            PortIpAccessControlRule(
                name="office", action="Allow", priority=10, source_cidrs=["10.0.0.0/8"]
            )
        ],
    )
    port = sandbox.add_port(8080, anonymous=True, ip_access_control=access)
    assert port.url.endswith(f"/{sandbox.get().id}/8080/"), port
    assert port.ip_access_control.rules[0].name == "office", port
    # The service rejects this form too: it wants the URLs, which the SDK does not send.
    refused(400, lambda: sandbox.update_ports([9090]))
    sandbox.remove_port(8080)
    assert [port.port for port in sandbox.get().ports] == [3000]


def egress(sandbox):
    policy = sandbox.set_egress_policy(
        EgressPolicy(
            default_action="Deny",
            traffic_inspection="Full",
            host_rules=[EgressHostRule(pattern="*.pypi.org", action="Allow")],
        )
    )
    assert policy.default_action == "Deny" and len(policy.host_rules) == 1, policy
    policy = sandbox.add_egress_host_rule("*.github.com")
    assert len(policy.host_rules) == 2, policy
    header = EgressHeader(operation="Set", name="x-a", value="b")
    policy = sandbox.add_egress_transform_rule("api.invalid", [header])
    assert policy.rules[0].action.type == "Transform", policy
    policy = sandbox.add_egress_rewrite_rule("old.invalid", rewrite_host="new.invalid")
    assert policy.rules[1].action.host == "new.invalid", policy
    assert sandbox.set_egress_default("Allow").default_action == "Allow"
    partial = EgressPolicy(default_action="Deny", traffic_inspection="Partial")
    refused(400, lambda: sandbox.set_egress_policy(partial))
    assert sandbox.get_egress_decisions().network_egress.denied == []
    assert sandbox.get_stats().memory.total_bytes == 2048 << 20


def images(group, sandbox):
    assert "ubuntu" in {image.name for image in group.list_public_disk_images()}
    admin("POST", "switches", {"image-build": 1500})
    image = group.begin_create_disk_image("docker.io/library/python:3", name="py", **FAST).result()
    assert image.status.state == "Ready" and image.name == "py", image
    committed = sandbox.begin_commit(name="saved", **FAST).result()
    assert {one.name for one in group.list_disk_images()} == {"py", "saved"}
    copy = group.begin_create_sandbox(disk=None, disk_id=committed.id, **FAST).result()
    assert copy.exec("cat /kept").stdout == "after"
    copy.begin_delete(**FAST).result()
    for one in (image, committed):
        group.begin_delete_disk_image(one.id, **FAST).result()
    assert list(group.list_disk_images()) == []


def volumes_and_secrets(group, sandbox):
    volume = group.create_volume("data", type="DataDisk", size="1Gi", labels={"a": "b"})
    assert (volume.name, volume.size) == ("data", "1Gi"), volume
    assert [one.name for one in group.list_volumes()] == ["data"]
    assert group.get_volume("data").is_attached is False
    # The emulator says that it mounts nothing, where it would be a lie to say yes.
    request = AddVolumeMountRequest(volume_name="data", mountpoint="/data")
    error = refused(501, lambda: sandbox.add_volume_mount(request))
    assert "NotEmulated" in str(error), error
    group.begin_delete_volume("data", **FAST).result()
    group.upsert_secret("s", {"key": "hidden"})
    assert [one.keys for one in group.list_secrets()] == [["key"]]
    assert group.list_secret_keys("s") == ["key"]
    assert "hidden" not in str(group.peek_secret("s").values)
    group.delete_secret("s")
    assert list(group.list_secrets()) == []


def replays(sandbox):
    """What the emulator's counters are for: the SDK repeats a command whose answer is a 504."""
    for _ in range(2):
        fault = {"on": "/executeShellCommand", "action": "status-after", "status": 504}
        admin("POST", "faults", fault)
    sandbox.exec("echo replayed >> /replayed")
    count = admin("GET", "executions?contains=/replayed")["count"]
    assert count == 3, count
    assert sandbox.exec("wc -l < /replayed").stdout == "3\n"


def main():
    client = management()
    group = SandboxGroupClient(
        ENDPOINT,
        Credential(),
        subscription_id=EMULATOR["subscription"],
        resource_group=EMULATOR["resourceGroup"],
        sandbox_group="sdk",
    )
    sandbox = create(group)
    steps = [
        lambda: paging(group),
        lambda: execute(sandbox),
        lambda: files(sandbox),
        lambda: snapshot_and_restore(group, sandbox),
        lambda: stop_and_resume(sandbox),
        lambda: lifecycle(sandbox),
        lambda: ports(sandbox),
        lambda: egress(sandbox),
        lambda: images(group, sandbox),
        lambda: volumes_and_secrets(group, sandbox),
        lambda: replays(sandbox),
    ]
    for step in steps:
        step()
    admin("POST", "switches", {"deleting": 1500})
    sandbox.begin_delete(**FAST).result()
    refused(404, sandbox.get)
    client.begin_delete_group("sdk", **FAST).result()
    left = admin("GET", "")
    assert (left["sandboxes"], left["snapshots"]) == (0, 0), left
    print(f"official SDK: management, create and {len(steps)} groups of operations passed")


if __name__ == "__main__":
    main()
