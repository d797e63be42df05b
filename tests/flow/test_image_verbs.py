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


DATA = ("head -c 4194304 /dev/zero | tr '\\0' '\\377' > a.raw; truncate -s 10M a.raw; "
        "printf hello | dd of=a.raw bs=1 seek=6000000 conv=notrunc status=none")


def test_raw_more():
    both(DATA, "$Q resize a.raw", "$Q resize -f raw a.raw -5M", "$Q resize -f raw a.raw +1M",
         "$Q resize -f raw a.raw foo", "$Q resize -f raw a.raw +", "$Q resize a.raw 5M",
         "$Q resize -f raw --shrink a.raw -20M", "$Q resize -f raw --preallocation=foo a.raw 20M",
         "$Q resize -f raw --preallocation=full --shrink a.raw 5M", "$Q resize", "$Q resize a b 5",
         "$Q resize -f raw --preallocation=falloc a.raw 12M", "$Q info a.raw | grep virtual",
         "$Q resize -q --shrink -f raw a.raw 10M; wc -c a.raw",
         "$Q rebase", "$Q rebase a.raw", "$Q rebase -f raw -b y a.raw", "$Q rebase -u -f raw -b y a.raw",
         "$Q rebase -T foo -b y a.raw", "$Q rebase -t foo -b y a.raw",
         "$Q commit a.raw", "$Q commit -f raw a.raw", "$Q commit -b y -f raw a.raw",
         "$Q amend a.raw", "$Q amend -o foo=1 a.raw", "$Q amend -o help", "$Q amend -f raw -o size=1 a.raw",
         "$Q amend -o compat=v2 nofile", "$Q bench", "$Q bench -c 10 -d 2 -s 512 -f raw a.raw",
         "$Q bench -w -c 10 -f raw --flush-interval 3 a.raw", "$Q bench -c 10 -f raw --flush-interval 3 a.raw",
         "$Q bench -w -c 100 -d 4 -f raw --flush-interval 10 --pattern 255 -S 8k -o 4k a.raw",
         "$Q bench -w -c 100 -d 4 -f raw --flush-interval 10 --no-drain a.raw", "cksum a.raw",
         "$Q bitmap", "$Q bitmap a.raw b", "$Q bitmap --add a.raw", "$Q bitmap --add -g 3 -f raw a.raw b",
         "$Q bitmap --remove -g 512 a.raw b", "$Q bitmap --add -F raw a.raw b", "$Q bitmap --add -b x a.raw b",
         "$Q dd", "$Q dd if=a.raw", "$Q dd if=a.raw of=b.raw bs=1M count=2 skip=1; cksum b.raw",
         "$Q dd if=a.raw of=b.raw bs=0", "$Q dd if=a.raw of=b.raw bs=x", "$Q dd if=a.raw of=b.raw foo=1",
         "$Q dd if=a.raw of=b.raw foo", "$Q dd if=a.raw of=b.raw skip=11M bs=1; wc -c b.raw",
         "$Q dd bs=4k if=a.raw of=b.raw skip=2; cksum b.raw",
         "$Q dd if=nofile of=b.raw",
         "$Q measure", "$Q measure -O raw", "$Q measure --size 1G -O foo", "$Q measure --size 1G a.raw",
         "$Q measure a b", "$Q measure --size 1G", "$Q measure -O raw a.raw", "$Q measure --output=json a.raw",
         "$Q measure -f raw -l foo a.raw",
         "$Q compare", "$Q compare a.raw", "$Q compare a.raw nofile", "$Q compare nofile a.raw",
         "$Q compare a.raw a.raw", "$Q compare -s a.raw a.raw", "$Q compare -T foo a.raw a.raw",
         "$Q compare -q a.raw a.raw", "cp a.raw c.raw; printf x | dd of=c.raw bs=1 seek=5001 conv=notrunc status=none",
         "$Q compare a.raw c.raw", "$Q compare -q a.raw c.raw", "$Q compare -s a.raw c.raw",
         "$Q compare a.raw b.raw", "$Q compare -s a.raw b.raw", "truncate -s 12M a.raw", "$Q compare c.raw a.raw",
         "cp a.raw c.raw; truncate -s 14M c.raw", "$Q compare c.raw a.raw", "$Q compare a.raw c.raw",
         "$Q compare -p a.raw c.raw | tr '\\r' '\\n' | sed -n '1p;$p'",
         "$Q map a.raw", "$Q map --output=json a.raw")


def test_secrets():
    both("$Q create a.raw 1M", "$Q info --object foo a.raw",
         "$Q info --object foo,id=x a.raw", "$Q info --object secret,data=5 a.raw",
         "$Q info --object secret,id=x,data=5 a.raw | grep virtual")


def test_names():
    """Messages start with the name of the program."""
    assert img("foo", check=False).stderr.startswith(b"lodge-img: Command not found: foo\n")


if __name__ == "__main__":
    images.need_qemu_img()
    images.main([test_usage, test_raw, test_raw_more, test_secrets, test_names])
