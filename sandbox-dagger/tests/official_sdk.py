"""What a program written with Dagger's own SDK sees: the same of the engine double and of an engine.

Prints each answer, so that two runs can be compared.
"""

import os
import pathlib
import socket

import anyio
import dagger
from dagger import ReturnType, dag

IMAGE = os.environ.get("SANDBOX_DAGGER_IMAGE") or "alpine:3.22"
REPOSITORY = os.environ.get("SANDBOX_DAGGER_REGISTRY")
LOGIN = os.environ.get("SANDBOX_DAGGER_LOGIN", "sdk:none")


def equal(what, found, expected):
    if found != expected:
        raise AssertionError(f"{what}: {found!r} instead of {expected!r}")
    print(f"ok: {what}: {found!r}")


async def commands():
    base = dag.container().from_(IMAGE)
    ran = base.with_exec(["sh", "-c", "printf out; printf err >&2"])
    equal("stdout", await ran.stdout(), "out")
    equal("stderr", await ran.stderr(), "err")
    equal("exit code", await ran.exit_code(), 0)
    failed = base.with_exec(["sh", "-c", "printf x >/kept; exit 7"], expect=ReturnType.ANY)
    equal("exit code of ANY", await failed.exit_code(), 7)
    equal("files of a failed command", await failed.file("/kept").contents(), "x")
    fed = base.with_exec(["cat"], stdin="typed in")
    equal("stdin", await fed.stdout(), "typed in")
    try:
        await base.with_exec(["sh", "-c", "echo said; echo why >&2; exit 3"]).sync()
    except dagger.ExecError as error:
        found = (error.exit_code, error.stdout, error.stderr, error.command[0])
        equal("ExecError", found, (3, "said", "why", "sh"))
    else:
        raise AssertionError("a failed command was no ExecError")
    try:
        await base.with_exec(["sh", "-c", "kill -9 $$"], expect=ReturnType.ANY).sync()
    except dagger.ExecError as error:
        equal("a signal is outside of ANY", error.exit_code, 137)
    else:
        raise AssertionError("a code of 137 was accepted")
    try:
        await dag.container().from_(IMAGE.rsplit(":", 1)[0] + ":no-such-tag").sync()
    except dagger.QueryError as error:
        equal("a missing image", "not found" in str(error), True)
    else:
        raise AssertionError("a missing image was found")


async def settings():
    secret = dag.set_secret("token", "s3cret")
    container = (
        dag.container()
        .from_(IMAGE)
        .with_env_variable("WHO", "me")
        .with_workdir("/srv")
        .with_secret_variable("TOKEN", secret)
        .with_mounted_cache("/cache", dag.cache_volume("sdk"))
        .with_user("root")
        .with_label("a", "b")
    )
    equal("env", await container.env_variable("WHO"), "me")
    variables = {await v.name(): await v.value() for v in await container.env_variables()}
    equal("env, all of it", variables["WHO"], "me")
    equal("a secret is no variable", "TOKEN" in variables, False)
    equal("workdir", await container.workdir(), "/srv")
    equal("label", await container.label("a"), "b")
    equal("user", await container.user(), "root")
    ran = container.with_exec(["sh", "-c", "printf '%s %s' $WHO $TOKEN; printf c >/cache/f"])
    equal("a secret is scrubbed", await ran.stdout(), "me ***")
    again = container.with_exec(["cat", "/cache/f"])
    equal("a cache outlives its container", await again.stdout(), "c")


