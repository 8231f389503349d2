"""The official Python SDK, unchanged, against the emulator.

usage: official_sdk.py  (AZURE_TEST_EMULATOR holds the JSON line that aca-emulator prints;
REQUESTS_CA_BUNDLE its certificate). Run by official_sdk.sh.
"""

import json
import os
import time

from azure.containerapps.sandbox import SandboxGroupClient
from azure.core.credentials import AccessToken

told = json.loads(os.environ["AZURE_TEST_EMULATOR"])


class Credential:
    def get_token(self, *scopes, **_):
        assert scopes, "the SDK asks for a scope"
        return AccessToken(told["token"], int(time.time()) + 3600)


group = SandboxGroupClient(
    told["endpoint"],
    Credential(),
    subscription_id=told["subscription"],
    resource_group=told["resourceGroup"],
    sandbox_group=told["sandboxGroup"],
)


def resolved(poller):
    return poller.result() if hasattr(poller, "result") else poller


images = list(group.list_public_disk_images()) if hasattr(group, "list_public_disk_images") else []
sandbox = resolved(group.begin_create_sandbox(disk="ubuntu", labels={"test": "sdk"}))
try:
    done = sandbox.exec("echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.exit_code) == ("out\n", "err\n", 3), done
    sandbox.write_file("/tmp/sdk/a.txt", "hello")
    read = sandbox.read_file("/tmp/sdk/a.txt")
    read = read if isinstance(read, bytes) else str(read).encode()
    assert read == b"hello", read
    sandbox.mkdir("/tmp/sdk/dir")
    listing = sandbox.list_files("/tmp/sdk")
    names = sorted(entry.name for entry in getattr(listing, "entries", listing))
    assert names == ["a.txt", "dir"], names
    sandbox.stat_file("/tmp/sdk/a.txt")
    found = [known.id for known in group.list_sandboxes(labels={"test": "sdk"})]
    assert sandbox.sandbox_id in found, found

    snapshot = resolved(sandbox.begin_create_snapshot(name="sdk"))
    assert snapshot.id in [known.id for known in group.list_snapshots()]
    restored = resolved(group.begin_create_sandbox(snapshot_id=snapshot.id))
    assert restored.exec("cat /tmp/sdk/a.txt").stdout == "hello"
    sandbox.delete_file("/tmp/sdk/a.txt")
    assert restored.exec("cat /tmp/sdk/a.txt").stdout == "hello"
    resolved(restored.begin_delete())
    resolved(group.begin_delete_snapshot(snapshot.id))

    resolved(sandbox.begin_stop())
    assert sandbox.get().state == "Stopped", sandbox.get().state
    resolved(sandbox.begin_resume())
    sandbox.ensure_running()
    assert sandbox.exec("echo again").stdout == "again\n"

    sandbox.add_port(8080)
    assert [port.port for port in sandbox.get().ports] == [8080]
    sandbox.remove_port(8080)
    sandbox.set_egress_default("Deny")
    sandbox.get_egress_decisions()
finally:
    resolved(sandbox.begin_delete())
assert group.list_sandboxes is not None
print("the official SDK works")
