#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""qcow, qed, parallels, cow, luks, bochs, cloop and dmg: ours beside the tools of others."""
import base64
import json
import os
import random
import re
import shutil
import struct
import subprocess

import image_makers
import images
from image_makers import ADC, BZIP2, LZFSE, LZMA, ZLIB, make_cow, make_dmg
from images import IMG, MIB, QEMU_IMG, img, make_source, qemu_img, run, sha256_of, sha256_of_file
from servers import wait_for

SECRET = ("--object", "secret,id=s0,data=open sesame")
# Name: format, create options.
WRITTEN = {
    "qcow": ("qcow", ""),
    "qcow-aes": ("qcow", "encrypt.format=aes,encrypt.key-secret=s0"),
    "qed": ("qed", ""),
    "qed-4k": ("qed", "cluster_size=4k,table_size=2"),  # qemu-img cannot open its own of 1
    "qed-1m": ("qed", "cluster_size=1M,table_size=2"),  # more overflows qemu-img's arithmetic
    "parallels": ("parallels", ""),
    "parallels-64k": ("parallels", "cluster_size=64k"),
    "luks": ("luks", "key-secret=s0,iter-time=10"),
}


def image_opts(name, fmt, opts):
    """How an image is named: with its secret if it has one."""
    key = "encrypt.key-secret" if "encrypt." in opts else "key-secret" if "key-secret" in opts else None
    return f"driver={fmt},file.filename={name}" + (f",{key}=s0" if key else "")


def write(tool, name, fmt, opts, source="src.raw"):
    run(tool, "convert", *SECRET, "-f", "raw", "-O", fmt, *(("-o", opts) if opts else ()), source, name)


def read(tool, name, fmt, opts):
    run(tool, "convert", *SECRET, "--image-opts", "-O", "raw", image_opts(name, fmt, opts), "out.raw")
    return sha256_of_file("out.raw")


def test_round_trips():
    make_source("src.raw", 10 * MIB)
    want = sha256_of_file("src.raw")
    for name, (fmt, opts) in WRITTEN.items():
        write(IMG, "ours", fmt, opts)
        write(QEMU_IMG, "theirs", fmt, opts)
        for who in ("ours", "theirs"):
            for tool in (IMG, QEMU_IMG):
                assert read(tool, who, fmt, opts) == want, f"{name}: {tool} reads {who} otherwise"
        # An extent that ends with the disk and one that does not are not the same to qemu-img.
        strict = () if name == "qed-1m" else ("-s",)
        run(QEMU_IMG, "compare", *SECRET, *strict, "--image-opts", image_opts("ours", fmt, opts),
            image_opts("theirs", fmt, opts))
        run(IMG, "compare", *SECRET, "-s", "--image-opts", image_opts("ours", fmt, opts),
            image_opts("theirs", fmt, opts))
        if fmt in ("qed", "parallels"):
            qemu_img("check", "-f", fmt, "ours")
            img("check", "-f", fmt, "theirs")
        size = os.stat("ours").st_blocks, os.stat("theirs").st_blocks
        assert size[0] <= size[1] * 1.06 + 64, f"{name}: {size[0]} blocks, theirs {size[1]}"


def test_odd_sizes():
    for size in (3 * 512, 65536 * 5 + 4096 + 512):
        with open("src.raw", "wb") as f:
            f.write(random.Random(size).randbytes(size))
        want = sha256_of_file("src.raw")
        for name, (fmt, opts) in WRITTEN.items():
            write(IMG, "ours", fmt, opts)
            for tool in (IMG, QEMU_IMG):
                assert read(tool, "ours", fmt, opts) == want, f"{name}, {size} bytes: {tool}"


def test_info_and_check_say_the_same():
    make_source("src.raw", 4 * MIB)
    for name in ("qcow", "qcow-aes", "qed", "parallels", "luks"):
        fmt, opts = WRITTEN[name]
        for tool in (IMG, QEMU_IMG):
            write(tool, "x.img", fmt, opts)
            for args in (("info", "--output=json"), ("info",), ("check",), ("check", "--output=json"),
                         ("map", "--output=json")):
                how = ("--image-opts", image_opts("x.img", fmt, opts)) if args[0] == "map" else (
                    "-f", fmt, "x.img")
                a, b = (run(t, *args, *SECRET, *how, check=False) for t in (IMG, QEMU_IMG))
                assert (a.returncode, a.stdout) == (b.returncode, b.stdout), (
                    f"{name} {args}: {a.returncode} {a.stdout.decode()}{a.stderr.decode()}\n"
                    f"{b.returncode} {b.stdout.decode()}{b.stderr.decode()}")


