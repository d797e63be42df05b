# SPDX-License-Identifier: GPL-2.0-or-later
"""lodge-img import and export of OVA and OVF, checksum, sparsify."""
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tarfile
import xml.etree.ElementTree as ET

import images
from images import MIB, img, make_source, run, sha256_of_file

OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"


def checksum(*args):
    return img("checksum", *args).stdout.split()[0].decode()


def refused(text, *args, **more):
    p = img(*args, check=False, **more)
    assert p.returncode == 1 and text in p.stderr.decode(), (args, text, p.stderr)
    assert len(p.stderr.decode().strip().splitlines()) == 1, p.stderr


def formats():
    return [f for f in ("raw", "qcow2", "vdi", "vhdx", "vmdk", "qed") if images.can_create(f)]


def package():
    """machine.ova of two disks."""
    make_source("a.raw", 24 * MIB)
    with open("b.raw", "wb") as f:  # noise: units that do not get smaller
        f.write(os.urandom(3 * MIB + 512))
    img("export", "-f", "raw", "--cpus", 3, "--memory", "1536M", "--os", "Debian <12> & more",
        "a.raw", "b.raw", "machine.ova")
    return sha256_of_file("a.raw"), sha256_of_file("b.raw")


def test_export():
    digests = package()
    assert sorted(os.listdir(".")) == ["a.raw", "b.raw", "machine.ova"]
    with tarfile.open("machine.ova") as tar:
        assert tar.getnames() == ["machine.ovf", "machine.mf", "machine-disk1.vmdk",
                                  "machine-disk2.vmdk"]
        tar.extractall("out", filter="data")
    with open("out/machine.mf", encoding="ascii") as f:
        lines = dict(line.strip().split("= ") for line in f)
    for name in ("machine.ovf", "machine-disk1.vmdk", "machine-disk2.vmdk"):
        assert lines[f"SHA256({name})"] == sha256_of_file(f"out/{name}"), name
    root = ET.parse("out/machine.ovf").getroot()
    assert root.tag == OVF + "Envelope"
    files = root.findall(f"{OVF}References/{OVF}File")
    for f in files:
        assert int(f.get(OVF + "size")) == os.path.getsize("out/" + f.get(OVF + "href"))
    disks = root.findall(f"{OVF}DiskSection/{OVF}Disk")
    assert [int(d.get(OVF + "capacity")) for d in disks] == [24 * MIB, 3 * MIB + 512]
    assert all("streamOptimized" in d.get(OVF + "format") for d in disks)
    text = ET.tostring(root, encoding="unicode")
    assert "Debian &lt;12&gt; &amp; more" in text and "1536" in text
    if images.QEMU_IMG:  # what they read is what we packed
        for n, digest in enumerate(digests, 1):
            run("qemu-img", "convert", "-f", "vmdk", "-O", "raw", f"out/machine-disk{n}.vmdk", "c.raw")
            assert sha256_of_file("c.raw") == digest, n
            os.unlink("c.raw")
    if shutil.which("vmdkinfo"):
        assert b"stream" in run("vmdkinfo", "out/machine-disk1.vmdk").stdout.lower()
    img("export", "-f", "raw", "--manifest", "sha1", "-n", "other", "a.raw", "x.ovf")
    with open("other.mf", encoding="ascii") as f:
        assert all(line.startswith("SHA1(other") for line in f)
    assert os.path.exists("x.ovf") and os.path.exists("other-disk1.vmdk")


def test_round_trip():
    digests = package()
    for fmt in formats():
        os.mkdir(fmt)
        told = json.loads(img("import", "-O", fmt, "-d", fmt, "--output=json", "machine.ova").stdout)
        assert told["name"] == "machine" and told["cpus"] == 3, told
        assert told["memory"] == 1536 * MIB and told["networks"] == ["default"], told
        assert told["os"] == "Debian <12> & more", told
        assert sorted(os.listdir(fmt)) == [f"machine-disk1.{fmt}", f"machine-disk2.{fmt}"]
        for disk, digest in zip(told["disks"], digests):
            assert checksum("-f", fmt, disk["path"]) == digest, (fmt, disk)
        refused("is there already", "import", "-O", fmt, "-d", fmt, "machine.ova")
        img("import", "-q", "-O", fmt, "-d", fmt, "--force", "machine.ova")
    with open("machine.ova", "rb") as f:
        os.mkdir("pipe")
        img("import", "-O", "raw", "-d", "pipe", "-", stdin=f)
        assert sha256_of_file("pipe/machine-disk1.raw") == digests[0]
    run("tar", "xf", "machine.ova")
    os.mkdir("folder")
    img("import", "-O", "raw", "-d", "folder", "machine.ovf")
    assert sha256_of_file("folder/machine-disk2.raw") == digests[1]
    out = img("import", "--list", "machine.ovf").stdout.decode()
    assert "processors: 3" in out and "machine-disk1.vmdk" in out, out
    with open("machine-disk1.vmdk", "r+b") as f:
        f.seek(100000)
        f.write(b"?")
    refused("machine-disk1.vmdk", "import", "-O", "raw", "-d", "pipe", "--force", "machine.ovf")


