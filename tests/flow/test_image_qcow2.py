#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""qcow2 with every option, against Debian's qemu-img in both directions."""
import json
import os
import random
import shutil
import subprocess
import sys
import time

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


def bitmaps_of(image):
    data = json.loads(qemu_img("info", "--output=json", image).stdout)["format-specific"]["data"]
    ours = json.loads(img("info", "--output=json", image).stdout)["format-specific"]["data"]
    assert ours.get("bitmaps") == data.get("bitmaps"), (ours, data)
    return {b["name"]: b["flags"] for b in data.get("bitmaps", [])}


def test_bitmaps():
    img("create", "-f", "qcow2", "o.qcow2", "64M")
    img("bitmap", "--add", "o.qcow2", "a")
    img("bitmap", "--add", "--disable", "-g", "512", "o.qcow2", "b")
    sound("o.qcow2")
    assert bitmaps_of("o.qcow2") == {"a": ["auto"], "b": []}
    qemu_io("o.qcow2", "write 1M 128k")
    sound("o.qcow2")
    img("bitmap", "--merge", "a", "o.qcow2", "b")
    img("bitmap", "--enable", "o.qcow2", "b")
    sound("o.qcow2")
    assert bitmaps_of("o.qcow2") == {"a": ["auto"], "b": ["auto"]}
    img("bitmap", "--clear", "--disable", "o.qcow2", "a")
    img("resize", "o.qcow2", "100M")
    sound("o.qcow2")
    qemu_img("bitmap", "--add", "o.qcow2", "theirs")
    img("convert", "-O", "qcow2", "--bitmaps", "o.qcow2", "c.qcow2")
    sound("c.qcow2")
    assert bitmaps_of("c.qcow2") == {"a": [], "b": ["auto"], "theirs": ["auto"]}
    img("bitmap", "--remove", "o.qcow2", "b")
    img("bitmap", "--remove", "o.qcow2", "theirs")
    img("bitmap", "--remove", "o.qcow2", "a")
    sound("o.qcow2")
    assert bitmaps_of("o.qcow2") == {}
    for args in (("--add", "-g", "513", "o.qcow2", "x"), ("--remove", "o.qcow2", "x"),
                 ("--add", "o.qcow2", "x" * 1024)):
        assert img("bitmap", *args, check=False).returncode == 1, args


def test_bitmaps_record_writes():
    """What we write is in the bitmap that QEMU reads, and nothing else."""
    img("create", "-f", "qcow2", "o.qcow2", "64M")
    img("bitmap", "--add", "o.qcow2", "a")
    with open("s.raw", "wb") as f:
        f.truncate(64 * MIB)
        for at in (0, 3 * MIB, 40 * MIB + 65536):
            f.seek(at)
            f.write(b"x" * 70000)
    img("convert", "-n", "--target-is-zero", "-O", "qcow2", "s.raw", "o.qcow2")
    sound("o.qcow2")
    assert bitmaps_of("o.qcow2") == {"a": ["auto"]}
    img("bitmap", "--add", "-g", "65536", "--disable", "o.qcow2", "b")
    qemu_img("bitmap", "--merge", "a", "o.qcow2", "b")
    run("sh", "-c", "qemu-nbd -r -f qcow2 -k $PWD/s.sock -B b --fork --pid-file=pid o.qcow2")
    out = run("nbdinfo", "--json", "--map=qemu:dirty-bitmap:b",
              f"nbd+unix:///?socket={os.getcwd()}/s.sock").stdout
    dirty = [(e["offset"], e["length"]) for e in json.loads(out) if e["type"]]
    assert dirty == [(0, 131072), (3 * MIB, 131072), (40 * MIB + 65536, 131072)], dirty


