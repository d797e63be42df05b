#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Headers that claim the largest tables and disks that their format allows, in files that hold
nothing: whoever opens them takes little memory and little time, whatever he then says of them."""
import os
import struct
import time

import images
from images import MIB, img

TIB, LONG = 1 << 40, 8 << 40  # what most file systems let a sparse file be
CAP = 24 * MIB  # beyond what an image of one MiB takes
VERBS = (["info"], ["map", "-l", "1M"], ["check"], ["bench", "-q", "-c", "1", "-s", "512"],
         ["dd", "count=1", "bs=4k", "of=/dev/null", "-O", "raw"])


def be32(*values):
    return struct.pack(f">{len(values)}I", *values)


def be64(*values):
    return struct.pack(f">{len(values)}Q", *values)


def le32(*values):
    return struct.pack(f"<{len(values)}I", *values)


def le64(*values):
    return struct.pack(f"<{len(values)}Q", *values)


# Format, options, what stands where instead, and the length that the file is given.
CLAIMS = [
    ("raw", None, [], LONG),
    ("qcow2", "cluster_size=2M", [(24, be64(1 << 61)), (36, be32(1 << 22)), (56, be32(4))], LONG),
    ("qcow2", "cluster_size=512", [(36, be32(1 << 22)), (56, be32(16384))], LONG),
    ("qcow2", None, [(60, be32(65536)), (64, be64(1 << 30))], LONG),          # snapshots
    ("qcow2", "cluster_size=2M,refcount_bits=1", [(24, be64(1 << 61)), (36, be32(1 << 22))], LONG),
    ("qcow", None, [(24, be64(1 << 62))], LONG),
    ("qcow", None, [(24, be64(1 << 41))], LONG),
    ("cow", None, [(1040, be64(1 << 62))], LONG),
    ("cow", None, [(1040, be64(1 << 52))], LONG),
    ("qed", "cluster_size=64M,table_size=16", [(48, le64(1 << 62))], LONG),
    ("qed", "cluster_size=64M,table_size=16", [(48, le64(1 << 56))], LONG),
    ("vdi", None, [(0x158, le32(1 << 31)), (0x170, le64(0x1fffff80 << 20)), (0x180, le32(0x1fffff80, 0x1fffff80))],
     LONG),
    ("vdi", None, [(0x158, le32(1 << 31)), (0x180, le32(0x1ffffe00, 0xffffffff))], LONG),
    ("vmdk", None, [(12, le64(1 << 40))], LONG),
    ("vmdk", None, [(12, le64((1 << 32) * 128, 128)), (44, le32(512))], LONG),
    ("vpc", "force_size=on", [(512 + 28, be32(0x1fffffff))], LONG),
    ("vpc", "force_size=on", [(512 + 28, be32(0x7fffffff))], LONG),
    ("vhdx", "block_size=1M", 4 * TIB, LONG),  # tables of 32 MiB, and a disk that has them
    ("vhdx", None, [(3 * 65536 + 8, le32(2047)), (4 * 65536 + 8, le32(2047))], LONG),
    ("parallels", None, [(28, le32(1 << 20, 0x7fffffff)), (36, le64(1 << 51))], LONG),
    ("parallels", None, [(32, le32(0x1ffffff0)), (48, le32(8 << 20))], LONG),
]


def seal_vhd(f):
    """The sum of a dynamic VHD's header."""
    f.seek(512)
    header = bytearray(f.read(1024))
    header[36:40] = bytes(4)
    f.seek(512 + 36)
    f.write(be32(~sum(header) & 0xffffffff))


def made(fmt, options, pokes, length):
    size = pokes if isinstance(pokes, int) else MIB
    img("create", "-q", "-f", fmt, *(("-o", options) if options else ()), "x", size)
    with open("x", "r+b") as f:
        for at, value in pokes if size == MIB else ():
            f.seek(at)
            f.write(value)
        if fmt == "vpc":
            seal_vhd(f)
            f.seek(-512, os.SEEK_END)
            footer = f.read()
            f.seek(length - 512)
            f.write(footer)
    os.truncate("x", length)


