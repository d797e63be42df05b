# SPDX-License-Identifier: GPL-2.0-or-later
"""Images behind network protocols, each against a real server on loopback."""
import json
import os
import re
import shutil
import socket
import subprocess
import sys

import images
from images import IMG, MIB, img, make_source, run, sha256_of_file
from servers import Program, Sshd, find, free_port, nbdkit, nginx, wait_for

NBDKIT = find("nbdkit")


def built(client):
    """Whether this build has the client; it is a feature of meson."""
    there = os.path.exists(os.path.join(os.path.dirname(IMG), "host", "image", f"image-{client}.so"))
    if not there:
        images.left_out(f"built without {client}")
    return there


def unix(name=""):
    return f"nbd+unix:///{name}?socket={os.path.abspath('nbdkit.sock')}"


def refused(text, *args, **more):
    p = img(*args, check=False, **more)
    assert p.returncode == 1 and text in p.stderr.decode(), (args, text, p.stderr)


def checksum(*args):
    return img("checksum", *args).stdout.split()[0].decode()


# ---- nbd ----

def test_nbd_names():
    """Every way to write the same place."""
    make_source("a.raw")
    sock = os.path.abspath("nbdkit.sock")
    port = free_port()
    with nbdkit("-r", "-e", "x", "file", "a.raw"):
        here = {"driver": "nbd", "server": {"type": "unix", "path": sock}, "export": "x"}
        for args in (("nbd:unix:" + sock + ":exportname=x",), (unix("x"),),
                     ("json:" + json.dumps({"driver": "raw", "file": here}),),
                     ("json:" + json.dumps(here),),
                     ("--image-opts", f"driver=raw,file.driver=nbd,file.server.type=unix,"
                      f"file.server.path={sock},file.export=x"),
                     ("--image-opts", f"driver=nbd,path={sock},export=x")):
            assert checksum(*args) == sha256_of_file("a.raw"), args
    with Program("nbdkit", "-f", "-r", "-i", "127.0.0.1", "-p", port, "file", "a.raw",
                 ready=lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0):
        for name in (f"nbd:127.0.0.1:{port}", f"nbd://127.0.0.1:{port}", f"nbd://localhost:{port}/",
                     f"nbd+tcp://localhost:{port}/"):
            assert checksum(name) == sha256_of_file("a.raw"), name
        assert checksum("--image-opts", f"driver=nbd,host=localhost,port={port}")
        if images.QEMU_IMG:  # says of it what qemu-img says
            name = f"nbd://localhost:{port}"
            assert img("info", name).stdout == run("qemu-img", "info", name).stdout
            ours, theirs = (json.loads(run(tool, "info", "--output=json", name).stdout)
                            for tool in (IMG, "qemu-img"))
            assert ours == theirs, (ours, theirs)
    for bad, text in (("nbd:", "want nbd:HOST:PORT"), ("nbd:host", "want nbd:HOST:PORT"),
                      ("nbd:unix:/no/such", "Failed to connect to '/no/such'"),
                      ("nbd+unix:///x", "socket=PATH"), ("nbd://h/x?socket=y", "want nbd://HOST"),
                      ("nbd://[::1/x", "not a valid URI"),
                      (f"nbd://localhost:{port}", "Connection refused"),
                      ("json:{\"driver\":\"nbd\"}", "either host or path"),
                      ("json:{\"driver\":\"nbd\",\"host\":\"a\",\"colour\":\"red\"}", "colour"),
                      ("json:{\"driver\":\"nbd\",\"host\":\"a\",\"tls-creds\":\"no\"}",
                       "No TLS credentials with id 'no'"),
                      ("json:{\"driver\":\"nbd\",\"server\":{\"type\":\"fd\",\"str\":\"0\"}}", "str")):
        refused(text, "info", bad)