def test_qemu_writes_into_ours():
    """Random writes of qemu-io into an image of ours, and what both read then."""
    for name, (fmt, opts) in WRITTEN.items():
        if fmt == "luks" or "aes" in name:
            continue
        rng = random.Random(name)
        model = bytearray(8 * MIB)
        img("create", "-f", fmt, *(("-o", opts) if opts else ()), "x.img", "8M")
        for _ in range(2):
            commands = []
            for _ in range(12):
                at, n, p = rng.randrange(0, 8 * MIB - 70000), rng.randrange(1, 70000), rng.randrange(1, 255)
                commands += ["-c", f"write -P {p} {at} {n}"]
                model[at:at + n] = bytes([p]) * n
            run("qemu-io", "-f", fmt, *commands, "x.img")
            with open("part.raw", "wb") as f:
                at = rng.randrange(0, 7 * MIB)
                part = rng.randbytes(MIB)
                f.write(part)
                model[at:at + MIB] = part
            # ours writes too: over NBD, in the middle
            commands = ["-c", f"write -s part.raw {at} {MIB}"]
            serve_and_write("x.img", fmt, commands)
        with open("want.raw", "wb") as f:
            f.write(model)
        want = sha256_of_file("want.raw")
        assert sha256_of("x.img", fmt, IMG) == want, f"{name}: ours reads otherwise"
        assert sha256_of("x.img", fmt, QEMU_IMG) == want, f"{name}: qemu-img reads otherwise"
        if fmt in ("qed", "parallels"):
            qemu_img("check", "-f", fmt, "x.img")


def serve_and_write(image, fmt, commands):
    """qemu-io as the client of `lodge-img serve`."""
    path, pid = os.path.abspath("nbd.sock"), "nbd.pid"
    for old in (path, pid):
        if os.path.exists(old):
            os.unlink(old)
    server = subprocess.Popen([IMG, "serve", "-f", fmt, "-k", path, "--pid-file", pid, image],
                              stderr=subprocess.PIPE)
    try:
        # The socket is there before it listens, the process number not.
        wait_for(lambda: os.path.exists(pid), process=server)
        run("qemu-io", "-f", "raw", *commands, f"nbd+unix:///?socket={path}")
        server.wait(timeout=120)
    finally:
        if server.poll() is None:
            server.kill()
        server.wait()


def test_qed_of_one_cluster_tables():
    make_source("src.raw", 3 * MIB)
    write(IMG, "x.qed", "qed", "cluster_size=4k,table_size=1")
    assert read(IMG, "x.qed", "qed", "") == sha256_of_file("src.raw")
    img("check", "-f", "qed", "x.qed")


def test_7zip_reads_qcow():
    if not shutil.which("7zz"):
        images.left_out("no 7zz (Debian package 7zip)")
        return
    make_source("src.raw", 12 * MIB)
    img("convert", "-O", "qcow", "src.raw", "c.qcow")
    with open("z.raw", "wb") as f:
        subprocess.run(["7zz", "e", "-so", "-tqcow", "c.qcow"], stdout=f, check=True,
                       stderr=subprocess.DEVNULL)
    assert sha256_of_file("z.raw") == sha256_of_file("src.raw")


def test_compressed_qcow():
    make_source("src.raw", 12 * MIB)
    img("convert", "-c", "-O", "qcow", "src.raw", "c.qcow")  # qemu-img exits with 1
    qemu_img("convert", "-c", "-O", "qcow", "src.raw", "q.qcow", check=False)
    want = sha256_of_file("src.raw")
    assert sha256_of("c.qcow", "qcow", QEMU_IMG) == want
    assert sha256_of("c.qcow", "qcow", IMG) == want
    assert sha256_of("q.qcow", "qcow", IMG) == want
    ours, theirs = os.path.getsize("c.qcow"), os.path.getsize("q.qcow")
    assert ours <= theirs * 1.05, f"{ours} bytes, theirs has {theirs}"


