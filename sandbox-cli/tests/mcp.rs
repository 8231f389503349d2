//! `sandbox mcp`, by hand-written requests: what a client sees, field by field.
#![cfg(all(target_os = "linux", feature = "mcp"))]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

fn sandbox() -> Command {
    let program = std::env::var_os("SANDBOX_PROGRAM");
    let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_sandbox").into());
    let mut command = Command::new(program);
    command.env_remove("SANDBOX_PROVIDER");
    command
}

struct Client {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    next: u64,
    /// Notifications that came while an answer was waited for.
    notified: Vec<Value>,
}

impl Client {
    async fn start(arguments: &[&str]) -> Self {
        let mut child = sandbox()
            .arg("mcp")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut client = Self {
            child,
            stdin,
            lines,
            next: 0,
            notified: Vec::new(),
        };
        let hello = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": { "name": "test", "version": "0" },
        });
        let answer = client.ask("initialize", hello).await;
        assert_eq!(answer["result"]["serverInfo"]["name"], "sandbox");
        client
            .send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
            .await;
        client
    }

    async fn send(&mut self, message: Value) {
        let line = format!("{message}\n");
        self.stdin.write_all(line.as_bytes()).await.unwrap();
    }

    async fn begin(&mut self, method: &str, params: Value) -> u64 {
        self.next += 1;
        let id = self.next;
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .await;
        id
    }

    async fn answer(&mut self, id: u64) -> Value {
        let answer = async {
            loop {
                let line = self
                    .lines
                    .next_line()
                    .await
                    .unwrap()
                    .expect("the server hung up");
                let message: Value = serde_json::from_str(&line).unwrap();
                if message["id"] == id {
                    return message;
                }
                self.notified.push(message);
            }
        };
        tokio::time::timeout(Duration::from_secs(120), answer)
            .await
            .unwrap()
    }

    /// The answer to one of several questions, whatever order they are answered in.
    async fn answer_of(&mut self, id: u64) -> Value {
        match self.notified.iter().position(|message| message["id"] == id) {
            Some(at) => self.notified.remove(at),
            None => self.answer(id).await,
        }
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin(method, params).await;
        self.answer(id).await
    }

    async fn raw(&mut self, tool: &str, arguments: Value) -> Value {
        let params = json!({ "name": tool, "arguments": arguments });
        self.ask("tools/call", params).await
    }

    /// The fields of a call that works.
    async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let answer = self.raw(tool, arguments).await;
        assert_ne!(answer["result"]["isError"], true, "{tool}: {answer}");
        answer["result"]["structuredContent"].clone()
    }

    /// The text of a call that fails.
    async fn fails(&mut self, tool: &str, arguments: Value) -> String {
        let answer = self.raw(tool, arguments).await;
        assert_eq!(answer["result"]["isError"], true, "{tool}: {answer}");
        answer["result"]["content"][0]["text"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Hangs up, and waits for the server's end.
    async fn end(mut self) {
        drop(self.stdin);
        let status = tokio::time::timeout(Duration::from_secs(120), self.child.wait()).await;
        assert!(status.unwrap().unwrap().success());
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_tool_has_schemas_and_annotations_and_a_name_that_clients_take() {
    let mut client = Client::start(&[]).await;
    let tools = client.ask("tools/list", json!({})).await["result"]["tools"].clone();
    let tools = tools.as_array().unwrap();
    assert!((15..=21).contains(&tools.len()), "{}", tools.len());
    for tool in tools {
        let name = tool["name"].as_str().unwrap();
        assert!(
            name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{name}"
        );
        assert!(tool["inputSchema"]["type"] == "object", "{name}");
        assert!(tool["outputSchema"]["type"] == "object", "{name}");
        assert!(tool["annotations"]["readOnlyHint"].is_boolean(), "{name}");
        let fields = tool["inputSchema"]["properties"].as_object();
        for (field, schema) in fields.into_iter().flatten() {
            assert!(
                schema["description"].is_string() || schema["$ref"].is_string(),
                "{name}.{field}"
            );
        }
    }
    client.end().await;
}

#[tokio::test]
async fn an_edit_neither_replaces_a_link_nor_makes_a_file_of_any_size() {
    let mut client = Client::start(&[]).await;
    client.call("sandbox_create", json!({ "name": "e" })).await;
    let script = "echo one > real; ln -s real link; head -c 1000000 /dev/zero | tr '\\0' a > as";
    let run = |script: &str| json!({ "sandbox_id": "e", "script": script });
    client.call("run", run(script)).await;
    let edit = |path: &str, search: &str, replace: String| json!({ "sandbox_id": "e", "path": path, "search": search, "replace": replace, "all": true });
    let refused = client
        .fails("file_edit", edit("link", "one", "two".into()))
        .await;
    assert!(refused.contains("is a link to real"), "{refused}");
    let refused = client
        .fails("file_edit", edit("as", "a", "b".repeat(1000)))
        .await;
    assert!(refused.contains("1000000000 bytes"), "{refused}");
    client
        .call("file_edit", edit("real", "one", "two".into()))
        .await;
    let edited = client.call("file_edit", edit("as", "a", "bb".into())).await;
    assert_eq!(edited["replacements"], 1_000_000);
    let ran = client
        .call("run", run("readlink link; cat real; wc -c < as"))
        .await;
    assert_eq!(ran["stdout"]["head"], "real\ntwo\n2000000\n");
    // Empty lines by the hundred thousand are read without a list of them.
    client
        .call(
            "run",
            run("head -c 300000 /dev/zero | tr '\\0' '\\n' > empty; echo last >> empty"),
        )
        .await;
    let read = json!({ "sandbox_id": "e", "path": "empty", "start_line": 300_001 });
    let read = client.call("file_read", read).await;
    assert_eq!(
        (&read["content"], &read["total_lines"], &read["next_line"]),
        (&"last\n".into(), &300_001.into(), &Value::Null)
    );
    let read = json!({ "sandbox_id": "e", "path": "empty", "start_line": 2, "lines": 3 });
    let read = client.call("file_read", read).await;
    assert_eq!(
        (&read["content"], &read["next_line"]),
        (&"\n\n\n".into(), &5.into())
    );
    client.end().await;
}

#[tokio::test]
async fn the_whole_job_of_an_agent() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("main.py"), "print('one')\n").unwrap();
    let out = place.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let roots = [
        "--export-root",
        &text(&out),
        "--import-root",
        &text(&source),
    ];
    let mut client = Client::start(&roots).await;

    let create = json!({ "name": "work", "import": text(&source), "env": { "LANG": "C.UTF-8" } });
    let made = client.call("sandbox_create", create.clone()).await;
    assert_eq!(
        (&made["sandbox_id"], &made["status"]),
        (&"work".into(), &"ready".into())
    );
    assert_eq!(
        client.call("sandbox_create", create).await["sandbox_id"],
        "work"
    );
    let id = json!({ "sandbox_id": "work" });
    let with = |more: Value| {
        let mut all = id.as_object().unwrap().clone();
        all.extend(more.as_object().unwrap().clone());
        Value::Object(all)
    };
    let read = client
        .call("file_read", with(json!({ "path": "main.py" })))
        .await;
    assert_eq!(read["content"], "print('one')\n");
    let edit = json!({ "path": "main.py", "search": "one", "replace": "two" });
    assert_eq!(
        client.call("file_edit", with(edit.clone())).await["replacements"],
        1
    );
    assert!(
        client
            .fails("file_edit", with(edit))
            .await
            .contains("does not occur")
    );
    let files = json!({ "files": [
        { "path": "run.sh", "content": "#!/bin/sh\necho out; echo err >&2; exit 3\n", "executable": true },
        { "path": "deep/notes.txt", "content": "first\nneedle here\n" },
    ] });
    assert_eq!(client.call("file_write", with(files)).await["files"], 2);
    let ran = client
        .call("run", with(json!({ "argv": ["./run.sh"] })))
        .await;
    assert_eq!((&ran["ran"], &ran["exit_code"]), (&"yes".into(), &3.into()));
    assert_eq!(
        (&ran["stdout"]["head"], &ran["stderr"]["head"]),
        (&"out\n".into(), &"err\n".into())
    );
    let missing = client
        .call("run", with(json!({ "argv": ["no-such-program"] })))
        .await;
    assert_eq!(
        (&missing["ran"], &missing["exit_code"]),
        (&"not_started".into(), &Value::Null)
    );
    let late = json!({ "script": "echo begun; sleep 60", "timeout_seconds": 1 });
    let late = client.call("run", with(late)).await;
    assert_eq!(
        (&late["ran"], &late["stdout"]["head"]),
        (&"interrupted".into(), &"begun\n".into())
    );

    let long = json!({ "script": "seq 1 20000" });
    let long = client.call("run", with(long)).await;
    assert_eq!(long["stdout"]["truncated"], true);
    assert!(
        long["stdout"]["tail"]
            .as_str()
            .unwrap()
            .ends_with("\n20000\n")
    );
    let mut whole = long["stdout"]["head"].as_str().unwrap().to_owned();
    let mut offset = long["stdout"]["next_offset"].clone();
    while !offset.is_null() {
        let on = json!({ "output_id": long["output_id"], "offset": offset });
        let part = client.call("output_read", on).await;
        whole += part["text"].as_str().unwrap();
        offset = part["next_offset"].clone();
    }
    assert_eq!(whole.lines().count(), 20_000);

    let found = client
        .call(
            "file_find",
            with(json!({ "glob": "**/*.txt", "text": "needle" })),
        )
        .await;
    assert_eq!(
        (&found["matches"][0]["path"], &found["matches"][0]["line"]),
        (&"deep/notes.txt".into(), &2.into())
    );
    let listed = client
        .call("file_list", with(json!({ "recursive": true })))
        .await;
    assert_eq!(listed["total"], 4);

    let fork = client
        .call("sandbox_fork", with(json!({ "name": "copy" })))
        .await;
    assert_eq!(fork["sandbox_id"], "copy");
    let write = json!({ "sandbox_id": "copy", "files": [{ "path": "main.py", "content": "x" }] });
    client.call("file_write", write).await;
    let read = client
        .call("file_read", with(json!({ "path": "main.py" })))
        .await;
    assert_eq!(read["content"], "print('two')\n");

    let exported = client.call("export", with(json!({ "to": "result" }))).await;
    assert_eq!(exported["files"], 3);
    assert_eq!(
        std::fs::read_to_string(out.join("result/main.py")).unwrap(),
        "print('two')\n"
    );
    for to in ["../x", "/etc/x", "result/../../x"] {
        assert!(
            client
                .fails("export", with(json!({ "to": to })))
                .await
                .contains("export root")
        );
    }
    let stolen = json!({ "import": "/etc" });
    assert!(
        client
            .fails("sandbox_create", stolen)
            .await
            .contains("import root")
    );
    let other = out.join("layout");
    for (image, why) in [
        (format!("oci:{}", text(&other)), "registry"),
        ("docker.io/library/alpine:3".to_owned(), "--allow-network"),
    ] {
        let said = client
            .fails("sandbox_create", json!({ "image": image }))
            .await;
        assert!(said.contains(why), "{said}");
    }
    let open = json!({ "network": true });
    assert!(
        client
            .fails("sandbox_create", open)
            .await
            .contains("--allow-network")
    );

    let listed = client.call("sandbox_list", json!({})).await;
    assert_eq!(listed["sandboxes"].as_array().unwrap().len(), 2);
    assert_eq!(client.call("sandbox_close", id.clone()).await["done"], true);
    assert_eq!(
        client.call("sandbox_close", id.clone()).await["done"],
        false
    );
    assert!(
        client
            .fails("run", with(json!({ "argv": ["true"] })))
            .await
            .contains("sandbox_create")
    );
    client.end().await;
}

#[tokio::test]
async fn changes_of_a_fork_are_listed_and_applied_or_told_as_conflicts() {
    let mut client = Client::start(&[]).await;
    let write = |id: &str, path: &str, content: &str| json!({ "sandbox_id": id, "files": [{ "path": path, "content": content }] });
    client
        .call("sandbox_create", json!({ "name": "work" }))
        .await;
    client
        .call("file_write", write("work", "main.py", "one"))
        .await;
    let fork = json!({ "sandbox_id": "work", "name": "copy" });
    client.call("sandbox_fork", fork).await;
    let of = json!({ "sandbox_id": "copy" });
    let none = client.call("sandbox_changes", of.clone()).await;
    assert_eq!((&none["total"], &none["changes"]), (&0.into(), &json!([])));
    client
        .call("file_write", write("copy", "main.py", "two"))
        .await;
    client
        .call("file_write", write("copy", "new.py", "new"))
        .await;
    let hook = write("copy", ".git/hooks/pre-commit", "evil");
    client.call("file_write", hook).await;
    let found = client.call("sandbox_changes", of).await;
    let changes = found["changes"].as_array().unwrap();
    for (path, change) in [("main.py", "modified"), ("new.py", "added")] {
        let entry = json!({ "path": path, "change": change });
        assert!(changes.contains(&entry), "{found}");
    }
    let read = json!({ "sandbox_id": "work", "path": "main.py" });
    let apply = json!({ "sandbox_id": "copy", "to": "work", "dry_run": true });
    let looked = client.call("sandbox_apply", apply).await;
    assert_eq!(looked["written"], false);
    let applied = json!(["main.py", "new.py"]);
    assert_eq!(
        (&looked["applied"], &looked["total"]),
        (&applied, &2.into())
    );
    let automation = looked["automation"].as_array().unwrap();
    assert!(
        automation.contains(&".git/hooks/pre-commit".into()),
        "{looked}"
    );
    assert_eq!(
        client.call("file_read", read.clone()).await["content"],
        "one"
    );
    // The other has changed the same file meanwhile: nothing is written, not even the new one.
    client
        .call("file_write", write("work", "main.py", "other"))
        .await;
    let apply = json!({ "sandbox_id": "copy", "to": "work" });
    let refused = client.call("sandbox_apply", apply.clone()).await;
    assert_eq!(refused["written"], false);
    assert_eq!(refused["conflicts"][0]["path"], "main.py");
    let new = json!({ "sandbox_id": "work", "path": "new.py" });
    client.fails("file_read", new.clone()).await;
    client
        .call("file_write", write("work", "main.py", "one"))
        .await;
    let done = client.call("sandbox_apply", apply.clone()).await;
    assert_eq!(
        (&done["written"], &done["applied"]),
        (&true.into(), &applied)
    );
    assert_eq!(client.call("file_read", read).await["content"], "two");
    assert_eq!(client.call("file_read", new).await["content"], "new");
    let hook = json!({ "sandbox_id": "work", "path": ".git/hooks/pre-commit" });
    client.fails("file_read", hook).await;
    let again = client.call("sandbox_apply", apply).await;
    assert_eq!(
        (&again["total"], &again["unchanged"]),
        (&0.into(), &2.into())
    );
    client.end().await;
}

#[tokio::test]
async fn a_sandbox_that_is_there_is_not_imported_into_again() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("f"), "host").unwrap();
    let mut client = Client::start(&["--import-root", &text(place.path())]).await;
    let create = json!({ "name": "x", "import": text(place.path()) });
    let read = json!({ "sandbox_id": "x", "path": "f" });
    client.call("sandbox_create", create.clone()).await;
    assert_eq!(
        client.call("file_read", read.clone()).await["content"],
        "host"
    );
    let files = json!([{ "path": "f", "content": "the agent's" }]);
    let write = json!({ "sandbox_id": "x", "files": files });
    client.call("file_write", write).await;
    client.call("sandbox_create", create).await;
    assert_eq!(
        client.call("file_read", read).await["content"],
        "the agent's"
    );
    client.end().await;
}

