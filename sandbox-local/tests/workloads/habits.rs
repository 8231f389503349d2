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

#[tokio::test]
async fn builds_trees_and_loops_behave() {
    are_as_on_the_host(&[
        (
            "jobserver",
            r#"mkdir s; printf 'all: a b c d\n%%:\n\t+@$(MAKE) -s -C s $@\n' > Makefile; printf '%%:\n\t@sleep 0.05; echo made $@ > $@; cat $@\n' > s/Makefile; make -s -j4 --output-sync a b c d | sort; echo ${PIPESTATUS[0]}; make -s -j4 -l 100 -k x y 2>&1 | sort | head -3"#,
        ),
        (
            "find",
            r#"mkdir -p t/{1..30}/{a,b}; touch t/{1..30}/{a,b}/f; find t -name f -delete; find t -type d -empty -delete; ls -A | wc -l; mkdir u; touch u/{1..50}; find u -newermt '2001-01-01' -type f -printf '%s %m\n' | sort | uniq -c; find u -type f -exec rm {} +; find u -maxdepth 0 -empty; find . -perm /222 -type d | wc -l"#,
        ),
        (
            "archives",
            r#"truncate -s 1G f; echo x | dd of=f bs=1 seek=500M conv=notrunc 2>/dev/null
            tar --sparse -cf a.tar f; [ $(stat -c %s a.tar) -lt 100000 ] && echo small; mkdir o; tar -C o -xf a.tar
            du -k o/f | awk '{ print ($1 < 1000) }'; cmp f o/f && echo equal; mkdir d; touch d/x
            tar -cf - d | (mkdir e; tar -C e -xpf - --no-same-owner); ls e/d"#,
        ),
        (
            "loops",
            r#"(while :; do date +%s >> log; sleep 0.02; done) & p=$!
            until [ -s log ] && [ $(wc -l < log) -ge 5 ]; do sleep 0.02; done; kill $p; wait $p; echo $?
            trap 'echo usr1' USR1; kill -USR1 $$; read -t 0.1 x < <(sleep 1); echo $?"#,
        ),
    ])
    .await;
}

