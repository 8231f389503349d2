#!/usr/bin/env python3
"""Writes the table of the hostile suite into SECURITY.md.

Usage: table.py RESULTS SECURITY.md PROGRAM

RESULTS has a file for each control that was turned off, with the tests that went red. The programs
and controls of a test are read from its source.
"""

import pathlib
import platform
import re
import subprocess
import sys

BEGIN, END = "<!-- hostile suite: begin -->", "<!-- hostile suite: end -->"
SOURCES = pathlib.Path(__file__).parent
PROGRAMS = sorted(path.stem for path in SOURCES.glob("*.c"))
FIXED = "–"


def bodies():
    """The source of each test by its name."""
    found = {}
    for path in SOURCES.glob("*.rs"):
        text = path.read_text()
        parts = re.split(r"\n(?=#\[(?:tokio::)?test)", text)[1:]
        for part in parts:
            name = re.search(r"fn (\w+)\(", part)
            if name:
                found[f"{path.stem}::{name[1]}"] = (part, text)
    return found


def main(results, page, program):
    listed = subprocess.run([program, "--list", "--format", "terse"], capture_output=True, text=True)
    tests = sorted(re.findall(r"^(\S+): test$", listed.stdout, re.M))
    by_test = {}
    for path in sorted(pathlib.Path(results).iterdir()):
        for test in path.read_text().split():
            by_test.setdefault(test, []).append(path.name)
    source = bodies()
    rows = ["| Attack | Program | Control | Verdict | Stands on |", "|---|---|---|---|---|"]
    for test in tests:
        name = test.split("::")[-1]
        if name.startswith("in_a"):
            continue  # the part of another test that is a process of its own
        body, text = source.get(test, ("", ""))
        used = [p for p in PROGRAMS if f'"{p}"' in body or f"/{p} " in body]
        helper = [p for p in PROGRAMS if f'"{p}"' in text] if not used and "guest()" in body else []
        control = "outside" if "outside" in body or "control()" in body else "in the test"
        verdict = "in the machine" if "#[ignore" in body else "holds"
        what = name.replace("_", " ")
        stands = ", ".join(by_test.get(test, [])) or FIXED
        programs = ", ".join(used or helper) or "`sh`"
        rows.append(f"| {what} | {programs} | {control} | {verdict} | {stands} |")
    page = pathlib.Path(page)
    head, rest = page.read_text().split(BEGIN)
    _, tail = rest.split(END)
    said = f"Linux {platform.release().split('-')[0]}, {platform.machine()}."
    page.write_text("\n".join([head + BEGIN, "", said, "", *rows, "", END]) + tail)


if __name__ == "__main__":
    main(*sys.argv[1:4])