DESCRIPTOR = """<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
<References><File ovf:href="{href}" ovf:id="f1"{file}/></References>
<DiskSection><Info/><Disk ovf:capacity="{capacity}" ovf:capacityAllocationUnits="{unit}"
 ovf:diskId="d1" ovf:fileRef="{ref}" ovf:format="{format}"{disk}/></DiskSection>
<VirtualSystem ovf:id="vm"><Info/><Name>vm</Name></VirtualSystem></Envelope>"""
GOOD = {"href": "d.img", "file": "", "capacity": "1", "unit": "byte * 2^20", "ref": "f1",
        "format": "raw", "disk": ""}


def descriptor(**more):
    return DESCRIPTOR.format(**{**GOOD, **more}).encode()


def make_ova(path, *members):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if not isinstance(data, tarfile.TarInfo):
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)


def test_foreign_packages():
    """Other writers: other formats, units, manifests before or after the disks, none at all."""
    disk = os.urandom(MIB)
    digest = hashlib.sha256(disk).hexdigest()
    mf = f"SHA1 (vm.ovf) = {hashlib.sha1(descriptor()).hexdigest()}\r\nSHA256(d.img)= {digest}\n"
    for n, members in enumerate((
            (("vm.ovf", descriptor()), ("d.img", disk)),
            (("vm.ovf", descriptor()), ("vm.mf", mf.encode()), ("d.img", disk)),
            (("vm.ovf", descriptor()), ("d.img", disk), ("vm.mf", mf.encode()), ("vm.cert", b"x")),
            (("vm.ovf", descriptor(unit="MegaBytes")), ("d.img", disk)),
            (("vm.ovf", descriptor(capacity="1048576", unit="byte")), ("d.img", disk)),
            (("VM.OVF", descriptor(unit="")), ("d.img", disk)))):
        make_ova("in.ova", *members)
        os.mkdir(str(n))
        img("import", "-O", "raw", "-d", str(n), "in.ova")
        assert sha256_of_file(f"{n}/d.raw") == digest, n
    for fmt, uri in (("qcow2", "http://www.gnome.org/~markmc/qcow-image-format.html"),
                     ("vpc", "http://technet.microsoft.com/virtualserver/bb676673.aspx#vhd")):
        if not images.can_create(fmt) or not images.QEMU_IMG:
            continue
        with open("d.raw", "wb") as f:
            f.write(disk)
        more = ("-o", "force_size=on") if fmt == "vpc" else ()
        run("qemu-img", "convert", "-f", "raw", "-O", fmt, *more, "d.raw", "d.img")
        with open("d.img", "rb") as f:
            make_ova("in.ova", ("vm.ovf", descriptor(format=uri)), ("d.img", f.read()))
        img("import", "-O", "raw", "--force", "in.ova")
        assert sha256_of_file("d.raw") == digest, fmt