#[tokio::test]
async fn copies_patches_sockets_and_typed_signals_behave() {
    are_as_on_the_host(&[
        (
            "permissions",
            r##"umask 022; mkdir -p s/d; echo 1 > s/f; echo '#!/bin/sh' > s/x; chmod 755 s/x; chmod 600 s/f; chmod 555 s/d; cp -r s t; stat -c '%n %a' t t/*; cp -p s/x y; stat -c %a y; cp s/f g; stat -c %a g
chmod -R u=rwX,go= t; stat -c '%n %a' t t/*; mv s/x /dev/shm/habit-x; stat -c %a /dev/shm/habit-x; mv /dev/shm/habit-x .; stat -c '%a %s' habit-x; install -m 640 s/f i; stat -c %a i
chmod 755 s/d; sed -i s/1/2/ s/f; stat -c '%a' s/f; cat s/f; perl -pi -e s/2/3/ s/f; stat -c %a s/f; cat s/f; tar cf - s | (mkdir u; tar xf - -C u); stat -c %a u/s/f u/s/x 2>&1; (umask 077; cp -r s v; stat -c '%n %a' v v/*); cp --reflink=auto s/f w; cat w; cp -al s l; stat -c %h l/f; rm -rf s; cat l/f
unzip -v >/dev/null 2>&1; python3 -c 'import zipfile; z=zipfile.ZipFile("a.zip","w"); z.write("y"); z.close()
import shutil; shutil.copytree("l","m"); shutil.copy2("l/f","n"); shutil.move("n","o"); print(oct(shutil.os.stat("o").st_mode)); shutil.rmtree("m"); print(shutil.disk_usage(".").free>0)'
ln -s loop loop; cat loop 2>&1 | sed 's/.*: //'; mkdir -p ro/sub; chmod 700 ro; chgrp $(id -g) ro; echo $?; ls -ld . | cut -c1-10"##,
        ),
        (
            "patches",
            r##"printf 'one\ntwo\nthree\n' > f; chmod 640 f; cp f g; ed -s f <<< $'2s/two/TWO/\nw\nq' 2>/dev/null || sed -i 's/two/TWO/' f; stat -c %a f; diff -u g f > p; patch -R -s f < p; cmp f g && echo same; patch -s < p g; cat g; stat -c %a g; git init -q r; cd r; git config user.email a@b; git config user.name a; cp ../f .; chmod 755 f; git add f; git ls-files -s | cut -c1-6; git commit -qm 1; chmod 644 f; git diff --summary; git checkout -q f; stat -c %a f; printf 'x\n' >> f; git diff > ../d; git checkout -q .; git apply ../d; tail -1 f; git stash -q; git stash pop -q; git config core.fsmonitor; git -c core.preloadIndex=true status -s; ln -s f l; git add l; git ls-files -s l | cut -c1-6; git rm -q --cached l; git clean -qfdx; ls; git mv f F2; git status -s; echo "*.log" > .gitignore; touch a.log; git status -s --ignored; git commit -qam 2; git log --format=%s; git rebase -q --exec true HEAD~1; git tag v1; GIT_EDITOR='sed -i s/2/amended/' git commit -q --amend; git log -1 --format=%s; git blame F2 | wc -l; git grep -n one; git shortlog -s HEAD | wc -l; vim --version >/dev/null 2>&1 && vim -es -u NONE -c '%s/one/uno/' -c wq F2; head -1 F2"##,
        ),
        (
            "languages",
            r##"export LC_ALL=en_US.UTF-8; perl -e 'print "p\n"' 2>&1 | tail -1; sort <<< $'b\nA\na\nB' | tr -d '\n'; echo; python3 -c 'import locale,sys; 
try: print(locale.setlocale(locale.LC_ALL,""))
except Exception as e: print(e)
print(sys.getfilesystemencoding(), sys.stdout.encoding)'
export LC_ALL=C; sort <<< $'b\nA\na\nB' | tr -d '\n'; echo; ls $'\xc3\xa9' 2>&1; printf '%q\n' é; python3 -c 'import sys; print(sys.getfilesystemencoding(), sys.stdout.encoding); print("é")'
unset LC_ALL; export LANG=de_DE.UTF-8; date -d @0 +%A; export LANG=C.UTF-8; iconv -f latin1 -t utf8 <<< $'\xe9'; echo ÄÖ | tr A-Z a-z; awk 'BEGIN{print toupper("é"), length("é")}'; echo é | grep -cP '\p{L}'; echo 'ÉA' | sed 's/.*/\L&/'; localedef --list-archive 2>/dev/null | head -3; locale -a | head -5; printf '%.2f\n' 1.5; LC_NUMERIC=de_DE.UTF-8 printf '%.2f\n' 1,5; ls -la / >/dev/null; touch é; ls; LC_ALL=C ls"##,
        ),
        (
            "orphans",
            r##"cat > a.py <<'P'
import ctypes, os, time
libc = ctypes.CDLL(None)
print(libc.prctl(36, 1, 0, 0, 0))
r, w = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        parent = os.getppid()
        while os.getppid() == parent: time.sleep(0.01)
        os.write(w, str(os.getppid()).encode()); os._exit(7)
    time.sleep(0.1); os._exit(0)
print(sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)), int(os.read(r, 20)) == os.getpid())
if os.fork() == 0:
    libc.prctl(1, 9, 0, 0, 0)
    time.sleep(100)
print(libc.prctl(15, b'renamed', 0, 0, 0), open('/proc/self/comm').read())
os.kill(0, 0)
P
timeout -k 1 20 python3 a.py; sh -c '(sleep 0.3; echo late) & echo early'; sleep 0.6; jobs | wc -l"##,
        ),
        (
            "networks",
            r##"cat > a.py <<'P'
import socket, threading, http.server, urllib.request, socketserver, ssl, os
s = socket.socket(socket.AF_INET6); s.bind(('::1', 0)); s.listen(); c = socket.create_connection(('::1', s.getsockname()[1])); print(c.getpeername()[0])
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0); s.bind(('::', 0)); s.listen(); c = socket.create_connection(('127.0.0.1', s.getsockname()[1])); print(s.accept()[1][0])
s = socket.socket(socket.AF_UNIX); s.bind('\0abstract-habit'); s.listen(); c = socket.socket(socket.AF_UNIX); c.connect('\0abstract-habit'); print('abstract')
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('0.0.0.0', 0)); u.sendto(b'x', ('127.5.5.5', u.getsockname()[1])); print(u.recv(5))
print(sorted(n for _, n in socket.if_nameindex())[-1:], socket.gethostbyname('127.0.0.1'), socket.getservbyname('http'), socket.getprotobyname('tcp'))
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.send_response(200); self.send_header('Content-Length', '2'); self.end_headers(); self.wfile.write(b'ok')
    def log_message(self, *a): pass
