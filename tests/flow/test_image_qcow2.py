#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""qcow2 with every option, against Debian's qemu-img in both directions."""
import json
import os
import random

import images
from images import MIB, img, qemu_img, run, sha256_of, sha256_of_file

OPTIONS = [
    "compat=0.10", "compat=1.1", "cluster_size=512", "cluster_size=4k", "cluster_size=2M",
    "refcount_bits=1", "refcount_bits=2", "refcount_bits=8", "refcount_bits=32",
    "refcount_bits=64", "lazy_refcounts=on", "extended_l2=on", "extended_l2=on,cluster_size=16k",
    "extended_l2=on,cluster_size=2M", "compression_type=zstd", "preallocation=metadata",
    "preallocation=falloc", "preallocation=full", "preallocation=metadata,cluster_size=512",
    "extended_l2=on,preallocation=metadata", "data_file=d.img",
    "data_file=d.img,data_file_raw=on", "cluster_size=512,refcount_bits=64",
]


def sound(image):
    """qemu-img and we find nothing wrong, and count the same."""
    theirs = qemu_img("check", "-f", "qcow2", image, check=False)
    ours = img("check", "-f", "qcow2", image, check=False)
    assert theirs.returncode == 0, theirs.stdout + theirs.stderr
    assert (ours.returncode, ours.stdout) == (0, theirs.stdout), \
        f"{image}: {ours.stdout}{ours.stderr}, not {theirs.stdout}"


def qemu_io(image, *commands, options=None):
    args = [a for c in commands for a in ("-c", c)]
    target = ["--image-opts", options] if options else ["-f", "qcow2", image]
    return run("qemu-io", *args, *target)


def test_written_by_us():
    images.make_source("s.raw", 6 * MIB + 512)
    want = sha256_of_file("s.raw")
    for o in OPTIONS:
        img("convert", "-O", "qcow2", "-o", o, "s.raw", "o.qcow2")
        sound("o.qcow2")
        assert sha256_of("o.qcow2", "qcow2") == want, o
        assert sha256_of("o.qcow2", "qcow2", images.IMG) == want, o
        run("sh", "-c", "rm -f o.qcow2 d.img")


def test_written_by_qemu():
    images.make_source("s.raw", 6 * MIB + 512, seed=2)
    want = sha256_of_file("s.raw")
    for o in OPTIONS:
        qemu_img("convert", "-O", "qcow2", "-o", o, "s.raw", "o.qcow2")
        sound("o.qcow2")
        assert sha256_of("o.qcow2", "qcow2", images.IMG) == want, o
        run("sh", "-c", "rm -f o.qcow2 d.img")


def test_compressed():
    images.make_source("s.raw", 6 * MIB, seed=3)
    want = sha256_of_file("s.raw")
    for o in ("compression_type=zlib", "compression_type=zstd", "cluster_size=512",
              "cluster_size=2M", "refcount_bits=1", "extended_l2=on", "compat=0.10"):
        for name, tool in (("us", img), ("them", qemu_img)):
            tool("convert", "-c", "-O", "qcow2", "-o", o, "s.raw", "o.qcow2")
            sound("o.qcow2")
            assert sha256_of("o.qcow2", "qcow2") == want, (o, name)
            assert sha256_of("o.qcow2", "qcow2", images.IMG) == want, (o, name)


def test_same_info():
    """describe() and -o: text and JSON are qemu-img's."""
    for o in OPTIONS:
        text = []
        for tool in (qemu_img, img):
            run("sh", "-c", "rm -f o.qcow2 d.img")
            made = tool("create", "-f", "qcow2", "-o", o, "o.qcow2", "40M").stdout
            text.append((made, qemu_img("info", "o.qcow2").stdout.split(b"disk size")[0]))
            both = [json.loads(t("info", "--output=json", "o.qcow2").stdout) for t in (qemu_img, img)]
            assert list(both[0]["format-specific"]["data"].items()) == \
                list(both[1]["format-specific"]["data"].items()), (o, both)
            assert both[0]["virtual-size"] == both[1]["virtual-size"] == 40 * MIB
        assert text[0] == text[1], (o, text)
    run("sh", "-c", "rm -f o.qcow2 d.img")


def test_refused_options():
    for o in ("cluster_size=1", "cluster_size=4M", "cluster_size=65537", "refcount_bits=3",
              "refcount_bits=128", "compat=0.10,refcount_bits=8", "compat=0.10,lazy_refcounts=on",
              "compat=0.10,extended_l2=on", "extended_l2=on,cluster_size=8k",
              "compat=0.10,compression_type=zstd", "compression_type=lzma", "data_file_raw=on",
              "compat=0.10,data_file=d.img", "compat=2", "preallocation=some",
              "encrypt.format=rot13"):
        p = img("create", "-f", "qcow2", "-o", o, "x.qcow2", "1M", check=False)
        assert p.returncode == 1 and len(p.stderr.splitlines()) == 1, (o, p.stderr)
        assert not os.path.exists("x.qcow2"), o


def test_snapshots():
    for o in ("compat=1.1", "compat=0.10", "cluster_size=4k", "extended_l2=on",
              "refcount_bits=64", "lazy_refcounts=on"):
        images.make_source("s.raw", 4 * MIB, seed=4)
        img("convert", "-O", "qcow2", "-o", o, "s.raw", "o.qcow2")
        first = sha256_of("o.qcow2", "qcow2")
        img("snapshot", "-c", "one", "o.qcow2")
        sound("o.qcow2")
        qemu_io("o.qcow2", "write -P 7 1M 100k", "write -z 2M 64k", "discard 3M 256k")
        sound("o.qcow2")
        second = sha256_of("o.qcow2", "qcow2")
        img("snapshot", "-c", "two", "o.qcow2")
        qemu_io("o.qcow2", "write -P 9 0 4M")
        ours, theirs = (t("snapshot", "-l", "o.qcow2").stdout for t in (img, qemu_img))
        assert ours == theirs, (ours, theirs)
        for name, want in (("one", first), ("two", second)):
            img("convert", "-l", name, "-O", "raw", "o.qcow2", "x.raw")
            assert sha256_of_file("x.raw") == want, (o, name)
        img("snapshot", "-a", "one", "o.qcow2")
        sound("o.qcow2")
        assert sha256_of("o.qcow2", "qcow2") == first, o
        qemu_img("snapshot", "-a", "two", "o.qcow2")
        assert sha256_of("o.qcow2", "qcow2", images.IMG) == second, o
        img("snapshot", "-d", "one", "o.qcow2")
        sound("o.qcow2")
        img("snapshot", "-d", "2", "o.qcow2")
        sound("o.qcow2")
        assert sha256_of("o.qcow2", "qcow2") == second, o
        p = img("snapshot", "-a", "none", "o.qcow2", check=False)
        assert p.returncode == 1 and b"none" in p.stderr


TESTS = [f for name, f in sorted(globals().items()) if name.startswith("test_")]

if __name__ == "__main__":
    images.need_qemu_img()
    images.main(TESTS)