def link(name, kind, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_hostile_packages():
    disk = bytes(MIB)
    with open("secret", "wb") as f:
        f.write(b"do not tell" * 1000)
    good = ("vm.ovf", descriptor())
    for text, *members in (
            ("no plain file name", ("../vm.ovf", b"x")),
            ("no plain file name", ("/etc/passwd", b"x")),
            ("no plain file name", ("a/b.ovf", b"x")), ("no plain file name", (".hidden", b"x")),
            ("no plain file name", good, ("../../x", disk)),
            ("no regular file", good, ("d.img", link("d.img", tarfile.SYMTYPE, "../secret"))),
            ("no regular file", good, ("d.img", link("d.img", tarfile.LNKTYPE, "vm.ovf"))),
            ("no regular file", good, ("d.img", link("d.img", tarfile.FIFOTYPE, ""))),
            ("no regular file", good, ("d.img", link("d.img", tarfile.CHRTYPE, ""))),
            ("cannot make", good, ("vm.ovf", b"x"), ("d.img", disk)),
            ("no .ovf file", ("d.img", disk)),
            ("'d.img' is missing", good), ("more than", ("vm.ovf", b" " * (5 << 20))),
            ("OVF: line", ("vm.ovf", b"<Envelope")), ("root element", ("vm.ovf", b"<x/>")),
            ("no plain file name", ("vm.ovf", descriptor(href="../secret"))),
            ("no plain file name", ("vm.ovf", descriptor(href="http://example.org/x"))),
            ("no plain file name", ("vm.ovf", descriptor(href="file:secret"))),
            ("not in References", ("vm.ovf", descriptor(ref="f2"))),
            ("capacity", ("vm.ovf", descriptor(capacity="-1"))),
            ("capacity", ("vm.ovf", descriptor(capacity="99999999999999"))),
            ("capacity", ("vm.ovf", descriptor(unit="furlongs"))),
            ("chunks", ("vm.ovf", descriptor(file=' ovf:chunkSize="10"'))),
            ("compress", ("vm.ovf", descriptor(file=' ovf:compression="gzip"'))),
            ("parent", ("vm.ovf", descriptor(disk=' ovf:parentRef="d0"'))),
            ("not what the manifest says", good, ("vm.mf", b"SHA256(vm.ovf)= 00"), ("d.img", disk)),
            ("not what the manifest says", good, ("vm.mf", b"SHA1(d.img)= 00"), ("d.img", disk)),
            ("is missing", good, ("vm.mf", b"SHA1(e.img)= 00"), ("d.img", disk)),
            ("not known", good, ("vm.mf", b"MD5(vm.ovf)= 00"), ("d.img", disk)),
            ("not valid", good, ("vm.mf", b"SHA1 vm.ovf 00"), ("d.img", disk))):
        make_ova("in.ova", *members)
        before = set(os.listdir("."))
        refused(text, "import", "-O", "raw", "in.ova")
        assert set(os.listdir(".")) == before, (text, members, os.listdir("."))
    bomb = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b"".join(
        b'<!ENTITY %c "%s">' % (c, b"&%c;" % (c - 1) * 10) for c in range(ord("b"), ord("k"))
    ) + b"]><Envelope><References>&j;</References></Envelope>"
    make_ova("in.ova", ("vm.ovf", bomb))
    img("import", "--list", "in.ova", check=False, timeout=120)
    entity = (b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY s SYSTEM "secret">]>' +
              descriptor().split(b"?>", 1)[1].replace(b"<Name>vm", b"<Name>&s;"))
    make_ova("in.ova", ("vm.ovf", entity), ("d.img", disk))
    p = img("import", "--list", "in.ova", check=False)
    assert b"do not tell" not in p.stdout + p.stderr
    with open("in.ova", "r+b") as f:
        f.truncate(2000)
    refused("in.ova", "import", "in.ova")
    with open("junk.ova", "wb") as f:
        f.write(os.urandom(100000))
    refused("junk.ova", "import", "junk.ova")
    refused("nosuch.ova", "import", "nosuch.ova")
    if images.QEMU_IMG and images.can_create("qed"):  # a disk that names another file
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", os.path.abspath("secret"), "-F", "raw",
            "d.img")
        with open("d.img", "rb") as f:
            make_ova("in.ova", ("vm.ovf", descriptor(format="qcow")), ("d.img", f.read()))
        p = img("import", "-O", "raw", "--force", "in.ova", check=False)
        assert p.returncode == 1, p


def test_export_replaces_nothing():
    images.make_source("a.raw", 2 * images.MIB)
    for target in ("x.ova", "x.ovf"):
        images.img("export", "-q", "-f", "raw", "a.raw", target)
        before = open(target, "rb").read()
        refused("exists", "export", "-q", "-f", "raw", "a.raw", target)
        assert open(target, "rb").read() == before
        images.img("export", "-q", "--force", "-f", "raw", "a.raw", target)
        if target == "x.ovf":
            os.unlink(target)
            refused("exists", "export", "-q", "-f", "raw", "a.raw", target)
            assert not os.path.exists(target)


def test_export_refusals():
    make_source("a.raw", MIB)
    for text, *args in (("Expecting disks", "a.raw"), ("ends in .ova", "a.raw", "x.tar"),
                        ("machine name", "-n", "../x", "a.raw", "x.ova"),
                        ("manifest", "--manifest", "md5", "a.raw", "x.ova"),
                        ("processors", "--cpus", "0", "a.raw", "x.ova"),
                        ("nosuch.raw", "nosuch.raw", "x.ova"),
                        ("nosuch", "a.raw", "nosuch/x.ova")):
        p = img("export", "-f", "raw", *args, check=False)
        assert p.returncode == 1 and text in p.stderr.decode(), (args, p.stderr)
    assert os.listdir(".") == ["a.raw"], os.listdir(".")


