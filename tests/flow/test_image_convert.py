#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""lodge-img convert: every pair of formats, compression, pipes, full disks, killed runs."""
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import time

import images
from images import FORMATS, MIB, img, qemu_img, run, sha256_of, sha256_of_file

IMG_TOOL = images.IMG
SIZE = 6 * MIB + 512 * 37  # no multiple of any unit


def known():
    return {name: f for name, f in FORMATS.items() if images.can_create(f[0])}


def convert(tool, source, source_fmt, target, name):
    fmt, options = FORMATS[name]
    run(tool, "convert", "-f", source_fmt, "-O", fmt, *(("-o", options) if options else ()), source,
        target)
    return fmt


def test_from_raw_to_all():
    """Ours, read by Debian's qemu-img and by us; theirs, read by us."""
    images.make_source("src.raw", SIZE)
    want = sha256_of_file("src.raw")
    for name in known():
        fmt = convert(images.IMG, "src.raw", "raw", "ours.img", name)
        for tool in (images.QEMU_IMG, images.IMG):
            got = sha256_of("ours.img", fmt, tool=tool, size=SIZE)
            assert got == want, f"{name}: {tool} reads other bytes than were written"
        if fmt in ("qcow2", "qed", "vdi", "vmdk", "vhdx", "parallels"):
            qemu_img("check", "-f", fmt, "ours.img")
        convert(images.QEMU_IMG, "src.raw", "raw", "theirs.img", name)
        got = sha256_of("theirs.img", fmt, tool=images.IMG, size=SIZE)
        assert got == want, f"{name}: we read other bytes than qemu-img wrote"


def test_all_pairs():
    images.make_source("src.raw", SIZE, seed=2)
    want = sha256_of_file("src.raw")
    formats = known()
    for a in formats:
        fmt = convert(images.IMG, "src.raw", "raw", "a.img", a)
        for b in formats:
            fmt_b = convert(images.IMG, "a.img", fmt, "b.img", b)
            got = sha256_of("b.img", fmt_b, tool=images.IMG, size=SIZE)
            assert got == want, f"{a} to {b}"


def test_compressed():
    images.make_source("src.raw", SIZE, seed=3)
    want = sha256_of_file("src.raw")
    cases = [("qcow2", []), ("qcow2", ["--compression", "zstd"]), ("qcow2", ["--level", "1"]),
             ("qcow2", ["--level", "9", "-m", "1"]), ("qcow2", ["-o", "cluster_size=4k"]),
             ("qcow2", ["-o", "cluster_size=2M"]), ("qcow2", ["-o", "compat=0.10"]), ("qcow", [])]
    if images.can_create("vmdk"):
        cases.append(("vmdk", ["-o", "subformat=streamOptimized"]))
    for fmt, more in cases:
        img("convert", "-c", "-f", "raw", "-O", fmt, *more, "src.raw", "c.img")
        for tool in (images.QEMU_IMG, images.IMG):
            got = sha256_of("c.img", fmt, tool=tool, size=SIZE)
            assert got == want, f"{fmt} {more}: {tool} reads other bytes"
        if fmt == "qcow2":
            qemu_img("check", "c.img")
        again = "d.img"
        img("convert", "-c", "-f", "raw", "-O", fmt, *more, "src.raw", again)
        if fmt != "vmdk":  # its content ID is random
            assert sha256_of_file("c.img") == sha256_of_file(again), f"{fmt}: not the same twice"


def test_compressed_size():
    """At most 105 % of what qemu-img makes of a real program's bytes."""
    data = b"".join(open(p, "rb").read() for p in sorted(
        os.path.join("/usr/bin", n) for n in os.listdir("/usr/bin"))[:400]
        if os.path.isfile(p) and os.path.getsize(p) < 4 * MIB)[:24 * MIB]
    with open("src.raw", "wb") as f:
        f.write(data)
    cases = [("qcow2", []), ("qcow2", ["-o", "compression_type=zstd"]), ("qcow", [])]
    if images.can_create("vmdk"):
        cases.append(("vmdk", ["-o", "subformat=streamOptimized"]))
    for fmt, more in cases:
        compress = [] if fmt == "vmdk" else ["-c"]
        for tool, name in ((images.QEMU_IMG, "q"), (images.IMG, "l")):
            # qemu-img's exit code for qcow is wrong, see qemu-img.md
            run(tool, "convert", *compress, "-f", "raw", "-O", fmt, *more, "src.raw", name,
                check=fmt != "qcow" or name == "l")
        q, l = (os.path.getsize(n) for n in "ql")
        assert l <= q * 1.05, f"{fmt} {more}: {l} bytes, qemu-img {q}"


