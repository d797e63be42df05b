"""A machine under test: starts lodge-vm, reads its serial port, types into it, talks QMP."""
import json
import os
import pathlib
import re
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time

BUILD = pathlib.Path(os.environ.get("LODGE_BUILD", "build")).resolve()
LODGE = str(BUILD / "lodge-vm")
PATIENCE = 300  # seconds until something counts as lost: hosts may be busy
UP = "lodge-guest: user space is up"


def guest_file(guest, name):
    """A file of a guest that tools/guest made; `make check` makes them before the tests run."""
    path = BUILD / "guests" / guest / name
    if not path.exists():
        sys.exit(f"{path} is missing: tools/guest {guest} {path.parent} makes it")
    return str(path)


def tiny(run, memory="128M", append="", guest="tiny"):
    return ["-m", memory, "-kernel", guest_file(guest, "vmlinuz"),
            "-initrd", guest_file(guest, "initrd"),
            "-append", f"console=ttyS0 panic=-1 {append} lodge.run={run}"]


def cpio(files):
    """An archive for the kernel to unpack behind an initramfs: paths and contents."""
    out = b""
    for inode, (name, data) in enumerate([*files.items(), ("TRAILER!!!", b"")], 1):
        fields = (inode, 0o100755, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % f for f in fields) + name.encode() + b"\0"
        out += head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
    return out


class Failed(Exception):
    pass


class Machine:
    """One lodge-vm with its serial port on stdio and QMP on a socket."""

    def __init__(self, args, qmp=False, program=LODGE):
        self.folder = tempfile.mkdtemp(prefix="lodge-test-")
        self.seen = ""
        command = [program, "-nodefaults", "-display", "none", "-serial", "stdio", *args]
        self.qmp_path = None
        if qmp:
            self.qmp_path = os.path.join(self.folder, "qmp")
            command += ["-qmp", f"unix:{self.qmp_path},server=on,wait=off"]
        self.errors = open(os.path.join(self.folder, "stderr"), "w+", encoding="utf-8")
        self.command = command
        self.p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=self.errors)
        os.set_blocking(self.p.stdout.fileno(), False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.p.stdout, selectors.EVENT_READ)
        self.monitor = None

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            sys.stderr.write(f"\n--- {' '.join(self.command)}\n{self.seen[-6000:]}\n"
                             f"--- stderr: {self.stderr()}\n")
        if self.p.poll() is None:
            self.p.kill()
        self.p.wait()
        self.p.stdin.close()
        self.p.stdout.close()
        self.errors.close()
        if self.monitor:
            self.monitor.close()
            self.commands.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stderr(self):
        self.errors.flush()
        return pathlib.Path(self.errors.name).read_text(encoding="utf-8", errors="replace")

    def pump(self, seconds):
        """Reads what the serial port said; False at its end."""
        if self.selector.select(seconds):
            data = self.p.stdout.read()
            if data == b"":
                return False
            self.seen += (data or b"").decode("utf-8", "replace").replace("\r", "")
        return True

    def expect(self, text, seconds=PATIENCE, after=0):
        """Waits for a pattern on the serial port; returns where in .seen it ends."""
        pattern, end = re.compile(text), time.monotonic() + seconds
        while True:
            m = pattern.search(self.seen, after)
            if m:
                return m.end()
            if time.monotonic() > end:
                raise Failed(f"no \"{text}\" in {seconds} s")
            if not self.pump(min(1.0, seconds)):
                m = pattern.search(self.seen, after)
                if m:
                    return m.end()
                raise Failed(f"the machine ended (exit code {self.p.wait()}) before \"{text}\"")

    def type(self, text):
        self.p.stdin.write(text.encode())
        self.p.stdin.flush()

    def run(self, command, seconds=PATIENCE):
        """Runs a command at a shell prompt; its output."""
        mark = len(self.seen)
        self.type(f"{command}; echo do''ne-$?\n")
        end = self.expect(r"done-\d+", seconds, mark)
        return self.seen[mark:end]

    def wait(self, seconds=PATIENCE):
        """Waits for the end; the exit code."""
        end = time.monotonic() + seconds
        while self.pump(0.2):
            if time.monotonic() > end:
                raise Failed(f"the machine did not end in {seconds} s")
        return self.p.wait(10)

    def until(self, condition, what):
        """Waits until @condition() is true."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise Failed(what)
            self.pump(0.2)

    def connect(self):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(PATIENCE)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.p.poll() is None:
            try:
                s.connect(self.qmp_path)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.05)
        # Two files: a text file that is written forgets what it has read ahead.
        self.monitor, self.commands = s.makefile("r", encoding="utf-8"), s.makefile("w", encoding="utf-8")
        s.close()
        line = self.monitor.readline()
        while line and '"QMP"' not in line:
            line = self.monitor.readline()  # a serial line may begin with what its terminal says
        if not line:
            raise Failed("QMP closed before its greeting")
        self.qmp("qmp_capabilities")

    def qmp(self, command, **arguments):
        """One QMP command; its result.  Events on the way are kept in .events."""
        if not self.monitor:
            self.connect()
        request = {"execute": command}
        if arguments:
            request["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        self.commands.write(json.dumps(request) + "\n")
        self.commands.flush()
        while True:
            line = self.monitor.readline()
            if not line:
                raise Failed(f"QMP closed during {command}")
            answer = json.loads(line)
            if "error" in answer:
                raise Failed(f"{command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]
            self.events = getattr(self, "events", []) + [answer]


def main(tests):
    """Runs the test named on the command line, or all."""
    names = sys.argv[1:] or list(tests)
    for name in names:
        start = time.monotonic()
        tests[name]()
        print(f"{name}: ok, {time.monotonic() - start:.1f} s")
