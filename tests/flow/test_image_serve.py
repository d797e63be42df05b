# SPDX-License-Identifier: GPL-2.0-or-later
"""lodge-img serve: other people's NBD clients, our own, TLS, and clients that mean no good."""
import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time

import images
from images import IMG, MIB, make_source, run, sha256_of_file
from servers import find, free_port, need, wait_for

SOCK = "s.sock"


def uri(name=""):
    return f"nbd+unix:///{name}?socket={os.path.abspath(SOCK)}"


def nbdsh(*args, **more):
    """libnbd's shell, whose module is the system's Python's."""
    return run("/usr/bin/python3", "-m", "nbd", *args, **more)


def listens():
    """Whether somebody greets there: qemu-nbd listens before it opens, and locks, its image."""
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect_ex(SOCK) == 0 and s.recv(8) == b"NBDMAGIC"


class Serve:
    """lodge-img serve in the foreground."""

    def __init__(self, *args, program=(IMG, "serve"), where=("-k", SOCK), env=None):
        self.args = [str(a) for a in (*program, *where, *args)]
        self.env = {**os.environ, **(env or {})}
        self.ready = listens if "-k" in where else None

    def __enter__(self):
        self.process = subprocess.Popen(self.args, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        env=self.env)
        if self.ready:
            wait_for(self.ready, process=self.process)
        return self

    def end(self):
        """Asks it to end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        return self.process.returncode

    def __exit__(self, *what):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        if os.path.exists(SOCK):
            os.unlink(SOCK)


def contexts(name=""):
    info = json.loads(run("nbdinfo", "--json", uri(name)).stdout)
    return {e["export-name"]: e for e in info["exports"]}


def test_info_and_copy():
    make_source("a.raw", 24 * MIB + 512)
    with Serve("-f", "raw", "-t", "-r", "-x", "disk", "-D", "a disk of ours", "a.raw") as s:
        e = contexts("disk")["disk"]
        assert e["export-size"] == 24 * MIB + 512, e
        assert e["description"] == "a disk of ours", e
        assert e["is_read_only"] and e["can_df"] and e["can_multi_conn"], e
        assert "base:allocation" in [str(c) for c in e["contexts"]], e
        run("nbdcopy", uri("disk"), "b.raw")
        assert sha256_of_file("a.raw") == sha256_of_file("b.raw")
        p = run("nbdinfo", uri("nosuch"), check=False)
        assert p.returncode and b"no such export" in p.stderr + p.stdout or p.returncode
        assert b"disk" in run("nbdinfo", "--list", uri()).stdout
        assert s.end() == 0
    assert not os.path.exists(SOCK)


def test_two_writers():
    """Whoever writes keeps others out, of ours and of QEMU's programs; readers with -U get in."""
    images.need_qemu_img()
    images.img("create", "-q", "-f", "qcow2", "disk", 4 * MIB)
    commands = {"ours": ([IMG, "bench", "-q", "-w", "-c", "1", "-f", "qcow2", "disk"],
                         [IMG, "info", "-U", "disk"]),
                "QEMU's": (["qemu-img", "bench", "-w", "-c", "1", "-f", "qcow2", "disk"],
                           ["qemu-img", "info", "-U", "disk"])}
    for server in ((IMG, "serve", "-t", "-f", "qcow2", "-k", SOCK), ("qemu-nbd", "-t", "-f", "qcow2", "-k",
                                                                    os.path.abspath(SOCK))):
        with Serve("disk", program=server, where=()) as s:
            wait_for(listens, process=s.process)
            for who, (write, look) in commands.items():
                p = run(*write, check=False)
                assert p.returncode == 1 and b"lock" in p.stderr, (server[0], who, p)
                run(*look)
                p = run(*[a for a in look if a != "-U"], check=False)
                assert p.returncode == 1 and b"lock" in p.stderr, (server[0], who, p)
            s.end()
        for write, _ in commands.values():
            run(*write)