def test_nbd_holes():
    """Block status is heeded: what is a hole there is not read."""
    with open("a.raw", "wb") as f:
        f.truncate(256 * MIB)
        f.seek(100 * MIB)
        f.write(b"data" * MIB)
    with nbdkit("-r", "--filter=stats", "file", "a.raw", "statsfile=stats"):
        img("convert", "-O", "raw", unix(), "b.raw")
    assert sha256_of_file("a.raw") == sha256_of_file("b.raw")
    assert os.stat("b.raw").st_blocks * 512 < 8 * MIB
    with open("stats", encoding="utf-8") as f:
        read = re.search(r"read: \d+ ops, [\d.]+ s, ([\d.]+) (\w+)", f.read())
    assert read.group(2) in ("MiB", "KiB") and float(read.group(1)) < 20, read.group(0)
    with nbdkit("-r", "--filter=noextents", "file", "a.raw"):
        assert checksum(unix()) == sha256_of_file("a.raw")


def test_nbd_writes():
    make_source("a.raw", 8 * MIB)
    for more in ((), ("--filter=blocksize-policy", "blocksize-minimum=4096",
                      "blocksize-error-policy=error", "blocksize-maximum=64K"),
                 ("--filter=nozero",)):
        filters = [m for m in more if m.startswith("--")]
        with nbdkit(*filters, "memory", "8M", *[m for m in more if not m.startswith("--")]):
            img("convert", "-n", "-O", "raw", "a.raw", unix())
            assert checksum("-f", "raw", unix()) == sha256_of_file("a.raw"), more
            if images.can_create("qcow2"):  # the one that needs no growing file
                make_source("small.raw", 3 * MIB)
                img("create", "-f", "qcow2", unix(), 3 * MIB)
                img("convert", "-n", "-O", "qcow2", "small.raw", unix())
                assert checksum("-f", "qcow2", unix()) == sha256_of_file("small.raw"), more
                img("check", "-f", "qcow2", unix())
    with nbdkit("-r", "memory", "8M"):
        refused("read-only", "convert", "-n", "-O", "raw", "a.raw", unix())
    with nbdkit("memory", "1M"):
        refused("No space left", "create", "-f", "raw", unix(), 8 * MIB)


def test_nbd_other_servers():
    """qemu-nbd, and ours."""
    make_source("a.raw", 8 * MIB)
    sock = os.path.abspath("nbdkit.sock")
    for program in (("qemu-nbd", "-f", "raw", "-t", "-e", "4", "-k", sock),
                    (IMG, "serve", "-f", "raw", "-t", "-k", sock)):
        if not shutil.which(program[0]):
            continue
        with Program(*program, "a.raw",
                     ready=lambda: socket.socket(socket.AF_UNIX).connect_ex(sock) == 0):
            assert checksum(unix()) == sha256_of_file("a.raw")
            img("convert", "-O", "raw", unix(), "b.raw")
            assert sha256_of_file("b.raw") == sha256_of_file("a.raw")


def test_nbd_errors():
    """The server's errors come through as they are; one that goes does not hang us."""
    with nbdkit("-r", "--filter=error", "pattern", "8M", "error-pread=EIO", "error-pread-rate=100%"):
        refused("Input/output error", "checksum", "-f", "raw", unix())
    with nbdkit("--filter=error", "memory", "8M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%"):
        make_source("a.raw", 8 * MIB)
        refused("No space left", "convert", "-n", "-O", "raw", "a.raw", unix())
    with nbdkit("-r", "eval", "get_size=echo 8388608", "pread=kill $PPID; sleep 1; exit 1"):
        refused("error", "checksum", "-f", "raw", unix(), timeout=60)


FAKE_SERVER = """
import os, socket, struct, sys
path, kind = sys.argv[1], sys.argv[2]
s = socket.socket(socket.AF_UNIX)
s.bind(path)
s.listen(8)
while True:
    c, _ = s.accept()
    try:
        if kind == "junk":
            c.sendall(os.urandom(4096))
        elif kind == "magic":
            c.sendall(b"NBDMAGIC" + bytes(144))
        elif kind == "old-huge":
            c.sendall(b"NBDMAGIC" + struct.pack(">QQI", 0x00420281861253, 1 << 63, 1) + bytes(124))
        elif kind == "reply":
            c.sendall(b"NBDMAGICIHAVEOPT\\0\\3")
            c.recv(4)
            while True:
                h = c.recv(4096)
                if not h:
                    break
                c.sendall(struct.pack(">QIII", 0x3e889045565a9, 7, 3, 0xffffffff))
        c.close()
    except OSError:
        pass
"""