def test_sparse_and_full():
    """-S: what is left out; -S 0 takes all space."""
    with open("src.raw", "wb") as f:
        f.truncate(4 * MIB)
        f.write(b"x" * 4096)
    for s, least, most in (("4k", 0, MIB), ("0", 4 * MIB, 5 * MIB)):
        img("convert", "-S", s, "-f", "raw", "-O", "raw", "src.raw", "a.raw")
        assert least <= os.stat("a.raw").st_blocks * 512 <= most, s
        assert sha256_of_file("a.raw") == sha256_of_file("src.raw")
    for fmt in ("qcow2", "qed", "vdi", "vhdx", "vpc", "parallels"):
        img("convert", "-S", "0", "-f", "raw", "-O", fmt, "src.raw", "a." + fmt)
        assert os.stat("a." + fmt).st_blocks * 512 >= 4 * MIB, fmt


def test_backing():
    """-B copies only what the top image has of its own."""
    images.make_source("base.raw", SIZE, seed=4)
    qemu_img("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2")
    rng = random.Random(5)
    for _ in range(40):
        at = rng.randrange(0, SIZE - 9000)
        run("qemu-io", "-c", f"write -P {rng.randrange(256)} {at} {rng.randrange(1, 9000)}",
            "top.qcow2")
    want = sha256_of("top.qcow2", "qcow2")
    img("convert", "-O", "qcow2", "-B", "base.raw", "-F", "raw", "top.qcow2", "copy.qcow2")
    assert sha256_of("copy.qcow2", "qcow2") == want
    assert os.path.getsize("copy.qcow2") < 8 * MIB
    info = json.loads(qemu_img("info", "--output=json", "copy.qcow2").stdout)
    assert info["backing-filename"] == "base.raw"
    img("convert", "-O", "qcow2", "top.qcow2", "flat.qcow2")
    assert sha256_of("flat.qcow2", "qcow2") == want


def test_existing_target():
    images.make_source("src.raw", SIZE, seed=6)
    want = sha256_of_file("src.raw")
    with open("old.raw", "wb") as f:
        f.write(b"\xee" * SIZE)
    img("convert", "-n", "-f", "raw", "-O", "raw", "src.raw", "old.raw")
    assert sha256_of_file("old.raw") == want
    img("create", "-f", "qcow2", "t.qcow2", str(SIZE))
    img("convert", "-n", "--target-is-zero", "-f", "raw", "-O", "qcow2", "src.raw", "t.qcow2")
    assert sha256_of("t.qcow2", "qcow2") == want
    img("convert", "-n", "--target-image-opts", "-f", "raw", "src.raw",
        "driver=qcow2,file.filename=t.qcow2")
    assert sha256_of("t.qcow2", "qcow2") == want
    assert img("convert", "-n", "-f", "raw", "-O", "raw", "src.raw", "small", check=False).returncode == 1
    with open("small", "wb") as f:
        f.truncate(MIB)
    p = img("convert", "-n", "-f", "raw", "-O", "raw", "src.raw", "small", check=False)
    assert p.returncode == 1 and b"smaller than" in p.stderr, p.stderr
    assert os.path.getsize("small") == MIB


def test_concatenated():
    sizes = (512 * 1001, MIB, 512 * 7)
    for i, size in enumerate(sizes):
        images.make_source(f"{i}.raw", size, seed=10 + i)
    data = b"".join(open(f"{i}.raw", "rb").read() for i in range(3))
    with open("all.raw", "wb") as f:
        f.write(data)
    for fmt in ("raw", "qcow2"):
        img("convert", "-f", "raw", "-O", fmt, "0.raw", "1.raw", "2.raw", "t.img")
        assert sha256_of("t.img", fmt) == sha256_of_file("all.raw")


def through(*args, data):
    with open(data, "rb") as f:
        with subprocess.Popen(["cat"], stdin=f, stdout=subprocess.PIPE) as cat:
            p = subprocess.run([images.IMG, "convert", *args], stdin=cat.stdout,
                               stdout=open("out", "wb"), stderr=subprocess.PIPE, timeout=60,
                               check=False)
    assert p.returncode == 0, p.stderr
    return "out"