def test_copy_on_read():
    """What was read once is in the image itself; all that it does not hold is as it was below."""
    images.need_qemu_img()
    make_source("base.raw", 4 * MIB)
    images.img("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2")
    for opts in ("driver=copy-on-read,file.driver=qcow2,file.file.filename=top.qcow2",
                 "driver=qcow2,copy-on-read=on,file.filename=top.qcow2"):
        with Serve("-t", "--image-opts", opts) as s:
            run("qemu-io", "-f", "raw", "-r", "-c", "read 1000k 5k", "-c", "read 2M 100k", uri())
            assert s.end() == 0
    depths = {part["start"]: part["depth"]
              for part in json.loads(images.img("map", "--output=json", "top.qcow2").stdout)}
    assert depths[0] == 1 and depths[983040] == 0 and depths[2 * MIB] == 0, depths
    run("qemu-img", "check", "top.qcow2")
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "top.qcow2", "base.raw")
    with Serve("-t", "--image-opts", "driver=qcow2,copy-on-read=on,file.filename=top.qcow2") as s:
        run("nbdcopy", uri(), "b.raw")
        assert s.end() == 0
    assert sha256_of_file("b.raw") == sha256_of_file("base.raw")
    depths = {part["depth"] for part in json.loads(images.img("map", "--output=json", "top.qcow2").stdout)
              if part["data"]}
    assert depths == {0}, depths
    p = images.img("info", "--image-opts", "driver=qcow2,copy-on-read=on,file.filename=top.qcow2", check=False)
    assert p.returncode == 1 and b"read-only" in p.stderr, p


def test_write_through_every_client():
    images.need_qemu_img()
    make_source("a.raw", 8 * MIB)
    for fmt in ("raw", "qcow2", "vdi", "vhdx"):
        if not images.can_create(fmt):
            continue
        images.img("create", "-q", "-f", fmt, "disk", 8 * MIB)
        with Serve("-f", fmt, "--discard=unmap", "-t", "disk") as s:
            run("nbdcopy", "a.raw", uri())
            run("nbdcopy", uri(), "b.raw")
            assert sha256_of_file("a.raw") == sha256_of_file("b.raw"), fmt
            run("qemu-io", "-f", "raw", "-c", "write -P 7 1000k 100k", "-c", "write -z 3M 64k",
                "-c", "write -zu 4M 64k", "-c", "discard 5M 64k", "-c", "flush",
                "-c", "read -P 7 1000k 100k", "-c", "read -P 0 3M 64k", "-c", "read -P 0 4M 64k",
                uri())
            assert s.end() == 0, fmt
        images.img("convert", "-f", fmt, "-O", "raw", "disk", "c.raw")
        with open("c.raw", "rb") as f:
            f.seek(1000 << 10)
            assert f.read(100 << 10) == b"\7" * (100 << 10), fmt
            f.seek(3 * MIB)
            assert f.read(64 << 10) == bytes(64 << 10), fmt
        os.unlink("disk")


NBDSH = """
import nbd, errno
assert h.get_size() == 4 << 20, h.get_size()
h.pwrite(b"x" * 1000, 12345)
assert h.pread(1000, 12345) == b"x" * 1000
assert h.pread(10, 0) == bytes(10)
h.pwrite(b"y" * 512, 0, nbd.CMD_FLAG_FUA)
h.zero(512, 0)
assert h.pread(512, 0) == bytes(512)
h.flush()
h.cache(4096, 0)
h.set_strict_mode(0)
def refused(code, f, *args):
    try:
        f(*args)
    except nbd.Error as e:
        assert e.errnum == code, (f, args, e.errnum)
    else:
        raise AssertionError((f, args))
refused(errno.EINVAL, h.pread, 4096, (4 << 20) - 100)
refused(errno.ENOSPC, h.pwrite, b"z" * 4096, (4 << 20) - 100)
refused(errno.EINVAL, h.pread, 1, 1 << 62)
refused(errno.ENOTSUP, h.zero, 512, 0, nbd.CMD_FLAG_FAST_ZERO)
assert h.pread(1000, 12345) == b"x" * 1000
pieces = []
h.pread_structured(1 << 20, 0, lambda data, at, status, err: pieces.append((at, len(data), status)))
assert any(p[2] == nbd.READ_HOLE for p in pieces), pieces
status = []
h.block_status(4 << 20, 0, lambda context, at, entries, err: status.append((context, entries)))
assert status[0][0] == "base:allocation" and sum(status[0][1][::2]) == 4 << 20, status
one = []
h.block_status(4 << 20, 0, lambda c, at, entries, err: one.append(len(entries)), nbd.CMD_FLAG_REQ_ONE)
assert one == [2], one
"""


