# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts build/lodge-vm and speaks QMP with it."""
import json
import os
import socket
import subprocess
import tempfile
import time

VM = os.environ.get("LODGE_VM", os.path.join(os.path.dirname(__file__), "../../build/lodge-vm"))


def run(*args, timeout=20):
    """Exit code, stdout and stderr of a run that is expected to end."""
    p = subprocess.run([VM, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                       timeout=timeout)
    return p.returncode, p.stdout, p.stderr


class Vm:
    """One machine with a QMP socket; ends with the `with`."""

    def __init__(self, *args, accel="interp"):
        self.dir = tempfile.TemporaryDirectory(prefix="lodge-flow-")
        self.path = os.path.join(self.dir.name, "qmp")
        self.events = []
        engine = ["-accel", accel] if accel else []
        self.process = subprocess.Popen(
            [VM, "-display", "none", "-nodefaults", *engine, "-qmp",
             f"unix:{self.path},server=on,wait=off", *args],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        for _ in range(200):
            try:
                self.socket.connect(self.path)
                break
            except OSError:
                if self.process.poll() is not None:
                    raise AssertionError(f"lodge-vm ended: {self.process.stderr.read()}")
                time.sleep(0.05)
        self.lines = self.socket.makefile("r")
        self.greeting = json.loads(self.lines.readline())
        self.ok("qmp_capabilities")

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

    def command(self, name, **arguments):
        message = {"execute": name}
        if arguments:
            message["arguments"] = {k.replace("_", "-") if k not in self.UNDER else k: v
                                    for k, v in arguments.items()}
        self.send(json.dumps(message) + "\n")
        return self.receive()

    UNDER = ()

    def ok(self, name, **arguments):
        answer = self.command(name, **arguments)
        assert "return" in answer, (name, answer)
        return answer["return"]

    def refused(self, name, **arguments):
        answer = self.command(name, **arguments)
        assert "error" in answer, (name, answer)
        return answer["error"]

    def hmp(self, line):
        return self.ok("human-monitor-command", command_line=line)

    def wait_status(self, *wanted):
        for _ in range(300):
            status = self.ok("query-status")["status"]
            if status in wanted:
                return status
            time.sleep(0.05)
        raise AssertionError(f"status is {status}, not {wanted}")

    def wait_event(self, name):
        for _ in range(300):
            if any(e["event"] == name for e in self.events):
                return next(e for e in self.events if e["event"] == name)
            self.ok("query-status")
            time.sleep(0.05)
        raise AssertionError(f"no event {name}")

    def migrate(self, uri):
        self.ok("migrate", uri=uri)
        for _ in range(300):
            status = self.ok("query-migrate")
            if status["status"] not in ("setup", "active"):
                return status
            time.sleep(0.05)
        raise AssertionError("migration does not end")

    def wait_exit(self):
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, err
