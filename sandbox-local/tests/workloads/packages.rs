//! Package managers and builds, offline: installations from caches, vendored sources, packaging.

use sandbox_core::{ExportOptions, FileBatch, GuestPath, ImportOptions, SandboxSpec};

use crate::{prints, support};

#[tokio::test]
async fn npm_installs_a_locked_package_from_its_cache_and_tests() {
    let script = r#"
        export npm_config_cache=$PWD/cache npm_config_update_notifier=false
        mkdir dep app
        echo '{"name":"dep","version":"1.0.0","main":"i.js"}' > dep/package.json
        echo 'module.exports = 42' > dep/i.js
        integrity=$(cd dep && npm pack --json | node -p 'JSON.parse(require("fs").readFileSync(0)).at(0).integrity')
        npm cache add ./dep/dep-1.0.0.tgz
        cd app
        cat > package.json <<'END'
{"name":"app","version":"1.0.0","dependencies":{"dep":"1.0.0"},
 "scripts":{"test":"node -e \"console.log(require('dep'))\""}}
END
        cat > package-lock.json <<END
{"name":"app","version":"1.0.0","lockfileVersion":3,"requires":true,"packages":{
 "":{"name":"app","version":"1.0.0","dependencies":{"dep":"1.0.0"}},
 "node_modules/dep":{"version":"1.0.0","integrity":"$integrity",
  "resolved":"https://registry.npmjs.org/dep/-/dep-1.0.0.tgz"}}}
END
        npm ci --offline --no-audit --no-fund --loglevel=error >/dev/null
        npm test --silent
    "#;
    prints("42", FileBatch::new(), script).await;
}

#[tokio::test]
async fn pip_installs_a_wheel_into_a_virtual_environment_and_its_tests_pass() {
    let wheel = r#"
import zipfile
with zipfile.ZipFile('dep-1.0-py3-none-any.whl', 'w') as wheel:
    wheel.writestr('dep/__init__.py', 'def answer():\n    return 42\n')
    info = 'dep-1.0.dist-info/'
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\nName: dep\nVersion: 1.0\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
    wheel.writestr(info + 'RECORD', '')
"#;
    let tests = "import unittest, dep\nclass T(unittest.TestCase):\n    def test(self):\n        \
         self.assertEqual(dep.answer(), 42)\n";
    let files = FileBatch::new()
        .file("wheel.py", wheel)
        .file("tests/test_dep.py", tests);
    let script = "/usr/bin/python3 wheel.py && /usr/bin/python3 -m venv v
        v/bin/pip install --quiet --no-index --disable-pip-version-check ./dep-1.0-py3-none-any.whl
        cd tests && ../v/bin/python -m unittest 2>&1";
    prints("OK", files, script).await;
}

#[tokio::test]
async fn a_fake_root_packs_files_as_roots() {
    let script = "mkdir -p p/DEBIAN p/usr/share/p && echo 1 > p/usr/share/p/f
        printf 'Package: p\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@b>\\nDescription: d\\n' > p/DEBIAN/control
        fakeroot sh -c 'chown -R root:root p && dpkg-deb --build p p.deb' >/dev/null
        dpkg-deb --contents p.deb | awk '/share.p.f/ { print $2 }'";
    prints("root/root", FileBatch::new(), script).await;
}

#[tokio::test]
async fn gcc_compiles_a_file_of_100_000_lines() {
    let script = r#"
        awk 'BEGIN { for (f = 0; f < 1000; f++) { print "int f" f "(int x) {"; for (i = 0; i < 97; i++) print "x += " i ";"; print "return x;"; print "}" } print "int main(void) { return f999(0) == 4656 ? 0 : 1; }" }' > a.c
        gcc -O0 -o a a.c && ./a && wc -l < a.c
    "#;
    prints("100001", FileBatch::new(), script).await;
}

#[tokio::test]
async fn make_does_nothing_the_second_time() {
    let files = FileBatch::new()
        .file("Makefile", "all: a\na: a.c\n\t@echo built; gcc -o a a.c\n")
        .file("a.c", "int main(void) { return 0; }\n");
    prints("Nothing to be done for 'all'.", files, "make && make").await;
}