def test_nbdsh():
    with open("a.raw", "wb") as f:
        f.truncate(4 * MIB)
    with Serve("-f", "raw", "--discard=unmap", "-t", "a.raw"):
        nbdsh("--base-allocation", "-u", uri(), "-c", NBDSH)


def test_contexts():
    """Depth of a chain, and a persistent bitmap."""
    images.need_qemu_img()
    if not images.can_create("qcow2"):
        return
    run("qemu-img", "create", "-q", "-f", "qcow2", "base", "4M")
    run("qemu-io", "-f", "qcow2", "-c", "write 0 64k", "base")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top")
    run("qemu-io", "-f", "qcow2", "-c", "write 1M 64k", "top")
    run("qemu-img", "bitmap", "--add", "-g", "65536", "top", "marks")
    run("qemu-io", "-f", "qcow2", "-c", "write 2M 128k", "top")
    args = ["-f", "qcow2", "-t", "-r", "-A"]
    bitmaps = run(IMG, "serve", "-k", SOCK, "-B", "nosuch", "top", check=False)
    assert bitmaps.returncode == 1 and b"nosuch" in bitmaps.stderr, bitmaps.stderr
    with Serve(*args, "-B", "marks", "top"):
        depth = json.loads(run("nbdinfo", "--json", "--map=qemu:allocation-depth", uri()).stdout)
        assert [(d["offset"], d["length"], d["type"]) for d in depth] == [
            (0, 65536, 2), (65536, 15 << 16, 0), (1 << 20, 65536, 1), (17 << 16, 15 << 16, 0),
            (2 << 20, 131072, 1), (34 << 16, 30 << 16, 0)], depth
        dirty = json.loads(run("nbdinfo", "--json", "--map=qemu:dirty-bitmap:marks", uri()).stdout)
        assert [(d["offset"], d["length"], d["type"]) for d in dirty] == [
            (0, 2 << 20, 0), (2 << 20, 131072, 1), (34 << 16, 30 << 16, 0)], dirty


def test_snapshot_options():
    images.need_qemu_img()
    make_source("a.raw", 4 * MIB)
    before = sha256_of_file("a.raw")
    with Serve("-f", "raw", "-t", "-s", "a.raw"):
        run("qemu-io", "-f", "raw", "-c", "write -P 9 0 64k", "-c", "read -P 9 0 64k", uri())
        run("qemu-io", "-f", "raw", "-c", "read -P 9 0 64k", uri())
    assert sha256_of_file("a.raw") == before
    if not images.can_create("qcow2"):
        return
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "a.raw", "q")
    run("qemu-img", "snapshot", "-c", "old", "q")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 9 0 64k", "q")
    with Serve("-f", "qcow2", "-t", "-l", "old", "q"):
        run("nbdcopy", uri(), "b.raw")
    assert sha256_of_file("b.raw") == before


def test_probed_raw_is_guarded():
    with open("a.raw", "wb") as f:
        f.truncate(MIB)
    with Serve("-t", "a.raw"):
        p = nbdsh("-u", uri(), "-c", "h.pwrite(b'QFI\\xfb\\0\\0\\0\\3' + bytes(504), 0)",
                check=False)
        assert p.returncode and b"Operation not permitted" in p.stderr, p.stderr
        nbdsh("-u", uri(), "-c", "h.pwrite(b'boot' + bytes(508), 0)")
    with Serve("-f", "raw", "-t", "a.raw"):
        nbdsh("-u", uri(), "-c", "h.pwrite(b'QFI\\xfb\\0\\0\\0\\3' + bytes(504), 0)")


def test_detect_zeroes():
    with open("a.raw", "wb") as f:
        f.write(b"x" * 4 * MIB)
    with Serve("-f", "raw", "-t", "--discard=unmap", "--detect-zeroes=unmap", "a.raw"):
        nbdsh("-u", uri(), "-c", "h.pwrite(bytes(2 << 20), 1 << 20)")
    assert os.stat("a.raw").st_blocks * 512 <= 2 * MIB + 65536, os.stat("a.raw")
    assert os.path.getsize("a.raw") == 4 * MIB


