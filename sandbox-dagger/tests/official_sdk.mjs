// What a program written with Dagger's own TypeScript SDK sees of the engine double: the answers that
// it expects of an engine. Run by official_sdk.sh.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { isDeepStrictEqual } from "node:util";
import { connection, dag, ExecError, FileType, ReturnType } from "@dagger.io/dagger";

const IMAGE = process.env.SANDBOX_DAGGER_IMAGE || "alpine:3.22";
const REPOSITORY = process.env.SANDBOX_DAGGER_REGISTRY || "registry.test/sdk-ts";
const [USER, PASSWORD] = (process.env.SANDBOX_DAGGER_LOGIN || "sdk:none").split(":");

function equal(what, found, expected) {
  if (!isDeepStrictEqual(found, expected)) {
    throw new Error(`${what}: ${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`);
  }
  console.log(`ok: ${what}: ${JSON.stringify(found)}`);
}

async function refused(what, asked) {
  try {
    await asked();
  } catch (error) {
    return error;
  }
  throw new Error(`${what} was accepted`);
}

async function commands() {
  const base = dag.container().from(IMAGE);
  const ran = base.withExec(["sh", "-c", "printf out; printf err >&2"]);
  equal("stdout", await ran.stdout(), "out");
  equal("stderr", await ran.stderr(), "err");
  equal("exit code", await ran.exitCode(), 0);
  const failed = base.withExec(["sh", "-c", "printf x >/kept; exit 7"], { expect: ReturnType.Any });
  equal("exit code of ANY", await failed.exitCode(), 7);
  equal("files of a failed command", await failed.file("/kept").contents(), "x");
  const wanted = base.withExec(["sh", "-c", "exit 5"], { expect: ReturnType.Failure });
  equal("exit code of FAILURE", await wanted.exitCode(), 5);
  equal("stdin", await base.withExec(["cat"], { stdin: "typed in" }).stdout(), "typed in");
  const error = await refused("a failed command", () =>
    base.withExec(["sh", "-c", "echo said; echo why >&2; exit 3"]).sync());
  equal("ExecError", [error instanceof ExecError, error.exitCode, error.stdout, error.stderr, error.cmd[0]],
    [true, 3, "said", "why", "sh"]);
  const missing = await refused("a missing image", () =>
    dag.container().from(IMAGE.replace(/:[^:]*$/, ":no-such-tag")).sync());
  equal("a missing image", String(missing).includes("not found"), true);
}

async function settings() {
  const secret = dag.setSecret("token", "s3cret");
  const container = dag.container().from(IMAGE).withEnvVariable("WHO", "me").withWorkdir("/srv")
    .withSecretVariable("TOKEN", secret).withMountedCache("/cache", dag.cacheVolume("sdk-ts"))
    .withUser("root").withLabel("a", "b");
  equal("env", await container.envVariable("WHO"), "me");
  const variables = {};
  for (const variable of await container.envVariables()) {
    variables[await variable.name()] = await variable.value();
  }
  equal("env, all of it", [variables.WHO, "TOKEN" in variables], ["me", false]);
  equal("workdir", await container.workdir(), "/srv");
  equal("label", await container.label("a"), "b");
  equal("user", await container.user(), "root");
  const ran = container.withExec(["sh", "-c", "printf '%s %s' $WHO $TOKEN; printf c >/cache/f"]);
  equal("a secret is scrubbed", await ran.stdout(), "me ***");
  equal("a cache outlives its container", await container.withExec(["cat", "/cache/f"]).stdout(), "c");
}

async function files() {
  mkdirSync("in");
  writeFileSync("in/f", "of the host");
  const directory = dag.host().directory("in").withNewFile("new", "text");
  equal("entries", await directory.entries(), ["f", "new"]);
  equal("contents", await directory.file("f").contents(), "of the host");
  const container = dag.container().from(IMAGE).withDirectory("/data", directory)
    .withNewFile("/data/script", "echo x", { permissions: 0o755 });
  equal("entries of a container", await container.directory("/data").entries(), ["f", "new", "script"]);
  equal("size", await container.file("/data/f").size(), 11);
  await stats(container, directory);
  const deep = directory.withNewFile("a/b/c.txt", "c").withNewFile("a/d.txt", "d");
  equal("glob", await deep.glob("a/*.txt"), ["a/d.txt"]);
  equal("glob of any depth", await deep.glob("**/*.txt"), ["a/b/c.txt", "a/d.txt"]);
  equal("exists", await container.exists("/data/nothing"), false);
  const smaller = container.withoutFile("/data/f");
  equal("removed", await smaller.directory("/data").entries(), ["new", "script"]);
  await container.directory("/data").export("out");
  equal("exported", readFileSync("out/f", "utf8"), "of the host");
  await container.asTarball().export("image.tar");
  const imported = dag.container().import_(dag.host().file("image.tar"));
  equal("imported", await imported.file("/data/new").contents(), "text");
}

