"""Searches for texts in the environment, the arguments and the memory of all other processes, and in
the files below the directories that are named. The texts come reversed on standard input, so that
what carried them here does not have them. Prints where each was found, and which processes were read
and which are closed to this one."""
import os
import sys

texts = {}
for line in sys.stdin.read().splitlines():
    name, text = line.split(" ", 1)
    texts[name] = text[::-1].encode()


def look(content, where):
    for name, text in texts.items():
        if text in content:
            print("found", name, "in", where)


def content_of(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def memory_of(pid):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps.read().splitlines():
            places, rights, *_ = line.split()
            start, end = (int(place, 16) for place in places.split("-"))
            if "r" not in rights or end - start > 1 << 30:
                continue
            try:
                memory.seek(start)
                yield memory.read(end - start)
            except (OSError, OverflowError, ValueError):
                # Of the kernel's, not the program's.
                continue


for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) == os.getpid():
        continue
    arguments = content_of(f"/proc/{pid}/cmdline")
    program = arguments.split(b"\0")[0].decode(errors="replace")
    look(arguments, f"the arguments of {program}")
    look(content_of(f"/proc/{pid}/environ"), f"the environment of {program}")
    try:
        for part in memory_of(pid):
            look(part, f"the memory of {program}")
        print("read", program)
    except OSError:
        print("closed", program)
for top in sys.argv[1:]:
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.isfile(path):
                look(content_of(path), f"the file {path}")