async def files(work: pathlib.Path):
    (work / "in").mkdir()
    (work / "in" / "f").write_text("of the host")
    directory = dag.host().directory(str(work / "in")).with_new_file("new", "text")
    equal("entries", await directory.entries(), ["f", "new"])
    equal("contents", await directory.file("f").contents(), "of the host")
    container = dag.container().from_(IMAGE).with_directory("/data", directory)
    container = container.with_new_file("/data/script", "echo x", permissions=0o755)
    equal("entries of a container", await container.directory("/data").entries(),
          ["f", "new", "script"])
    equal("size", await container.file("/data/f").size(), 11)
    stat = container.stat("/data/script")
    found = (await stat.name(), await stat.file_type(), await stat.size(), await stat.permissions())
    equal("stat", found, ("script", dagger.FileType.REGULAR, 6, 0o755))
    equal("stat of a directory", await container.stat("/data").file_type(),
          dagger.FileType.DIRECTORY)
    linked = container.with_exec(["ln", "-s", "f", "/data/link"])
    equal("stat follows", await linked.stat("/data/link").file_type(), dagger.FileType.REGULAR)
    itself = linked.stat("/data/link", do_not_follow_symlinks=True)
    equal("stat of a link", await itself.file_type(), dagger.FileType.SYMLINK)
    for missing, path in ((container, "/no-such/file"), (directory, "no-such/file")):
        try:
            await missing.stat("no-such/file").size()
        except dagger.QueryError as error:
            equal("stat of nothing", str(error), f"stat {path}: no such file or directory")
        else:
            raise AssertionError("what is missing has a size")
    deep = directory.with_new_file("a/b/c.txt", "c").with_new_file("a/d.txt", "d")
    equal("stat in a directory", await deep.stat("a/d.txt").size(), 1)
    equal("glob", await deep.glob("a/*.txt"), ["a/d.txt"])
    equal("glob of any depth", await deep.glob("**/*.txt"), ["a/b/c.txt", "a/d.txt"])
    equal("glob of directories", await deep.glob("a/*"), ["a/b/", "a/d.txt"])
    equal("glob of nothing", await deep.glob("*.none"), [])
    equal("exists", await container.exists("/data/nothing"), False)
    smaller = container.without_file("/data/f")
    equal("removed", await smaller.directory("/data").entries(), ["new", "script"])
    await container.directory("/data").export(str(work / "out"))
    equal("exported", (work / "out" / "f").read_text(), "of the host")
    await container.as_tarball().export(str(work / "image.tar"))
    archive = dag.host().file(str(work / "image.tar"))
    imported = dag.container().import_(archive)
    equal("imported", await imported.file("/data/new").contents(), "text")
    if not REPOSITORY:
        print("NOT ASKED: publish, because SANDBOX_DAGGER_REGISTRY is not set")
        return
    user, password = LOGIN.split(":", 1)
    secret = dag.set_secret("registry", password)
    known = container.with_registry_auth(REPOSITORY.split("/")[0], user, secret)
    reference = await known.publish(f"{REPOSITORY}/sdk:1")
    equal("published", reference.startswith(f"{REPOSITORY}/sdk:1@sha256:"), True)
    known = dag.container().with_registry_auth(REPOSITORY.split("/")[0], user, secret)
    pulled = known.from_(reference)
    equal("published and pulled", await pulled.file("/data/f").contents(), "of the host")


SERVE = """
if command -v perl >/dev/null; then exec perl -e 'use IO::Socket::INET;
    my $s = IO::Socket::INET->new(LocalPort => $ARGV[0], Listen => 5) or die;
    while (my $c = $s->accept) { print {$c} "served\n"; close $c }' "$0"
fi
while :; do echo served | nc -l -p "$0"; done
"""
ASK = """
n=0
while [ $n -lt 50 ]; do
    if command -v perl >/dev/null; then said=$(perl -e 'use IO::Socket::INET;
        print IO::Socket::INET->new("$ARGV[0]:$ARGV[1]")->getline' "$0" "$1")
    else said=$(nc -w 2 "$0" "$1" </dev/null); fi
    if [ -n "$said" ]; then echo "$said"; exit; fi
    sleep 0.1; n=$((n + 1))
done
"""


async def services():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = dag.container().from_(IMAGE)
    service = base.with_exposed_port(port).as_service(args=["sh", "-c", SERVE, str(port)])
    asking = base.with_service_binding("web", service)
    ran = asking.with_exec(["sh", "-c", ASK, "web", str(port)])
    equal("a service by its name", await ran.stdout(), "served\n")
    after = ran.with_exec(["sh", "-c", "grep -c web /etc/hosts; true"])
    equal("the name stays for later commands", await after.stdout(), "1\n")


async def main():
    work = pathlib.Path.cwd()
    async with dagger.connection():
        equal("version", (await dag.version()).lstrip("v").split(".")[:2], ["0", "21"])
        await commands()
        await settings()
        await files(work)
        await services()
    print("the official SDK got the answers that it expects")


anyio.run(main)