def small_files():
    """As if the disk were full: no file gets larger than 1 MiB."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))


def test_full_disk():
    """Nothing half made stays, and what was there is as it was."""
    with open("a.raw", "wb") as f:
        f.write(os.urandom(3 * MIB))
    digest = sha256_of_file("a.raw")
    refused("File too large", "export", "-f", "raw", "a.raw", "x.ova", preexec_fn=small_files)
    assert os.listdir(".") == ["a.raw"], os.listdir(".")
    make_ova("in.ova", ("vm.ovf", descriptor(capacity="3")), ("d.img", bytes(3 * MIB)))
    refused("File too large", "import", "-O", "raw", "in.ova", preexec_fn=small_files)
    make_ova("in.ova", ("vm.ovf", descriptor()), ("d.img", os.urandom(MIB)))
    refused("File too large", "import", "-O", "vdi", "in.ova", preexec_fn=small_files)
    assert sorted(os.listdir(".")) == ["a.raw", "in.ova"], os.listdir(".")
    assert sha256_of_file("a.raw") == digest


def test_checksum():
    """The same for every format, with and without threads, of chains and snapshots."""
    make_source("a.raw", 16 * MIB)
    digest = sha256_of_file("a.raw")
    assert checksum("a.raw") == checksum("-m", "1", "a.raw") == checksum("-m", "16", "a.raw") == digest
    for fmt in formats():
        img("convert", "-f", "raw", "-O", fmt, "a.raw", f"b.{fmt}")
        assert checksum(f"b.{fmt}") == digest, fmt
    told = json.loads(img("checksum", "--output=json", "a.raw").stdout)
    assert told == {"filename": "a.raw", "format": "raw", "virtual-size": 16 * MIB,
                    "sha256": digest}, told
    if "qcow2" in formats():
        img("create", "-q", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "top.qcow2")
        assert checksum("top.qcow2") == digest
        img("snapshot", "-c", "now", "b.qcow2")
        run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 64k", "b.qcow2")
        assert checksum("b.qcow2") != digest and checksum("-l", "now", "b.qcow2") == digest
    with open("cut.qcow2", "wb") as f:
        f.write(b"QFI\xfb" + bytes(100))
    refused("cut.qcow2", "checksum", "-f", "qcow2", "cut.qcow2")


def space(path):
    return os.stat(path).st_blocks * 512


def test_sparsify():
    """Zeros become holes; what a guest reads stays; nothing of a backing file shows through."""
    with open("a.raw", "wb") as f:
        for n in range(16):
            f.write(os.urandom(MIB) if n % 4 == 0 else bytes(MIB))
    digest = sha256_of_file("a.raw")
    for fmt in formats():
        if fmt == "vmdk":  # has no way to mark a grain as zero without a feature of the file
            continue
        img("convert", "-S", "0", "-f", "raw", "-O", fmt, "a.raw", f"b.{fmt}")
        before = space(f"b.{fmt}")
        told = json.loads(img("sparsify", "-f", fmt, "--output=json", f"b.{fmt}").stdout)
        assert told["actual-size-before"] >= told["actual-size"], told
        assert before >= 16 * MIB and space(f"b.{fmt}") < 9 * MIB, (fmt, before, space(f"b.{fmt}"))
        assert checksum("-f", fmt, f"b.{fmt}") == digest, fmt
        if fmt in ("qcow2", "qed", "vdi", "vhdx") and images.QEMU_IMG:
            assert run("qemu-img", "check", "-f", fmt, f"b.{fmt}", check=False).returncode in (0, 63)
    if "qcow2" in formats():
        with open("base.raw", "wb") as f:
            f.write(b"base" * (MIB // 4))
        img("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top")
        run("qemu-io", "-f", "qcow2", "-c", "write -P 0 0 512k", "top")
        digest = checksum("top")
        img("sparsify", "top")
        assert checksum("top") == digest and space("base.raw") >= MIB
    img("create", "-q", "-f", "raw", "r", "1M")
    refused("run of zeros", "sparsify", "-S", "1", "-f", "raw", "r")


if __name__ == "__main__":
    sys.exit(images.main([
        test_export, test_round_trip, test_foreign_packages, test_hostile_packages,
        test_export_replaces_nothing, test_export_refusals, test_full_disk, test_checksum, test_sparsify]))
