#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the fuzz targets with clang and its sanitizers and runs each for a while.

Usage: run.py SOURCE BUILD LODGE_IMG.  Seconds a target: 3, or 60 with LODGE_LONG=1.
"""
import concurrent.futures
import os
import pathlib
import shutil
import struct
import subprocess
import sys

SOURCE, BUILD, IMG = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
SECONDS = 60 if os.environ.get("LODGE_LONG") == "1" else 3
FUZZ = BUILD / "fuzz"
TARGETS = ("fuzz_image", "fuzz_model", "fuzz_text", "fuzz_peer", "fuzz_rpc")
SECTOR = 512
SKIP = 77  # meson's exit code for a test that leaves itself out

# Format and the -o of a few images that show different sides of it.
SEEDS = {
    "qcow2": ["", "cluster_size=512", "compat=0.10", "extended_l2=on", "compression_type=zstd",
              "data_file=x.raw"],
    "qcow": [""], "cow": [""], "qed": ["", "cluster_size=4k,table_size=1"], "vdi": ["", "static=on"],
    "vmdk": ["", "subformat=streamOptimized", "subformat=monolithicFlat"],
    "vpc": ["", "subformat=fixed"], "vhdx": ["block_size=1M", "subformat=fixed"], "parallels": [""],
    "luks": [],
}
READ_ONLY = ("bochs", "cloop", "dmg", "probe")

sys.path.insert(0, str(SOURCE / "tests/flow"))
import image_makers  # noqa: E402

# What lodge-img does not make: a call for each seed.
MAKERS = {
    "bochs": [lambda path, data: image_makers.make_bochs(path, data)],
    "cloop": [lambda path, data: image_makers.make_cloop(path, data, 4096)],
    "dmg": [lambda path, data, kinds=kinds, fork=fork: image_makers.make_dmg(path, data, kinds, 8192, fork)
            for kinds in ([image_makers.ZLIB, image_makers.ADC, 1, image_makers.BZIP2],
                          [image_makers.LZMA], [image_makers.LZFSE]) for fork in (False, True)],
    "cow": [lambda path, data: image_makers.make_cow(path, len(data), {3: data[:512]}, b"", 32),
            lambda path, data: image_makers.make_cow(path, len(data), {3: data[:512]}, b"", "uml")],
}


def option(number, data=b""):
    return struct.pack(">8sII", b"IHAVEOPT", number, len(data)) + data


def request(kind, at, n, flags=0):
    return struct.pack(">IHHQQI", 0x25609513, flags, kind, 1, at, n)


# XML of networks, pools, volumes and net-update, each with most of what it may have.
MODELS = (
    "<network ipv6='yes'><name>n</name><uuid>c4ae30b9-b1ad-4f17-8934-21cf65998b0a</uuid><metadata><l:forward "
    "xmlns:l='urn:lodge:network:1' proto='tcp' port='1' to='1.2.3.4'/></metadata><forward mode='nat' dev='e'><nat>"
    "<address start='1.2.3.4' end='1.2.3.9'/><port start='5' end='9'/></nat></forward><bridge name='b' delay='3'/>"
    "<domain name='d'/><dns><forwarder addr='1.1.1.1'/><txt name='t' value='v'/><srv service='s' protocol='t'/>"
    "<host ip='1.2.3.4'><hostname>h</hostname></host></dns><vlan><tag id='4'/></vlan><ip address='10.0.0.1' prefix='8'>"
    "<tftp root='/t'/><dhcp><range start='10.0.0.2' end='10.0.0.9'><lease expiry='2'/></range><host "
    "mac='52:54:00:00:00:01' ip='10.0.0.3'/></dhcp></ip><route address='11.0.0.0' prefix='8' gateway='10.0.0.7'/>"
    "<portgroup name='p' default='yes'/></network>",
    "<pool type='fs'><name>p</name><source><host name='h' port='7'/><device path='/d'><freeExtent start='1' end='2'/>"
    "</device><dir path='/x'/><name>n</name><format type='ext4'/></source><target><path>/a//b</path><permissions>"
    "<mode>0711</mode><owner>0</owner><group>0</group></permissions></target></pool>",
    "<volume type='file'><name>v</name><key>k</key><capacity unit='G'>1</capacity><target><format type='qcow2'/>"
    "<permissions><mode>0600</mode></permissions><timestamps><atime>1.5</atime></timestamps><encryption format='luks'>"
    "<secret type='passphrase' uuid='x'/></encryption><clusterSize unit='KiB'>64</clusterSize><features>"
    "<lazy_refcounts/></features></target><backingStore><path>/b</path><format type='raw'/></backingStore></volume>",
    "<domain/>",
    "<host mac='52:54:00:00:00:01' name='a' ip='10.0.0.7'><lease expiry='0'/></host>",
    "<range start='10.0.0.100' end='10.0.0.200'/>",
)

# Sessions of an NBD client, and a descriptor: whole ones, to be broken.
CONTEXTS = struct.pack(">III", 0, 2, 15) + b"base:allocation" + struct.pack(">I", 5) + b"qemu:"
WISH = struct.pack(">IHHHH", 0, 3, 1, 2, 3)
WORK = (request(0, 0, 4096) + request(1, 512, 64) + b"x" * 64 + request(7, 0, 1 << 20) +
        request(6, 4096, 4096, 2) + request(4, 8192, 4096) + request(3, 0, 0) + request(5, 0, 512) +
        request(0, 0, 4096, 4) + request(2, 0, 0))
PEERS = {
    "nbd": [struct.pack(">I", 3) + option(3) + option(8) + option(9, CONTEXTS) + option(10, CONTEXTS) +
            option(6, WISH) + option(7, WISH) + WORK,
            struct.pack(">I", 1) + option(1) + WORK, struct.pack(">I", 3) + option(5) + option(2)],
    "ovf": [b"""<Envelope xmlns="x" xmlns:o="x"><References><File o:href="d.vmdk" o:id="f" o:size="9"/>