#[tokio::test]
async fn writes_to_a_job_at_the_same_time_all_arrive() {
    let mut client = Client::start(&[]).await;
    client.call("sandbox_create", json!({ "name": "x" })).await;
    let start =
        json!({ "sandbox_id": "x", "job": "j", "script": "sleep 0.3; cat >got", "stdin": true });
    client.call("job_start", start).await;
    let mut asked = Vec::new();
    for number in 10..40 {
        // Together far more than a pipe holds.
        let lines = format!("{number}\n").repeat(8_000);
        let arguments = json!({ "sandbox_id": "x", "job": "j", "text": lines });
        let params = json!({ "name": "job_write", "arguments": arguments });
        asked.push(client.begin("tools/call", params).await);
    }
    for id in asked.drain(..).rev() {
        // In the order of the answers: those of others are set aside.
        client.answer_of(id).await;
    }
    let end = json!({ "sandbox_id": "x", "job": "j", "text": "", "end": true });
    client.call("job_write", end).await;
    let read = json!({ "sandbox_id": "x", "job": "j", "wait_seconds": 60 });
    while client.call("job_read", read.clone()).await["ended"] != true {}
    let got = client
        .call("run", json!({ "sandbox_id": "x", "script": "uniq -c got" }))
        .await;
    let mut runs: Vec<_> = got["stdout"]["head"].as_str().unwrap().lines().collect();
    runs.sort_unstable();
    let whole: Vec<_> = (10..40).map(|number| format!("   8000 {number}")).collect();
    assert_eq!(runs, whole);
    client.end().await;
}

