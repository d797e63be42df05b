#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""lodged(8) from manual.txt and the settings in schema/lodged.def: manual.py TEXT DEF OUTPUT."""
import re
import sys


def troff(text):
    return text.replace("\\", "\\e").replace("-", "\\-").replace("\n.", "\n\\&.")


def settings(path):
    with open(path) as f:
        source = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    for group, key, rest in re.findall(r"SETTING\((\w+), (\w+),\s*(.*?)\)\s*(?=SETTING|\Z)", source, re.S):
        strings = re.findall(r'"((?:[^"\\]|\\.)*)"', rest)
        yield group, key, strings[0], "".join(strings[1:])


def main(text, rows, out):
    with open(text) as f:
        page = f.read()
    listing = []
    for group, key, otherwise, help in settings(rows):
        default = f" Default: {otherwise}." if otherwise else ""
        listing.append(f".TP\n.B {troff(group)}.{troff(key)}\n{troff(help + default)}")
    with open(out, "w") as f:
        f.write(page.replace("@SETTINGS@", "\n".join(listing)))


main(*sys.argv[1:])
