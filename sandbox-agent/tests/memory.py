"""Searches the memory of all other processes for texts, which come reversed, so that whoever carried
them here does not have them. Prints the process and the name of each text that was found, and how
many processes were read."""
import os
import sys

texts = {}
for line in sys.stdin.read().splitlines():
    name, text = line.split(" ", 1)
    texts[name] = text[::-1].encode()
read = 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) == os.getpid():
        continue
    try:
        maps = open(f"/proc/{pid}/maps").read().splitlines()
        memory = open(f"/proc/{pid}/mem", "rb", 0)
    except OSError:
        continue
    read += 1
    for line in maps:
        places, rights, *_ = line.split()
        start, end = (int(place, 16) for place in places.split("-"))
        if "r" not in rights or end - start > 1 << 30:
            continue
        try:
            memory.seek(start)
            part = memory.read(end - start)
        except (OSError, OverflowError, ValueError):
            # Of the kernel's, not the program's.
            continue
        for name, text in texts.items():
            if text in part:
                print("found", name, "in", pid)
print("read", read)
