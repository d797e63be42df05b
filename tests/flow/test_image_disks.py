#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of other hypervisors (vdi, vmdk, vpc, vhdx) against programs that are not ours."""
import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys

import images
from images import MIB, img, qemu_img, run, sha256_of, sha256_of_file

# A name of images.FORMATS and who reads it besides qemu-img; see the table of oracles.
DISKS = {
    "vdi": ("7zz", "bximage"),
    "vdi-static": ("7zz",),
    "vmdk": ("7zz", "pyvmdk", "bximage"),
    "vmdk-flat": ("pyvmdk",),
    "vmdk-2gb": ("7zz", "pyvmdk"),
    "vmdk-2gbflat": ("pyvmdk",),
    "vmdk-stream": ("pyvmdk",),
    "vpc": ("7zz", "pyvhdi"),
    "vpc-fixed": ("7zz", "pyvhdi"),
    "vhdx": ("7zz", "pyvhdi"),
    "vhdx-fixed": ("7zz", "pyvhdi"),
}
SIZE = 16 * MIB


# Debian's modules, also for another python3 that comes first in PATH.
sys.path.append("/usr/lib/python3/dist-packages")


def module(name):
    try:
        return __import__(name)
    except ImportError:
        return None


def hash_of_reader(media, size):
    digest = hashlib.sha256()
    while size:
        part = media.read_buffer(min(size, MIB))
        digest.update(part)
        size -= len(part)
    return digest.hexdigest()


def by_7zz(path, size):
    """What 7-Zip unpacks: one member, the disk.  It names the file by its type."""
    p = run("7zz", "e", "-so", path)
    return hashlib.sha256(p.stdout[:size]).hexdigest()


def by_pyvmdk(path, size):
    handle = module("pyvmdk").handle()
    handle.open(path)
    handle.open_extent_data_files()
    found = hash_of_reader(handle, size)
    handle.close()
    return found


def by_pyvhdi(path, size):
    file = module("pyvhdi").file()
    file.open(path)
    found = hash_of_reader(file, size)
    file.close()
    return found


def by_bximage(path, size):
    out = path + ".bximage"
    run("bximage", "-func=convert", "-imgmode=flat", "-q", path, out)
    found = sha256_of_file(out, size)
    os.unlink(out)
    return found


READERS = {
    "7zz": (by_7zz, lambda: shutil.which("7zz")),
    "pyvmdk": (by_pyvmdk, lambda: module("pyvmdk")),
    "pyvhdi": (by_pyvhdi, lambda: module("pyvhdi")),
    "bximage": (by_bximage, lambda: shutil.which("bximage")),
}


def option(name):
    fmt, more = images.FORMATS[name]
    return fmt, ["-o", more] if more else []


def make_ours(name, source, target):
    fmt, more = option(name)
    img("convert", "-f", "raw", "-O", fmt, *more, source, target)
    return fmt


def drop(pattern):
    for path in glob.glob(pattern):
        os.unlink(path)


def clean(fmt, path):
    """check of both finds nothing; 63: the format has no check."""
    for tool in (img, qemu_img):
        p = tool("check", "-f", fmt, path, check=False)
        assert p.returncode in (0, 63), (tool.__name__, path, p.stdout, p.stderr)


def round_trips():
    """Ours is read by everybody, theirs by us."""
    want = sha256_of_file(images.make_source("src.raw", SIZE))
    missing = set()
    for name, readers in DISKS.items():
        suffix = option(name)[0].replace("vpc", "vhd")  # 7-Zip goes by it
        ours = f"o.{name}.{suffix}"
        fmt = make_ours(name, "src.raw", ours)
        clean(fmt, ours)
        assert sha256_of(ours, fmt, images.IMG) == want, name
        assert sha256_of(ours, fmt, images.QEMU_IMG) == want, name
        for reader in readers:
            read, there = READERS[reader]
            if not there():
                missing.add(reader)
                continue
            assert read(ours, SIZE) == want, (name, reader)
        qemu_img("convert", "-f", "raw", "-O", fmt, *option(name)[1], "src.raw", f"t.{name}.{suffix}")
        assert sha256_of(f"t.{name}.{suffix}", fmt, images.IMG) == want, name
        qemu_img("compare", "-f", fmt, "-F", fmt, *([] if "static" in name else ["-s"]), ours,
                 f"t.{name}.{suffix}")
        drop("[ot].*")
    if missing:
        images.left_out("not installed: " + " ".join(sorted(missing)))


