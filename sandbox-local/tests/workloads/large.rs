//! Programs whose packages are large, or come from a registry; some run only if `SANDBOX_WORKLOADS=all`
//! is set.

use sandbox_core::FileBatch;

use crate::prints;

async fn prints_if_asked(last: &str, files: FileBatch, script: &str) {
    if std::env::var("SANDBOX_WORKLOADS").is_ok_and(|which| which == "all") {
        prints(last, files, script).await;
    }
}

#[tokio::test]
async fn chromium_makes_a_screenshot_without_its_own_sandbox() {
    let files = FileBatch::new().file("a.html", "<title>t</title><h1 id=h>hello</h1>");
    let script = r#"
        chromium --headless --no-sandbox --disable-gpu --screenshot=a.png "file://$PWD/a.html" >log 2>&1 || cat log
        file -b a.png | cut -d, -f1
        chromium --headless --no-sandbox --disable-gpu --dump-dom "file://$PWD/a.html" 2>/dev/null | grep -o '<h1.*h1>'
    "#;
    prints("PNG image data\n<h1 id=\"h\">hello</h1>", files, script).await;
}

#[tokio::test]
async fn pdflatex_makes_a_page() {
    let files = FileBatch::new().file(
        "a.tex",
        "\\documentclass{article}\\begin{document}Hello, $x^2$.\\end{document}\n",
    );
    let script = "pdflatex -interaction=batchmode a.tex >/dev/null && head -c 5 a.pdf";
    prints("%PDF-", files, script).await;
}

#[tokio::test]
async fn ffmpeg_encodes_a_second() {
    let script =
        "ffmpeg -v error -f lavfi -i testsrc=duration=1:size=160x120:rate=10 -pix_fmt yuv420p a.mp4
        ffprobe -v error -show_entries stream=nb_frames -of csv=p=0 a.mp4";
    prints("10", FileBatch::new(), script).await;
}

#[tokio::test]
async fn libreoffice_converts_without_a_screen() {
    let script = r#"
        to() { soffice --headless --convert-to "$1" "$2" >log 2>&1 || cat log; }
        echo 'a page' > a.txt
        to odt a.txt; to docx a.odt; to pdf a.docx
        file -b a.odt; head -c 5 a.pdf
    "#;
    let last = "OpenDocument Text\n%PDF-";
    prints_if_asked(last, FileBatch::new(), script).await;
}

#[tokio::test]
async fn aspell_has_its_dictionary() {
    let script = "printf 'a word thatt is wrong\\n' | aspell --lang=en list";
    prints("thatt", FileBatch::new(), script).await;
}

#[tokio::test]
async fn go_tests_with_the_race_detector() {
    let files = FileBatch::new().file("go.mod", "module a\n\ngo 1.19\n").file(
        "a_test.go",
        "package a\nimport (\"sync\"; \"testing\")\nfunc TestA(t *testing.T) {\n\tvar m sync.Mutex\n\t\
         var w sync.WaitGroup\n\tn := 0\n\tfor i := 0; i < 8; i++ {\n\t\tw.Add(1)\n\t\tgo func() { \
         m.Lock(); n++; m.Unlock(); w.Done() }()\n\t}\n\tw.Wait()\n\tif n != 8 { t.Fatal(n) }\n}\n",
    );
    prints("ok", files, "go test -race ./... | cut -f1").await;
}

/// The source distribution is fetched outside; inside there is no network.
#[tokio::test]
async fn pip_builds_a_source_distribution_whose_tests_pass() {
    if std::env::var_os("SANDBOX_WORKLOADS").is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let fetched = std::process::Command::new("python3")
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            ":all:",
        ])
        .args(["toolz==1.0.0", "--dest"])
        .arg(dir.path())
        .status();
    assert!(fetched.expect("pip").success(), "no source distribution");
    let source = std::fs::read(dir.path().join("toolz-1.0.0.tar.gz")).expect("an archive");
    let files = FileBatch::new().file("toolz-1.0.0.tar.gz", source);
    let script = r#"
        /usr/bin/python3 -m venv --system-site-packages v
        v/bin/pip install --quiet --no-index --no-build-isolation --no-deps ./toolz-1.0.0.tar.gz
        cd /tmp
        /workspace/v/bin/python -m pytest -q --pyargs toolz >said 2>&1 || { cat said; exit 1; }
        /workspace/v/bin/python -c 'import toolz; print(toolz.__version__)'
        tail -n 1 said | awk '{ print ($1 > 100 && $2 ~ /^passed/ ? "passed" : $0) }'
    "#;
    prints_if_asked("1.0.0\npassed", files, script).await;
}