#[tokio::test]
async fn a_cancelled_call_kills_what_it_ran_and_progress_is_told() {
    let mut client = Client::start(&[]).await;
    client
        .call("sandbox_create", json!({ "name": "work" }))
        .await;
    let params = json!({
        "name": "run",
        "arguments": { "sandbox_id": "work", "script": "echo $$ > pid; exec sleep 600" },
        "_meta": { "progressToken": "p" },
    });
    let id = client.begin("tools/call", params).await;
    // The command runs once its file is there; meanwhile other calls are answered.
    let written = json!({ "sandbox_id": "work", "path": "pid" });
    loop {
        let read = client.raw("file_read", written.clone()).await;
        let content = &read["result"]["structuredContent"]["content"];
        if content.as_str().is_some_and(|pid| !pid.is_empty()) {
            break;
        }
    }
    while client
        .notified
        .iter()
        .all(|m| m["method"] != "notifications/progress")
    {
        client.raw("file_read", written.clone()).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cancel = json!({ "requestId": id, "reason": "a test" });
    client
        .send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancel }))
        .await;
    let alive = json!({ "sandbox_id": "work", "script": "kill -0 $(cat pid)" });
    loop {
        let ran = client.call("run", alive.clone()).await;
        if ran["exit_code"] != 0 {
            break;
        }
    }
    client.end().await;
}