def test_backing_files():
    make_source("base.raw", 6 * MIB)
    img("convert", "-O", "qcow2", "base.raw", "base.qcow2")
    for fmt in ("qcow", "qed"):
        for base, base_fmt in (("base.raw", "raw"), ("base.qcow2", "qcow2")):
            model = bytearray(open("base.raw", "rb").read()) + bytes(2 * MIB)
            img("create", "-f", fmt, "-b", base, "-F", base_fmt, "o.img", "8M")
            serve_and_write("o.img", fmt, ["-c", "write -P 7 100 70001", "-c", "write -P 9 5M 2M",
                                           "-c", "write -z 1M 300k"])
            model[100:70101] = b"\7" * 70001
            model[5 * MIB:7 * MIB] = b"\t" * 2 * MIB
            model[MIB:MIB + 300 * 1024] = bytes(300 * 1024)
            with open("want.raw", "wb") as f:
                f.write(model)
            want = sha256_of_file("want.raw")
            assert sha256_of("o.img", fmt, QEMU_IMG) == want, f"{fmt} over {base_fmt}"
            assert sha256_of("o.img", fmt, IMG) == want, f"{fmt} over {base_fmt}"
            for tool in (IMG, QEMU_IMG):
                info = json.loads(run(tool, "info", "--output=json", "o.img").stdout)
                assert info["backing-filename"] == base
    img("rebase", "-u", "-f", "qed", "-b", "base.raw", "-F", "raw", "o.img")
    info = json.loads(qemu_img("info", "--output=json", "o.img").stdout)
    assert info["backing-filename"] == "base.raw" and info["backing-filename-format"] == "raw"
    qemu_img("check", "-f", "qed", "o.img")


# ---- qed and parallels: checks ----

def poke(path, at, data):
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(data)


def peek(path, at, n):
    with open(path, "rb") as f:
        f.seek(at)
        return f.read(n)


def test_qed_repairs():
    make_source("src.raw", 4 * MIB)
    img("convert", "-O", "qed", "src.raw", "x.qed")
    l2 = struct.unpack("<Q", peek("x.qed", 65536, 8))[0]
    good = peek("x.qed", l2, 8)
    poke("x.qed", l2, struct.pack("<Q", 1 << 40))  # behind the end
    for tool in (IMG, QEMU_IMG):
        assert run(tool, "check", "-f", "qed", "x.qed", check=False).returncode == 2
    poke("x.qed", 16, struct.pack("<Q", 2))  # need-check
    assert json.loads(img("info", "--output=json", "x.qed").stdout)["dirty-flag"] is True
    img("resize", "-f", "qed", "x.qed", "+1M")  # opened for writing: repaired
    assert peek("x.qed", 16, 8) == bytes(8) and peek("x.qed", l2, 8) == bytes(8)
    p = img("check", "-f", "qed", "x.qed", check=False)
    assert p.returncode == 3 and b"1 leaked" in p.stdout, p.stdout
    poke("x.qed", l2, good)
    qemu_img("check", "-f", "qed", "x.qed")
    second = peek("x.qed", l2 + 8, 8)
    poke("x.qed", l2, second)  # used twice
    assert img("check", "-f", "qed", "x.qed", check=False).returncode == 2
    p = img("check", "-f", "qed", "-r", "all", "x.qed", check=False)
    assert p.returncode in (0, 3), p.stdout
    assert qemu_img("check", "-f", "qed", "x.qed", check=False).returncode in (0, 3)
    with open("x.qed", "ab") as f:
        f.write(bytes(5 * 65536))
    assert img("check", "-f", "qed", "x.qed", check=False).returncode == 3
    img("check", "-r", "leaks", "-f", "qed", "x.qed", check=False)
    assert os.path.getsize("x.qed") % 65536 == 0


