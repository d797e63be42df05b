#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""lodge-img beside Debian's qemu-img: the same command lines, the same output and exit code."""
import os
import re
import shlex

import images
from images import img, run


def both(*lines):
    """Runs shell lines with $Q as each of the two, in folders of their own; compares all they
    print and their exit codes."""
    seen = {}
    for who, program in (("qemu", images.QEMU_IMG), ("lodge", images.IMG)):
        os.makedirs(who)
        os.makedirs(f"bin-{who}")
        link = os.path.abspath(f"bin-{who}/qemu-img")
        os.symlink(program, link)
        seen[who] = []
        for line in lines:
            p = run("sh", "-c", line, cwd=who, check=False, env={**os.environ, "Q": link, "TZ": "UTC"})
            seen[who].append((line, p.returncode, clean(p.stdout), clean(p.stderr)))
    wrong = [f"\n--- qemu-img:  {q}\n--- lodge-img: {o}" for q, o in zip(seen["qemu"], seen["lodge"])
             if q != o]
    for who in ("qemu", "lodge"):
        run("rm", "-rf", who, f"bin-{who}")
    assert not wrong, "".join(wrong)


def clean(data):
    """Times, and folders of the two, are not the same."""
    text = data.decode()
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", text)
    text = re.sub(r'("date-n?sec": )\d+', r"\1N", text)
    text = re.sub(r"in \d+\.\d+ seconds", "in T seconds", text)
    return text.replace("/qemu/", "/X/").replace("/lodge/", "/X/")


def test_usage():
    both("$Q", "$Q foo", "$Q -x", "$Q create", "$Q create -f", "$Q create -z", "$Q create --foo",
         "$Q create a.raw", "$Q create a.raw 1 2", "$Q create a.raw 1Q", "$Q create a.raw -- -5",
         "$Q create a.raw 9E", "$Q create a.raw 99999999999999999999", "$Q create a.raw 1.5",
         "$Q create a.raw 1.5k && wc -c a.raw", "$Q create a.raw 0x100 && wc -c a.raw",
         "$Q info", "$Q info a b", "$Q info --output=foo a", "$Q info nofile", "$Q info -f foo a.raw",
         "$Q map", "$Q map --output=foo a", "$Q check", "$Q check -r foo a", "$Q check nofile",
         "$Q snapshot", "$Q snapshot -a a -d b a.raw", "$Q convert", "$Q convert a.raw",
         "$Q convert -S x a.raw b", "$Q convert -m 99 a.raw b", "$Q convert -m 0 a.raw b",
         "$Q convert nofile b", "$Q convert --target-is-zero a.raw b", "$Q convert -O foo a.raw b",
         "$Q convert -B x -O raw a.raw b", "$Q convert -n a.raw none", "$Q convert -c -O raw a.raw b",
         "$Q convert -C -S 4k a.raw b", "$Q convert -C -c a.raw b", "$Q convert -t foo a.raw b",
         "$Q convert -T foo a.raw b", "$Q convert --target-image-opts a.raw b",
         "$Q convert -l x a.raw b")


def test_raw():
    both("$Q create -f raw a.raw 10M", "$Q create -q a.raw 1M; ls -l a.raw | cut -c1-10",
         "head -c 4096 /dev/zero | dd of=a.raw conv=notrunc status=none",
         "$Q create -f raw -o help a.raw", "$Q create -o '?' a.raw",
         "$Q create -o size=2M b.raw", "$Q create -f raw -o preallocation=full c.raw 1M",
         "$Q create -o foo=1 c.raw 1M",
         "$Q create -b a.raw c.raw", "$Q create -b a.raw -F raw c.raw",
         "$Q info a.raw", "$Q info --output=json a.raw", "$Q info --backing-chain --output=json a.raw",
         "$Q info --image-opts driver=raw,file.filename=a.raw", "$Q info --image-opts -f raw x",
         "$Q info 'json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"a.raw\"}}'",
         "$Q info file:a.raw", "$Q info foo:bar", "$Q info ''",
         "$Q map a.raw", "$Q map --output=json a.raw", "$Q map -s 4k -l 64k --output=json a.raw",
         "$Q map --start-offset=20M a.raw", "$Q check a.raw", "$Q check --output=json a.raw",
         "$Q snapshot -l a.raw", "$Q snapshot a.raw", "$Q snapshot -c x a.raw",
         "$Q snapshot -d x a.raw", "$Q convert a.raw d.raw && cmp a.raw d.raw",
         "$Q convert -p -f raw a.raw d.raw | tr '\\r' '\\n' | sed -n '1p;$p'",
         "$Q convert a.raw b.raw e.raw && wc -c e.raw", "$Q convert -n a.raw b.raw; wc -c b.raw",
         "$Q convert -n b.raw e.raw && wc -c e.raw", "ls")


def test_names():
    """Messages start with the name of the program."""
    assert img("foo", check=False).stderr.startswith(b"lodge-img: Command not found: foo\n")


if __name__ == "__main__":
    images.need_qemu_img()
    images.main([test_usage, test_raw, test_names])