def test_resize():
    for o in ("compat=1.1", "cluster_size=512", "extended_l2=on", "compat=0.10",
              "data_file=d.img"):
        images.make_source("s.raw", 3 * MIB + 512, seed=5)
        img("convert", "-O", "qcow2", "-o", o, "s.raw", "o.qcow2")
        img("resize", "o.qcow2", "+2G" if "512" not in o else "+200M")
        sound("o.qcow2")
        assert sha256_of("o.qcow2", "qcow2", size=3 * MIB + 512) == sha256_of_file("s.raw"), o
        assert img("resize", "o.qcow2", "2M", check=False).returncode == 1
        odd = img("resize", "o.qcow2", "+1", check=False)
        assert (odd.returncode, odd.stdout) == (1, b""), odd
        assert b"The new size must be a multiple of 512" in odd.stderr, odd
        img("resize", "--shrink", "o.qcow2", str(2 * MIB + 512))
        sound("o.qcow2")
        assert sha256_of("o.qcow2", "qcow2") == sha256_of_file("s.raw", 2 * MIB + 512), o
        # What was cut off does not come back.
        img("resize", "o.qcow2", "4M")
        qemu_img("convert", "-O", "raw", "o.qcow2", "x.raw")
        with open("x.raw", "rb") as f:
            f.seek(2 * MIB + 512)
            assert not f.read().strip(b"\0"), o
        sound("o.qcow2")
        run("sh", "-c", "rm -f d.img")
    for mode in ("metadata", "falloc", "full"):
        img("create", "-q", "-f", "qcow2", "p.qcow2", "1M")
        img("resize", "--preallocation=" + mode, "p.qcow2", "20M")
        sound("p.qcow2")
        assert (os.stat("p.qcow2").st_blocks * 512 > 18 * MIB) == (mode != "metadata")
    img("create", "-q", "-f", "raw", "b.raw", "4M")
    run("qemu-io", "-f", "raw", "-c", "write -P 5 0 4M", "b.raw")
    img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", "b.raw", "t.qcow2", "1M")
    img("resize", "t.qcow2", "4M")
    assert b"verification failed" not in qemu_io("t.qcow2", "read -P 5 0 1M", "read -P 0 1M 3M").stdout


def test_amend():
    images.make_source("s.raw", 3 * MIB, seed=6)
    want = sha256_of_file("s.raw")
    img("convert", "-O", "qcow2", "-o", "compat=0.10", "s.raw", "o.qcow2")
    img("snapshot", "-c", "one", "o.qcow2")
    for o in ("compat=1.1", "lazy_refcounts=on", "lazy_refcounts=off", "refcount_bits=64",
              "refcount_bits=8", "refcount_bits=16", "compat=0.10", "compat=v3,refcount_bits=32",
              "size=5M"):
        img("amend", "-o", o, "o.qcow2")
        sound("o.qcow2")
        assert sha256_of("o.qcow2", "qcow2", size=3 * MIB) == want, o
    for o in ("refcount_bits=1", "refcount_bits=3", "compat=0.10", "data_file=x", "compat=7",
              "cluster_size=4k", "data_file_raw=on"):
        assert img("amend", "-o", o, "o.qcow2", check=False).returncode == 1, o
        sound("o.qcow2")
    img("create", "-q", "-f", "raw", "b.raw", "4M")
    run("qemu-io", "-f", "raw", "-c", "write -P 5 0 4M", "b.raw")
    img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", "b.raw", "t.qcow2")
    qemu_io("t.qcow2", "write -z 1M 300k", "write -P 6 2M 64k")
    before = sha256_of("t.qcow2", "qcow2")
    img("amend", "-o", "compat=0.10", "t.qcow2")
    sound("t.qcow2")
    assert sha256_of("t.qcow2", "qcow2") == before
    p = img("amend", "-o", "backing_file=other", "t.qcow2", check=False)
    assert p.returncode == 1 and b"Cannot amend the backing file" in p.stderr, p
    img("rebase", "-u", "-b", "", "t.qcow2")
    assert b"backing" not in qemu_img("info", "t.qcow2").stdout


def test_check_and_repair():
    """The same words, numbers and exit codes as qemu-img's, of images damaged at random."""
    rng = random.Random(7)
    images.make_source("s.raw", 2 * MIB, seed=8)
    qemu_img("convert", "-O", "qcow2", "s.raw", "whole.qcow2")
    qemu_img("snapshot", "-c", "one", "whole.qcow2")
    qemu_io("whole.qcow2", "write 0 300k", "discard 1M 128k")
    size = os.path.getsize("whole.qcow2")
    header = open("whole.qcow2", "rb").read(112)
    l1 = int.from_bytes(header[40:48], "big")
    for i in range(40):
        run("cp", "whole.qcow2", "o.qcow2")
        with open("o.qcow2", "r+b") as f:
            for _ in range(rng.randint(1, 3)):
                f.seek(l1)
                l2 = int.from_bytes(f.read(8), "big") & 0xfffffffffffe00
                f.seek(rng.choice((2 * 65536 + 2 * rng.randrange(60), l2 + 8 * rng.randrange(30))))
                f.write(rng.choice((bytes(2), b"\0\1", b"\0\2", b"\0\5")))
        text = []
        for tool in (qemu_img, img):
            p = tool("check", "--output=json", "o.qcow2", check=False)
            report = json.loads(p.stdout) if p.stdout else None
            text.append((p.returncode, report, sorted(p.stderr.splitlines())))
        assert text[0] == text[1], (i, text)
        run("cp", "o.qcow2", "leaks.qcow2")
        img("check", "-q", "-r", "leaks", "leaks.qcow2", check=False)
        img("check", "-q", "-r", "all", "o.qcow2", check=False)
        p = qemu_img("check", "o.qcow2", check=False)
        q = img("check", "o.qcow2", check=False)
        assert p.returncode == q.returncode and p.stdout == q.stdout, (i, p, q)
        if not any(b"l2" in line or b"offset" in line for line in text[0][2]):
            assert p.returncode == 0, (i, text, p.stdout, p.stderr)
    assert size == os.path.getsize("whole.qcow2")