def test_nbd_hostile_servers():
    for kind in ("junk", "magic", "old-huge", "reply", "close"):
        if os.path.exists("nbdkit.sock"):
            os.unlink("nbdkit.sock")
        with Program(sys.executable, "-c", FAKE_SERVER, "nbdkit.sock", kind,
                     ready=lambda: os.path.exists("nbdkit.sock")):
            refused("", "info", unix(), timeout=60)


def test_nbd_reconnect():
    """A server that comes back within reconnect-delay is not noticed."""
    make_source("a.raw", 32 * MIB)
    sock = os.path.abspath("nbdkit.sock")
    slow = ("--filter=rate", "-r", "file", "a.raw", "rate=160M")
    first = nbdkit(*slow)
    with first:
        p = subprocess.Popen([IMG, "checksum", "--image-opts",
                              f"driver=nbd,path={sock},reconnect-delay=30,open-timeout=30"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            p.wait(0.7)
        except subprocess.TimeoutExpired:
            pass
        first.process.kill()
    with nbdkit(*slow):
        out, err = p.communicate(timeout=60)
    assert out.split()[0].decode() == sha256_of_file("a.raw"), err
    if os.path.exists(sock):
        os.unlink(sock)
    p = subprocess.Popen([IMG, "checksum", "--image-opts",
                          f"driver=nbd,path={sock},open-timeout=30"], stdout=subprocess.PIPE)
    with nbdkit("-r", "file", "a.raw"):
        assert p.communicate(timeout=60)[0].split()[0].decode() == sha256_of_file("a.raw")


def test_network_images_are_untrusted():
    """A name inside what came over the network is not followed."""
    images.need_qemu_img()
    make_source("base.raw", MIB)
    run("qemu-img", "create", "-q", "-f", "qed", "-b", os.path.abspath("base.raw"), "-F", "raw",
        "top.qed")
    with nbdkit("-r", "file", "top.qed"):
        refused("untrusted", "convert", "-f", "qed", "-O", "raw", unix(), "out.raw")
        where = f"file.driver=nbd,file.path={os.path.abspath('nbdkit.sock')}"
        assert checksum("--image-opts", f"driver=qed,{where},backing.driver=raw,"
                        "backing.file.filename=base.raw") == sha256_of_file("base.raw")


# ---- http, https, ftp ----

def test_http():
    if not built("curl"):
        return
    if not find("nginx"):
        images.left_out("no nginx (Debian package nginx-light)")
        return
    make_source("a.raw", 16 * MIB + 512)
    with open("empty", "wb"):
        pass
    digest = sha256_of_file("a.raw")
    with open("users", "w", encoding="ascii") as f:
        f.write("alice:{PLAIN}wonderland\n")
    port = free_port()
    here = f"http://127.0.0.1:{port}"
    with nginx(port):
        assert checksum(f"{here}/a.raw") == digest
        assert checksum(f"{here}/moved/a.raw") == digest
        for size in (512, 4096, "1M", "16M"):
            assert checksum("--image-opts", f"driver=http,url={here}/a.raw,readahead={size}"
                            ) == digest, size
        info = json.loads(img("info", "--output=json", f"{here}/a.raw").stdout)
        assert info["virtual-size"] == 16 * MIB + 512, info
        assert json.loads(img("info", "--output=json", f"{here}/empty").stdout)["virtual-size"] == 0
        img("create", "-q", "-f", "qed", "a.qed", "4M")
        assert b"qed" in img("info", f"{here}/a.qed").stdout
        img("convert", "-O", "raw", f"{here}/a.raw", "b.raw")
        assert sha256_of_file("b.raw") == digest
        login = "--object", "secret,id=s,data=wonderland"
        assert checksum(*login, "--image-opts", f"driver=http,url={here}/secret/a.raw,"
                        "username=alice,password-secret=s") == digest
        refused("401", "info", f"{here}/secret/a.raw")
        refused("404", "info", f"{here}/nosuch")
        refused("503", "info", f"{here}/broken/x")
        refused("range", "info", f"{here}/whole/a.raw")
        refused("redirect", "info", f"{here}/loop")
        refused("rotocol", "info", f"{here}/away/")
        refused("does not support writes", "convert", "-n", "-O", "raw", "a.raw", f"{here}/a.raw")
        refused("readahead", "info", "--image-opts", f"driver=http,url={here}/a.raw,readahead=5")
        refused("timeout", "info", "--image-opts", f"driver=http,url={here}/a.raw,timeout=0")
        refused("does not start with 'https://'", "info", "--image-opts",
                f"driver=https,url={here}/a.raw")
        refused("No secret", "info", "--image-opts",
                f"driver=http,url={here}/a.raw,password-secret=s")
    refused("onnect", "info", f"{here}/a.raw")


def test_https():
    if not built("curl"):
        return
    if not find("nginx") or not find("openssl"):
        images.left_out("no nginx or no openssl")
        return
    make_source("a.raw", 4 * MIB)
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
        "-keyout", "key.pem", "-out", "cert.pem", "-days", "30")
    port, tls = free_port(), free_port()
    with nginx(port, tls):
        refused("ertificate", "info", f"https://localhost:{tls}/a.raw")
        assert checksum("--image-opts", f"driver=https,url=https://localhost:{tls}/a.raw,"
                        "sslverify=off") == sha256_of_file("a.raw")


HOSTILE_WEB = """
import http.server, sys
kind, port = sys.argv[1], int(sys.argv[2])
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    count = 0
    def log_message(self, *a): pass
    def do_GET(self):
        H.count += 1
        begin, end = map(int, self.headers["Range"][6:].split("-"))
        n, total = end - begin + 1, 4 << 20
        body = bytes(n)
        if kind == "long":
            body += b"x" * 100000
        elif kind == "short":
            body = body[:100]
        elif kind == "shifted":
            begin += 512; end += 512
        elif kind == "shrinks":
            total -= (H.count - 1) * 512
        elif kind == "huge":
            total = 1 << 70
        elif kind == "stalls":
            import time; time.sleep(20)
        elif kind == "flaky" and H.count % 3 == 2:
            self.send_error(503); return
        self.send_response(206)
        self.send_header("Content-Range", "bytes %d-%d/%d" % (begin, end, total))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", port), H).serve_forever()
"""


def test_http_hostile_servers():
    if not built("curl"):
        return
    for kind, fine in (("long", False), ("short", False), ("shifted", False), ("shrinks", False),
                       ("huge", False), ("stalls", False), ("flaky", True), ("good", True)):
        port = free_port()
        with Program(sys.executable, "-c", HOSTILE_WEB, kind, port,
                     ready=lambda p=port: socket.socket().connect_ex(("127.0.0.1", p)) == 0):
            seconds = 1 if kind == "stalls" else 20
            p = img("checksum", "-m", "1", "--image-opts", "driver=raw,file.driver=http,"
                    f"file.url=http://127.0.0.1:{port}/x,file.timeout={seconds}",
                    check=False, timeout=60)
            assert (p.returncode == 0) == fine and p.returncode in (0, 1), (kind, p)


FTP_SERVER = """
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer
a = DummyAuthorizer()
a.add_anonymous(".")
FTPHandler.authorizer = a
FTPServer(("127.0.0.1", int(sys.argv[1])), FTPHandler).serve_forever()
"""


def test_ftp():
    if not built("curl"):
        return
    try:
        run("/usr/bin/python3", "-c", "import pyftpdlib")
    except AssertionError:
        images.left_out("no python3-pyftpdlib")
        return
    make_source("a.raw", 4 * MIB)
    port = free_port()
    with Program("/usr/bin/python3", "-c", FTP_SERVER, port,
                 ready=lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0):
        assert checksum(f"ftp://127.0.0.1:{port}/a.raw") == sha256_of_file("a.raw")
        refused("", "info", f"ftp://127.0.0.1:{port}/nosuch")


# ---- ssh ----

def test_ssh():
    if not built("ssh"):
        return
    if not find("sshd"):
        images.left_out("no sshd (Debian package openssh-server)")
        return
    make_source("a.raw", 8 * MIB + 512)
    digest = sha256_of_file("a.raw")
    port = free_port()
    with Sshd(port) as server:
        env = {**os.environ, **server.agent_env}
        path = os.path.abspath("a.raw")
        here = f"ssh://127.0.0.1:{port}"
        md5 = server.fingerprint("md5")
        import base64
        sha256 = base64.b64decode(server.fingerprint("sha256") + "==").hex()

        def ours(*args, **more):
            return img(*args, env=env, **more)

        for check in (f"md5:{md5}", f"md5:{md5.replace(':', '').upper()}", f"sha256:{sha256}", "no"):
            got = ours("checksum", f"{here}{path}?host_key_check={check}").stdout
            assert got.split()[0].decode() == digest, check
        opts = (f"driver=raw,file.driver=ssh,file.server.host=127.0.0.1,file.server.port={port},"
                f"file.host-key-check.mode=hash,file.host-key-check.type=sha256,"
                f"file.host-key-check.hash={sha256},file.path=")
        assert ours("checksum", "--image-opts", opts + path).stdout.split()[0].decode() == digest
        refused("does not match", "info", f"{here}{path}?host_key_check=sha256:{'00' * 32}", env=env)
        refused("known_hosts", "info", f"{here}{path}", env=env)
        refused("host_key_check", "info", f"{here}{path}?host_key_check=maybe", env=env)
        refused("No such file", "info", f"{here}/no/such?host_key_check=no", env=env)
        refused("publickey", "info", f"{here}{path}?host_key_check=no",
                env={**env, "SSH_AUTH_SOCK": "/nowhere"})
        no = "?host_key_check=no"
        copy = os.path.abspath("copy")
        ours("convert", "-O", "raw", "a.raw", f"{here}{copy}.raw{no}")
        assert sha256_of_file("copy.raw") == digest
        for fmt in ("qcow2", "qed", "vdi"):
            if not images.can_create(fmt):
                continue
            ours("convert", "-O", fmt, "a.raw", f"{here}{copy}.{fmt}{no}")
            assert checksum("-f", fmt, f"copy.{fmt}") == digest, fmt
        ours("resize", "-f", "raw", f"{here}{copy}.raw{no}", "9M")
        assert os.path.getsize("copy.raw") == 9 * MIB
    refused("SSH session", "info", f"{here}{path}?host_key_check=no", env=env)


# ---- iscsi ----

def test_iscsi():
    if not built("iscsi"):
        return
    if not find("tgtd") or not find("tgtadm"):
        images.left_out("no tgtd (Debian package tgt)")
        return
    make_source("a.raw", 8 * MIB)
    with open("lun.raw", "wb") as f:
        f.truncate(8 * MIB)
    port, control = free_port(), str(os.getpid() % 30000 + 1)
    name = "iqn.2026-01.org.example:disk"
    env = {**os.environ, "TGT_IPC_SOCKET": os.path.abspath("tgt")}

    def adm(*args, check=True):
        return run("tgtadm", "-C", control, "--lld", "iscsi", *args, check=check, env=env)

    with Program("tgtd", "-f", "-C", control, "--iscsi", f"portal=127.0.0.1:{port}", env=env, patience=1,
                 ready=lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0):
        wait_for(lambda: adm("--mode", "target", "--op", "show", check=False).returncode == 0)
        adm("--op", "new", "--mode", "target", "--tid", "1", "-T", name)
        adm("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b",
            os.path.abspath("lun.raw"))
        adm("--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "--params",
            "thin_provisioning=1")
        adm("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
        url = f"iscsi://127.0.0.1:{port}/{name}/1"
        try:
            img("convert", "-n", "-O", "raw", "a.raw", url)
            assert checksum("-f", "raw", url) == sha256_of_file("a.raw")
            assert checksum("--image-opts", f"driver=raw,file.driver=iscsi,file.transport=tcp,"
                            f"file.portal=127.0.0.1:{port},file.target={name},file.lun=1"
                            ) == sha256_of_file("a.raw")
            if images.can_create("qcow2"):
                img("create", "-f", "qcow2", url, "4M")
                img("check", "-f", "qcow2", url)
            refused("iSCSI", "info", f"iscsi://127.0.0.1:{port}/{name}/7")
            refused("No space left", "create", "-f", "raw", url, "64M")
        finally:
            run("tgtadm", "-C", control, "--op", "delete", "--mode", "system", check=False, env=env)


# ---- nfs ----

GANESHA = """
NFS_CORE_PARAM { Protocols = 3; Enable_NLM = false; Enable_RQUOTA = false; NFS_Port = 2049;
                 MNT_Port = 20048; }
EXPORT { Export_Id = 1; Path = /mem; Pseudo = /mem; Access_Type = RW; Squash = None; SecType = sys;
         Protocols = 3; FSAL { Name = MEM; } }
MEM { Inode_Size = 0x200000; }
"""
# In a network and a /run of its own, because NFS has one place for its list of services.
IN_NAMESPACE = """
set -e
ip link set lo up
mount -t tmpfs none /run
mkdir -p /run/rpcbind /run/ganesha
mount -t tmpfs none /var/lib/nfs
rpcbind -w -f > rpcbind.log 2>&1 &
portmapper=$!
for i in $(seq 300); do rpcinfo -p > services 2>/dev/null && break; sleep 0.1; done
ganesha.nfsd -F -L $PWD/ganesha.log -f $PWD/ganesha.conf -p /run/ganesha/pid > g.log 2>&1 &
server=$!
trap 'kill -KILL $server $portmapper' EXIT
for i in $(seq 300); do rpcinfo -p | grep -q mountd && break; sleep 0.1; done
export PATH=/usr/sbin:$PATH
img=$1
$img create -q -f raw nfs://127.0.0.1/mem/disk.raw 1M
$img convert -n -f raw -O raw a.raw nfs://127.0.0.1/mem/disk.raw
$img checksum -f raw nfs://127.0.0.1/mem/disk.raw
$img checksum -f raw "nfs://127.0.0.1/mem/disk.raw?uid=0&gid=0&readahead=65536"
$img checksum --image-opts \\
    driver=raw,file.driver=nfs,file.server.host=127.0.0.1,file.path=/mem/disk.raw,file.user=0
$img resize -q -f raw nfs://127.0.0.1/mem/disk.raw 1536k
$img info --output=json nfs://127.0.0.1/mem/disk.raw > info
$img info nfs://127.0.0.1/mem/nosuch 2>&1 | grep "Failed to open" > /dev/null
$img info nfs://127.0.0.1/other/x 2>&1 | grep "Failed to mount" > /dev/null
"""


def test_nfs():
    if not built("nfs"):
        return
    if not (find("ganesha.nfsd") and find("rpcbind") and find("rpcinfo")):
        images.left_out("no nfs-ganesha (Debian packages nfs-ganesha-mem, rpcbind)")
        return
    own = ("unshare", "-nm") if os.geteuid() == 0 else ("unshare", "-rnm")
    if run(*own, "mount", "-t", "tmpfs", "none", "/run", check=False).returncode:
        print("     left out: no network namespace of our own here")
        return
    make_source("a.raw", MIB)
    with open("ganesha.conf", "w", encoding="ascii") as f:
        f.write(GANESHA)
    env = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    out = run(*own, "sh", "-c", IN_NAMESPACE, "sh", IMG, env=env, timeout=120).stdout.decode()
    digests = [line.split()[0] for line in out.splitlines()]
    assert digests == [sha256_of_file("a.raw")] * 3, out
    with open("info", encoding="ascii") as f:
        assert json.load(f)["virtual-size"] == 1536 << 10


# ---- a machine's drive ----

def test_drive_of_a_machine():
    vm = os.path.join(os.path.dirname(IMG), "lodge-vm")
    make_source("a.raw", 4 * MIB)
    with nbdkit("memory", "4M"):
        img("convert", "-n", "-f", "raw", "-O", "raw", "a.raw", unix())
        talk = [{"execute": "qmp_capabilities"}, {"execute": "query-block"}]
        for command in ("write -P 7 1M 64k", "read -P 7 1M 64k", "flush"):
            talk.append({"execute": "human-monitor-command",
                         "arguments": {"command-line": f'qemu-io d "{command}"'}})
        talk.append({"execute": "quit"})
        with open("talk", "w", encoding="ascii") as f:
            f.writelines(json.dumps(t) + "\n" for t in talk)
        with open("talk", "rb") as f:
            out = run(vm, "-S", "-display", "none", "-accel", "interp", "-m", "64", "-nodefaults",
                      "-drive", f"file={unix()},format=raw,if=none,id=d", "-device",
                      "virtio-blk-pci,drive=d", "-qmp", "stdio", stdin=f).stdout
        replies = [json.loads(line) for line in out.splitlines()]
        block = next(r["return"] for r in replies if isinstance(r.get("return"), list))
        assert block[0]["inserted"]["image"]["virtual-size"] == 4 * MIB, block
        img("convert", "-f", "raw", "-O", "raw", unix(), "b.raw")
    with open("a.raw", "rb") as a, open("b.raw", "rb") as b:
        want = bytearray(a.read())
        want[MIB:MIB + 65536] = b"\7" * 65536
        assert b.read() == want


# ---- names and options of what has no server here ----

def test_refusals():
    for name, text in (
            ("iscsi://host", "want iscsi://"), ("iscsi://host/target", "want iscsi://"),
            ("json:{\"driver\":\"iscsi\",\"transport\":\"iser\"}", "Unknown transport: iser"),
            ("json:{\"driver\":\"iscsi\",\"portal\":\"x\"}", "portal and target"),
            ("json:{\"driver\":\"iscsi\",\"header-digest\":\"x\"}", "header-digest"),
            ("nfs://host", "want nfs://HOST/PATH/FILE"), ("nfs://host/x/", "want nfs://"),
            ("nfs://host/x/y?colour=red", "Unknown NFS parameter name: colour"),
            ("nfs://host/x/y?uid=99999999999", "too large"),
            ("json:{\"driver\":\"nfs\",\"path\":\"/x/y\"}", "server.host"),
            ("nfs://127.0.0.1/no/such", "Failed to mount"),
            ("rbd:pool", "want rbd:POOL"), ("rbd:/x", "want rbd:POOL"),
            ("rbd:pool/image:key", "conf option key has no value"),
            ("rbd:pool/image:conf=/no/such", "error reading conf file /no/such"),
            ("json:{\"driver\":\"rbd\",\"pool\":\"x\"}", "pool and image"),
            ("rbd:pool/image:colour=red:conf=/dev/null", "invalid conf option colour"),
            ("ssh://host", "want ssh://"), ("ssh://host/x?colour=red", "want ssh://"),
            ("json:{\"driver\":\"ssh\",\"host\":\"x\"}", "want host, path"),
            ("http:x", ""), ("gluster://x/y", "nknown protocol 'gluster'")):
        module = name.split(":")[1 if name.startswith("json") else 0].strip("\"{ ")
        p = img("info", name, check=False, timeout=60)
        if b"built without" in p.stderr:
            images.left_out(f"{module}: built without it")
            continue
        assert p.returncode == 1 and text in p.stderr.decode(), (name, text, p.stderr)


def test_local_info_loads_no_module():
    make_source("a.raw", MIB)
    script = f"import subprocess; subprocess.run([{IMG!r}, 'info', 'a.raw'], check=True)"
    p = run(sys.executable, "-c", script, env={**os.environ, "LD_DEBUG": "files"})
    for library in (b"libnbd", b"libcurl", b"libssh.", b"libiscsi", b"libnfs", b"librbd"):
        assert library not in p.stderr, library


if __name__ == "__main__":
    if not NBDKIT or not built("nbd"):
        images.left_out("no nbdkit, or built without nbd")
        sys.exit(images.SKIP)
    sys.exit(images.main([
        test_nbd_names, test_nbd_holes, test_nbd_writes, test_nbd_other_servers, test_nbd_errors,
        test_nbd_hostile_servers, test_nbd_reconnect, test_network_images_are_untrusted, test_http,
        test_https, test_http_hostile_servers, test_ftp, test_ssh, test_iscsi, test_nfs,
        test_drive_of_a_machine, test_refusals,
        test_local_info_loads_no_module]))
