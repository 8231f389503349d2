"""Uses the service as its applications and its operator do, with nothing but Python's own library.

usage: try.py PROGRAM"""
import http.client
import json
import subprocess
import sys
import urllib.parse

server = subprocess.Popen([sys.argv[1]], stdout=subprocess.PIPE, text=True)
address, operator = server.stdout.readline().split(" operator ")
host = urllib.parse.urlsplit(address).netloc
operator = operator.strip()


def ask(method, path, token, body=None, stream=False):
    connection = http.client.HTTPConnection(host, timeout=60)
    headers = {"authorization": f"Bearer {token}"}
    if isinstance(body, dict):
        body, headers["content-type"] = json.dumps(body).encode(), "application/json"
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer if stream else (answer.status, answer.read())


def events(answer):
    name = None
    for line in answer:
        line = line.decode().rstrip("\n")
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


def run(app, token, script):
    return list(events(ask("POST", f"/apps/{app}/run", token, {"script": script}, stream=True)))


def expect(what, got, wanted):
    assert got == wanted, f"{what}: {got!r} instead of {wanted!r}"
    print("ok:", what)


try:
    tokens = {}
    for app in ("red", "blue"):
        status, body = ask("POST", "/apps", operator, {"app": app})
        expect(f"{app} is created", status, 200)
        tokens[app] = json.loads(body)["token"]
    red, blue = tokens["red"], tokens["blue"]

    expect("output and status stream", run("red", red, "echo out; echo err >&2; exit 3")[-1],
           ("exit", {"status": 3}))
    big = bytes(range(256)) * 20_000
    expect("a file goes up", ask("PUT", "/apps/red/files/data/big.bin", red, big)[0], 204)
    expect("and comes down", ask("GET", "/apps/red/files/data/big.bin", red), (200, big))
    expect("blue has no such file", ask("GET", "/apps/blue/files/data/big.bin", blue)[0], 404)

    for what, method, path, token in [
        ("a foreign token runs nothing", "POST", "/apps/red/run", blue),
        ("a foreign token reads nothing", "GET", "/apps/red/files/data/big.bin", blue),
        ("a foreign token kills nothing", "DELETE", "/apps/red", blue),
        ("an application does not list", "GET", "/apps", red),
        ("an application has no metrics", "GET", "/metrics", red),
        ("the operator is no application", "POST", "/apps/red/run", operator),
        ("an unknown application answers the same", "POST", "/apps/none/run", red),
        ("no token opens nothing", "GET", "/apps", ""),
    ]:
        expect(what, ask(method, path, token, {"script": "true"} if method == "POST" else None)[0], 401)
    expect("a name is only a name", ask("POST", "/apps", operator, {"app": "../x"})[0], 400)

    # A server in the sandbox that outlives the command that starts it.
    server_script = "echo hi > index.html; python3 -m http.server --bind 127.0.0.1 8000 >log 2>&1 & " \
        "for i in $(seq 100); do python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8000))' " \
        "2>/dev/null && exit 0; done; exit 1"
    expect("a server starts", run("red", red, server_script)[-1], ("exit", {"status": 0}))
    expect("its page is previewed", ask("GET", "/apps/red/preview/8000/index.html", red), (200, b"hi\n"))
    expect("not by another", ask("GET", "/apps/red/preview/8000/index.html", blue)[0], 401)
    expect("nor without one", ask("GET", "/apps/red/preview/9/", red)[0], 404)

    listed = {info["tenant"] for info in json.loads(ask("GET", "/apps", operator)[1])}
    expect("the operator lists", listed, {"red", "blue"})
    watched = events(ask("GET", "/watch", operator, stream=True))
    expect("and watches", {next(watched)[1]["tenant"] for _ in range(2)}, {"red", "blue"})
    expect("and kills", ask("DELETE", "/apps/red", operator)[0], 204)
    while (change := next(watched)[1])["status"] != "gone":
        pass
    expect("which is seen", change["tenant"], "red")
    expect("its token is void", ask("POST", "/apps/red/run", red, {"script": "true"})[0], 401)
    metrics = ask("GET", "/metrics", operator)[1].decode()
    expect("metrics count", "sandbox_sessions 1\n" in metrics and "sandbox_operation_duration" in metrics, True)
    lines = [json.loads(line) for line in ask("GET", "/audit", operator)[1].splitlines()]
    expect("the audit has the commands", any(line["operation"] == "spawn" for line in lines), True)
    expect("and not what they were", "exit 3" in json.dumps(lines), False)
finally:
    server.terminate()
    server.wait()