h = http.server.ThreadingHTTPServer(('127.0.0.1', 0), H); threading.Thread(target=h.serve_forever, daemon=True).start()
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(50) as p: print(set(p.map(lambda _: urllib.request.urlopen('http://127.0.0.1:%d/' % h.server_port).read(), range(300))))
port = h.server_port; h.shutdown(); h.server_close(); h2 = http.server.HTTPServer(('127.0.0.1', port), H); print(h2.server_port == port)
for o in ['SO_KEEPALIVE', 'SO_REUSEADDR', 'SO_BROADCAST', 'SO_OOBINLINE']:
    socket.socket().setsockopt(socket.SOL_SOCKET, getattr(socket, o), 1)
t = socket.socket(); t.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); t.setsockopt(socket.IPPROTO_TCP, 23, 5); print(t.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 4)[:1])
t.settimeout(1)
try: t.connect(('127.0.0.1', 1))
except OSError as e: print(e.errno)
m = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
m.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton('224.1.1.1') + socket.inet_aton('127.0.0.1')); print('multicast joined')
m.bind(('', 0)); m.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton('127.0.0.1')); m.sendto(b'mc', ('224.1.1.1', m.getsockname()[1])); m.settimeout(2); print(m.recv(5))
a, b = socket.socketpair(); b.close()
try: a.send(b'x'); a.send(b'x')
except OSError as e: print(type(e).__name__)
r, w = os.pipe(); f = open('f', 'w+'); f.write('data'); f.flush(); x, y = socket.socketpair(); print(os.sendfile(x.fileno(), f.fileno(), 0, 4), y.recv(4)); print(os.splice(os.open('f', 0), w, 4), os.read(r, 4))
P
python3 a.py 2>&1; (echo > /dev/tcp/127.0.0.1/1) 2>&1 | tail -1 | sed 's/.*: //'"##,
        ),
        (
            "events",
            r##"cat > w.py <<'P'
import ctypes, os, struct, threading, time
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(0)
os.makedirs('t/a/b'); open('t/old','w').close()
for d in ['t', 't/a', 't/a/b']: print(libc.inotify_add_watch(fd, d.encode(), 0xfff) > 0)
def work():
    open('t/f', 'w').write('x'); os.rename('t/f', 't/a/g'); os.chmod('t/a/g', 0o600); os.unlink('t/a/g'); os.mkdir('t/a/b/c'); open('t/old', 'a').write('more'); os.symlink('x', 't/l'); os.link('t/old', 't/a/h'); os.utime('t/old'); os.truncate('t/old', 0); os.rmdir('t/a/b/c'); os.rename('t/a/b', 't/moved')
work()
data = os.read(fd, 100000); i = 0
while i < len(data):
    wd, mask, cookie, n = struct.unpack_from('iIII', data, i); print(wd, hex(mask), data[i+16:i+16+n].rstrip(b'\0').decode(), cookie > 0); i += 16 + n
P
python3 w.py"##,
        ),
        (
            "places",
            r##"for d in /tmp /var/tmp /dev/shm "$HOME" "${TMPDIR:-/tmp}"; do mktemp -d $d/habit.XXXX >/dev/null && echo ok; done; rm -rf /tmp/habit.* /var/tmp/habit.* /dev/shm/habit.* $HOME/habit.*; stat -c '%a' /tmp /var/tmp /dev/shm; touch /tmp/habit-x; ln /tmp/habit-x /tmp/habit-y; stat -c %h /tmp/habit-x; mv /tmp/habit-x .; mv /dev/shm/../../tmp/habit-y .; ls habit-*; cat < /dev/null; head -c 3 /dev/zero | xxd -p 2>/dev/null || true; head -c 8 /dev/urandom | wc -c; echo $((RANDOM < 40000)); dd if=/dev/zero of=o bs=4096 count=2 oflag=direct 2>/dev/null; echo $?; sync -f o; sync; echo $?; python3 -c 'import os; f=os.open("s",os.O_RDWR|os.O_CREAT); os.lseek(f, 6<<30, 0); os.write(f,b"x"); os.fsync(f); os.fdatasync(f); print(os.fstat(f).st_size, os.lseek(f,0,os.SEEK_HOLE), os.lseek(f,0,os.SEEK_DATA)); os.posix_fadvise(f,0,0,4); print(os.statvfs(".").f_namemax, os.pathconf(".","PC_PATH_MAX"))'; python3 -c 'import os; print(os.supports_follow_symlinks != set(), hasattr(os.stat("."), "st_birthtime")); os.mkfifo("ff"); print(oct(os.stat("ff").st_mode)); os.rename("ff","fg"); os.replace("fg","ff"); print(os.scandir(".").__next__() is not None)'; ls -la --time-style=full-iso o | wc -l; lsattr o >/dev/null 2>&1; echo $?; touch -h -d 2001-01-01 l 2>/dev/null; ln -s o l; touch -h -d '2001-01-01 UTC' l; stat -c %Y l; chmod g+s . ; mkdir sg; stat -c %a sg; truncate -s 1T huge; stat -c %s huge; rm huge; df -T . | wc -l; find / -xdev -maxdepth 1 | wc -l | awk '{print($1>5)}'; python3 -c 'import shelve,dbm; d=shelve.open("sh"); d["a"]=1; d.close(); print(shelve.open("sh")["a"])'"##,
        ),
        (
            "typed",
            r##"cat > a.py <<'P'
import os, pty, time, signal, select
pid, fd = pty.fork()
if pid == 0:
    os.execvp('sh', ['sh', '-c', 'trap "echo got int" INT; echo ready; sleep 50; echo after; stty size'])
def until(word):
    seen = b''
    while word not in seen:
        try:
            seen += os.read(fd, 1000)
        except OSError:
            break
    return seen
print(until(b'ready'))
import fcntl, termios, struct
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 33, 77, 0, 0))
time.sleep(0.2)
os.write(fd, b'\x03')
print(until(b'33 77').decode().split())
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
pid, fd = pty.fork()
if pid == 0:
    os.execvp('sleep', ['sleep', '50'])
