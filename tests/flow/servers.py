# SPDX-License-Identifier: GPL-2.0-or-later
"""Real servers on loopback for the tests of disk images: each ends with its `with` block."""
import json
import os
import shutil
import socket
import subprocess
import time
import uuid

import images


def need(*programs):
    """Leaves the test out, by name, where a program is not installed."""
    for p in programs:
        if not find(p):
            images.left_out(f"no {p}")
            raise SystemExit(images.SKIP)


def find(program):
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/lib/openssh")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, seconds=240, process=None):
    """Until `what()` is true."""
    end = time.monotonic() + seconds
    while not what():
        if process and process.poll() is not None:
            raise AssertionError(f"{process.args[0]} has ended with {process.returncode}")
        if time.monotonic() > end:
            raise AssertionError("it does not come up")
        time.sleep(0.02)


def answers(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class Program:
    """A program that runs until the block ends."""

    def __init__(self, *args, ready=None, env=None, log="server.log", patience=20):
        self.args = [str(a) for a in args]
        self.ready = ready
        self.env = {**os.environ, **(env or {})}
        self.log = log
        self.patience = patience

    def __enter__(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.args, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=self.env)
        try:
            if self.ready:
                wait_for(self.ready, process=self.process)
        except AssertionError as e:
            self.__exit__()
            with open(self.log, encoding="utf-8", errors="replace") as log:
                raise AssertionError(f"{self.args[0]}: {e}\n{log.read()}") from e
        return self

    def __exit__(self, *what):
        self.process.terminate()
        try:
            self.process.wait(self.patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def nbdkit(*args, socket_path="nbdkit.sock"):
    """nbdkit on a UNIX socket in the working directory."""
    path = os.path.abspath(socket_path)
    if os.path.exists(path):
        os.unlink(path)
    return Program("nbdkit", "-f", "-U", path, *args, ready=lambda: os.path.exists(path))


NGINX = """
daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log nginx.log;
events {{ worker_connections 64; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4;
    scgi_temp_path t5;
    server {{
        listen 127.0.0.1:{port};
        {tls}
        root {folder};
        location /secret/ {{ auth_basic "x"; auth_basic_user_file {folder}/users; alias {folder}/; }}
        location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
        location /loop {{ return 302 /loop; }}
        location /away/ {{ return 302 ftp://127.0.0.1/x; }}
        location /whole/ {{ max_ranges 0; alias {folder}/; }}
        location /broken/ {{ return 503; }}
    }}
}}
"""


def nginx(port, tls=None):
    """nginx that gives out the working directory."""
    folder = os.getcwd()
    words = ""
    if tls:
        words = (f"listen 127.0.0.1:{tls} ssl; ssl_certificate {folder}/cert.pem; "
                 f"ssl_certificate_key {folder}/key.pem;")
    with open("nginx.conf", "w", encoding="utf-8") as f:
        f.write(("user root;\n" if os.geteuid() == 0 else "") +
                NGINX.format(folder=folder, port=port, tls=words))
    return Program(find("nginx"), "-p", folder, "-c", f"{folder}/nginx.conf",
                   ready=lambda: answers(port))


class Sshd(Program):
    """sshd with keys of its own, and an agent that holds the one it lets in."""

    def __init__(self, port):
        folder = os.path.join(os.getcwd(), "ssh")
        os.makedirs(folder, exist_ok=True)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
                            f"{folder}/{name}"], check=True)
        shutil.copy(f"{folder}/user.pub", f"{folder}/authorized")
        with open(f"{folder}/config", "w", encoding="utf-8") as f:
            f.write(f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
                    f"PidFile {folder}/pid\nAuthorizedKeysFile {folder}/authorized\n"
                    "StrictModes no\nUsePAM no\nPasswordAuthentication no\nMaxStartups 100\n"
                    "KbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\n")
        self.folder = folder
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        super().__init__(find("sshd"), "-D", "-e", "-f", f"{folder}/config",
                         ready=lambda: answers(port))

    def fingerprint(self, kind):
        text = subprocess.run(["ssh-keygen", "-l", "-E", kind, "-f", f"{self.folder}/host.pub"],
                              check=True, capture_output=True, text=True).stdout.split()[1]
        return text.split(":", 1)[1]

    def __enter__(self):
        sock = f"{self.folder}/agent"
        self.agent = subprocess.Popen(["ssh-agent", "-D", "-a", sock],
                                      stdout=subprocess.DEVNULL)
        wait_for(lambda: os.path.exists(sock), process=self.agent)
        self.agent_env = {"SSH_AUTH_SOCK": sock}
        subprocess.run(["ssh-add", "-q", f"{self.folder}/user"], check=True,
                       env={**os.environ, **self.agent_env})
        return super().__enter__()

    def __exit__(self, *what):
        super().__exit__(*what)
        self.agent.terminate()
        self.agent.wait()


