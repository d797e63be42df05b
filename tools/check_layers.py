#!/usr/bin/env python3
"""Fail if a file includes a header that layers.txt does not allow its folder."""
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
allowed = {}
for line in (root / "layers.txt").read_text().splitlines():
    if line and not line.startswith("#"):
        folder, _, may = line.partition(":")
        allowed[folder] = set(may.split())


def folder_of(path):
    """The longest folder of layers.txt that holds the path."""
    hits = [f for f in allowed if path == f or path.startswith(f + "/")]
    return max(hits, key=len, default=None)


bad = 0
for src in sorted(p for p in root.rglob("*.[ch]") if not p.relative_to(root).parts[0].startswith("build")):
    me = folder_of(src.relative_to(root).as_posix())
    if me is None or "*" in allowed[me]:
        continue
    for n, line in enumerate(src.read_text().splitlines(), 1):
        m = re.match(r'#include "([^"]+)"', line)
        to = folder_of(m.group(1)) if m else None
        if to and to != me and to not in allowed[me]:
            print(f"{src.relative_to(root)}:{n}: {me} may not include {to}")
            bad += 1
sys.exit(bad > 0)