def info_is_the_same():
    """`info --output=json` of every disk, whoever made it, is what qemu-img says."""
    images.make_source("src.raw", SIZE + 512 * 3)
    for name in DISKS:
        fmt = make_ours(name, "src.raw", "x." + option(name)[0])
        args = ("info", "--output=json", "-f", fmt, "x." + fmt)
        ours, theirs = img(*args).stdout, qemu_img(*args).stdout
        assert ours == theirs, f"{name}\n{ours.decode()}\n{theirs.decode()}"
        drop("x*")


def resize_keeps_what_is_there():
    """Growing and shrinking of each, with room for tables and without; new space is zero."""
    images.make_source("src.raw", SIZE)
    for name in DISKS:
        if name == "vmdk-stream":
            continue
        fmt = make_ours(name, "src.raw", "x." + option(name)[0])
        path, shortest = "x." + fmt, SIZE
        for size in (20 * MIB, 5000 * MIB, 40 * MIB, 7 * MIB + 512, 9 * MIB):
            shortest = min(shortest, size)
            if "fixed" in name or "flat" in name or "static" in name:
                size = min(size, 60 * MIB)
            img("resize", "-f", fmt, "--shrink", path, str(size))
            clean(fmt, path)
            shutil.copyfile("src.raw", "want.raw")
            os.truncate("want.raw", shortest)
            os.truncate("want.raw", size)
            for tool in (img, qemu_img):
                p = tool("compare", "-f", fmt, "-F", "raw", path, "want.raw", check=False)
                assert p.returncode == 0, (name, size, p.stdout, p.stderr)
            got = int(json.loads(qemu_img("info", "-f", fmt, "--output=json", path).stdout)["virtual-size"])
            assert got == size, (name, size, got)
        drop("x*")


def vdi_table_outgrows_its_room():
    """The block map moves to where the first blocks were."""
    images.make_source("src.raw", SIZE)
    make_ours("vdi", "src.raw", "x.vdi")
    for size in ("300G", "2T"):
        img("resize", "x.vdi", size)
        clean("vdi", "x.vdi")
        run(images.QEMU_IMG, "dd", "-f", "vdi", "-O", "raw", "bs=1M", "count=16", "if=x.vdi", "of=y.raw")
        assert sha256_of_file("y.raw") == sha256_of_file("src.raw"), size


def split_disks_have_many_files():
    """Over 2 GiB a disk has several extents; resize adds and removes them."""
    for sub, letter in (("twoGbMaxExtentSparse", "s"), ("twoGbMaxExtentFlat", "f")):
        img("create", "-f", "vmdk", "-o", f"subformat={sub}", "x.vmdk", "5G")
        assert len(glob.glob(f"x-{letter}0*.vmdk")) == 3
        images.make_source("src.raw", MIB)
        run(images.QEMU_IMG, "dd", "-f", "raw", "-O", "raw", "bs=1M", "if=src.raw", "of=one.raw")
        for size, files in (("9G", 5), ("3G", 2), ("4G", 2)):
            img("resize", "--shrink", "x.vmdk", size)
            assert len(glob.glob(f"x-{letter}0*.vmdk")) == files, (sub, size, os.listdir())
            clean("vmdk", "x.vmdk")
            p = qemu_img("info", "x.vmdk").stdout.decode()
            assert f"virtual size: {size[0]} GiB" in p, p
        drop("x*")


