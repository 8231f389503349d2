#!/usr/bin/env python3
"""Runs the arm64 agent under qemu's user mode emulation, as far as that goes: as a probe that plays
a plan and tells what came of it, and as an init up to its answers. It can't start a command there:
the emulation has no clone that shares memory without being a thread, and that is what is told.

Usage: agent.py QEMU AGENT
"""

import array
import os
import socket
import struct
import subprocess
import sys

MAGIC = 0x53424F58
PLAN, SPAWN, IDLE, GO = 1, 2, 5, 10
READY, FAILED, IDLE_REPLY = 101, 104, 107
NONE = 0xFFFFFFFF
SLOTS = 1024
# System calls of arm64.
OPENAT, READ, GETPID, CLOSE = 56, 63, 172, 57
AT_FDCWD = (1 << 64) - 100


def op(number, result, *args):
    """A call; an argument is a number, ("data", offset) or ("slot", n)."""
    kinds = {"data": 1, "slot": 2}
    pairs = [(kinds[a[0]], a[1]) if isinstance(a, tuple) else (0, a) for a in args]
    pairs += [(0, 0)] * (6 - len(pairs))
    head = struct.pack("=B6BxII", 0, *(kind for kind, _ in pairs), number, result)
    return (head + struct.pack("=6Q", *(value for _, value in pairs))).ljust(64, b"\0")


def plan(ops, data):
    """As the host lays it out."""
    return struct.pack("=4I", len(ops), 0, 0, 0) + b"".join(ops) + data


def message(kind, exec_id=0, a=0, b=0, c=0, d=0):
    return struct.pack("=IIIxxxx5Q", MAGIC, kind, 0, exec_id, a, b, c, d)


def memfd(content):
    fd = os.memfd_create("plan")
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what}: {found!r} and not {wanted!r}")
    print(f"{what}: as it should be")


def probe(run):
    text = b"of the host\n"
    file = memfd(text)
    path = f"/proc/self/fd/{file}".encode().ljust(32, b"\0")
    ops = [
        op(GETPID, 0),
        op(OPENAT, 1, AT_FDCWD, ("data", 0), 0, 0),
        op(READ, 2, ("slot", 1), ("data", 32), 64),
        op(4000, 3),
        op(CLOSE, 4, ("slot", 1)),
    ]
    stdin = memfd(plan(ops, path + bytes(64)))
    done = subprocess.run(run, stdin=stdin, stdout=subprocess.PIPE, pass_fds=[file], check=True)
    slots = struct.unpack(f"={SLOTS}q", done.stdout[: 8 * SLOTS])
    data = done.stdout[8 * SLOTS :]
    expect("the probe has a process number", slots[0] > 0, True)
    expect("the probe reads", (slots[2], data[32 : 32 + len(text)]), (len(text), text))
    expect("what fails has its errno", (slots[3], slots[4]), (-38, 0))


def init(run):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(30)

    def send(content, *fds):
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        ours.sendmsg([content], [rights] if fds else [])

    def receive():
        content, rights, _, _ = ours.recvmsg(4096, 1024)
        for _, _, fds in rights:
            for (fd,) in struct.iter_unpack("i", fds):
                os.close(fd)
        return struct.unpack("=IIIxxxx5Q", content[:56])

    content = plan([op(GETPID, NONE)], bytes(8))
    send(message(PLAN, a=len(content)), memfd(content), os.pidfd_open(os.getpid()))
    send(message(GO))
    # The control socket is descriptor 3; 0 to 2 are the agent's to take.
    start = f"exec 3<&{theirs.fileno()} 0<&- 1<&- 2<&-; exec \"$@\""
    namespaces = ["unshare", "--user", "--map-root-user", "--ipc", "--pid", "--fork", "--mount-proc"]
    fds = {"pass_fds": [theirs.fileno()]}
    child = subprocess.Popen(namespaces + ["sh", "-c", start, "sh"] + run, **fds)
    theirs.close()
    expect("the init is ready", receive()[1], READY)
    send(message(IDLE, a=42))
    reply = receive()
    expect("the init answers", (reply[1], reply[4], reply[5]), (IDLE_REPLY, 42, 1))
    # "true", found by its path, started in "/".
    # Offsets of the argument, of the file to try and of the directory; zeros end lists.
    payload = struct.pack("=5Q", 40, 0, 0, 40, 50) + b"/bin/true\0/\0"
    null = os.open("/dev/null", os.O_RDWR)
    send(message(SPAWN, 7, len(payload), 1, 0, 1) + payload, null, null)
    reply = receive()
    expect("a start that fails is told", (reply[1], reply[3], reply[4]), (FAILED, 7, 1))
    ours.close()
    expect("the init ends with its host", child.wait(timeout=30), 0)


if __name__ == "__main__":
    probe(sys.argv[1:3])
    init(sys.argv[1:3])