def test_cut_files_are_mended():
    """Files that end early, in the middle of any table: what check makes of them has no hole in its
    metadata, and is clean unless it lacks data."""
    for options in ("cluster_size=512", "cluster_size=64k", "extended_l2=on"):
        img("create", "-q", "-f", "qcow2", "-o", options, "whole.qcow2", "64M")
        img("bench", "-q", "-w", "-f", "qcow2", "-c", "200", "-S", "300000", "whole.qcow2")
        header = open("whole.qcow2", "rb").read(64)
        cluster = 1 << int.from_bytes(header[20:24], "big")
        l1, n = int.from_bytes(header[40:48], "big"), int.from_bytes(header[36:40], "big")
        refs = int.from_bytes(header[48:56], "big")
        for at in (104 + 1000, refs + 8, refs + cluster, l1, l1 + 4 * n, l1 + 8 * n, l1 + 8 * n + cluster,
                   os.path.getsize("whole.qcow2") // 2):
            run("cp", "whole.qcow2", "cut.qcow2")
            os.truncate("cut.qcow2", at)
            assert img("check", "cut.qcow2", check=False).returncode in (0, 1, 2), at
            code = img("check", "-q", "-r", "all", "cut.qcow2", check=False).returncode
            again = img("check", "cut.qcow2", check=False)
            assert code == again.returncode and code in (0, 2), (options, at, again)
            theirs = qemu_img("check", "cut.qcow2", check=False)
            assert theirs.returncode == code, (options, at, theirs)
            if code == 0:
                sha256_of("cut.qcow2", "qcow2")


def test_encrypted():
    images.make_source("s.raw", 2 * MIB, seed=9)
    want = sha256_of_file("s.raw")
    secret = ("--object", "secret,id=k,data=swordfish")
    for o in ("encrypt.format=luks,encrypt.iter-time=10", "encrypt.format=aes",
              "encrypt.format=luks,encrypt.iter-time=10,extended_l2=on",
              "encrypt.format=luks,encrypt.iter-time=10,encrypt.cipher-alg=serpent-256"):
        for name, tool in (("us", img), ("them", qemu_img)):
            for last in (False, False, False, True):  # qemu-img cannot always time its hashing
                p = tool("convert", *secret, "-O", "qcow2", "-o", o + ",encrypt.key-secret=k",
                         "s.raw", "o.qcow2", check=last)
                if p.returncode == 0:
                    break
            for reader in (qemu_img, img):
                reader("convert", *secret, "--image-opts", "-O", "raw",
                       "driver=qcow2,encrypt.key-secret=k,file.filename=o.qcow2", "x.raw")
                assert sha256_of_file("x.raw") == want, (o, name)
            p = qemu_img("check", *secret, "--image-opts",
                         "driver=qcow2,encrypt.key-secret=k,file.filename=o.qcow2")
            assert img("check", "o.qcow2").stdout == p.stdout
            infos = [json.loads(t("info", "--output=json", "o.qcow2").stdout) for t in (img, qemu_img)]
            assert infos[0] == infos[1], infos
        p = img("convert", "-O", "raw", "o.qcow2", "y.raw", check=False)
        assert p.returncode == 1 and b"key-secret" in p.stderr, p.stderr


def test_dirty_image_is_repaired():
    img("create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", "o.qcow2", "16M")
    run("sh", "-c", "qemu-io -c 'write -P 3 0 2M' -c flush -c 'sigraise 9' o.qcow2; true",
        check=False)
    assert json.loads(img("info", "--output=json", "o.qcow2").stdout)["dirty-flag"]
    assert img("check", "o.qcow2", check=False).returncode == 2
    img("bench", "-q", "-w", "-c", "1", "-o", str(8 * MIB), "o.qcow2")
    sound("o.qcow2")
    assert b"verification failed" not in qemu_io("o.qcow2", "read -P 3 0 2M").stdout


def test_measure():
    for o in OPTIONS:
        for size in ("0", "1M", "10G", "1000000000512"):
            if "512" in o and size[0] == "1" and len(size) > 4:
                continue
            a, b = (t("measure", "-O", "qcow2", "-o", o, "--size", size, check=False)
                    for t in (qemu_img, img))
            assert (a.returncode, a.stdout) == (b.returncode, b.stdout), (o, size, a, b)


PYQCOW = """
import hashlib, pyqcow, sys
f = pyqcow.open(sys.argv[1])
left, h = f.get_media_size(), hashlib.sha256()
while left:
    data = f.read_buffer(min(left, 1 << 20))
    assert data
    h.update(data)
    left -= len(data)
print(h.hexdigest())
"""


def python_with_qcow():
    """Debian's interpreter has python3-libqcow; ours may be another one."""
    for program in (sys.executable, "/usr/bin/python3"):
        if shutil.which(program) and not run(program, "-c", "import pyqcow", check=False).returncode:
            return program
    return None


def test_other_readers():
    """7-Zip and libqcow, which share no code with QEMU."""
    images.make_source("s.raw", 6 * MIB, seed=10)
    want = sha256_of_file("s.raw")
    python = python_with_qcow()
    if not python:
        images.left_out("no libqcow (Debian package python3-libqcow)")
    if not shutil.which("7zz"):
        images.left_out("no 7-Zip (Debian package 7zip)")
    for o, packed in (("compat=1.1", False), ("compat=0.10", False), ("cluster_size=4k", False),
                      ("cluster_size=2M", False), ("compat=1.1", True), ("cluster_size=4k", True)):
        img("convert", *(["-c"] if packed else []), "-O", "qcow2", "-o", o, "s.raw", "o.qcow2")
        if shutil.which("7zz"):
            with open("x.raw", "wb") as f:
                subprocess.run(["7zz", "e", "-so", "-tqcow", "o.qcow2"], stdout=f, check=True,
                               stderr=subprocess.DEVNULL, timeout=60)
            assert sha256_of_file("x.raw") == want, ("7-Zip", o, packed)
        if python:
            found = run(python, "-c", PYQCOW, "o.qcow2").stdout.decode().strip()
            assert found == want, ("libqcow", o, packed)


def test_killed_while_the_whole_image_changes():
    """Snapshots and refcount width, in both versions: whatever was reached, the image is sound as it
    lies there, and holds what the old or the new one does."""
    rng = random.Random(11)
    images.make_source("s.raw", 8 * MIB, seed=11)
    want = sha256_of_file("s.raw")
    for compat in "0.10", "1.1":
        img("convert", "-O", "qcow2", "-o", f"cluster_size=4k,compat={compat}", "s.raw", "whole.qcow2")
        img("snapshot", "-c", "one", "whole.qcow2")
        img("snapshot", "-c", "other", "whole.qcow2")
        img("bench", "-q", "-w", "-c", "90", "-S", "80k", "whole.qcow2")
        now = sha256_of("whole.qcow2", "qcow2")
        for verb in (["snapshot", "-c", "two"], ["snapshot", "-a", "one"], ["snapshot", "-d", "one"],
                     *([["amend", "-o", "refcount_bits=32"]] if compat == "1.1" else [])):
            for _ in range(8):
                run("cp", "whole.qcow2", "o.qcow2")
                p = subprocess.Popen([images.IMG, *verb, "o.qcow2"], stdout=subprocess.DEVNULL)
                time.sleep(rng.random() * 0.02)
                p.kill()
                p.wait()
                p = qemu_img("check", "o.qcow2", check=False)
                assert p.returncode in (0, 3), (compat, verb, p.stderr)
                assert sha256_of("o.qcow2", "qcow2", images.IMG) in ((now, want) if "-a" in verb else (now,)), verb
            img(*verb, "o.qcow2" if "-a" in verb else "whole.qcow2")
            sound("whole.qcow2")
        img("snapshot", "-d", "other", "whole.qcow2")
        img("snapshot", "-d", "two", "whole.qcow2")
        sound("whole.qcow2")
        assert sha256_of("whole.qcow2", "qcow2") == now


TESTS = [f for name, f in sorted(globals().items()) if name.startswith("test_")]

if __name__ == "__main__":
    images.need_qemu_img()
    images.main(TESTS)
