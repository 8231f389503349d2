"""What a program written with Dagger's own SDK sees of the engine double."""

import pathlib

import anyio
import dagger
from dagger import ReturnType, dag


def equal(what, found, expected):
    if found != expected:
        raise AssertionError(f"{what}: {found!r} instead of {expected!r}")
    print(f"ok: {what}")


async def commands():
    base = dag.container().from_("alpine:3.22")
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
        await dag.container().from_("no-such-image").sync()
    except dagger.QueryError as error:
        equal("a missing image", "not found" in str(error), True)
    else:
        raise AssertionError("a missing image was found")


async def settings():
    secret = dag.set_secret("token", "s3cret")
    container = (
        dag.container()
        .from_("alpine:3.22")
        .with_env_variable("WHO", "me")
        .with_workdir("/srv")
        .with_secret_variable("TOKEN", secret)
        .with_mounted_cache("/cache", dag.cache_volume("sdk"))
        .with_user("root")
        .with_label("a", "b")
    )
    equal("env", await container.env_variable("WHO"), "me")
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
    container = dag.container().from_("alpine:3.22").with_directory("/data", directory)
    container = container.with_new_file("/data/script", "echo x", permissions=0o755)
    equal("entries of a container", await container.directory("/data").entries(),
          ["f", "new", "script"])
    equal("size", await container.file("/data/f").size(), 11)
    equal("exists", await container.exists("/data/nothing"), False)
    smaller = container.without_file("/data/f")
    equal("removed", await smaller.directory("/data").entries(), ["new", "script"])
    await container.directory("/data").export(str(work / "out"))
    equal("exported", (work / "out" / "f").read_text(), "of the host")
    await container.as_tarball().export(str(work / "image.tar"))
    archive = dag.host().file(str(work / "image.tar"))
    imported = dag.container().import_(archive)
    equal("imported", await imported.file("/data/new").contents(), "text")
    reference = await container.publish("registry.test/sdk/image:1")
    pulled = dag.container().from_(reference)
    equal("published and pulled", await pulled.file("/data/f").contents(), "of the host")


async def main():
    work = pathlib.Path.cwd()
    async with dagger.connection():
        equal("version", (await dag.version()).lstrip("v"), "0.21.11")
        await commands()
        await settings()
        await files(work)
    print("the official SDK got the answers that it expects")


anyio.run(main)