#[tokio::test]
async fn a_client_is_answered_before_the_provider_is() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("socket");
    // A provider that can be connected to and never says anything.
    let silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let uri = format!("remote:unix:{}", text(&socket));
    let mut client = Client::start(&["--provider", &uri]).await;
    let create = json!({ "name": "sandbox_create", "arguments": { "name": "work" } });
    let waits = client.begin("tools/call", create).await;
    let tools = client.ask("tools/list", json!({})).await;
    assert!(tools["result"]["tools"].is_array(), "{tools}");
    // It goes away: the call that waited for it is told, and the server stays.
    drop(silent);
    std::fs::remove_file(&socket).unwrap();
    let told = client.answer(waits).await;
    assert_eq!(told["result"]["isError"], true, "{told}");
    let said = client.fails("sandbox_list", json!({})).await;
    assert!(said.contains("the next call tries again"), "{said}");
    // It comes back: so do the sandboxes.
    let mut serve = sandbox();
    serve
        .args(["serve", "--listen"])
        .arg(format!("unix:{}", text(&socket)));
    let mut provider = serve
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(provider.stdout.take().unwrap()).lines();
    lines
        .next_line()
        .await
        .unwrap()
        .expect("the server's address");
    client
        .call("sandbox_create", json!({ "name": "work" }))
        .await;
    let ran = json!({ "sandbox_id": "work", "argv": ["true"] });
    assert_eq!(client.call("run", ran).await["ran"], "yes");
    client.end().await;
}