def test_lives():
    """Ends with its last client or not; --shared; --fork; --pid-file; a passed socket; stdio."""
    with open("a.raw", "wb") as f:
        f.truncate(MIB)
    with Serve("-f", "raw", "a.raw") as s:
        run("nbdinfo", "--size", uri())
        assert s.process.wait(30) == 0
    with Serve("-f", "raw", "-e", "1", "-t", "a.raw"):
        assert not contexts()[""]["can_multi_conn"]
        nbdsh("-u", uri(), "-c", f"""
import nbd, subprocess
p = subprocess.Popen(["nbdinfo", "--size", {uri()!r}], stdout=subprocess.PIPE)
try:
    p.wait(0.5)
    raise AssertionError("a second client was let in")
except subprocess.TimeoutExpired:
    pass
h.shutdown()
assert p.wait(30) == 0
""")
    run(IMG, "serve", "-f", "raw", "--fork", "-t", "-k", SOCK, "--pid-file", "pid", "a.raw")
    with open("pid", encoding="ascii") as f:
        pid = int(f.read())
    assert run("nbdinfo", "--size", uri()).stdout == b"1048576\n"
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not os.path.exists(SOCK))
    p = run(IMG, "serve", "--fork", "-k", SOCK, "nosuch", check=False)
    assert p.returncode == 1 and b"nosuch" in p.stderr, p
    nbdsh("-c", f"""
h.connect_systemd_socket_activation([{IMG!r}, "serve", "-f", "raw", "a.raw"])
assert h.get_size() == 1 << 20
""")
    nbdsh("-c", f"""
h.connect_command([{IMG!r}, "serve", "-f", "raw", "--stdio", "a.raw"])
h.pwrite(b"over a pipe", 0)
assert h.pread(11, 0) == b"over a pipe"
""")


def test_tcp_and_offset():
    make_source("a.raw", MIB)
    port = free_port()
    with Serve("-f", "raw", "-t", "-r", "-o", 4096, "a.raw", where=("-p", port)) as s:
        wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0 or
                 socket.socket(socket.AF_INET6).connect_ex(("::1", port)) == 0, process=s.process)
        run("nbdcopy", f"nbd://localhost:{port}/", "b.raw")
    with open("a.raw", "rb") as a, open("b.raw", "rb") as b:
        assert a.read()[4096:] == b.read()


def test_called_qemu_nbd():
    with open("a.raw", "wb") as f:
        f.truncate(MIB)
    os.symlink(IMG, "qemu-nbd")
    with Serve("--format=raw", "--read-only", "--export-name=x", "a.raw",
               program=(os.path.abspath("qemu-nbd"),), where=("--socket=" + os.path.abspath(SOCK),)
               ) as s:
        wait_for(listens, process=s.process)
        assert not contexts("x")["x"]["can_multi_conn"]


# ---- TLS ----

def make_certificates():
    """A CA, and a server's and a client's certificate, in folders as QEMU has them."""
    def tool(*args):
        run("certtool", *args)

    def template(name, text):
        with open(name, "w", encoding="utf-8") as f:
            f.write(text)

    os.makedirs("tls", exist_ok=True)
    template("ca.info", "cn = Test CA\nca\ncert_signing_key\nexpiration_days = 30\n")
    template("server.info", "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\n"
             "tls_www_server\nencryption_key\nsigning_key\nexpiration_days = 30\n")
    template("client.info", "cn = alice\ntls_www_client\nencryption_key\nsigning_key\n"
             "expiration_days = 30\n")
    tool("--generate-privkey", "--ecc", "--outfile", "ca-key.pem")
    tool("--generate-self-signed", "--load-privkey", "ca-key.pem", "--template", "ca.info",
         "--outfile", "tls/ca-cert.pem")
    for who in ("server", "client"):
        tool("--generate-privkey", "--ecc", "--outfile", f"tls/{who}-key.pem")
        tool("--generate-certificate", "--load-ca-certificate", "tls/ca-cert.pem",
             "--load-ca-privkey", "ca-key.pem", "--load-privkey", f"tls/{who}-key.pem",
             "--template", f"{who}.info", "--outfile", f"tls/{who}-cert.pem")


def tls_uri(port):
    return f"nbds://localhost:{port}/?tls-certificates={os.path.abspath('tls')}"


def wait_port(port, process):
    wait_for(lambda: any(socket.socket(f).connect_ex((a, port)) == 0 for f, a in
                         ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))),
             process=process)


