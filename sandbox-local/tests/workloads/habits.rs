//! Everyday habits of agents, notebooks and CI: each script prints inside what it prints on the host.
//!
//! Scripts must not print what differs between any two machines: numbers of processes, paths, times.

use std::process::Stdio;

use sandbox_core::{Command, SandboxSpec};

use crate::support;

/// Output of a script on the host, without a terminal, in a directory of its own.
fn on_the_host(script: &str) -> String {
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
    // Whatever the one who runs this ignores, as under nohup(1).
    let output = std::process::Command::new("env")
        .args(["--default-signal", "setsid", "-w", "bash", "-c", script])
        .current_dir(dir.path())
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("HOME", dir.path())
        .env("LANG", "C.UTF-8")
        .env("TERM", "dumb")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        output.status
    )
}

async fn are_as_on_the_host(habits: &[(&str, &str)]) {
    let sandbox = support::create(SandboxSpec::new()).await;
    let mut differ = String::new();
    for (name, script) in habits {
        let script = format!("exec 2>&1\nmkdir {name}; cd {name}\n{script}");
        let host = on_the_host(&script);
        let command = Command::new("bash").args(["-c", &script]);
        let inside = support::run(&sandbox, command).await;
        let status = match inside.status.code() {
            Some(code) => format!("exit status: {code}"),
            None => inside.status.to_string(),
        };
        let inside = format!("{}{status}", inside.stdout.to_string_lossy());
        if inside != host {
            differ.push_str(&format!("{name}\non the host: {host}\ninside: {inside}\n"));
        }
    }
    assert!(differ.is_empty(), "{differ}");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn processes_start_end_and_are_told_apart() {
    are_as_on_the_host(&[
        (
            "nohup",
            "nohup sh -c 'sleep 0.1; echo done > f' >/dev/null 2>&1 & disown
            until [ -s f ]; do sleep 0.02; done; cat f",
        ),
        (
            "timeout",
            r#"timeout 0.2 sleep 50; echo $?; timeout -s INT 0.2 sleep 50; echo $?
            timeout --foreground 0.2 sleep 50; echo $?
            (timeout -k 0.2 0.2 sh -c 'trap "" TERM; sleep 50'; echo $?) 2>/dev/null"#,
        ),
        ("xargs", r"seq 1 100 | xargs -P 8 -n 1 sh -c 'echo $0' | sort -n | md5sum"),
        (
            "make",
            r#"printf 'all: %s\n' "$(seq -f t%g 1 20 | tr '\n' ' ')" > Makefile
            printf 't%%:\n\t@echo $@ > $@\n' >> Makefile; make -s -j8; ls t* | wc -l"#,
        ),
        (
            "setsid",
            r#"setsid -w sh -c 'test "$(ps -o sid= -p $$ | tr -d " ")" = $$ && echo own'; setsid -w false; echo $?"#,
        ),
        ("nice", "echo $(($(nice -n 5 nice) - $(nice))); renice -n 19 $$ >/dev/null; nice; ionice -c 3 true; echo $?; chrt -b 0 true; echo $?; taskset -c 0 echo ok"),
        (
            "group",
            r#"setsid -w sh -c 'sleep 50 & sleep 50 & trap "" TERM; kill 0; wait; echo gone'; echo $?"#,
        ),
        (
            "wait",
            "for i in 3 2 1; do (sleep 0.$i; exit $i) & done; wait -n; echo $?; wait; echo $?
            sleep infinity & p=$!; kill $p; wait $p 2>/dev/null; echo $?
            bash -c 'trap \"echo bye\" EXIT; exit 4'; echo $?; (sleep infinity & kill $!; echo started)",
        ),
        (
            "signals",
            "for s in HUP INT QUIT TERM USR1 CHLD PIPE ALRM SEGV; do
                bash -c \"sh -c 'kill -$s \\$\\$; echo survived $s'; echo \\$?\" 2>/dev/null
            done
            yes | head -1; echo ${PIPESTATUS[@]}; grep SigBlk /proc/self/status
            python3 -c 'import signal; print(signal.getsignal(signal.SIGPIPE), signal.getsignal(signal.SIGINT))'",
        ),
        (
            "substitution",
            "diff <(seq 3) <(seq 3) && echo same; cat < <(echo x); coproc cat; echo hi >&${COPROC[1]}
            read -u ${COPROC[0]} x; echo $x; mapfile -t a < <(seq 5); echo ${#a[@]}",
        ),
        (
            "zombies",
            "cat > a.py <<'END'
import os
for i in range(50):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
for i in range(50):
    print(os.waitstatus_to_exitcode(os.wait()[1]), end=' ')
try:
    os.wait()
except ChildProcessError:
    print('none is left')
END
            python3 a.py",
        ),
        (
            "many",
            "cat > a.py <<'END'
import subprocess, threading
all = [subprocess.Popen(['sleep', '50']) for _ in range(100)]
for one in all:
    one.kill()
print({one.wait() for one in all})
event = threading.Event()
threads = [threading.Thread(target=event.wait) for _ in range(300)]
for thread in threads:
    thread.start()
print(threading.active_count())
event.set()
END
            python3 a.py",
        ),
    ])
    .await;
}

#[tokio::test]
async fn files_are_what_they_were_made() {
    are_as_on_the_host(&[
        ("heredoc", r#"{ echo "cat <<'END' | wc -c"; head -c 1048576 /dev/zero | tr '\0' x; echo; echo END; } > big; bash big"#),
        (
            "worktree",
            "export HOME=$PWD; git init -q r; cd r; git config user.email a@b; git config user.name a
            echo 1 > f; git add f; git commit -qm m; git worktree add -q ../w -b b; cd ../w; git log --oneline | wc -l
            git status --short | wc -l; echo 2 > f; git stash -q; git stash list | wc -l; git gc -q; git fsck 2>&1 | wc -l
            printf '#!/bin/sh\\necho hooked\\n' > ../r/.git/hooks/pre-commit; chmod +x ../r/.git/hooks/pre-commit
            echo 3 > g; git add g; git commit -qm g",
        ),
        (
            "flock",
            "exec 9>l; flock -n 9 && echo got; flock -n l -c 'echo no' || echo busy; flock -u 9; flock -n l -c 'echo yes'",
        ),
        ("fifo", "mkfifo -m 600 f; (echo through > f &); cat f; stat -c '%F %a' f"),
        (
            "copies",
            "mkdir -p a/b; echo 1 > a/b/f; ln -s f a/b/l; ln a/b/f a/b/h; chmod 640 a/b/f; touch -d '2001-01-01 UTC' a/b/f
            cp -a a c; stat -c '%a %Y %h' c/b/f; readlink c/b/l; tar -C a -cf - . | tar -C c -xpf -; stat -c '%a %Y' c/b/f
            touch -d '1960-01-01 UTC' a/b/f; stat -c %Y a/b/f; touch -d @4102444800 a/b/f; stat -c %Y a/b/f
            ln -sfn x l; readlink l; install -D -m 755 a/b/f q/w/e; stat -c %a q/w/e; mv a/b/f /tmp/kit-habit; mv /tmp/kit-habit .; ls",
        ),
        (
            "xattrs",
            "cat > a.py <<'END'
import os
os.setxattr('f', 'user.k', b'v')
END
            echo 1 > f; python3 a.py; tar --xattrs -cf a.tar f; mkdir o; tar --xattrs -C o -xf a.tar
            python3 -c 'import os; print(os.getxattr(\"o/f\", \"user.k\"))'",
        ),
        (
            "sparse",
            "dd if=/dev/zero of=s bs=1 count=1 seek=10G 2>/dev/null; stat -c %s s; du -k s | awk '{ print ($1 < 1000) }'
            fallocate -l 1M u; stat -c %s u; fallocate -p -o 0 -l 65536 u; echo $?
            cp --sparse=always s t; du -k t | awk '{ print ($1 < 1000) }'",
        ),
        (
            "names",
            r#"touch -- $'a\nb' $'\xff\xfe' ' lead' -dash '*' é "$(printf 'n%.0s' $(seq 255))"; ls -b | sort | md5sum
            find . -type f -print0 | xargs -0 rm --; ls -A | wc -l; touch "$(printf 'n%.0s' $(seq 256))" 2>&1 | tail -c 20"#,
        ),
        (
            "modes",
            "umask; touch f; mkdir d; stat -c %a f d; umask 077; touch g; stat -c %a g; chmod 4755 g; stat -c %a g
            mkdir t; chmod 3777 t; stat -c %a t",
        ),
        (
            "anonymous",
            "cat > a.py <<'END'
import os
fd = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o600)
print(os.write(fd, b'x'), os.listdir())
END
            python3 a.py",
        ),
        (
            "wide",
            "cat > a.py <<'END'
import os
os.mkdir('m')
for i in range(3000):
    open(f'm/{i}', 'w').close()
print(len(os.listdir('m')))
for i in range(400):
    os.mkdir('deeper')
    os.chdir('deeper')
END
            python3 a.py; rm -rf m deeper; ls",
        ),
        ("redirections", "echo x > /dev/stdout; echo y > /dev/stderr; echo z | cat /dev/stdin; exec 5<>f; echo a >&5; cat /proc/self/fd/5; echo x > /dev/full; echo $?; cat | wc -c; test -p /dev/stdin; echo $?"),
    ])
    .await;
}

#[tokio::test]
async fn shells_terminals_and_languages_behave() {
    are_as_on_the_host(&[
        ("crlf", r"printf '#!/bin/sh\r\necho hi\r\n' > s; chmod +x s; ./s; echo $?; printf 'echo hi\r\n' > t; sh t | od -c"),
        ("shebang", "printf 'echo without $0\\n' > s; chmod +x s; ./s; env ./s; python3 -c 'import subprocess; subprocess.run([\"./s\"])' 2>&1 | tail -1; printf '' > e; chmod +x e; ./e; echo $?"),
        ("script", r"script -qc 'echo in script; tty | cut -c1-8; stty size' /dev/null </dev/null | tr -d '\r'"),
        ("tty", "(echo x > /dev/tty) 2>&1 | sed 's/.*: //'; tty; test -t 0; echo $?; stty -a 2>&1 | head -1"),
        ("zones", "TZ=Europe/Berlin date -d @0 +%FT%T%z; TZ=America/New_York date -d @1700000000 +%FT%T%Z; date -d @0 +%Z; python3 -c 'import zoneinfo; print(zoneinfo.ZoneInfo(\"Asia/Tokyo\"))'"),
        ("locale", "LC_ALL=C.UTF-8 bash -c 'x=é; echo ${#x}'; LC_ALL=C.UTF-8 python3 -c 'print(\"é\".encode())'; locale | sort | head -3"),
        ("environment", "export B=$(head -c 100000 /dev/zero | tr '\\0' x); for i in $(seq 1000); do export V$i=value; done; env | grep -c ^V; sh -c 'echo ${#B}'"),
        ("arguments", "python3 -c 'import subprocess; print(subprocess.run([\"sh\", \"-c\", \"echo $#\", \"x\"] + [\"a\"] * 50000, capture_output=True).stdout)'"),
        (
            "sockets",
            "cat > a.py <<'END'
import os, socket
a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1))
s = socket.socket(socket.AF_UNIX); s.bind('sock'); s.listen()
c = socket.socket(socket.AF_UNIX); c.connect('sock'); x, _ = s.accept()
credentials = x.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
print(credentials[:4] == os.getpid().to_bytes(4, 'little'))
d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); d.bind(('127.0.0.1', 0))
d.sendto(b'q', d.getsockname()); print(d.recv(9))
socket.send_fds(a, [b'f'], [0]); print(len(socket.recv_fds(b, 1, 1)[1]))
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(('127.0.0.1', 0)); s.listen()
e = socket.create_connection(s.getsockname()); print(e.fileno() > 0)
END
            python3 a.py",
        ),
        (
            "parallel",
            "cat > a.py <<'END'
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory
def square(x):
    return x * x
if __name__ == '__main__':
    with ProcessPoolExecutor(4) as pool:
        print(sum(pool.map(square, range(100))))
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=queue.put, args=(5,))
    process.start(); print(queue.get()); process.join()
    memory = shared_memory.SharedMemory(create=True, size=1 << 20)
    memory.buf[0] = 1; memory.close(); memory.unlink()
    with multiprocessing.Manager() as manager:
        print(dict(manager.dict(a=1)))
END
            python3 a.py",
        ),
        (
            "asyncio",
            "cat > a.py <<'END'
import asyncio, sqlite3, ssl, tempfile
async def main():
    process = await asyncio.create_subprocess_exec('echo', 'hi', stdout=-1)
    print((await process.communicate())[0])
asyncio.run(main())
tempfile.TemporaryFile(); tempfile.NamedTemporaryFile(dir='/dev/shm')
print(len(ssl.create_default_context().get_ca_certs()) > 0, sqlite3.connect('d').execute('pragma journal_mode=wal').fetchone())
END
            python3 a.py",
        ),
    ])
    .await;
}