#[tokio::test]
async fn a_provider_that_can_be_none_ends_the_server() {
    for uri in ["nonsense:", "local:?no-such-setting=1"] {
        let mut server = sandbox();
        server
            .args(["mcp", "--provider", uri])
            .stdin(Stdio::piped());
        let mut server = server.kill_on_drop(true).spawn().unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(120), server.wait()).await;
        assert_eq!(ended.unwrap().unwrap().code(), Some(125), "{uri}");
    }
}

#[tokio::test]
async fn http_is_served_to_the_token_alone_and_not_to_pages() {
    let place = tempfile::tempdir().unwrap();
    let (token, short) = (place.path().join("token"), place.path().join("short"));
    std::fs::write(&token, "0123456789abcdef\n").unwrap();
    std::fs::write(&short, "short\n").unwrap();
    let mut child = sandbox()
        .args([
            "mcp",
            "--listen",
            "127.0.0.1:0",
            "--token-file",
            &text(&token),
        ])
        .args(["--allow-origin", "https://good.example:443"])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let address = line.strip_prefix("sandbox: listening on http://").unwrap();
    let address = address.strip_suffix("/mcp").unwrap().to_owned();
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": { "name": "test", "version": "0" },
        },
    })
    .to_string();
    for (more, host, expected) in [
        ("Authorization: Bearer 0123456789abcdef\r\n", &*address, 200),
        ("", &*address, 401),
        ("Authorization: Bearer 0123456789abcdeX\r\n", &*address, 401),
        (
            "Authorization: Bearer 0123456789abcdef\r\nOrigin: https://evil.example\r\n",
            &*address,
            403,
        ),
        (
            "Authorization: Bearer 0123456789abcdef\r\nOrigin: https://good.example\r\n",
            &*address,
            200,
        ),
        (
            "Authorization: Bearer 0123456789abcdef\r\n",
            "evil.example",
            403,
        ),
    ] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!(
            "POST /mcp HTTP/1.1\r\nHost: {host}\r\n{more}Content-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let status = BufReader::new(stream)
            .lines()
            .next_line()
            .await
            .unwrap()
            .unwrap();
        assert!(
            status.contains(&format!(" {expected} ")),
            "{more:?} {host}: {status}"
        );
    }
    let short = ["--token-file", &*text(&short)];
    for (address, token) in [
        ("127.0.0.1:0", &short[..]),
        ("127.0.0.1:0", &[]),
        ("0.0.0.0:0", &["--token-file", &text(&token)]),
    ] {
        let mut command = sandbox();
        command.args(["mcp", "--listen", address]).args(token);
        let refused = command.output().await.unwrap();
        assert_eq!(refused.status.code(), Some(125), "{address} {token:?}");
    }
}