def test_tls_certificates():
    if not find("certtool"):
        images.left_out("no certtool (Debian package gnutls-bin)")
        return
    make_certificates()
    make_source("a.raw", 8 * MIB)
    port = free_port()
    creds = "tls-creds-x509,id=t,endpoint=server,dir=tls,verify-peer=on"
    with Serve("-f", "raw", "-t", "-r", "--object", creds, "--tls-creds", "t", "a.raw",
               where=("-p", port)) as s:
        wait_port(port, s.process)
        run("nbdcopy", tls_uri(port), "b.raw")
        assert sha256_of_file("a.raw") == sha256_of_file("b.raw")
        p = run("nbdinfo", f"nbd://localhost:{port}/", check=False)
        assert p.returncode, "a plain client was let in"
        ours = run(IMG, "convert", "--image-opts", "-O", "raw", "--object",
                   "tls-creds-x509,id=c,endpoint=client,dir=tls",
                   f"driver=raw,file.driver=nbd,file.host=localhost,file.port={port},"
                   "file.tls-creds=c", "c.raw")
        assert not ours.stderr and sha256_of_file("a.raw") == sha256_of_file("c.raw")
        bare = run(IMG, "info", f"nbd://localhost:{port}/", check=False)
        assert bare.returncode == 1 and b"TLS" in bare.stderr, bare.stderr
        os.rename("tls/client-cert.pem", "kept.pem")
        p = run("nbdinfo", tls_uri(port), check=False)
        assert p.returncode, "a client without a certificate was let in"
        os.rename("kept.pem", "tls/client-cert.pem")
    for identity, allowed in (("CN=alice", True), ("CN=bob", False)):
        with Serve("-f", "raw", "-t", "-r", "--object", creds, "--tls-creds", "t", "--object",
                   f"authz-simple,id=z,identity={identity}", "--tls-authz", "z", "a.raw",
                   where=("-p", port)) as s:
            wait_port(port, s.process)
            p = run("nbdinfo", "--size", tls_uri(port), check=False)
            assert (p.returncode == 0) == allowed, (identity, p.stderr)


def test_tls_psk():
    os.makedirs("psk")
    with open("psk/keys.psk", "w", encoding="ascii") as f:
        f.write("alice:0123456789abcdef0123456789abcdef\n")
    with open("wrong.psk", "w", encoding="ascii") as f:
        f.write("alice:ff23456789abcdef0123456789abcdef\n")
    make_source("a.raw", MIB)
    with Serve("-f", "raw", "-t", "-r", "--object", "tls-creds-psk,id=t,endpoint=server,dir=psk",
               "--tls-creds", "t", "a.raw"):
        where = f"nbds+unix://alice@/?socket={os.path.abspath(SOCK)}&tls-psk-file="
        run("nbdcopy", where + os.path.abspath("psk/keys.psk"), "b.raw")
        assert sha256_of_file("a.raw") == sha256_of_file("b.raw")
        assert run("nbdinfo", where + os.path.abspath("wrong.psk"), check=False).returncode
        ours = run(IMG, "convert", "--image-opts", "-O", "raw", "--object",
                   "tls-creds-psk,id=c,endpoint=client,dir=psk,username=alice",
                   f"driver=raw,file.driver=nbd,file.path={os.path.abspath(SOCK)},file.tls-creds=c",
                   "c.raw")
        assert not ours.stderr and sha256_of_file("a.raw") == sha256_of_file("c.raw")


# ---- clients that mean no good ----

HELLO = b"NBDMAGICIHAVEOPT\0\3"


def connect():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(SOCK)
    return s


def receive(s, n):
    got = b""
    while len(got) < n:
        part = s.recv(n - len(got))
        if not part:
            break
        got += part
    return got


def option(number, data=b"", length=None):
    return struct.pack(">8sII", b"IHAVEOPT", number, len(data) if length is None else length) + data


def request(kind, offset, length, flags=0, magic=0x25609513):
    return struct.pack(">IHHQQI", magic, flags, kind, 1, offset, length)


def greeted():
    """A connection in the transmission phase, with simple replies."""
    s = connect()
    assert receive(s, 18) == HELLO
    s.sendall(struct.pack(">I", 3) + option(1))
    assert len(receive(s, 10)) == 10
    return s