</References><DiskSection><Disk o:capacity="1" o:capacityAllocationUnits="byte * 2^30" o:diskId="d"
o:fileRef="f" o:format="vmdk"/></DiskSection><NetworkSection><Network o:name="n"/></NetworkSection>
<VirtualSystem o:id="v"><Name>v</Name><VirtualHardwareSection><Item><ResourceType>4</ResourceType>
<VirtualQuantity>1</VirtualQuantity></Item></VirtualHardwareSection></VirtualSystem></Envelope>"""],
}


def rpc_seeds():
    """A shape's number and its bytes, or a number beyond them and packets of a connection."""
    domain = struct.pack(">I4s16sI", 4, b"name", bytes(range(16)), 7)
    params = b"".join(struct.pack(">I4sI", 4, b"abcd", kind) + value for kind, value in (
        (1, bytes(4)), (3, bytes(8)), (5, struct.pack(">d", 1.5)), (7, struct.pack(">I4s", 3, b"xyz"))))
    bodies = [b"", bytes(4), bytes(8), domain, domain + bytes(4), domain + struct.pack(">I", 4) + params + bytes(4),
              struct.pack(">I", 1) + domain + bytes(8), struct.pack(">II4sI", 1, 4, b"name", 0)]
    for shape in range(0, 800, 7):
        yield struct.pack("<H", shape) + bodies[shape % len(bodies)]
    packet = lambda kind, body, number=60, program=0x20008086: struct.pack(
        ">IIIIIII", 28 + len(body), program, 1, number, kind, 0, 0) + body
    yield b"\xff\xff" + packet(0, bytes(4)) + packet(0, b"", 66) + packet(2, b"", 1, 0x6b656570)
    yield b"\xff\xff" + packet(4, bytes(4)) + packet(3, b"data", 209) + packet(6, bytes(12), 209)


def build():
    if not (FUZZ / "build.ninja").exists():
        subprocess.run(["meson", "setup", str(FUZZ), str(SOURCE), "-Dfuzz=true", "-Dwerror=false",
                        "-Db_sanitize=address,undefined", "-Db_lundef=false", "-Dbuildtype=debugoptimized"],
                       check=True, stdout=subprocess.DEVNULL, env={**os.environ, "CC": "clang"})
    subprocess.run(["ninja", "-C", str(FUZZ), *("tests/" + t for t in TARGETS)], check=True,
                   stdout=subprocess.DEVNULL)


