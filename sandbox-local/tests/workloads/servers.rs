//! Servers that later commands talk to, kernels of notebooks, watchers.

use sandbox_core::{
    CreateDirOptions, FileBatch, GuestPath, ImportOptions, RemoveOptions, RenameOptions,
    SandboxExt as _, SandboxSpec,
};
use tokio::io::AsyncWriteExt as _;

use crate::{prints, support};

#[tokio::test]
async fn a_development_server_answers_later_commands() {
    let sandbox = support::create(SandboxSpec::new()).await;
    let start = "echo served > index.html; /usr/bin/python3 -m http.server 8123 &";
    support::sh(&sandbox, start).await;
    // It logs each request to the stderr of a command that has ended.
    let ask = "import time, urllib.request
for _ in range(1000):
    try:
        print(urllib.request.urlopen('http://localhost:8123/').read().decode()); break
    except OSError:
        time.sleep(0.02)";
    for _ in 0..3 {
        let script = format!("/usr/bin/python3 -c \"{ask}\"");
        assert_eq!(support::sh(&sandbox, &script).await.trim(), "served");
    }
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_jupyter_kernel_answers() {
    let program = r#"
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name='python3')
client.execute('print(6 * 7)')
while True:
    message = client.get_iopub_msg(timeout=60)
    if message['msg_type'] == 'stream':
        print(message['content']['text'].strip())
        break
client.stop_channels()
manager.shutdown_kernel(now=True)
"#;
    let files = FileBatch::new().file("a.py", program);
    prints("42", files, "/usr/bin/python3 a.py 2>/dev/null").await;
}

#[tokio::test]
async fn a_watcher_takes_forty_instances_and_a_thousand_directories() {
    let program = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for i in range(1000):
    os.makedirs(f'd/{i}')
instances = [libc.inotify_init1(0) for _ in range(40)]
assert min(instances) >= 0, os.strerror(ctypes.get_errno())
for i in range(1000):
    assert libc.inotify_add_watch(instances[0], f'd/{i}'.encode(), 0x100) >= 0
open('d/999/new', 'w').close()
print(len(os.read(instances[0], 4096)) > 0)
"#;
    let files = FileBatch::new().file("a.py", program);
    prints("True", files, "/usr/bin/python3 a.py").await;
}

/// A development server restarts when its source changes, also from outside.
#[tokio::test]
async fn a_watcher_is_told_what_the_host_changes() {
    let program = r#"
import ctypes, os, struct
libc = ctypes.CDLL(None)
watcher = libc.inotify_init1(0)
os.mkdir('d')
libc.inotify_add_watch(watcher, b'd', 0xfc6)
open('ready', 'w').close()
seen = set()
while 'last' not in seen:
    events, at = os.read(watcher, 65536), 0
    while at < len(events):
        length = struct.unpack_from('iIII', events, at)[3]
        seen.add(events[at + 16:at + 16 + length].rstrip(b'\0').decode())
        at += 16 + length
print(' '.join(sorted(name for name in seen if not name.startswith('.'))))
"#;
    let sandbox = support::create(SandboxSpec::new()).await;
    sandbox.write("a.py", program).await.expect("a file");
    support::sh(&sandbox, "/usr/bin/python3 -u a.py > seen 2>&1 &").await;
    let there = async || {
        sandbox
            .exists("ready")
            .await
            .expect("it says")
            .then_some(())
    };
    support::until("the watcher is ready", there).await;
    sandbox.write("d/one", "1").await.expect("written");
    let batch = FileBatch::new().file("d/two", "2").file("d/three", "3");
    sandbox.write_files(batch).await.expect("written");
    let host = tempfile::tempdir().expect("a directory");
    std::fs::write(host.path().join("imported"), "x").expect("a file");
    let [d, one, renamed, two, made] =
        ["d", "d/one", "d/renamed", "d/two", "d/made"].map(GuestPath::from);
    let import = sandbox.import_dir(host.path(), &d, ImportOptions::new());
    import.await.expect("imported");
    let rename = sandbox.rename(&one, &renamed, RenameOptions::new());
    rename.await.expect("renamed");
    let remove = sandbox.remove(&two, RemoveOptions::new());
    remove.await.expect("removed");
    let create = sandbox.create_dir(&made, CreateDirOptions::new());
    create.await.expect("made");
    let mut writer = sandbox.writer("d/streamed").await.expect("a writer");
    writer.write_all(b"x").await.expect("written");
    writer.commit().await.expect("committed");
    sandbox.write("d/last", "").await.expect("written");
    let said = async || {
        let seen = sandbox.read_to_string("seen").await.expect("it says");
        seen.ends_with('\n').then_some(seen)
    };
    let seen = support::until("the watcher has seen the last", said).await;
    assert_eq!(seen, "imported last made one renamed streamed three two\n");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn two_message_queues_of_the_default_size_fit() {
    let program = "#include <fcntl.h>\n#include <mqueue.h>\nint main(void) {\n\
         return mq_open(\"/a\", O_CREAT | O_RDWR, 0600, 0) < 0 \
         || mq_open(\"/b\", O_CREAT | O_RDWR, 0600, 0) < 0; }\n";
    let files = FileBatch::new().file("a.c", program);
    let script = "gcc a.c -o a -lrt && ./a && ls /dev/mqueue";
    prints("a\nb", files, script).await;
}

#[tokio::test]
async fn java_knows_its_own_host_name() {
    let program = "public class A { public static void main(String[] a) throws Exception { \
        System.out.println(java.net.InetAddress.getLocalHost().isLoopbackAddress()); } }";
    let files = FileBatch::new().file("A.java", program);
    prints("true", files, "java A.java").await;
}

/// Also on ports that the host keeps for its root: the network is the sandbox's own.
#[tokio::test]
async fn a_server_listens_on_a_port_below_1024() {
    let script = r#"
        python3 -m http.server --bind 127.0.0.1 80 >log 2>&1 &
        until python3 -c 'import socket; socket.create_connection(("127.0.0.1", 80))' 2>/dev/null; do
            kill -0 $! || { cat log; exit 1; }
        done
        echo through > page
        python3 -c 'import urllib.request as u; print(u.urlopen("http://127.0.0.1/page").read().decode())'
    "#;
    prints("through", FileBatch::new(), script).await;
}