BAD_HANDSHAKES = [
    b"", b"\0", b"GET / HTTP/1.0\r\n\r\n", struct.pack(">I", 0xffffffff),
    struct.pack(">I", 3) + b"IHAVEOPS" + bytes(8),
    struct.pack(">I", 3) + option(1, b"nosuch"),
    struct.pack(">I", 3) + option(1, length=0xffffffff),
    struct.pack(">I", 3) + option(7, length=0x7fffffff),
    struct.pack(">I", 3) + option(7, b"x" * 100)[:50],
    struct.pack(">I", 3) + option(2),
]
# Whatever their data, these get an answer and the connection lives on.
ODD_OPTIONS = [
    option(3, b"x"), option(4), option(5, b"x"), option(5), option(6), option(7, b"\0" * 5),
    option(7, b"\xff\xff\xff\xff\0\0"), option(7, struct.pack(">I", 0) + b"\xff\xff"),
    option(6, struct.pack(">I6sH", 6, b"nosuch", 0)), option(8, b"x"), option(9), option(10),
    option(9, b"\xff" * 8), option(77, b"x" * 1000), option(0), option(0xffffffff),
    option(6, bytes(100 << 10)),
]
ODD_CONTEXTS = [
    struct.pack(">II", 0, 1), struct.pack(">III", 0, 1, 0xffffffff),
    struct.pack(">III", 0, 0xffffffff, 3) + b"abc", struct.pack(">IIII", 0, 2, 0, 0) + b"x",
    struct.pack(">I6sI", 6, b"nosuch", 0), struct.pack(">III", 0, 1, 5000) + b"x" * 5000,
]


def read_reply(s):
    magic, number, kind, n = struct.unpack(">QIII", receive(s, 20))
    assert magic == 0x3e889045565a9, hex(magic)
    return number, kind, receive(s, n)


def test_hostile_handshakes():
    with open("a.raw", "wb") as f:
        f.truncate(MIB)
    with Serve("-f", "raw", "-t", "a.raw") as server:
        for bad in BAD_HANDSHAKES:
            with connect() as s, contextlib.suppress(OSError):
                receive(s, 18)
                s.sendall(bad)
                s.shutdown(socket.SHUT_WR)
                while s.recv(4096):
                    pass
        with connect() as s:
            receive(s, 18)
            s.sendall(struct.pack(">I", 3))
            for odd in ODD_OPTIONS:
                s.sendall(odd)
                number, kind, _ = read_reply(s)
                assert kind & 0x80000000 and number == struct.unpack(">I", odd[8:12])[0], (odd, kind)
            s.sendall(option(8))
            assert read_reply(s)[1] == 1
            for odd in ODD_CONTEXTS:
                for number in (9, 10):
                    s.sendall(option(number, odd))
                    assert read_reply(s)[1] & 0x80000000, odd
        rng = random.Random(4)
        for _ in range(200):  # options of noise
            with connect() as s, contextlib.suppress(ConnectionError):
                receive(s, 18)
                data = rng.randbytes(rng.randrange(40))
                s.sendall(struct.pack(">I", rng.randrange(4)) +
                          b"".join(option(rng.randrange(12), data, rng.choice((None, None, 3)))
                                   for _ in range(rng.randrange(5))))
        assert run("nbdinfo", "--size", uri()).stdout == b"1048576\n"
        assert server.end() == 0


def simple_error(s):
    magic, error, _ = struct.unpack(">IIQ", receive(s, 16))
    assert magic == 0x67446698, hex(magic)
    return error


