// What a program written with Dagger's own TypeScript SDK sees of the engine double: the answers that
// it expects of an engine. Run by official_sdk.sh.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { connection, dag, ExecError, ReturnType } from "@dagger.io/dagger";

const IMAGE = process.env.SANDBOX_DAGGER_IMAGE || "alpine:3.22";

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

await connection(async () => {
  equal("version", (await dag.version()).replace(/^v/, "").split(".").slice(0, 2), ["0", "21"]);
  await commands();
  await settings();
  await files();
});
console.log("the official SDK got the answers that it expects");
process.exit(0);
