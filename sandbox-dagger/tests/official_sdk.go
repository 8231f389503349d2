// What a program written with Dagger's own Go SDK sees of the engine double: the answers that it
// expects of an engine. Run by official_sdk_go.sh.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"dagger.io/dagger"
)

// A failed answer ends the program.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

func got[T any](value T, err error) T {
	check(err)
	return value
}

func equal(what string, found, expected any) {
	if !reflect.DeepEqual(found, expected) {
		panic(fmt.Sprintf("%s: %#v instead of %#v", what, found, expected))
	}
	fmt.Printf("ok: %s: %v\n", what, found)
}

func commands(ctx context.Context, client *dagger.Client, image string) {
	base := client.Container().From(image)
	ran := base.WithExec([]string{"sh", "-c", "printf out; printf err >&2"})
	equal("stdout", got(ran.Stdout(ctx)), "out")
	equal("stderr", got(ran.Stderr(ctx)), "err")
	equal("exit code", got(ran.ExitCode(ctx)), 0)
	anyCode := dagger.ContainerWithExecOpts{Expect: dagger.ReturnTypeAny}
	failed := base.WithExec([]string{"sh", "-c", "printf x >/kept; exit 7"}, anyCode)
	equal("exit code of ANY", got(failed.ExitCode(ctx)), 7)
	equal("files of a failed command", got(failed.File("/kept").Contents(ctx)), "x")
	failure := dagger.ContainerWithExecOpts{Expect: dagger.ReturnTypeFailure}
	wanted := base.WithExec([]string{"sh", "-c", "exit 5"}, failure)
	equal("exit code of FAILURE", got(wanted.ExitCode(ctx)), 5)
	_, err := base.WithExec([]string{"true"}, failure).Sync(ctx)
	equal("success where FAILURE is wanted is refused", err != nil, true)
	fed := base.WithExec([]string{"cat"}, dagger.ContainerWithExecOpts{Stdin: "typed in"})
	equal("stdin", got(fed.Stdout(ctx)), "typed in")
	_, err = base.WithExec([]string{"sh", "-c", "echo said; echo why >&2; exit 3"}).Sync(ctx)
	var exec *dagger.ExecError
	equal("a failed command is an ExecError", errors.As(err, &exec), true)
	equal("ExecError", []any{exec.ExitCode, exec.Stdout, exec.Stderr, exec.Cmd[0]}, []any{3, "said", "why", "sh"})
	_, err = base.WithExec([]string{"sh", "-c", "kill -9 $$"}, anyCode).Sync(ctx)
	equal("a signal is outside of ANY", errors.As(err, &exec) && exec.ExitCode == 137, true)
	missing, _, _ := strings.Cut(image, ":")
	_, err = client.Container().From(missing + ":no-such-tag").Sync(ctx)
	equal("a missing image", err != nil && strings.Contains(err.Error(), "not found"), true)
}

func settings(ctx context.Context, client *dagger.Client, image string) {
	container := client.Container().From(image).WithEnvVariable("WHO", "me").WithWorkdir("/srv").
		WithSecretVariable("TOKEN", client.SetSecret("token", "s3cret")).
		WithMountedCache("/cache", client.CacheVolume("sdk-go")).WithUser("root").WithLabel("a", "b")
	equal("env", got(container.EnvVariable(ctx, "WHO")), "me")
	variables := map[string]string{}
	for _, variable := range got(container.EnvVariables(ctx)) {
		variables[got(variable.Name(ctx))] = got(variable.Value(ctx))
	}
	_, shown := variables["TOKEN"]
	equal("env, all of it", []any{variables["WHO"], shown}, []any{"me", false})
	equal("workdir", got(container.Workdir(ctx)), "/srv")
	equal("label", got(container.Label(ctx, "a")), "b")
	equal("user", got(container.User(ctx)), "root")
	ran := container.WithExec([]string{"sh", "-c", "printf '%s %s' $WHO $TOKEN; printf c >/cache/f"})
	equal("a secret is scrubbed", got(ran.Stdout(ctx)), "me ***")
	again := container.WithExec([]string{"cat", "/cache/f"})
	equal("a cache outlives its container", got(again.Stdout(ctx)), "c")
}

func files(ctx context.Context, client *dagger.Client, image string) {
	check(os.Mkdir("in", 0o755))
	check(os.WriteFile("in/f", []byte("of the host"), 0o644))
	directory := client.Host().Directory("in").WithNewFile("new", "text")
	equal("entries", got(directory.Entries(ctx)), []string{"f", "new"})
	equal("contents", got(directory.File("f").Contents(ctx)), "of the host")
	executable := dagger.ContainerWithNewFileOpts{Permissions: 0o755}
	container := client.Container().From(image).WithDirectory("/data", directory).
		WithNewFile("/data/script", "echo x", executable)
	equal("entries of a container", got(container.Directory("/data").Entries(ctx)), []string{"f", "new", "script"})
	equal("size", got(container.File("/data/f").Size(ctx)), 11)
	stat := container.Stat("/data/script")
	equal("stat", []any{got(stat.Name(ctx)), got(stat.FileType(ctx)), got(stat.Size(ctx)), got(stat.Permissions(ctx))},
		[]any{"script", dagger.FileTypeRegular, 6, 0o755})
	deep := directory.WithNewFile("a/b/c.txt", "c").WithNewFile("a/d.txt", "d")
	equal("glob", got(deep.Glob(ctx, "a/*.txt")), []string{"a/d.txt"})
	equal("glob of any depth", got(deep.Glob(ctx, "**/*.txt")), []string{"a/b/c.txt", "a/d.txt"})
	equal("exists", got(container.Exists(ctx, "/data/nothing")), false)
	smaller := container.WithoutFile("/data/f")
	equal("removed", got(smaller.Directory("/data").Entries(ctx)), []string{"new", "script"})
	_, err := container.Directory("/data").Export(ctx, "out")
	check(err)
	equal("exported", string(got(os.ReadFile("out/f"))), "of the host")
	_, err = container.AsTarball().Export(ctx, "image.tar")
	check(err)
	imported := client.Container().Import(client.Host().File("image.tar"))
	equal("imported", got(imported.File("/data/new").Contents(ctx)), "text")
	_, err = container.File("/data/nothing").Contents(ctx)
	equal("a missing file is an error", err != nil, true)
}

func main() {
	ctx := context.Background()
	image := os.Getenv("SANDBOX_DAGGER_IMAGE")
	if image == "" {
		image = "alpine:3.22"
	}
	client := got(dagger.Connect(ctx))
	version := strings.Split(strings.TrimPrefix(got(client.Version(ctx)), "v"), ".")
	equal("version", version[:2], []string{"0", "21"})
	commands(ctx, client, image)
	settings(ctx, client, image)
	files(ctx, client, image)
	check(client.Close())
	fmt.Println("the official SDK got the answers that it expects")
}
