//! The double of the Dagger engine refuses what it does not know, as the engine does, and answers
//! the rest as the engine would.
#![cfg(target_os = "linux")]

use std::error::Error as StdError;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox_testkit::dagger::{DaggerDouble, Quirks};
use serde_json::{Value, json};

type Outcome = Result<(), Box<dyn StdError + Send + Sync>>;

/// The answer to a query.
fn post(port: u16, token: &str, query: &str) -> std::io::Result<Value> {
    let body = json!({"query": query, "variables": null}).to_string();
    let authorization = STANDARD.encode(format!("{token}:"));
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(
        stream,
        "POST /query HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic {authorization}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).map_err(std::io::Error::other)
}

/// A client of one double.
struct Client {
    double: DaggerDouble,
}

impl Client {
    async fn new() -> std::io::Result<Self> {
        let double = DaggerDouble::start(Quirks::default()).await?;
        Ok(Self { double })
    }

    /// The answer to a query.
    async fn ask(&self, query: &str) -> std::io::Result<Value> {
        let (port, token, query) = (self.double.port(), self.double.token(), query.to_owned());
        tokio::task::spawn_blocking(move || post(port, &token, &query)).await?
    }

    /// The message of the error that a query must have.
    async fn refused(&self, query: &str) -> std::io::Result<String> {
        let answer = self.ask(query).await?;
        let message = answer.pointer("/errors/0/message").and_then(Value::as_str);
        let message = message.ok_or_else(|| std::io::Error::other(format!("{query}: {answer}")))?;
        Ok(message.to_owned())
    }
}

/// Selects something on a container of an image.
fn image(below: &str) -> String {
    format!("query {{ container {{ from(address: \"alpine\") {{ {below} }} }} }}")
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_it_does_not_know_or_honour_are_refused() -> Outcome {
    let client = Client::new().await?;
    for (below, named) in [
        (
            "withExec(args: [\"true\"], noSuch: 1) { id }",
            "\"noSuch\" on field \"Container.withExec\"",
        ),
        (
            "withWorkdir(path: \"/\", expand: true) { id }",
            "\"expand\"",
        ),
        ("withExec(args: [\"true\"], expect: MAYBE) { id }", "MAYBE"),
        ("withExposedPort(port: 1, protocol: UDP) { id }", "UDP"),
        (
            "withExposedPort(port: 1, protocol: ICMP) { id }",
            "\"NetworkProtocol\"",
        ),
        ("withExposedPort(port: \"80\") { id }", "\"Int!\""),
        (
            "withExec(args: [1]) { id }",
            "has the value [1], which is no \"[String!]!\"",
        ),
        ("withExec(args: \"true\") { id }", "\"[String!]!\""),
        ("withExec(stdin: \"x\") { id }", "\"args\""),
        ("withExec { id }", "is required"),
        (
            "withNewFile(path: \"/a\", contents: \"\", permissions: \"644\") { id }",
            "\"Int\"",
        ),
        (
            "withDirectory(path: \"/a\", source: \"x\", owner: \"mallory\") { id }",
            "owner",
        ),
    ] {
        let message = client.refused(&image(below)).await?;
        assert!(message.contains(named), "{message}");
    }
    let message = client
        .refused("query { container(platform: \"linux/arm64\") { id } }")
        .await?;
    assert!(message.contains("linux/arm64"), "{message}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_expected_of_a_command_is_its_exit_code() -> Outcome {
    let client = Client::new().await?;
    for (expect, code, accepted) in [
        ("SUCCESS", 0, true),
        ("SUCCESS", 3, false),
        ("FAILURE", 3, true),
        ("FAILURE", 0, false),
        ("FAILURE", 137, false),
        ("ANY", 0, true),
        ("ANY", 3, true),
        ("ANY", 137, false),
    ] {
        let query = image(&format!(
            "withExec(args: [\"sh\", \"-c\", \"exit {code}\"], expect: {expect}) {{ exitCode }}"
        ));
        let answer = client.ask(&query).await?;
        let given = answer.pointer("/data/container/from/withExec/exitCode");
        assert_eq!(
            given == Some(&json!(code)),
            accepted,
            "{expect} {code}: {answer}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workdir_is_normalised() -> Outcome {
    let client = Client::new().await?;
    for (path, expected) in [("/a/../b/", "/b"), ("x/./y", "/x/y"), ("/../..", "/")] {
        let answer = client
            .ask(&image(&format!(
                "withWorkdir(path: \"{path}\") {{ workdir }}"
            )))
            .await?;
        let workdir = answer.pointer("/data/container/from/withWorkdir/workdir");
        assert_eq!(workdir, Some(&json!(expected)), "{path}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_is_listed_without_being_copied() -> Outcome {
    let client = Client::new().await?;
    let below = "withNewFile(path: \"/d/new\", contents: \"x\") { rootfs { \
                 entries d: entries(path: \"/d/../d\") exists(path: \"d/new\") } }";
    let answer = client.ask(&image(below)).await?;
    let root = answer.pointer("/data/container/from/withNewFile/rootfs");
    let root = root.ok_or_else(|| answer.to_string())?;
    assert_eq!(
        (&root["d"], &root["exists"]),
        (&json!(["new"]), &json!(true))
    );
    let names = root["entries"].as_array().cloned().unwrap_or_default();
    assert!(names.contains(&json!("usr/")), "{names:?}");
    // Nothing of it was brought to the disk.
    let copies = std::fs::read_dir(std::env::temp_dir())?
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("dagger-double-")
        });
    for copy in copies {
        let below = std::fs::read_dir(copy.path())
            .into_iter()
            .flatten()
            .flatten();
        for entry in below {
            assert!(
                !entry.path().join("copy/usr").exists(),
                "{:?}",
                entry.path()
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_name_of_an_image_is_refused() -> Outcome {
    let client = Client::new().await?;
    let ask = async |field: &str, name: &str| {
        let from = match field {
            "from" => format!("query {{ container {{ from(address: \"{name}\") {{ id }} }} }}"),
            _ => image(&format!("publish(address: \"{name}\")")),
        };
        client.ask(&from).await
    };
    for name in [
        "r.test/Upper:1",
        "r.test/a b",
        "a//b",
        "-a",
        "a:",
        "a@sha256:12",
        "",
    ] {
        for field in ["from", "publish"] {
            let answer = ask(field, name).await?;
            let message = answer.pointer("/errors/0/message").and_then(Value::as_str);
            let refused = message.is_some_and(|text| text.starts_with("invalid reference format"));
            assert!(refused, "{field} {name:?}: {answer}");
        }
    }
    for name in [
        "alpine",
        "alpine:3.22",
        "library/alpine",
        "R.test:5000/a/b_c-d.e:V.1",
    ] {
        let answer = ask("from", name).await?;
        assert_eq!(answer.get("errors"), None, "{name}");
    }
    Ok(())
}

/// Clients end it in different ways: most close its input, Dagger's TypeScript SDK sends SIGTERM.
#[test]
fn the_program_leaves_nothing_however_it_is_ended() -> Outcome {
    for signal in [None, Some("TERM"), Some("INT")] {
        let tmp = tempfile::tempdir()?;
        let of_host = tempfile::tempdir()?;
        std::fs::write(of_host.path().join("f"), "of the host")?;
        let mut program = Command::new(env!("CARGO_BIN_EXE_dagger-double"))
            .env("TMPDIR", tmp.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(program.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let session: Value = serde_json::from_str(&line)?;
        let port = session["port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok());
        let token = session["session_token"].as_str().ok_or("no token")?;
        let query = format!(
            "query {{ host {{ directory(path: \"{}\") {{ entries }} }} }}",
            of_host.path().display()
        );
        let answer = post(port.ok_or("no port")?, token, &query)?;
        assert_eq!(
            answer.pointer("/data/host/directory/entries"),
            Some(&json!(["f"]))
        );
        assert!(
            std::fs::read_dir(tmp.path())?.next().is_some(),
            "nothing was copied"
        );
        match signal {
            None => drop(program.stdin.take()),
            Some(signal) => {
                let kill = format!("kill -{signal} {}", program.id());
                assert!(Command::new("sh").args(["-c", &kill]).status()?.success());
            }
        }
        assert!(program.wait()?.success(), "{signal:?}");
        let left: Vec<_> = std::fs::read_dir(tmp.path())?.flatten().collect();
        assert!(left.is_empty(), "{signal:?}: {left:?}");
    }
    Ok(())
}