def test_pipes():
    images.make_source("src.raw", SIZE, seed=7)
    want = sha256_of_file("src.raw")
    formats = [f for f in ("raw", "qcow2", "vmdk") if images.can_create(f)]
    for a in formats:
        options = ["-o", "subformat=streamOptimized"] if a == "vmdk" else []
        img("convert", "-f", "raw", "-O", a, *options, "src.raw", "a.img")
        for probe in ([], ["-f", a]):
            for b in formats:
                out = through(*probe, "-O", b, "-", "-", data="a.img")
                assert sha256_of(out, b, size=SIZE) == want, f"{a} to {b}"
                through(*probe, "-O", b, "-", "file", data="a.img")
                assert sha256_of("file", b, size=SIZE) == want, f"{a} to file of {b}"
                p = subprocess.run([images.IMG, "convert", "-f", a, "-O", b, "a.img", "-"],
                                   stdout=open("out", "wb"), check=False)
                assert p.returncode == 0
                assert sha256_of("out", b, size=SIZE) == want, f"file of {a} to {b}"
                if b == "qcow2":
                    qemu_img("check", "out")
    out = through("-c", "-O", "qcow2", "-", "-", data="src.raw")
    assert sha256_of(out, "qcow2", size=SIZE) == want
    with open("a.img", "rb") as f:  # standard input that is a file is read like one
        p = subprocess.run([images.IMG, "convert", "-f", formats[-1], "-O", "raw", "-", "out"], stdin=f,
                           check=False)
    assert p.returncode == 0 and sha256_of_file("out", SIZE) == want