CEPH = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{port}]
mon initial members = a
public addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
run dir = {folder}
admin socket = {folder}/$name.sock
log file =
mon cluster log file =
keyring = {folder}/keyring
mon data = {folder}/mon
mgr data = {folder}/mgr
mgr initial modules =
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 134217728
"""


class Ceph:
    """A monitor, a manager and one store in memory, for those who know a key: .port, .conf, .key of `admin`."""

    def __init__(self, folder):
        self.folder, self.port, self.conf = folder, free_port(), f"{folder}/ceph.conf"
        self.env = {"CEPH_CONF": self.conf}
        self.programs = []

    def call(self, *args):
        p = subprocess.run(args, env={**os.environ, **self.env}, capture_output=True, text=True, timeout=300)
        if p.returncode:
            raise AssertionError(f"{args}: {p.stderr}")
        return p.stdout.strip()

    def start(self, *args, ready):
        p = Program(*args, "-f", env=self.env, log=f"{self.folder}/{args[0]}.log", ready=ready)
        p.__enter__()
        self.programs.insert(0, p)

    def __enter__(self):
        try:
            self.up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def up(self):
        fsid, store = str(uuid.uuid4()), str(uuid.uuid4())
        for part in ("mon", "mgr", "osd"):
            os.mkdir(f"{self.folder}/{part}")
        with open(self.conf, "w", encoding="ascii") as f:
            f.write(CEPH.format(fsid=fsid, port=self.port, folder=self.folder))
        ring = f"{self.folder}/keyring"
        self.call("ceph-authtool", "--create-keyring", ring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        self.call("ceph-authtool", ring, "--gen-key", "-n", "client.admin", "--cap", "mon", "allow *", "--cap",
                  "osd", "allow *", "--cap", "mgr", "allow *")
        self.key = self.call("ceph-authtool", ring, "-n", "client.admin", "--print-key")
        self.call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{self.port}]",
                  f"{self.folder}/monmap")
        self.call("ceph-mon", "--mkfs", "-i", "a", "--monmap", f"{self.folder}/monmap", "--keyring", ring)
        self.start("ceph-mon", "-i", "a", ready=lambda: answers(self.port))
        self.call("ceph", "osd", "new", store)
        for who, what in (("osd.0", "osd"), ("mgr.a", "mgr")):
            self.call("ceph-authtool", ring, "--gen-key", "-n", who)
            self.call("ceph", "auth", "add", who, "mon", f"allow profile {what}", "osd", "allow *", "-i", ring)
        self.call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", store)
        self.start("ceph-osd", "-i", "0", ready=lambda: "1 up" in self.call("ceph", "osd", "stat"))
        self.start("ceph-mgr", "-i", "a", ready=self.counts)
        self.call("ceph", "osd", "pool", "create", "images", "8", "8")
        self.call("rbd", "pool", "init", "images")

    def counts(self):
        return json.loads(self.call("ceph", "mgr", "stat", "--format", "json"))["available"]

    def __exit__(self, *what):
        for p in self.programs:
            p.__exit__()