time.sleep(0.2)
os.close(fd)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
P
python3 a.py"##,
        ),
        (
            "jobs",
            r##"cat > s <<'X'
set -m
sleep 50 & 
jobs | sed 's/  */ /g'
kill -STOP %1; until [ "$(ps -o stat= -p $! | cut -c1)" = T ]; do sleep 0.02; done; jobs | sed 's/  */ /g'
bg %1 >/dev/null 2>&1; until [ "$(ps -o stat= -p $! | cut -c1)" = S ]; do sleep 0.02; done
kill %1; wait %1; echo $?
X
script -qec 'bash s' /dev/null < /dev/null | tr -d '\r'"##,
        ),
    ])
    .await;
}

/// Those whose programs CI does not install, or that take seconds.
#[tokio::test]
async fn tools_of_developers_behave() {
    if std::env::var("SANDBOX_WORKLOADS").is_ok_and(|which| which == "all") {
        are_as_on_the_host(&[
        (
            "processes",
            r#"cat > a.py <<'P'
import multiprocessing as m, os, signal, threading, mmap, fcntl, resource, tempfile, select, socket, time
def f(s,v):
    with s: v.value+=1
if __name__=='__main__':
    for how in ('fork','spawn','forkserver'):
        c=m.get_context(how); s=c.Semaphore(3); v=c.Value('i',0); l=c.Lock(); b=c.Barrier(2)
        ps=[c.Process(target=f,args=(l,v)) for _ in range(6)]
        [p.start() for p in ps]; [p.join() for p in ps]; print(how,v.value,[p.exitcode for p in ps])
    with m.Pool(4,maxtasksperchild=2) as p: print(sum(p.imap_unordered(abs,range(-50,50),chunksize=5)))
    from multiprocessing.connection import Listener, Client
    with Listener(family='AF_UNIX') as li:
        t=threading.Thread(target=lambda:Client(li.address).send('x'));t.start();print(li.accept().recv());t.join()
    mm=mmap.mmap(-1,4096); pid=os.fork()
    if pid==0: mm[0:2]=b'ok'; os._exit(0)
    os.waitpid(pid,0); print(mm[0:2])
    signal.signal(signal.SIGALRM,lambda *a:print('alarm')); signal.setitimer(signal.ITIMER_REAL,0.05); signal.pause()
    print(resource.getrlimit(resource.RLIMIT_STACK)[0], resource.getrlimit(resource.RLIMIT_NPROC)[0]>100)
    fd=os.memfd_create('x'); os.write(fd,b'1'); print(os.path.exists('/proc/self/fd/%d'%fd))
    e=select.epoll(); r,w=os.pipe(); e.register(r,select.EPOLLIN); os.write(w,b'1'); print(e.poll(1)!=[])
    print(len(os.sched_getaffinity(0))==os.cpu_count(), os.getloadavg()[0]>=0)
    pfd=os.pidfd_open(os.getpid()); print(pfd>0); ev=os.eventfd(1); print(os.eventfd_read(ev))
    os.posix_fallocate(os.open('pf',os.O_CREAT|os.O_RDWR),0,4096); print(os.stat('pf').st_size)
    print(os.copy_file_range(os.open('pf',os.O_RDONLY),os.open('pg',os.O_CREAT|os.O_RDWR),4096))
P
python3 a.py"#,
        ),
        (
            "sqlitewal",
            r#"sqlite3 d 'pragma journal_mode=wal; create table t(x);' ; for i in 1 2 3 4; do (for j in $(seq 20); do sqlite3 -cmd '.timeout 20000' d "insert into t values($j)"; done) & done; wait; sqlite3 d 'select count(*) from t; pragma integrity_check; pragma wal_checkpoint(truncate);'; sqlite3 d 'vacuum; pragma mmap_size=1000000; select sum(x) from t'; ls"#,
        ),
        (
            "gpg",
            r#"export GNUPGHOME=$PWD/g; mkdir -m 700 g; gpg --batch --quiet --passphrase '' --quick-generate-key 'A <a@b>' ed25519 default never 2>/dev/null; gpg --list-keys --with-colons | grep -c ^pub; echo hi > f; gpg --batch --yes --quiet --clearsign f; gpg --verify f.asc 2>&1 | grep -c Good; echo secret | gpg -q --batch --passphrase x --pinentry-mode loopback -c -o s.gpg; gpg -q --batch --passphrase x --pinentry-mode loopback -d s.gpg; gpgconf --kill all; echo $?"#,
        ),
        (
            "sshkeygen",
            r#"ssh-keygen -q -t ed25519 -N '' -f k; ssh-keygen -lf k | awk '{print $1,$4}'; stat -c %a k k.pub; eval $(ssh-agent) >/dev/null; ssh-add -q k; ssh-add -l | awk '{print $1,$4}'; ssh-agent -k >/dev/null; echo text > m; ssh-keygen -q -Y sign -f k -n file m; printf 'a %s\n' "$(cat k.pub)" > allowed; ssh-keygen -Y verify -f allowed -I a -n file -s m.sig < m | cut -c1-30; ssh -o BatchMode=yes -o ConnectTimeout=1 127.0.0.1 -p 1 true; echo $?"#,
        ),
        (
            "rsync",
            r#"mkdir -p a/b; for i in $(seq 50); do echo $i > a/b/$i; done; ln -s b a/l; ln a/b/1 a/h; chmod 640 a/b/2; touch -d '2001-01-01 UTC' a/b/3; rsync -aH --delete a/ c/; stat -c '%a %h' c/b/2 c/h; stat -c %Y c/b/3; rsync -ani --delete a/ c/ | wc -l; rm a/b/5; echo more >> a/b/6; rsync -a --delete -i a/ c/ | sed 's/  */ /g' | sort; truncate -s 100M s; rsync -S s t; du -k t | cut -f1; rsync -aX --inplace a/ d/; diff -r a d && echo equal"#,
        ),
        (
            "worker",
            r#"cat > a.js <<'J'
const {Worker,isMainThread,parentPort,workerData}=require('worker_threads');const fs=require('fs');const cp=require('child_process');
if(isMainThread){let n=0,s=0;for(let i=0;i<8;i++){const w=new Worker(__filename,{workerData:i});w.on('message',m=>{s+=m;if(++n==8){console.log(s);
const c=cp.fork(__filename+'.c.js');c.on('message',m=>{console.log(m);c.kill();});c.on('exit',(a,b)=>console.log(a,b));}});}}else{const b=new SharedArrayBuffer(8);Atomics.store(new Int32Array(b),0,workerData);parentPort.postMessage(workerData*workerData);}
J
echo "process.send({hi:process.argv.length});setInterval(()=>{},1000)" > a.js.c.js; node a.js
cat > w.js <<'J'
const fs=require('fs');fs.mkdirSync('d');const w=fs.watch('d',{recursive:false},(e,f)=>{console.log(e,f);w.close();});fs.writeFileSync('d/x','1');
const net=require('net');const s=net.createServer(c=>{c.end('bye');s.close();}).listen('sock',()=>net.connect('sock').on('data',d=>console.log(String(d))));
require('cluster');console.log(require('os').cpus().length>0,require('os').userInfo().uid>=0,require('os').tmpdir());
require('dns').lookup('localhost',e=>console.log(e));
J
node w.js | sort
node --test --version >/dev/null; cat > t.test.js <<'J'
const t=require('node:test');t('x',()=>{});
J
node --test t.test.js 2>&1 | grep -E '^# (pass|fail)'"#,
        ),
        (
            "javanio",
            r#"cat > W.java <<'J'
import java.nio.file.*;import java.util.concurrent.*;import java.util.*;
public class W{public static void main(String[] a)throws Exception{Path d=Files.createDirectory(Path.of("d"));WatchService w=FileSystems.getDefault().newWatchService();d.register(w,StandardWatchEventKinds.ENTRY_CREATE);Files.writeString(d.resolve("x"),"1");WatchKey k=w.poll(60,TimeUnit.SECONDS);System.out.println(k.pollEvents().get(0).context());
ExecutorService e=Executors.newFixedThreadPool(16);List<Future<Integer>> f=new ArrayList<>();for(int i=0;i<100;i++){int j=i;f.add(e.submit(()->j*j));}int s=0;for(Future<Integer> x:f)s+=x.get();e.shutdown();System.out.println(s);
Process p=new ProcessBuilder("sh","-c","echo sub; exit 3").redirectErrorStream(true).start();System.out.println(new String(p.getInputStream().readAllBytes()).trim()+p.waitFor());
try(var ch=java.nio.channels.FileChannel.open(Path.of("m"),StandardOpenOption.CREATE,StandardOpenOption.READ,StandardOpenOption.WRITE)){var m=ch.map(java.nio.channels.FileChannel.MapMode.READ_WRITE,0,4096);m.put(0,(byte)7);m.force();var l=ch.tryLock();System.out.println(l!=null);}
System.out.println(System.getProperty("file.encoding")+System.getProperty("java.io.tmpdir")+TimeZone.getDefault().getID()+Locale.getDefault());
System.out.println(Runtime.getRuntime().availableProcessors()>0);
var srv=new java.net.ServerSocket(0);new Thread(()->{try{new java.net.Socket("localhost",srv.getLocalPort()).getOutputStream().write(5);}catch(Exception x){x.printStackTrace();}}).start();System.out.println(srv.accept().getInputStream().read());
var ss=java.nio.channels.ServerSocketChannel.open(java.net.StandardProtocolFamily.UNIX);ss.bind(java.net.UnixDomainSocketAddress.of("s"));System.out.println("unix");
}}
J
java W.java"#,
        ),
        (
            "gocache",
            r#"export HOME=$PWD GOFLAGS=-mod=mod GOPROXY=off; mkdir m; cd m; go mod init x 2>/dev/null; printf 'package main\nimport "fmt"\nfunc main(){ch:=make(chan int);for i:=0;i<100;i++{go func(i int){ch<-i}(i)};s:=0;for i:=0;i<100;i++{s+=<-ch};fmt.Println(s)}\n' > main.go; go build -o a . && ./a; go build -v -o b . 2>&1 | wc -l; go env GOCACHE | sed "s|$HOME|H|"; go vet . && echo vetted; printf 'package main\nimport "testing"\nfunc TestX(t *testing.T){}\nfunc BenchmarkX(b *testing.B){}\n' > m_test.go; go test . 2>&1 | cut -f1; go test . 2>&1 | grep -o cached; go test -run xxx -bench . -benchtime 10x . | grep -o ^PASS; gofmt -l ."#,
        ),
        (
            "cargooff",
            r#"export HOME=$PWD CARGO_HOME=$PWD/c; PATH=/usr/bin:/bin; cargo new -q --vcs none p; cd p; cargo build -q --offline; ./target/debug/p; cargo build --offline 2>&1 | grep -c Compiling; touch src/main.rs; cargo build --offline 2>&1 | grep -c Compiling; cargo test -q --offline 2>&1 | grep -c 'test result: ok'; cargo check -q --offline --message-format=json | grep -c compiler-artifact; (cargo build --offline -q & cargo build --offline -q & wait; echo both)"#,
        ),
        (
            "pipoff",
            r#"export HOME=$PWD; python3 -m venv v; v/bin/pip --version | cut -d' ' -f1; v/bin/pip install --no-index nothing-here 2>&1 | grep -c 'No matching'; v/bin/pip list 2>/dev/null | head -1; v/bin/pip install nothing-here --retries 0 --timeout 1 2>&1 | grep -c ERROR; mkdir p; printf '[build-system]\nrequires=[]\nbuild-backend="b"\nbackend-path=["."]\n[project]\nname="p"\nversion="1"\n' > p/pyproject.toml; v/bin/python -m compileall -q p; v/bin/python -m pip cache dir | sed "s|$HOME|H|"; v/bin/python -m site --user-site | sed "s|$HOME|H|"; python3 -m pip install --user --no-index x 2>&1 | head -1; python3 -m zipfile -c z.zip p; python3 -m json.tool <<< '{"a":1}'; python3 -m http.server --help | head -1; python3 -m unittest 2>&1 | tail -1; python3 -m timeit -n 1 -r 1 1 | wc -l; python3 -c 'import readline, curses, tkinter' 2>&1 | tail -1; python3 -q -i </dev/null 2>&1 | wc -l"#,
        ),
        (
            "npmoff",
            r#"export HOME=$PWD npm_config_update_notifier=false; mkdir a b; cd b; npm init -y >/dev/null; echo 'module.exports=7' > index.js; cd ../a; npm init -y >/dev/null; npm install --offline --no-audit --no-fund ../b >/dev/null 2>&1; echo $?; node -e 'console.log(require("b"))'; npm pkg set scripts.x='echo ran $npm_package_name'; npm run -s x; npm ls --depth 0 | tail -2 | head -1 | grep -c b@; npm exec --offline --no -- nothing-here 2>&1 | grep -c -i 'not\|err' | awk '{print ($1>0)}'; npm install --offline --no-audit left-pad 2>&1 | grep -c ENOTCACHED | awk '{print ($1>0)}'; npm config get cache | sed "s|$HOME|H|"; npx --offline -y nope-nope 2>&1 | grep -c npm | awk '{print ($1>0)}'"#,
        ),
        (
            "openssl",
            r#"openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -subj /CN=localhost -days 1 2>/dev/null; openssl x509 -in c.pem -noout -subject; openssl s_server -accept 4433 -cert c.pem -key k.pem -www -quiet >/dev/null 2>&1 & p=$!; for i in $(seq 300); do curl -sk https://localhost:4433/ -o o && break; sleep 0.05; done; grep -c -i 'cipher' o | awk '{print ($1>0)}'; curl -s https://localhost:4433/; echo $?; curl -s --cacert c.pem https://localhost:4433/ -o /dev/null; echo $?; kill $p; openssl rand -hex 4 | wc -c; openssl enc -aes-256-cbc -pbkdf2 -k x <<< hi | openssl enc -d -aes-256-cbc -pbkdf2 -k x; openssl speed -seconds 1 md5 2>/dev/null | tail -1 | cut -c1-3; curl -s http://127.0.0.1:1; echo $?; curl -s file://$PWD/c.pem | head -1; wget -q -O- http://127.0.0.1:1; echo $?"#,
        ),
        (
            "cmake",
            r#"mkdir p; cd p; printf 'cmake_minimum_required(VERSION 3.10)\nproject(x C)\nadd_executable(x x.c)\nenable_testing()\nadd_test(t x)\n' > CMakeLists.txt; echo 'int main(void){return 0;}' > x.c; cmake -S . -B b -G Ninja >/dev/null; cmake --build b | tail -1 | sed 's/\[.*\] //'; ninja -C b | tail -1; (cd b; ctest 2>&1 | grep 'tests passed'); cmake -S . -B m >/dev/null; make -s -C m -j4 >/dev/null; echo $?; make -C m | grep -c Built"#,
        ),
        (
            "gitmore",
            r#"export HOME=$PWD; git config --global user.email a@b; git config --global user.name a; git config --global init.defaultBranch main; git init -q r; cd r; for h in pre-commit commit-msg post-commit; do printf '#!/bin/sh\necho hook %s >> $(git rev-parse --git-dir)/hooklog\n' $h > .git/hooks/$h; chmod +x .git/hooks/$h; done; echo 1 > f; git add f; git commit -qm 1; cat .git/hooklog; git clone -q --bare . ../b.git; git remote add o ../b.git; git push -q o main; git clone -q file://$HOME/b.git ../c; git -C ../c log --oneline | wc -l; git -c protocol.file.allow=always submodule add -q file://$HOME/b.git sub; git commit -qm s; git submodule status | wc -l; git worktree add -q ../w HEAD; git worktree list | wc -l; git bisect start HEAD HEAD~1 >/dev/null 2>&1; git bisect run true 2>&1 | tail -1 | cut -c1-10; git bisect reset -q; git rebase -q HEAD~0; git filter-branch --help >/dev/null 2>&1; git fast-export --all | git -C ../b.git fast-import --quiet --force; echo $?; git daemon --base-path=$HOME --export-all --listen=127.0.0.1 --port=9419 --detach --pid-file=$HOME/pid; for i in $(seq 100); do git ls-remote git://127.0.0.1:9419/b.git 2>/dev/null | wc -l | grep -v '^0' && break; sleep 0.05; done; kill $(cat $HOME/pid); git gc -q --aggressive; git fsck --strict; git fsmonitor--daemon status 2>&1 | cut -c1-30; git maintenance run --quiet; git -c core.untrackedCache=true status -s; git stash -u -q; git archive HEAD | tar t; git bundle create -q x.bundle main; git clone -q x.bundle ../d; echo $?; git -c gc.auto=1 commit -q --allow-empty -m gc; GIT_TRACE=0 git lfs 2>&1 | head -1 | cut -c1-20"#,
        ),
        ])
        .await;
    }
}