async function stats(container, directory) {
  const stat = container.stat("/data/script");
  equal("stat", [await stat.name(), await stat.fileType(), await stat.size(), await stat.permissions()],
    ["script", FileType.Regular, 6, 0o755]);
  equal("stat of a directory", await container.stat("/data").fileType(), FileType.Directory);
  const linked = container.withExec(["ln", "-s", "f", "/data/link"]);
  equal("stat follows", await linked.stat("/data/link").fileType(), FileType.Regular);
  const itself = linked.stat("/data/link", { doNotFollowSymlinks: true });
  equal("stat of a link", await itself.fileType(), FileType.Symlink);
  equal("stat in a directory", await directory.stat("new").size(), 4);
  for (const [missing, path] of [[container, "/no-such/file"], [directory, "no-such/file"]]) {
    const error = await refused("what is missing", () => missing.stat("no-such/file").size());
    equal("stat of nothing", String(error).includes(`stat ${path}: no such file or directory`), true);
  }
}

async function publish() {
  const secret = dag.setSecret("registry", PASSWORD);
  const registry = REPOSITORY.split("/")[0];
  const made = dag.container().from(IMAGE).withNewFile("/data/f", "kept").withLabel("a", "b")
    .withRegistryAuth(registry, USER, secret);
  const reference = await made.publish(`${REPOSITORY}/sdk:1`);
  equal("published", reference.startsWith(`${REPOSITORY}/sdk:1@sha256:`), true);
  const pulled = dag.container().withRegistryAuth(registry, USER, secret).from(reference);
  equal("published and pulled", [await pulled.file("/data/f").contents(), await pulled.label("a")],
    ["kept", "b"]);
  for (const [name, why] of [["Upper", "must be lowercase"], ["not a name", "invalid reference format"]]) {
    const error = await refused("a name that is none", () => made.publish(`${REPOSITORY}/${name}:1`));
    equal("a name that is none", String(error).includes(why), true);
  }
}

const SERVE = `
if command -v perl >/dev/null; then exec perl -e 'use IO::Socket::INET;
    my $s = IO::Socket::INET->new(LocalPort => $ARGV[0], Listen => 5) or die;
    while (my $c = $s->accept) { print {$c} "served\n"; close $c }' "$0"
fi
while :; do echo served | nc -l -p "$0"; done
`;
const ASK = `
n=0
while [ $n -lt 50 ]; do
    if command -v perl >/dev/null; then said=$(perl -e 'use IO::Socket::INET;
        print IO::Socket::INET->new("$ARGV[0]:$ARGV[1]")->getline' "$0" "$1")
    else said=$(nc -w 2 "$0" "$1" </dev/null); fi
    if [ -n "$said" ]; then echo "$said"; exit; fi
    sleep 0.1; n=$((n + 1))
done
`;

// A port that nothing listens on.
async function freePort() {
  const server = createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

// What a server of this host says.
async function hears(endpoint) {
  const [host, port] = endpoint.split(":");
  let said = "";
  for await (const part of connect(Number(port), host)) said += part;
  return said;
}

async function services() {
  const port = await freePort();
  const service = dag.container().from(IMAGE).withExposedPort(port)
    .asService({ args: ["sh", "-c", SERVE, String(port)] });
  const asking = dag.container().from(IMAGE).withServiceBinding("web", service)
    .withExec(["sh", "-c", ASK, "web", String(port)]);
  equal("a service by its name", await asking.stdout(), "served\n");
  const after = asking.withExec(["sh", "-c", "grep -c web /etc/hosts; true"]);
  equal("the name stays for later commands", await after.stdout(), "1\n");
  const tunnel = await dag.host().tunnel(service).start();
  equal("a service through a tunnel", await hears(await tunnel.endpoint()), "served\n");
  await tunnel.stop();
  await service.stop();
  const broken = dag.container().from(IMAGE).withExposedPort(await freePort())
    .asService({ args: ["sh", "-c", "exit 3"] });
  await refused("a service that ends at once", () => broken.start());
}

await connection(async () => {
  equal("version", (await dag.version()).replace(/^v/, "").split(".").slice(0, 2), ["0", "21"]);
  await commands();
  await settings();
  await files();
  await publish();
  await services();
});
console.log("the official SDK got the answers that it expects");
process.exit(0);