def as_list(path):
    """The image as fuzz_image.c takes it: sectors that are not zero."""
    data = path.read_bytes()
    out = [struct.pack("<I", (len(data) + SECTOR - 1) // SECTOR)]
    run, start = b"", 0
    for at in range(0, len(data) + SECTOR, SECTOR):
        sector = data[at:at + SECTOR]
        if sector.strip(b"\0"):
            start = start if run else at // SECTOR
            run += sector
        if run and (not sector.strip(b"\0") or len(run) > 32 * SECTOR):
            out.append(struct.pack("<IH", start, len(run)) + run)
            run = b""
    return b"".join(out)


def make_seeds(fmt, folder):
    """Small images with some data, as far as lodge-img makes this format."""
    source = folder.parent / "source.raw"
    source.write_bytes(b"".join(struct.pack("<I", i) * 128 for i in range(64)) + bytes(1 << 20))
    for i, options in enumerate(SEEDS.get(fmt, [])):
        image = folder.parent / f"{fmt}{i}.img"
        more = ["-o", options] if options else []
        if "streamOptimized" in options:
            more.append("-c")
        p = subprocess.run([str(IMG), "convert", "-O", fmt, *more, str(source), str(image)],
                           cwd=folder.parent, capture_output=True, text=True)
        if p.returncode == 0:
            (folder / f"seed{i}").write_bytes(as_list(image)[:1 << 20])
    for i, maker in enumerate(MAKERS.get(fmt, [])):
        image = folder.parent / f"{fmt}-made{i}.img"
        maker(image, source.read_bytes()[:65536])
        (folder / f"made{i}").write_bytes(as_list(image)[:1 << 20])


def run(target, name, folder, *more):
    env = {**os.environ, "FUZZ_FORMAT": name, "G_SLICE": "always-malloc",
           "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1",
           "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}
    p = subprocess.run([str(FUZZ / "tests" / target), f"-max_total_time={SECONDS}", "-timeout=20",
                        "-rss_limit_mb=1024", "-print_final_stats=1", "-max_len=131072",
                        f"-artifact_prefix={folder}/", *more, str(folder)],
                       env=env, capture_output=True, text=True, errors="replace")
    runs = [l.split()[-1] for l in p.stderr.splitlines() if "number_of_executed_units" in l]
    print(f"{target} {name}: {runs[0] if runs else '?'} runs, exit {p.returncode}", flush=True)
    if p.returncode:
        print(p.stderr[-6000:], flush=True)
    return p.returncode == 0


def main():
    if not shutil.which("clang"):
        print("no clang: fuzz targets cannot be built")
        return 1 if os.environ.get("LODGE_ALL") == "1" else SKIP
    build()
    work = []  # arguments of run()
    for name in (*SEEDS, *READ_ONLY):
        folder = FUZZ / "corpus" / name
        folder.mkdir(parents=True, exist_ok=True)
        make_seeds(name, folder)
        work.append(("fuzz_image", name, folder))
    folder = FUZZ / "corpus" / "text"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "seed").write_text('{"execute": "x", "a.b": [1, true, null]}\nfile=a,,b,size=1.5G,on')
    work.append(("fuzz_text", "text", folder, "-max_len=4096"))
    folder = FUZZ / "corpus" / "model"
    folder.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(MODELS):
        (folder / f"seed{i}").write_text(chr(i) + seed)
    work.append(("fuzz_model", "model", folder, "-max_len=4096"))
    for name, seeds in PEERS.items():
        folder = FUZZ / "corpus" / name
        folder.mkdir(parents=True, exist_ok=True)
        for i, seed in enumerate(seeds):
            (folder / f"seed{i}").write_bytes(seed)
        work.append(("fuzz_peer", name, folder, "-max_len=8192"))
    folder = FUZZ / "corpus" / "rpc"
    folder.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(rpc_seeds()):
        (folder / f"seed{i}").write_bytes(seed)
    work.append(("fuzz_rpc", "rpc", folder, "-max_len=8192"))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        fine = all(list(pool.map(lambda args: run(*args), work)))
    return 0 if fine else 1


sys.exit(main())
