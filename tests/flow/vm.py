# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts build/lodge-vm and speaks QMP with it."""
import json
import os
import socket
import subprocess
import tempfile
import time

PATIENCE = 120  # seconds until something counts as lost: hosts may be busy

VM = os.environ.get("LODGE_VM", os.path.join(os.path.dirname(__file__), "../../build/lodge-vm"))


def until(condition, what):
    """Waits until @condition() is true and returns what it gave; @what is for the failure."""
    end = time.monotonic() + PATIENCE
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(what() if callable(what) else what)
        time.sleep(0.02)


def run(*args, timeout=PATIENCE, stdin=""):
    """Exit code, stdout and stderr of a run that is expected to end."""
    p = subprocess.run([VM, *args], input=stdin, capture_output=True, text=True,
                       timeout=timeout)
    return p.returncode, p.stdout, p.stderr


class Vm:
    """One machine with a QMP socket; ends with the `with`."""

    def __init__(self, *args, accel="interp", defaults=False):
        self.dir = tempfile.TemporaryDirectory(prefix="lodge-flow-")
        self.path = os.path.join(self.dir.name, "qmp")
        self.events = []
        engine = ["-accel", accel] if accel else []
        self.process = subprocess.Popen(
            [VM, "-display", "none", *([] if defaults else ["-nodefaults"]), *engine, "-qmp",
             f"unix:{self.path},server=on,wait=off", *args],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="backslashreplace")
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        until(self.connected, "no QMP socket")
        self.lines = self.socket.makefile("r")
        self.greeting = json.loads(self.lines.readline())
        self.ok("qmp_capabilities")

    def connected(self):
        try:
            self.socket.connect(self.path)
            return True
        except OSError:
            if self.process.poll() is not None:
                raise AssertionError(f"lodge-vm ended: {self.process.stderr.read()}")
            return False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.lines.close()
        self.socket.close()
        self.dir.cleanup()

    def send(self, text):
        self.socket.sendall(text.encode())

    def receive(self):
        """The next answer; events on the way are kept."""
        while True:
            line = self.lines.readline()
            if not line:
                raise AssertionError("QMP connection closed")
            message = json.loads(line)
            if "event" not in message:
                return message
            self.events.append(message)

    def command(self, name, /, **arguments):
        message = {"execute": name}
        if arguments:
            message["arguments"] = {k.replace("_", "-") if k not in self.UNDER else k: v
                                    for k, v in arguments.items()}
        self.send(json.dumps(message) + "\n")
        return self.receive()

    UNDER = ()

    def ok(self, name, /, **arguments):
        answer = self.command(name, **arguments)
        assert "return" in answer, (name, answer)
        return answer["return"]

    def refused(self, name, /, **arguments):
        answer = self.command(name, **arguments)
        assert "error" in answer, (name, answer)
        return answer["error"]

    def send_fd(self, name, fd):
        line = json.dumps({"execute": "getfd", "arguments": {"fdname": name}}) + "\n"
        socket.send_fds(self.socket, [line.encode()], [fd])
        return self.receive()

    def pass_fd(self, name, fd):
        answer = self.send_fd(name, fd)
        assert "return" in answer, (name, answer)

    def refused_fd(self, name, fd):
        answer = self.send_fd(name, fd)
        assert "error" in answer, (name, answer)
        return answer["error"]

    def hmp(self, line):
        return self.ok("human-monitor-command", command_line=line)

    def wait_status(self, *wanted):
        def reached():
            self.status = self.ok("query-status")["status"]
            return self.status in wanted and self.status
        return until(reached, lambda: f"status is {self.status}, not {wanted}")

    def wait_event(self, name):
        def came():
            self.ok("query-status")
            return next((e for e in self.events if e["event"] == name), None)
        return until(came, f"no event {name}")

    def migrate(self, uri):
        self.ok("migrate", uri=uri)

        def ended():
            status = self.ok("query-migrate")
            return status["status"] not in ("setup", "active") and status
        return until(ended, "migration does not end")

    def wait_exit(self):
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, err