def vmdk_parents():
    """A disk on a disk: made by either, read by both; a parent that was written to is refused."""
    images.make_source("base.raw", 4 * MIB)
    for make, other in ((img, qemu_img), (qemu_img, img)):
        make("convert", "-f", "raw", "-O", "vmdk", "base.raw", "base.vmdk")
        make("create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "top.vmdk")
        for tool in (make, other):
            tool("compare", "-f", "vmdk", "-F", "raw", "top.vmdk", "base.raw")
        assert b"backing file: base.vmdk" in other("info", "top.vmdk").stdout
        drop("*.vmdk")
    img("convert", "-f", "raw", "-O", "vmdk", "base.raw", "base.vmdk")
    img("create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "top.vmdk")
    img("convert", "-n", "-f", "raw", "-O", "vmdk", "base.raw", "base.vmdk")
    p = img("compare", "-f", "vmdk", "-F", "raw", "top.vmdk", "base.raw", check=False)
    assert p.returncode > 1, p.stdout
    img("rebase", "-u", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "top.vmdk")  # it is meant
    for tool in (img, qemu_img):
        tool("compare", "-f", "vmdk", "-F", "raw", "top.vmdk", "base.raw")


def vmdk_commit_keeps_the_disk():
    """What is above a parent that was committed to still belongs to it."""
    images.make_source("base.raw", 4 * MIB)
    images.make_source("new.raw", 4 * MIB, seed=9)
    img("convert", "-f", "raw", "-O", "vmdk", "base.raw", "base.vmdk")
    img("create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "top.vmdk")
    img("convert", "-n", "-f", "raw", "-O", "vmdk", "new.raw", "top.vmdk")
    img("commit", "-f", "vmdk", "top.vmdk")
    for tool in (img, qemu_img):
        for disk in ("top.vmdk", "base.vmdk"):
            tool("compare", "-f", "vmdk", "-F", "raw", disk, "new.raw")


def streams_of_others():
    """What VMDKstream, Red Hat's writer for vSphere, makes is read."""
    maker = module("VMDKstream")
    if not maker:
        images.left_out("no python3-vmdkstream")
        return
    want = sha256_of_file(images.make_source("src.raw", SIZE))
    maker.convert_to_stream("src.raw", "x.vmdk")
    assert sha256_of("x.vmdk", "vmdk", images.IMG) == want


def disks_of_bximage():
    """Growing VMDK 4 and VHD images that Bochs makes."""
    if not shutil.which("bximage"):
        images.left_out("no bximage")
        return
    for mode, fmt in (("vmware4", "vmdk"), ("vpc", "vpc")):
        run("bximage", "-func=create", "-hd=10M", f"-imgmode={mode}", "-q", f"x.{fmt}")
        img("info", "-f", fmt, f"x.{fmt}")
        size = json.loads(img("info", "--output=json", "-f", fmt, f"x.{fmt}").stdout)["virtual-size"]
        assert size == json.loads(qemu_img("info", "--output=json", "-f", fmt,
                                                  f"x.{fmt}").stdout)["virtual-size"]
        images.make_source("src.raw", 8 * MIB)
        img("convert", "-n", "-f", "raw", "-O", fmt, "src.raw", f"x.{fmt}")
        assert sha256_of(f"x.{fmt}", fmt, size=8 * MIB) == sha256_of_file("src.raw")


def sizes_are_geometries_in_vpc():
    """QEMU's rounding, size by size."""
    for size in (MIB, 3 * MIB + 512, 64 * MIB, 130 * MIB, 511 * MIB, 5000 * MIB, 130 << 30, 200 << 30):
        found = []
        for tool in (img, qemu_img):
            tool("create", "-f", "vpc", "x.vpc", str(size))
            found.append(qemu_img("info", "-f", "vpc", "--output=json", "x.vpc").stdout.split(b'"actual')[0])
        assert found[0] == found[1], (size, *found)


def crashed_vhdx_is_repaired_by_qemu():
    """A writer that is killed leaves a log that qemu-img replays as we do."""
    img("create", "-f", "vhdx", "-o", "block_size=1M", "x.vhdx", "64M")
    images.make_source("src.raw", 64 * MIB)
    for seconds in (0.02, 0.05, 0.1):
        try:
            img("convert", "-n", "-t", "writethrough", "-f", "raw", "-O", "vhdx", "src.raw", "x.vhdx",
                timeout=seconds)
        except subprocess.TimeoutExpired:
            pass
        shutil.copyfile("x.vhdx", "y.vhdx")
        assert img("check", "-r", "all", "x.vhdx", check=False).returncode == 0
        assert qemu_img("check", "-r", "all", "y.vhdx", check=False).returncode == 0
        img("compare", "x.vhdx", "y.vhdx")


if __name__ == "__main__":
    images.need_qemu_img()
    images.main([round_trips, info_is_the_same, resize_keeps_what_is_there, vdi_table_outgrows_its_room,
                 split_disks_have_many_files, vmdk_parents,
                 vmdk_commit_keeps_the_disk, streams_of_others, disks_of_bximage,
                 sizes_are_geometries_in_vpc, crashed_vhdx_is_repaired_by_qemu])