def test_parallels_repairs():
    make_source("src.raw", 4 * MIB)
    img("convert", "-O", "parallels", "-o", "cluster_size=64k", "src.raw", "x.hds")
    poke("x.hds", 44, struct.pack("<I", 0x746f6e59))  # nobody closed it
    for tool in (IMG, QEMU_IMG):
        assert run(tool, "check", "-f", "parallels", "x.hds", check=False).returncode == 2
    img("convert", "-n", "-O", "parallels", "src.raw", "x.hds")  # its table is good: written as it is
    img("check", "-f", "parallels", "x.hds")
    entries = [struct.unpack("<I", peek("x.hds", 64 + 4 * i, 4))[0] for i in range(64)]
    used = [i for i, e in enumerate(entries) if e]
    poke("x.hds", 64 + 4 * used[3], struct.pack("<I", 1 << 20))
    poke("x.hds", 44, struct.pack("<I", 0x746f6e59))
    p = img("convert", "-n", "-O", "parallels", "src.raw", "x.hds", check=False)
    assert p.returncode == 1 and b"not closed correctly" in p.stderr, p.stderr
    p = img("check", "-r", "all", "-f", "parallels", "x.hds")
    qemu_img("check", "-f", "parallels", "x.hds")
    before = sha256_of("x.hds", "parallels", IMG)
    poke("x.hds", 64 + 4 * used[5], struct.pack("<I", entries[used[6]]))  # used twice
    broken = sha256_of("x.hds", "parallels", IMG)
    assert img("check", "-f", "parallels", "x.hds", check=False).returncode == 2 and broken != before
    img("check", "-r", "all", "-f", "parallels", "x.hds", check=False)
    assert sha256_of("x.hds", "parallels", IMG) == broken
    with open("x.hds", "ab") as f:
        f.write(bytes(200000))
    assert img("check", "-f", "parallels", "x.hds", check=False).returncode == 3
    img("check", "-r", "leaks", "-f", "parallels", "x.hds")
    qemu_img("check", "-f", "parallels", "x.hds")