def test_hostile_requests():
    with open("a.raw", "wb") as f:
        f.truncate(MIB)
    with Serve("-f", "raw", "-t", "a.raw") as server:
        for kind, offset, length, flags, error in (
                (0, 0, 0, 0, 22), (0, MIB, 1, 0, 22), (0, 1 << 63, 1, 0, 22), (0, 0, 1 << 31, 0, 22),
                (0, 0, 512, 0x8000, 22), (4, MIB - 1, 2, 0, 28), (6, (1 << 64) - 1, 2, 0, 28),
                (7, 0, 512, 0, 22), (8, 0, 0, 0, 22), (99, 0, 0, 0, 22), (65535, 1, 1, 65535, 22),
                (5, 0, 0xffffffff, 0, 22)):
            with greeted() as s:
                s.sendall(request(kind, offset, length, flags))
                assert simple_error(s) == error, (kind, offset, length)
                s.sendall(request(0, 0, 512))  # and it goes on
                assert simple_error(s) == 0 and receive(s, 512) == bytes(512)
        with greeted() as s:  # a write that does not fit: its data is read over
            s.sendall(request(1, MIB - 512, 1024) + b"x" * 1024)
            assert simple_error(s) == 28
            s.sendall(request(0, 0, 512))
            assert simple_error(s) == 0 and receive(s, 512) == bytes(512)
        for broken in (request(0, 0, 512, magic=1), request(1, 0, 0xffffffff), request(2, 0, 0)):
            with greeted() as s:
                s.sendall(broken)
                assert receive(s, 1) == b"", broken
        with greeted() as s:  # gone in the middle of a write
            s.sendall(request(1, 0, 65536) + b"x" * 1000)
        for _ in range(20):  # gone while answers are on their way, and with none read
            with greeted() as s:
                s.sendall(request(0, 0, MIB) * 64)
        idle = [connect() for _ in range(40)]  # that never say a word
        assert run("nbdinfo", "--size", uri()).stdout == b"1048576\n"
        for s in idle:
            s.close()
        rng = random.Random(5)
        for _ in range(100):
            with greeted() as s, contextlib.suppress(ConnectionError):
                s.sendall(rng.randbytes(rng.randrange(200)))
                s.sendall(b"".join(request(rng.randrange(10), rng.randrange(2 * MIB),
                                           rng.randrange(70000), rng.randrange(32))
                                   for _ in range(rng.randrange(6))))
        assert run("nbdinfo", "--size", uri()).stdout == b"1048576\n"
        with open(f"/proc/{server.process.pid}/status", encoding="ascii") as f:
            peak = next(line for line in f if line.startswith("VmHWM"))
        assert int(peak.split()[1]) < 200 << 10, peak
        with greeted():  # does not keep the server from ending
            begun = time.monotonic()
            assert server.end() == 0
            assert time.monotonic() - begun < 20


def test_refusals():
    with open("a.raw", "wb") as f:
        f.truncate(MIB)
    for args, text in (
            (("--discard=x", "a.raw"), "Invalid --discard value 'x'"),
            (("--detect-zeroes=unmap", "a.raw"), "detect-zeroes"),
            (("--cache=x", "a.raw"), "cache mode"), (("--aio=x", "a.raw"), "aio"),
            (("--tls-creds", "x", "a.raw"), "No TLS credentials with id 'x'"),
            (("--tls-authz", "x", "a.raw"), "TLS"),
            (("-o", "2M", "a.raw"), "Offset"), (("-e", "x", "a.raw"), "shared"),
            (("-k", "x" * 200, "a.raw"), "too long"),
            (("-k", "nosuch/x", "a.raw"), "Failed to listen on 'nosuch/x'"),
            (("-x", "x" * 5000, "a.raw"), "4096"), (("nosuch.raw",), "nosuch.raw"),
            (("--object", "tls-creds-x509,id=t,endpoint=server,dir=nosuch", "--tls-creds", "t",
              "a.raw"), "nosuch/ca-cert.pem"),
            (("--object", "tls-creds-psk,id=t,endpoint=client,dir=.", "--tls-creds", "t", "a.raw"),
             "endpoint=server"), (("-c", "/dev/nbd0", "a.raw"), "nbd-client"),
            (("-d", "/dev/nbd0"), "nbd-client -d"), (("--list",), "nbdinfo"), ((), "one image")):
        p = run(IMG, "serve", "-f", "raw", "-k", SOCK, *args, check=False)
        assert p.returncode == 1 and text in p.stderr.decode(), (args, p.stderr)


if __name__ == "__main__":
    need("nbdinfo", "nbdcopy", "nbdsh", "qemu-io")
    sys.exit(images.main([
        test_info_and_copy, test_two_writers, test_copy_on_read, test_write_through_every_client, test_nbdsh, test_contexts,
        test_snapshot_options, test_probed_raw_is_guarded, test_detect_zeroes, test_lives,
        test_tcp_and_offset, test_called_qemu_nbd, test_tls_certificates, test_tls_psk,
        test_hostile_handshakes, test_hostile_requests, test_refusals]))