#[tokio::test]
async fn php_has_its_extensions() {
    // One program: of a pipe whose reader has seen enough the writer may fail.
    let script = r#"php -r 'echo extension_loaded("posix") ? json_encode(["a" => hash("crc32b", "x")]) : "no posix";'"#;
    prints(r#"{"a":"8cdc1683"}"#, FileBatch::new(), script).await;
}

/// Sources of crates as Debian vendors them, with the tests of their authors.
const VENDORED: &str = "/usr/share/cargo/registry";

#[tokio::test]
async fn cargo_tests_a_vendored_crate() {
    let script = format!(
        r#"
        cp -r {VENDORED}/semver-1.* semver
        chmod -R u+w semver
        mkdir semver/.cargo
        cat > semver/.cargo/config.toml <<'END'
[source.crates-io]
replace-with = "vendored"
[source.vendored]
directory = "{VENDORED}"
END
        cd semver
        # Not needed, and looked for all the same: it may not be vendored.
        sed -i '/^\[dependencies\.serde\]/,/^$/d' Cargo.toml
        # The host may have a toolchain of a user's in its path.
        PATH=/usr/bin:$PATH cargo test --offline --quiet >said 2>&1 || {{ cat said; exit 1; }}
        awk '/^test result: ok/ {{ passed += $4 }} END {{ print (passed > 20 ? "passed" : "too few: " passed) }}' said
    "#
    );
    prints("passed", FileBatch::new(), &script).await;
}

#[tokio::test]
async fn a_package_of_pypi_passes_its_own_pytest_suite() {
    let script = r#"
        cp -r /usr/lib/python3/dist-packages/toolz .
        /usr/bin/python3 -m pytest -q toolz >said 2>&1 || { cat said; exit 1; }
        /usr/bin/python3 -c 'import toolz; print(toolz.__file__)'
        tail -n 1 said | awk '{ print ($1 > 100 && $2 ~ /^passed/ ? "passed" : $0) }'
    "#;
    prints(
        "/workspace/toolz/__init__.py\npassed",
        FileBatch::new(),
        script,
    )
    .await;
}

/// Runs a script in a directory of the host, and gives what it prints.
fn on_the_host(dir: &std::path::Path, script: &str) -> String {
    let output = std::process::Command::new("sh")
        .args(["-euc", script])
        .current_dir(dir)
        // The environment of this test may tell cargo where to build.
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", dir.with_file_name("home"))
        .output()
        .expect("a shell");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{said}");
    said
}

/// Builders compare times: what is newer than what it was made from is not made again.
#[tokio::test]
async fn what_was_built_on_one_side_is_up_to_date_on_the_other() {
    let host = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let built = host.path().join("built");
    std::fs::create_dir_all(built.join("src")).expect("it");
    let makefile =
        "all: $(patsubst %.in,%.out,$(wildcard *.in))\n%.out: %.in\n\t@echo $@; cp $< $@\n";
    std::fs::write(built.join("Makefile"), makefile).expect("a file");
    let manifest = "[package]\nname = \"a\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
    std::fs::write(built.join("Cargo.toml"), manifest).expect("a file");
    std::fs::write(built.join("src/main.rs"), "fn main() {}\n").expect("a file");
    let build = "for i in $(seq 300); do echo $i > $i.in; done; make -s | wc -l; cargo build --offline 2>&1";
    let said = on_the_host(&built, build);
    assert!(
        said.starts_with("300\n") && said.contains("Compiling"),
        "{said}"
    );
    let sandbox = support::create(SandboxSpec::new()).await;
    // Under the path that it was built at, which cargo takes for a part of the package's name.
    let inside = GuestPath::from(built.to_str().expect("UTF-8"));
    let import = sandbox.import_dir(&built, &inside, ImportOptions::new());
    import.await.expect("it comes in");
    let again = format!(
        "cd {inside}; PATH=/usr/bin:/bin; make; cargo build --offline 2>&1 | grep -c Compiling; \
         touch 7.in; make"
    );
    let said = support::sh(&sandbox, &again).await;
    assert_eq!(said, "make: Nothing to be done for 'all'.\n0\n7.out\n");
    std::fs::rename(&built, host.path().join("first")).expect("it moves");
    let export = sandbox.export_dir(&inside, &built, ExportOptions::new());
    export.await.expect("it comes out");
    let said = on_the_host(
        &built,
        "make; cargo build --offline 2>&1 | grep -c Compiling || :",
    );
    assert_eq!(said, "make: Nothing to be done for 'all'.\n0\n");
    sandbox.close().await.expect("close");
}