def test_pipe_errors():
    images.make_source("src.raw", SIZE, seed=8)
    with subprocess.Popen([images.IMG, "convert", "-f", "raw", "src.raw", "-"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as p:
        p.stdout.read(1000)
        p.stdout.close()
        err = p.stderr.read()
    assert p.returncode == 1 and b"Broken pipe" in err, err
    if images.can_create("vmdk"):
        img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", "src.raw", "a.vmdk")
        half = open("a.vmdk", "rb").read()
        half = half[:len(half) // 2]
        p = subprocess.run([images.IMG, "convert", "-f", "vmdk", "-", "out"], input=half,
                           capture_output=True, check=False)
        assert p.returncode == 1 and b"error while reading at byte" in p.stderr, p.stderr
        assert b"the vmdk stream ends" in p.stderr, p.stderr


def test_progress():
    images.make_source("src.raw", 64 * MIB, seed=9)
    out = img("convert", "-p", "-f", "raw", "src.raw", "a.raw").stdout.decode()
    steps = out.rstrip("\n").split("\r")
    assert steps[0] == "    (0.00/100%)" and steps[-2] == "    (100.00/100%)", steps[:3] + steps[-3:]
    assert out.endswith("\r\n"), out[-40:]
    out = img("convert", "-p", "-q", "-f", "raw", "src.raw", "a.raw").stdout
    assert not out, out
    lines = img("convert", "--progress=json", "-f", "raw", "src.raw", "a.raw").stdout.splitlines()
    last = json.loads(lines[-1])
    assert last["percent"] == 100 and last["total"] == 64 * MIB, last
    p = img("convert", "--progress=json", "-f", "raw", "src.raw", "-")
    assert json.loads(p.stderr.splitlines()[-1])["percent"] == 100, p.stderr[-200:]
    assert len(p.stdout) == 64 * MIB, len(p.stdout)


def test_sigusr1():
    images.make_source("src.raw", 64 * MIB, seed=9)
    with subprocess.Popen([images.IMG, "convert", "-r", "32M", "-f", "raw", "src.raw", "a.raw"],
                          stderr=subprocess.PIPE) as p:
        time.sleep(0.5)
        p.send_signal(signal.SIGUSR1)
        line = p.stderr.readline().decode()
        p.kill()
    assert line.startswith("    (") and line.endswith("/100%)\n"), line


class SmallDisk:
    """A tmpfs of a few MiB in a mount namespace is not at hand for everybody: a file limit is.
    RLIMIT_FSIZE gives EFBIG instead of ENOSPC; as root a real tmpfs is used."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        os.mkdir("small")
        run("mount", "-t", "tmpfs", "-o", f"size={self.size}", "none", "small")
        return "small"

    def __exit__(self, *_):
        run("umount", "small")
        os.rmdir("small")


def test_full_disk():
    if os.geteuid() != 0 or run("unshare", "-m", "true", check=False).returncode:
        print("     full disk: left out, needs to mount a tmpfs")
        return
    images.make_source("src.raw", SIZE, seed=11)
    want = sha256_of_file("src.raw")
    with SmallDisk("1m") as small:
        for name in known():
            fmt, options = FORMATS[name]
            p = img("convert", "-f", "raw", "-O", fmt, *(("-o", options) if options else ()), "-S", "0",
                    "src.raw", f"{small}/t", check=False)
            assert p.returncode == 1, f"{name}: exit code {p.returncode}"
            assert b"No space left on device" in p.stderr, f"{name}: {p.stderr}"
            assert len(p.stderr.splitlines()) == 1, p.stderr
            run("sh", "-c", f"rm -rf {small}/*")
        img("create", "-f", "qcow2", f"{small}/o.qcow2", "-b", os.path.abspath("src.raw"), "-F", "raw")
        for args in (["rebase", "-b", "", f"{small}/o.qcow2"],
                     ["bench", "-w", "-c", "2000", "-s", "4k", "-q", f"{small}/o.qcow2"],
                     ["dd", "-f", "raw", "if=src.raw", f"of={small}/d.raw"]):
            p = img(*args, check=False)
            assert p.returncode == 1 and b"No space left" in p.stderr, f"{args}: {p.stderr}"
        img("check", f"{small}/o.qcow2", check=False)
    assert sha256_of_file("src.raw") == want


def test_full_disk_in_other_verbs():
    """Each verb that writes, on a disk that fills up: one line, exit code 1, what was there is intact."""
    if os.geteuid() != 0:
        print("     full disk: left out, needs to mount a tmpfs")
        return
    with SmallDisk("3m") as small:
        base, top = f"{small}/base.qcow2", f"{small}/top.qcow2"
        for verb in ("commit", "resize", "snapshot", "bitmap", "amend", "create"):
            run("sh", "-c", f"rm -rf {small}/*")
            img("create", "-f", "qcow2", base, "64M")
            img("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", top)
            run("qemu-io", "-c", "write -P 5 0 1M", top)
            want = sha256_of(top, "qcow2")
            with open(f"{small}/fill", "wb", buffering=0) as f:
                try:
                    while True:
                        f.write(b"x" * 4096)
                except OSError:
                    pass
            args = {"commit": ["commit", top], "resize": ["resize", "--preallocation=full", top, "70M"],
                    "snapshot": ["snapshot", "-c", "x", top], "bitmap": ["bitmap", "--add", top, "x"],
                    "amend": ["amend", "-o", "refcount_bits=64", top],
                    "create": ["create", "-f", "qcow2", f"{small}/new.qcow2", "1G"]}[verb]
            p = img(*args, check=False)
            assert p.returncode == 1, f"{verb}: {p.returncode} {p.stdout}"
            assert b"No space left on device" in p.stderr, f"{verb}: {p.stderr}"
            assert not os.path.exists(f"{small}/new.qcow2")
            os.unlink(f"{small}/fill")
            assert sha256_of(top, "qcow2") == want, f"{verb} lost data"
            assert img("check", top, check=False).returncode in (0, 3), verb
            assert img("check", base, check=False).returncode in (0, 3), verb


def test_resize_takes_all_or_nothing():
    """A disk that cannot get all the space that it should grow by stays what it was."""
    if os.geteuid() != 0:
        print("     full disk: left out, needs to mount a tmpfs")
        return
    kinds = ["raw", "qcow2", "qcow2-v2", "qcow2-extl2", "vdi", "vdi-static", "vhdx", "vhdx-fixed", "vpc",
             "vpc-fixed", "vmdk", "vmdk-flat", "vmdk-2gb", "vmdk-2gbflat"]
    with SmallDisk("24m") as small:
        image = f"{small}/x"
        for name, how in itertools.product(kinds, ("falloc", "full")):
            fmt, options = FORMATS[name]
            img("create", "-f", fmt, *(("-o", options) if options else ()), image, "8M")
            img("bench", "-q", "-w", "-f", fmt, "-c", "20", "-S", "200000", image)
            want, files = sha256_of(image, fmt, tool=images.IMG), os.listdir(small)
            p = img("resize", "-f", fmt, f"--preallocation={how}", image, "64M", check=False)
            assert p.returncode == 1 and b"No space left on device" in p.stderr, (name, how, p)
            assert sha256_of(image, fmt, tool=images.IMG) == want, (name, how)
            assert os.listdir(small) == files, (name, how)
            assert img("check", "-f", fmt, image, check=False).returncode in (0, 63), (name, how)
            p = img("resize", "-f", fmt, f"--preallocation={how}", image, "12M")
            assert os.stat(image).st_blocks * 512 >= 4 * MIB or "flat" in name or "2gb" in name, (name, how)
            run("sh", "-c", f"rm -rf {small}/*")


def test_io_errors():
    """Sources and targets behind nbdkit that fail now and then."""
    if not shutil.which("nbdkit") or not images.reaches("nbd"):
        images.left_out("no nbdkit, or built without the nbd client")
        return
    images.make_source("src.raw", SIZE, seed=15)
    want = sha256_of_file("src.raw")
    for fail, args, words in (
            ("error-pread", ["convert", "-f", "raw", "-O", "qcow2", "$nbd", "t.qcow2"], b"while reading at byte"),
            ("error-pread", ["compare", "-f", "raw", "-F", "raw", "$nbd", "src.raw"], b"Error while reading"),
            ("error-pread", ["dd", "-f", "raw", "if=$nbd", "of=t.raw"], b"while reading from input"),
            ("error-pwrite", ["convert", "-n", "-f", "raw", "-O", "raw", "src.raw", "$nbd"], b"while writing")):
        shutil.copyfile("src.raw", "nbd.raw")
        # The probe, and what opening looks at, must get through.
        command = [IMG_TOOL, *args]
        script = " ".join("'" + a.replace("$nbd", "'\"$uri\"'") + "'" for a in command)
        p = run("nbdkit", "-U", "-", "--filter=error", "file", "nbd.raw", f"{fail}=EIO", f"{fail}-rate=50%",
                "--run", script, check=False)
        code = 4 if args[0] == "compare" else 1
        assert p.returncode == code and words in p.stderr and b"Input/output error" in p.stderr, \
            f"{args}: {p.returncode} {p.stderr}"
        assert sha256_of_file("src.raw") == want


def test_same_file():
    """A source that is its own target is refused before anything is written."""
    images.make_source("a.raw", MIB, seed=16)
    want = sha256_of_file("a.raw")
    os.symlink("a.raw", "b.raw")
    for target in ("a.raw", "./a.raw", "b.raw"):
        p = img("convert", "-f", "raw", "-O", "qcow2", "a.raw", target, check=False)
        assert p.returncode == 1 and b"lock" in p.stderr, p.stderr
        p = img("dd", "-f", "raw", "if=a.raw", f"of={target}", "count=1", check=False)
        assert p.returncode == 1 and b"lock" in p.stderr, p.stderr
        assert sha256_of_file("a.raw") == want


def test_nothing_left():
    """A command line that cannot work makes no file."""
    images.make_source("src.raw", MIB, seed=17)
    for args in (["create", "-f", "qcow2", "-o", "cluster_size=3", "t", "1M"],
                 ["create", "-f", "qcow2", "-o", "foo=1", "t", "1M"], ["create", "-f", "nosuch", "t", "1M"],
                 ["create", "-f", "qcow2", "-b", "nosuch", "-F", "raw", "t"],
                 ["create", "-f", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=no", "t", "1M"],
                 ["convert", "-O", "nosuch", "src.raw", "t"], ["convert", "-O", "qcow2", "nosuch", "t"],
                 ["convert", "-O", "qcow2", "-o", "cluster_size=3", "src.raw", "t"],
                 ["convert", "-c", "-O", "raw", "src.raw", "t"], ["convert", "-l", "x", "-f", "raw", "src.raw", "t"],
                 ["convert", "-f", "qcow2", "src.raw", "t"], ["dd", "if=nosuch", "of=t"],
                 ["convert", "-S", "100", "src.raw", "t"], ["convert", "--level", "99", "-c", "src.raw", "t"]):
        p = img(*args, check=False)
        assert p.returncode == 1 and p.stderr, f"{args}: {p.returncode}"
        assert not os.path.exists("t"), f"{args} left a file"


def test_offload():
    images.make_source("src.raw", SIZE, seed=18)
    img("convert", "-C", "-f", "raw", "-O", "raw", "src.raw", "a.raw")
    assert sha256_of_file("a.raw") == sha256_of_file("src.raw")
    img("convert", "-C", "-f", "raw", "-O", "qcow2", "src.raw", "a.qcow2")
    img("convert", "-C", "-f", "qcow2", "-O", "raw", "a.qcow2", "b.raw")
    assert sha256_of_file("b.raw") == sha256_of_file("src.raw")


def test_untrusted():
    """Names inside an image that lead elsewhere are not followed, and nothing is probed."""
    os.mkdir("in")
    images.make_source("secret.raw", MIB, seed=19)
    qemu_img("create", "-f", "qcow2", "-u", "-b", os.path.abspath("secret.raw"), "-F", "raw", "in/abs.qcow2", "1M")
    qemu_img("create", "-f", "qcow2", "-u", "-b", "../secret.raw", "-F", "raw", "in/up.qcow2", "1M")
    qemu_img("create", "-f", "qcow2", "-u", "-b", 'json:{"driver":"raw","file":{"driver":"file","filename":"secret.raw"}}',
             "-F", "raw", "in/json.qcow2", "1M")
    qemu_img("create", "-f", "qcow2", "-u", "-b", "nbd://127.0.0.1:1/x", "-F", "raw", "in/nbd.qcow2", "1M")
    for name in ("abs", "up", "json", "nbd"):
        for args in (["convert", "--untrusted", "-O", "raw"], ["map", "--untrusted"], ["measure", "--untrusted"]):
            p = img(*args, f"in/{name}.qcow2", *(["out.raw"] if args[0] == "convert" else []), check=False)
            assert p.returncode == 1 and b"untrusted" in p.stderr, f"{name} {args}: {p.returncode} {p.stderr}"
        assert not os.path.exists("out.raw")
        img("info", "--untrusted", f"in/{name}.qcow2")  # which only tells the name


def test_encrypted():
    """To luks and encrypted qcow2 and back, ours and theirs."""
    images.make_source("src.raw", SIZE, seed=20)
    want = sha256_of_file("src.raw")
    secret = ["--object", "secret,id=s,data=geheim"]
    for fmt, key, options in (("luks", "key-secret", "key-secret=s,iter-time=10"),
                              ("qcow2", "encrypt.key-secret",
                               "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10")):
        for writer, reader in ((images.IMG, images.QEMU_IMG), (images.QEMU_IMG, images.IMG),
                               (images.IMG, images.IMG)):
            run(writer, "convert", *secret, "-f", "raw", "-O", fmt, "-o", options, "src.raw", "e.img")
            name = f"driver={fmt},{key}=s,file.filename=e.img"
            run(reader, "convert", *secret, "--image-opts", name, "-O", "raw", "out.raw")
            assert sha256_of_file("out.raw") == want, f"{fmt}: {writer} to {reader}"
            assert b"All work and no play" not in open("e.img", "rb").read()
        p = img("convert", "-f", fmt, "e.img", "out2.raw", check=False)
        assert p.returncode == 1 and b"key-secret" in p.stderr and not os.path.exists("out2.raw"), p.stderr
        assert img("convert", "--object", "secret,id=s,data=wrong", "--image-opts", name, "out2.raw",
                   check=False).returncode == 1


def test_terminal():
    """On a terminal rate and remaining time follow."""
    images.make_source("src.raw", 64 * MIB, seed=21)
    ours, theirs = os.openpty()
    with subprocess.Popen([images.IMG, "convert", "-p", "-r", "40M", "-f", "raw", "src.raw", "a.raw"],
                          stdout=theirs) as p:
        os.close(theirs)
        seen = b""
        while True:
            try:
                seen += os.read(ours, 4096)
            except OSError:
                break
    os.close(ours)
    assert p.returncode == 0
    assert b"(0.00/100%)" in seen and b"iB/s, 0:0" in seen and b" left" in seen, seen[-200:]
    p = img("convert", "-f", "raw", "src.raw", "-", check=False, stdin=None)
    assert p.returncode == 0 and len(p.stdout) == 64 * MIB


def test_killed():
    """The source is untouched and can be converted again over what was left."""
    images.make_source("src.raw", 32 * MIB, seed=12)
    want = sha256_of_file("src.raw")
    rng = random.Random(13)
    for fmt in ("qcow2", "raw"):
        for _ in range(6):
            with subprocess.Popen([images.IMG, "convert", "-f", "raw", "-O", fmt, "-r", "200M",
                                   "src.raw", "t.img"]) as p:
                time.sleep(rng.random() * 0.15)
                p.kill()
            if fmt == "qcow2" and os.path.exists("t.img") and os.path.getsize("t.img") > 65536:
                # Without a flush nothing is promised to be there, but nothing may be corrupt.
                assert img("check", "-f", "qcow2", "t.img", check=False).returncode in (0, 1, 3)
    img("convert", "-f", "raw", "-O", "qcow2", "src.raw", "t.img")
    assert sha256_of("t.img", "qcow2") == want == sha256_of_file("src.raw")


def test_killed_commit_and_rebase():
    """Whenever they end, the disk reads as before."""
    images.make_source("base.raw", 24 * MIB, seed=22)
    images.make_source("other.raw", 24 * MIB, seed=23)
    shutil.copyfile("base.raw", "base0.raw")
    qemu_img("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top0.qcow2")
    run("qemu-io", *(f"-cwrite -P {i} {i}M 300k" for i in range(1, 20)), "top0.qcow2")
    want = sha256_of("top0.qcow2", "qcow2")
    rng = random.Random(24)
    for args in (["commit", "-r", "100M", "top.qcow2"],
                 ["rebase", "-b", "other.raw", "-F", "raw", "top.qcow2"]):
        for _ in range(12):
            shutil.copyfile("base0.raw", "base.raw")
            shutil.copyfile("top0.qcow2", "top.qcow2")
            with subprocess.Popen([images.IMG, *args], stdout=subprocess.DEVNULL) as p:
                time.sleep(rng.random() * (0.25 if args[0] == "commit" else 0.1))
                p.kill()
            assert img("check", "top.qcow2", check=False).returncode in (0, 3), args
            assert sha256_of("top.qcow2", "qcow2") == want, args


def test_salvage():
    """A cluster that cannot be unpacked becomes zeros, the rest is there."""
    rng = random.Random(14)
    with open("src.raw", "w", encoding="ascii") as f:
        while f.tell() < 4 * MIB:
            f.write(f"{rng.randrange(10 ** 9)} bottles of beer on the wall, ")
        f.truncate(4 * MIB)
    img("convert", "-c", "-f", "raw", "-O", "qcow2", "src.raw", "c.qcow2")
    data = bytearray(open("c.qcow2", "rb").read())
    at = len(data) // 2 + 65536  # past all metadata
    data[at:at + 70000] = b"\xff" * 70000  # a unit that starts here has no valid block
    open("c.qcow2", "wb").write(data)
    p = img("convert", "-O", "raw", "c.qcow2", "out.raw", check=False)
    assert p.returncode == 1 and b"error while reading at byte" in p.stderr, p.stderr
    p = img("convert", "--salvage", "-O", "raw", "c.qcow2", "out.raw")
    assert b"warning: error while reading offset" in p.stderr, p.stderr
    good, got = open("src.raw", "rb").read(), open("out.raw", "rb").read()
    assert len(got) == len(good) and got != good
    wrong = [i for i in range(0, len(good), 65536) if got[i:i + 65536] != good[i:i + 65536]]
    assert wrong and len(wrong) < 20 and any(not any(got[i:i + 65536]) for i in wrong), wrong


if __name__ == "__main__":
    images.need_qemu_img()
    images.main([test_from_raw_to_all, test_all_pairs, test_compressed, test_compressed_size,
                 test_sparse_and_full, test_backing, test_existing_target, test_concatenated, test_pipes,
                 test_pipe_errors, test_progress, test_sigusr1, test_full_disk, test_full_disk_in_other_verbs,
                 test_resize_takes_all_or_nothing, test_io_errors,
                 test_same_file, test_nothing_left, test_offload, test_untrusted, test_encrypted,
                 test_terminal, test_killed, test_killed_commit_and_rebase,
                 test_salvage])