def test_old_parallels():
    """Old images have clusters of 63 sectors, and their table counts in sectors."""
    rng = random.Random(5)
    cluster, n = 63 * 512, 40
    size = n * cluster - 512 * 7
    table = [0] * n
    data = [rng.randbytes(cluster) for _ in range(12)]
    for place, at in enumerate(rng.sample(range(n), 12)):
        table[at] = 1 + place * 63
    head = struct.pack("<16sIIIIIQIIIQ", b"WithoutFreeSpace", 2, 16, 100, 63, n, size // 512, 0, 0, 0, 0)
    with open("x.hds", "wb") as f:
        f.write((head + struct.pack(f"<{n}I", *table)).ljust(512, b"\0") + b"".join(data))
    model = b"".join(data[(e - 1) // 63] if e else bytes(cluster) for e in table)[:size]
    with open("want.raw", "wb") as f:
        f.write(model)
    assert sha256_of("x.hds", "parallels", IMG) == sha256_of_file("want.raw")
    assert sha256_of("x.hds", "parallels", QEMU_IMG) == sha256_of_file("want.raw")
    serve_and_write("x.hds", "parallels", ["-c", "write -P 3 1000 400000"])
    want = model[:1000] + b"\3" * 400000 + model[401000:]
    with open("want.raw", "wb") as f:
        f.write(want)
    assert sha256_of("x.hds", "parallels", IMG) == sha256_of_file("want.raw")
    assert sha256_of("x.hds", "parallels", QEMU_IMG) == sha256_of_file("want.raw")
    img("check", "-f", "parallels", "x.hds")


# ---- cow ----

def read_cow(path, base):
    """What the image holds, by the oracle; 1056 bytes of header."""
    head = peek(path, 0, 1056)
    magic, version, backing, _, _, size, sector, _ = struct.unpack(">II1024siIQII", head)
    assert (magic, version, sector) == (0x4f4f4f4d, 2, 512)
    bitmap = peek(path, 1056, (size // 512 + 7) // 8)
    data_at = (1056 + len(bitmap) + 511) // 512 * 512
    out = bytearray(base.ljust(size, b"\0")[:size])
    for s in range(size // 512):
        if bitmap[s // 8] >> s % 8 & 1:
            out[s * 512:s * 512 + 512] = peek(path, data_at + s * 512, 512).ljust(512, b"\0")
    return backing.rstrip(b"\0"), bytes(out)


def test_cow():
    rng = random.Random(3)
    make_source("base.raw", 3 * MIB)
    base = open("base.raw", "rb").read()
    for layout in (64, 32):
        sectors = {s: rng.randbytes(512) for s in rng.sample(range(6144), 900)}
        make_cow("x.cow", 3 * MIB, sectors, b"base.raw", layout)
        want = bytearray(base)
        for s, data in sectors.items():
            want[s * 512:s * 512 + 512] = data
        img("convert", "-f", "cow", "-O", "raw", "x.cow", "out.raw")
        assert open("out.raw", "rb").read() == want, f"{layout}-bit layout"
        img("convert", "-O", "raw", "--image-opts", "driver=cow,file.filename=x.cow", "out.raw")
    img("create", "-f", "cow", "-b", "base.raw", "-F", "raw", "y.cow", "3M")
    serve_and_write("y.cow", "cow", ["-c", "write -P 1 777 123456", "-c", "write -P 2 2M 512"])
    want = bytearray(base)
    want[777:777 + 123456] = b"\1" * 123456
    want[2 * MIB:2 * MIB + 512] = b"\2" * 512
    assert read_cow("y.cow", base) == (b"base.raw", bytes(want))
    img("convert", "-O", "raw", "y.cow", "out.raw")  # probed
    assert open("out.raw", "rb").read() == want
    make_cow("uml.cow", 3 * MIB, {}, b"base.raw", "uml")
    p = img("info", "uml.cow", check=False)
    assert p.returncode == 1 and b"User-mode Linux" in p.stderr, p.stderr


# ---- luks and secrets ----

CIPHERS = [
    ("aes-256", "xts", "plain64", None, "sha256"), ("aes-128", "xts", "plain", None, "sha1"),
    ("aes-192", "cbc", "plain64", None, "sha512"), ("aes-128", "cbc", "essiv", "sha256", "sha256"),
    ("aes-256", "ctr", "plain64", None, "sha384"), ("aes-256", "ecb", "plain64", None, "sha224"),
    ("serpent-256", "xts", "plain64", None, "sha256"), ("twofish-256", "xts", "plain64", None, "ripemd160"),
    ("serpent-128", "cbc", "essiv", "sha256", "sha256"), ("cast5-128", "cbc", "plain64", None, "sha256"),
    ("twofish-128", "cbc", "essiv", "sha256", "md5"),
]


def test_luks_ciphers():
    make_source("src.raw", MIB + 3 * 512)
    want = sha256_of_file("src.raw")
    compared = 0
    for n, (alg, mode, ivgen, ivhash, hash_alg) in enumerate(CIPHERS):
        opts = (f"key-secret=s0,iter-time=10,cipher-alg={alg},cipher-mode={mode},ivgen-alg={ivgen},"
                f"hash-alg={hash_alg}" + (f",ivgen-hash-alg={ivhash}" if ivhash else ""))
        write(IMG, "ours", "luks", opts)
        assert read(IMG, "ours", "luks", "key-secret") == want, opts
        try:
            theirs = read(QEMU_IMG, "ours", "luks", "key-secret")
        except AssertionError as e:
            # A cipher that this build of QEMU has not, or half a sector that it cannot do.
            assert "upport" in str(e) or "Assertion" in str(e), e
            continue
        assert theirs == want, opts
        compared += 1
        if n in (0, 3):  # qemu-img measures the machine for seconds before it makes one
            write(QEMU_IMG, "theirs", "luks", opts)
            assert read(IMG, "theirs", "luks", "key-secret") == want, opts
    assert compared >= 6, f"only {compared} ciphers compared"


def opens(image, passphrase, cryptsetup="cryptsetup"):
    p = subprocess.run([cryptsetup, "open", "--test-passphrase", "--key-file=-", image],
                       input=passphrase.encode(), capture_output=True, check=False)
    return p.returncode == 0


def test_luks_keys():
    cryptsetup = shutil.which("cryptsetup") or "/sbin/cryptsetup"
    if not os.access(cryptsetup, os.X_OK):
        images.left_out("no cryptsetup (Debian package cryptsetup-bin)")
        return
    two = (*SECRET, "--object", "secret,id=s1,data=second", "--object", "secret,id=bad,data=no")
    how = ("--image-opts", image_opts("x.luks", "luks", "key-secret"))
    img("create", *SECRET, "-f", "luks", "-o", "key-secret=s0,iter-time=10", "x.luks", "1M")
    dump = run(cryptsetup, "luksDump", "x.luks").stdout.decode()
    assert re.search(r"Cipher name:\s+aes\s", dump) and "xts-plain64" in dump, dump
    assert opens("x.luks", "open sesame", cryptsetup) and not opens("x.luks", "second", cryptsetup)

    def amend(opts, code=0, more=()):
        p = img("amend", *two, *more, *how, "-o", opts, check=False)
        assert p.returncode == code, f"{opts}: {p.returncode} {p.stderr.decode()}"
        return p.stderr.decode()

    amend("state=active,new-secret=s1,iter-time=10")
    assert opens("x.luks", "second", cryptsetup) and opens("x.luks", "open sesame", cryptsetup)
    assert "Key Slot 1: ENABLED" in run(cryptsetup, "luksDump", "x.luks").stdout.decode()
    assert "active keyslot 1" in amend("state=active,new-secret=s1,keyslot=1,iter-time=10", 1)
    amend("state=active,new-secret=s1,keyslot=5,iter-time=10")
    amend("state=inactive,old-secret=bad", 1)
    amend("state=inactive,old-secret=s1")
    assert not opens("x.luks", "second", cryptsetup) and opens("x.luks", "open sesame", cryptsetup)
    amend("state=inactive,keyslot=5", 1)
    amend("state=inactive,keyslot=9", 1)
    assert "refusing" in amend("state=inactive,keyslot=0", 1)
    assert opens("x.luks", "open sesame", cryptsetup)
    p = img("convert", "--object", "secret,id=s0,data=wrong", *how, "-O", "raw", "out.raw", check=False)
    assert p.returncode == 1 and b"Invalid password" in p.stderr, p.stderr
    p = img("convert", "-f", "luks", "-O", "raw", "x.luks", "out.raw", check=False)
    assert p.returncode == 1 and b"key-secret" in p.stderr, p.stderr
    amend("state=inactive,keyslot=0", more=("--force",))
    assert not opens("x.luks", "open sesame", cryptsetup)
    # theirs
    with open("y.luks", "wb") as f:
        f.truncate(4 * MIB)
    subprocess.run([cryptsetup, "luksFormat", "--type", "luks1", "-q", "--iter-time=10", "--key-file=-",
                    "y.luks"], input=b"open sesame", check=True, capture_output=True)
    img("convert", *SECRET, "--image-opts", image_opts("y.luks", "luks", "key-secret"), "-O", "raw",
        "out.raw")
    assert opens("y.luks", "open sesame", cryptsetup)
    subprocess.run([cryptsetup, "luksFormat", "--type", "luks2", "-q", "--pbkdf=pbkdf2",
                    "--pbkdf-force-iterations=1000", "--key-file=-", "z.luks"], input=b"x",
                   capture_output=True, check=False)
    with open("z.luks", "wb") as f:
        f.write(b"LUKS\xba\xbe\0\2".ljust(4096, b"\0"))
    p = img("info", "z.luks", check=False)
    assert p.returncode == 1 and b"LUKS version 2 is not supported" in p.stderr, p.stderr


def test_luks_sizes():
    img("create", *SECRET, "-f", "luks", "-o", "key-secret=s0,iter-time=10", "x.luks", "1M")
    how = ("--image-opts", image_opts("x.luks", "luks", "key-secret"))
    make_source("src.raw", MIB)
    write(IMG, "x.luks", "luks", "key-secret=s0,iter-time=10")
    img("resize", *SECRET, *how, "2M")
    assert json.loads(qemu_img("info", "--output=json", "x.luks").stdout)["virtual-size"] == 2 * MIB
    img("resize", *SECRET, "--shrink", *how, "512k")
    run(IMG, "convert", *SECRET, *how, "-O", "raw", "out.raw")
    assert open("out.raw", "rb").read() == open("src.raw", "rb").read()[:MIB // 2]
    opts = ("-O", "luks", "-o", "key-secret=s0", *SECRET, "--size", "10M")
    assert img("measure", *opts).stdout == qemu_img("measure", *opts).stdout


def test_secrets():
    openssl = shutil.which("openssl")
    make_source("src.raw", 64 * 1024)
    write(QEMU_IMG, "x.luks", "luks", "key-secret=s0,iter-time=10")
    key, iv = bytes(range(32)), bytes(range(16, 32))
    b64 = lambda data: base64.b64encode(data).decode()
    with open("pass.txt", "w") as f:
        f.write("open sesame")
    with open("pass.b64", "w") as f:
        f.write(b64(b"open sesame") + "\n")
    forms = [["secret,id=s0,file=pass.txt"], ["secret,id=s0,format=base64,file=pass.b64"],
             ["secret,id=s0,format=base64,data=" + b64(b"open sesame")]]
    if openssl:
        wrapped = subprocess.run([openssl, "enc", "-aes-256-cbc", "-K", key.hex(), "-iv", iv.hex()],
                                 input=b"open sesame", capture_output=True, check=True).stdout
        with open("wrapped", "wb") as f:
            f.write(wrapped)
        master = f"secret,id=m,format=base64,data={b64(key)}"
        forms += [[master, f"secret,id=s0,keyid=m,iv={b64(iv)},format=base64,data={b64(wrapped)}"],
                  [master, f"secret,id=s0,keyid=m,iv={b64(iv)},file=wrapped"]]
    want = sha256_of_file("src.raw")
    for form in forms:
        for tool in (IMG, QEMU_IMG):
            objects = [x for text in form for x in ("--object", text)]
            run(tool, "convert", *objects, "--image-opts", image_opts("x.luks", "luks", "key-secret"), "-O",
                "raw", "out.raw")
            assert sha256_of_file("out.raw") == want
    for bad in ("secret,id=s0", "secret,id=s0,data=a,file=b", "secret,id=s0,file=nofile", "secret,data=a",
                "secret,id=s0,format=base64,data=%", "secret,id=s0,data=a,keyid=none,iv=AAAA",
                "secret,id=s0,data=a,format=hex", "secret,id=s0,data=a,foo=b"):
        p = img("info", "--object", bad, "x.luks", check=False)
        assert p.returncode == 1 and p.stderr.count(b"\n") == 1, f"{bad}: {p.stderr}"


# ---- read only ----

def test_bochs():
    if not shutil.which("bximage"):
        images.left_out("no bximage (Debian package bximage)")
        return
    make_source("src.raw", 6 * MIB)
    run("bximage", "-func=convert", "-imgmode=growing", "-q", "src.raw", "x.bochs")
    want = sha256_of_file("src.raw")
    assert sha256_of("x.bochs", None, IMG) == want
    run(QEMU_IMG, "compare", "-f", "bochs", "-F", "raw", "x.bochs", "src.raw")
    a, b = (run(t, "info", "--output=json", "x.bochs").stdout for t in (IMG, QEMU_IMG))
    assert a == b, f"{a}\n{b}"
    p = img("create", "-f", "bochs", "y", "1M", check=False)
    assert p.returncode == 1 and b"does not support image creation" in p.stderr


def test_cloop():
    if not shutil.which("create_compressed_fs"):
        images.left_out("no create_compressed_fs (Debian package cloop-utils)")
        return
    make_source("src.raw", 6 * MIB)
    for block in (65536, 512 * 1024):
        run("create_compressed_fs", "-q", "-B", str(block), "src.raw", "x.cloop")
        assert sha256_of("x.cloop", None, IMG) == sha256_of_file("src.raw")
        a, b = (run(t, "info", "--output=json", "x.cloop").stdout for t in (IMG, QEMU_IMG))
        assert a == b, f"{a}\n{b}"


def test_dmg():
    make_source("src.raw", 6 * MIB + 512 * 3)
    data = open("src.raw", "rb").read()
    want = sha256_of_file("src.raw")
    mixes = {"zlib": [ZLIB], "bzip2": [BZIP2], "lzma": [LZMA], "adc": [ADC], "raw": [1],
             "lzfse": [LZFSE], "mixed": [ZLIB, 1, ADC, BZIP2, LZFSE, LZMA]}
    for name, kinds in mixes.items():
        for resources in (False, True):
            make_dmg("x.dmg", data, kinds, resources=resources)
            img("convert", "-O", "raw", "x.dmg", "out.raw")
            assert sha256_of_file("out.raw") == want, f"{name}, resources {resources}"
            if name in ("zlib", "raw"):
                assert sha256_of("x.dmg", "dmg", QEMU_IMG) == want, f"{name}: qemu-img"
    make_dmg("x.dmg", data, mixes["mixed"])
    if shutil.which("7zz"):  # it knows the partitions apart
        run("7zz", "x", "-y", "-oparts", "x.dmg")
        parts = b"".join(open(os.path.join("parts", p), "rb").read() for p in sorted(os.listdir("parts")))
        assert parts == data, "7zz reads the test's own dmg otherwise"
    image_makers.PACKERS[LZFSE] = lambda part: image_makers.pack_lzfse(part, 700)  # 7zz cannot
    make_dmg("x.dmg", data, [LZFSE])
    img("convert", "-O", "raw", "x.dmg", "out.raw")
    assert sha256_of_file("out.raw") == want
    with open("e.dmg", "wb") as f:
        f.write(b"encrcdsa" + bytes(4096))
    p = img("info", "e.dmg", check=False)
    assert p.returncode == 1 and b"encrypted dmg" in p.stderr, p.stderr


if __name__ == "__main__":
    images.need_qemu_img()
    images.main([v for k, v in list(globals().items()) if k.startswith("test_")])
