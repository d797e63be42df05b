# SPDX-License-Identifier: GPL-2.0-or-later
"""A lodged of one's own below a temporary folder, and the clients that people use.

    class Verbs(manage.Case):            # starts one lodged for the class
        def test_something(self):
            out = self.virsh("hostname")              # fails the test if virsh fails
            err = self.virsh("start", "x", fails=True)
            conn = self.connect()                     # python3-libvirt

    with manage.Daemon() as d:           # or by hand: d.kill(), d.stop(), d.start() again
        d.virsh("list")
"""
import atexit
import contextlib
import ctypes
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import unittest

LODGED = os.environ["LODGED"]
PATIENCE = float(os.environ.get("LODGE_PATIENCE", "120"))  # seconds until something counts as hung


def leave_out(test, why):
    """For what the host's kernel has not, never for want of a package; tools/check lists it."""
    print(f"left out: {test.id()}: {why}", flush=True)
    test.skipTest(why)


def need_networks():
    """Leaves the whole program out where no network name spaces can be made."""
    name = f"lodge-{os.getpid()}"
    p = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if p.returncode:
        print(f"skipped: no network name spaces: {p.stderr.strip()}")
        sys.exit(77)
    subprocess.run(["ip", "netns", "del", name], check=True)


class FileServer(threading.Thread):
    """
    Serves files over FUSE, whose looks the kernel may remember for an hour.  After .fall_silent() it tells what
    they look like, and nothing else, until .speak() answers what was asked meanwhile.
    """
    INIT, LOOKUP, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE = 26, 1, 3, 4, 14, 15, 16, 17, 18
    FLUSH, FSYNC, OPENDIR, READDIR, RELEASEDIR, ACCESS, FORGET, BATCH_FORGET = 25, 20, 27, 28, 29, 34, 2, 42
    CREATE, MKDIR, UNLINK, RENAME, RENAME2 = 35, 9, 10, 12, 45
    LOOKS = (LOOKUP, GETATTR, ACCESS)
    ROOT, HOUR = 1, 3600
    SIZE, OWNER = 8, 2  # what SETATTR sets

    def __init__(self, fuse, files):
        super().__init__(daemon=True)
        self.fuse, self.silent, self.held, self.lock = fuse, (), [], threading.Lock()
        self.over, self.end = os.pipe()
        self.names = {name: i for i, name in enumerate(files, self.ROOT + 1)}
        self.bytes = {i: bytearray(files[name]) for name, i in self.names.items()}
        self.owners = {}  # all that a file has had, by node
        self.start()

    def attributes(self, node):
        mode, size = (0o40777, 4096) if node == self.ROOT else (0o100666, len(self.bytes[node]))
        owner = self.owners.get(node, [0])[-1]
        return struct.pack("<6Q10I", node, size, (size + 511) // 512, 0, 0, 0, 0, 0, 0, mode, 1, owner, owner, 0, 4096, 0)

    def entry(self, node):
        return struct.pack("<4QII", node, 0, self.HOUR, self.HOUR, 0, 0) + self.attributes(node)

    def change(self, node, body):
        valid, size = struct.unpack_from("<I12xQ", body)
        if valid & self.SIZE:
            self.bytes[node] = self.bytes[node][:size].ljust(size, b"\0")
        if valid & self.OWNER:
            self.owners.setdefault(node, []).append(struct.unpack_from("<I", body, 76)[0])
        return struct.pack("<QII", self.HOUR, 0, 0) + self.attributes(node)

    def make(self, body):
        node = max(self.names.values(), default=self.ROOT) + len(self.bytes) + 1
        self.names[body[16:].rstrip(b"\0").decode()] = node
        self.bytes[node] = bytearray()
        return self.entry(node) + struct.pack("<QII", 1, 0, 0)

    def write(self, node, body):
        _, at, size = struct.unpack_from("<QQI", body)
        self.bytes[node][at:at + size] = body[40:40 + size]
        return struct.pack("<II", size, 0)

    def remove(self, body):
        return b"" if self.names.pop(body.rstrip(b"\0").decode(), None) else 2

    def rename(self, body):
        old, new = (name.decode() for name in body.split(b"\0")[:2])
        self.names[new] = self.names.pop(old)
        return b""

    def answer(self, op, node, body):
        """Bytes; or the number of an error."""
        if op == self.LOOKUP:
            found = self.names.get(body.rstrip(b"\0").decode())
            return self.entry(found) if found else 2
        if op == self.GETATTR:
            return struct.pack("<QII", self.HOUR, 0, 0) + self.attributes(node)
        if op in (self.OPEN, self.OPENDIR):
            return struct.pack("<QII", 1, 0, 0)
        if op == self.READ:
            _, at, size = struct.unpack_from("<QQI", body)
            return bytes(self.bytes[node][at:at + size])
        if op == self.READDIR:
            rows = [struct.pack("<QQII", i, i, len(name), 8) + name.encode() for name, i in self.names.items()]
            first = struct.unpack_from("<QQ", body)[1] == 0
            return b"".join(row + bytes(-len(row) % 8) for row in rows) if first else b""
        if op == self.STATFS:
            return struct.pack("<5Q4I24x", 1000, 900, 900, 100, 100, 4096, 255, 4096, 0)
        if op == self.INIT:
            return struct.pack("<4I2H2I2HI28x", 7, 31, 0, 0, 0, 0, 1 << 17, 1, 0, 0, 0)
        changes = {self.SETATTR: lambda: self.change(node, body), self.WRITE: lambda: self.write(node, body),
                   self.CREATE: lambda: self.make(body), self.UNLINK: lambda: self.remove(body),
                   self.RENAME: lambda: self.rename(body[8:]), self.RENAME2: lambda: self.rename(body[16:])}
        if op in changes:
            return changes[op]()
        return b"" if op in (self.FLUSH, self.FSYNC, self.RELEASE, self.RELEASEDIR, self.ACCESS) else 38

    def reply(self, message):
        _, op, unique, node = struct.unpack_from("<IIQQ", message)
        got = self.answer(op, node, message[40:])
        error, data = (got, b"") if isinstance(got, int) else (0, got)
        with contextlib.suppress(OSError):  # who asked is gone
            os.write(self.fuse, struct.pack("<IiQ", 16 + len(data), -error, unique) + data)

    def run(self):
        while self.over not in select.select([self.fuse, self.over], [], [])[0]:
            try:
                message = os.read(self.fuse, 1 << 20)
            except FileNotFoundError:  # the same
                continue
            except OSError:
                return
            op = struct.unpack_from("<I", message, 4)[0]
            with self.lock:
                if op in (self.FORGET, self.BATCH_FORGET):
                    continue
                if self.silent and op not in self.LOOKS and (self.silent is True or op in self.silent):
                    self.held.append(message)
                else:
                    self.reply(message)

    def fall_silent(self, *only):
        self.silent = only or True

    def speak(self):
        with self.lock:
            self.silent = ()
            for message in self.held:
                self.reply(message)
            self.held.clear()

    def close(self):
        """Nobody reads any more: then the end of the descriptor is the end of the server."""
        os.write(self.end, b"x")
        self.join()
        os.close(self.over)
        os.close(self.end)


def dead_folder(test, path, files=None):
    """
    A file system at @path of which nobody answers for anything; its .close() wakes whoever sleeps there.  With
    @files (bytes by name) its .server is a FileServer.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as e:
        leave_out(test, f"no fuse: {e.strerror}")
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0{',allow_other' if files else ''}"
    if libc.mount(b"dead", path.encode(), b"fuse", 0, options.encode()) != 0:
        os.close(fuse)
        leave_out(test, f"no fuse: {os.strerror(ctypes.get_errno())}")
    server = contextlib.ExitStack()
    server.callback(libc.umount2, path.encode(), 2)
    server.callback(os.close, fuse)
    if files:
        server.server = FileServer(fuse, files)
        server.callback(server.server.close)
    test.addCleanup(server.close)
    return server


def hear_events():
    """One loop for the events of all python3-libvirt connections made afterwards; it answers keepalive, too."""
    import libvirt
    over = threading.Event()
    libvirt.virEventRegisterDefaultImpl()
    libvirt.virEventAddTimeout(50, lambda *_: None, None)

    def loop():
        while not over.is_set():
            libvirt.virEventRunDefaultImpl()
    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    atexit.register(lambda: (over.set(), thread.join()))  # a callback into a Python that ends crashes it


def until(condition, what, seconds=PATIENCE):
    """Waits for an event; returns what @condition gave."""
    end = time.monotonic() + seconds
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.01)


def expectation(line):
    """
    (what is run, a check of what it said) of a line of a table:
        VERB == WORDS   ends well and prints these words and no others, but for white space and lines of dashes
        VERB => A .. B  ends well and prints A and, further on, B
        VERB !! A .. B  fails, and says so
        VERB ??         what the host has decides
        VERB            ends well and prints nothing
    """
    verb, how, words = re.fullmatch(r"(.*?)(?: (==|=>|!!|\?\?)(?: (.*))?)?", line).groups()

    def flat(text):
        return " ".join(re.sub("-{3,}", " ", text).split())

    def check(names, code, out, err):
        """@names: what stands for {d} and the like in the words."""
        if how == "??":
            return
        wanted = words or ""
        for name, value in names.items():
            wanted = wanted.replace(f"{{{name}}}", value)
        text = flat(f"{err} {out}" if how == "!!" else out)
        good = code == (how == "!!")
        if how in ("==", None):
            good = good and text == wanted
        else:
            at = 0
            for part in wanted.split(" .. "):
                found = text.find(part, at)
                good = good and found >= 0
                at = found + len(part)
        if not good:
            raise AssertionError(f"{verb}: not as expected ({how or 'silence'} {wanted!r}) but {code}: {out}{err}")
    return verb, check


def control_groups(pid):
    """The groups that lodged has made for a machine, which nobody removes when lodged is gone."""
    found = []
    try:
        with open(f"/proc/{pid}/cgroup") as f:
            paths = {line.rstrip("\n").split(":", 2)[2] for line in f}
        with open("/proc/self/mountinfo") as f:
            mounts = [line.split()[4] for line in f if " - cgroup" in line]
    except OSError:
        return found
    for path in paths:
        m = re.match(r".*/machine/lodge-\w+/[^/]+", path)
        found += [mount + m[0] for mount in mounts if m and os.path.isdir(mount + m[0])]
    return found


def remove_group(folder):
    for path, _, _ in os.walk(folder, topdown=False):
        try:
            os.rmdir(path)
        except OSError:
            return False
    try:  # what lodged made above it, with the last
        os.rmdir(os.path.dirname(folder))
        os.rmdir(os.path.dirname(os.path.dirname(folder)))
    except OSError:
        pass
    return True


class Terminal:
    """A program on a terminal of its own, on which somebody types."""

    def __init__(self, *argv, **env):
        self.seen, self.at, self.code = b"", 0, None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.execvpe(argv[0], argv, {**os.environ, "TERM": "vt100", "LC_ALL": "C.UTF-8", **env})
            finally:
                os._exit(127)

    def read(self):
        """False at its end."""
        if not select.select([self.fd], [], [], PATIENCE)[0]:
            raise AssertionError(f"silence after: {self.seen!r}")
        try:
            got = os.read(self.fd, 65536)
        except OSError:  # nobody has the other side any more
            got = b""
        self.seen += got
        return got != b""

    def expect(self, text):
        """@text, behind what was expected last."""
        while text not in self.seen[self.at:]:
            if not self.read():
                raise AssertionError(f"it ended before {text!r}: {self.seen!r}")
        self.at = self.seen.index(text, self.at) + len(text)

    def type(self, keys):
        os.write(self.fd, keys)

    def is_raw(self):
        return not termios.tcgetattr(self.fd)[3] & (termios.ECHO | termios.ICANON)

    def end(self):
        """Waits for it; its exit code."""
        while self.read():
            pass
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def close(self):
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Daemon:
    def __init__(self, *options, root=None, env=None):
        self.options = options
        self.own_root = root is None
        self.root = root or tempfile.mkdtemp(prefix="lodge-d-")
        os.chmod(self.root, 0o711)  # machines are users of their own
        self.env = env
        self.log_path = os.path.join(self.root, "lodged.log")
        self.process = None
        self.start()

    @property
    def socket(self):
        return f"{self.root}/run/libvirt/virtlodged-sock"

    @property
    def uri(self):
        return f"qemu:///system?socket={self.socket}"

    @property
    def uri_ro(self):
        return f"qemu:///system?socket={self.socket}-ro"

    def start(self):
        with open(self.log_path, "ab") as log:
            at = log.tell()
            self.process = subprocess.Popen(
                [LODGED, "--root", self.root, *self.options], stdout=log, stderr=log,
                env={**os.environ, **(self.env or {})})
        until(lambda: "ready in" in self.log()[at:] or self.process.poll() is not None,
              "lodged is ready")
        if self.process.poll() is not None:
            raise AssertionError("lodged ended: " + self.log())

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def stop(self):
        """As a service manager does; machines stay."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                code = self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise AssertionError("lodged does not end on SIGTERM: " + self.log())
            if code != 0:
                raise AssertionError(f"lodged ended with {code}: " + self.log())

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def pid(self, uuid):
        """The lodge-vm of a running machine: it may have processes of its own."""
        with open(f"{self.root}/run/qemu/{uuid}/status", encoding="utf-8") as f:
            return int(re.search(r"^pid=(\d+)$", f.read(), re.M)[1])

    def machines(self):
        """Process ids of every lodge-vm that was started below our root."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    line = f.read().split(b"\0")
            except OSError:
                continue
            if b"lodge-vm" in line[0] and any(self.root.encode() in word for word in line):
                found.append(int(pid))
        return found

    def close(self):
        try:
            self.stop()
        finally:
            for pid in self.machines():
                groups = control_groups(pid)
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                for folder in groups:
                    until(lambda folder=folder: remove_group(folder), f"{folder} is empty")
            if self.own_root:
                shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def run_virsh(self, *args, uri=None, stdin=None, timeout=PATIENCE):
        return subprocess.run(["virsh", "-c", uri or self.uri, *args], capture_output=True,
                              text=True, timeout=timeout, input=stdin,
                              env={**os.environ, "LC_ALL": "C.UTF-8"})

    def virsh(self, *args, fails=False, **more):
        """Output of virsh, stripped; with @fails its error text, without "error: "."""
        p = self.run_virsh(*args, **more)
        if fails:
            if p.returncode == 0:
                raise AssertionError(f"virsh {' '.join(args)} did not fail: {p.stdout}")
            return re.sub(r"^error: ", "", p.stderr, flags=re.M).strip()
        if p.returncode != 0:
            raise AssertionError(f"virsh {' '.join(args)}: {p.stderr}{p.stdout}\n{self.log()}")
        return p.stdout.strip()

    def connect(self, read_only=False):
        import libvirt
        libvirt.registerErrorHandler(lambda *_: None, None)  # no lines on stderr
        return libvirt.openReadOnly(self.uri_ro) if read_only else libvirt.open(self.uri)


class Case(unittest.TestCase):
    """One lodged for all tests of the class; OPTIONS are its arguments."""
    OPTIONS = ()

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(*cls.OPTIONS)
        cls.addClassCleanup(cls.daemon.close)

    def virsh(self, *args, **more):
        return self.daemon.virsh(*args, **more)

    def connect(self, read_only=False):
        conn = self.daemon.connect(read_only)
        self.addCleanup(conn.close)
        return conn


class FolderCase(Case):
    """The same, with a connection and a folder for each test, which bears its name."""

    def setUp(self):
        self.name = self.id().rsplit(".", 1)[1][5:]
        self.folder = os.path.join(self.daemon.root, self.name)
        os.mkdir(self.folder)
        os.chmod(self.folder, 0o755)
        self.conn = self.connect()

    def path(self, name):
        return os.path.join(self.folder, name)


class Wire:
    """The protocol by hand, for what no well-behaved client sends."""
    REMOTE, QEMU, KEEPALIVE = 0x20008086, 0x20008087, 0x6b656570

    def __init__(self, where):
        """@where: the path of a UNIX socket, or a socket that is connected."""
        self.socket = where
        if isinstance(where, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(where)
        self.socket.settimeout(PATIENCE)
        self.serial = 0

    def send(self, procedure, body=b"", program=REMOTE, kind=0, status=0):
        head = struct.pack(">IIIIIII", 28 + len(body), program, 1, procedure, kind, self.serial, status)
        self.serial += 1
        self.socket.sendall(head + body)

    def receive(self):
        """(program, procedure, type, serial, status, body) of the next packet; None at the end."""
        def exactly(n):
            data = b""
            while len(data) < n:
                part = self.socket.recv(n - len(data))
                if not part:
                    return None
                data += part
            return data
        head = exactly(28)
        if head is None:
            return None
        n, program, _, procedure, kind, serial, status = struct.unpack(">IIIIIII", head)
        return program, procedure, kind, serial, status, exactly(n - 28)

    def call(self, procedure, body=b"", program=REMOTE):
        """0 and the answer, or libvirt's error number and None; None if the daemon hung up."""
        self.send(procedure, body, program)
        answer = self.receive()
        if answer is None:
            return None
        if answer[4] == 0:
            return 0, answer[5]
        return struct.unpack(">I", answer[5][:4])[0], None

    def close(self):
        self.socket.close()