def foreign():
    """Formats that we only read."""
    with open("cloop", "wb") as f:
        f.write(b"#!/bin/sh\\n#V2.0 Format\\n".ljust(128, b"\0") + be32(64 << 20, (512 << 17) - 2))
        f.truncate(TIB)
    with open("bochs", "wb") as f:
        f.write(b"Bochs Virtual HD Image".ljust(32, b"\0") + b"Redolog".ljust(16, b"\0") + b"Growing".ljust(16, b"\0")
                + le32(0x20000, 512, 0x100000, 8 << 20 >> 3, 8 << 20, 0) + le64(1 << 43))
        f.truncate(TIB)
    with open("dmg", "wb") as f:
        f.truncate(TIB - 512)
        f.seek(TIB - 512)
        f.write(b"koly" + be32(4, 512, 1) + be64(0, 0, 1 << 39, 0, 0) + bytes(160) + be64(1 << 39, 1 << 39)
                + bytes(512 - 16 - 40 - 160 - 16))
    with open("luks", "wb") as f:
        slot = be32(0x00ac71f3, 0xffffffff) + bytes(32) + be32(8, 0x7fffffff)
        f.write(b"LUKS\xba\xbe\0\1" + b"aes".ljust(32, b"\0") + b"xts-plain64".ljust(32, b"\0") +
                b"sha256".ljust(32, b"\0") + be32(0x7fffffff, 0x7fffffff) + bytes(52) + be32(0xffffffff) + bytes(40)
                + slot * 8)
        f.truncate(TIB)
    return ["cloop", "bochs", "dmg", "luks"]


def peak(args):
    """Most memory that the program had; this interpreter's own counts too, which is below the cap."""
    null = os.open(os.devnull, os.O_RDWR)
    env = {k: v for k, v in os.environ.items() if k != "MALLOC_PERTURB_"}  # meson's; it fills what is taken
    pid = os.posix_spawn(images.IMG, [images.IMG, *args], env,
                         file_actions=[(os.POSIX_SPAWN_DUP2, null, fd) for fd in range(3)])
    os.close(null)
    start = time.monotonic()
    _, status, use = os.wait4(pid, 0)
    return use.ru_maxrss * 1024, os.waitstatus_to_exitcode(status), use.ru_utime + use.ru_stime, time.monotonic() - start


def try_all(name, fmt, usual, what):
    accepted = []
    for verb in VERBS:
        operand = [f"if={name}"] if verb[0] == "dd" else [name]
        most, code, cpu, _ = peak([verb[0], "-f", fmt, *verb[1:], *operand])
        assert code in (0, 1, 2, 3, 63), (what, verb, code)
        assert most < usual + CAP, f"{what}: {verb[0]} takes {most >> 20} MiB, an image of 1 MiB {usual >> 20}"
        assert cpu < 8, f"{what}: {verb[0]} takes {cpu} s"
        accepted.append(code == 0)
    return accepted


def test_claims():
    opened = {}
    for fmt, options, pokes, length in CLAIMS:
        img("create", "-q", "-f", fmt, *(("-o", options) if options else ()), "small", MIB)
        usual = max(peak([verb, "-f", fmt, "small"])[0] for verb in ("info", "map"))
        made(fmt, options, pokes, length)
        opened[fmt] = opened.get(fmt, False) or any(try_all("x", fmt, usual, (fmt, options, pokes)))
        os.unlink("x")
    refused = [fmt for fmt, ok in opened.items() if not ok]
    assert not refused, f"no claim of {refused} was believed: the test does not reach what it should"


def test_foreign_claims():
    img("create", "-q", "-f", "raw", "small", MIB)
    usual = peak(["info", "-f", "raw", "small"])[0]
    for name in foreign():
        try_all(name, name, usual, name)


def test_keys_that_take_memory_are_bounded():
    """A key slot names how much key material is read and how often it is hashed."""
    foreign()
    img("info", "--untrusted", "luks", check=False, timeout=120)


if __name__ == "__main__":
    images.main([test_claims, test_foreign_claims, test_keys_that_take_memory_are_bounded])
