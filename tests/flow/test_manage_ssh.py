#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""lodged on another host: virsh and lodge over ssh, with netcat and with the helper on the other side, and
unmodified clients at libvirt's own sockets.  The other host is Debian's sshd on loopback."""
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

import manage

LODGE = os.environ["LODGE"]
NAME = socket.gethostname()


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class Ssh(manage.Case):
    """Who logs in finds our helper in his path, under libvirt's name and as lodge, and a session of his own."""
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = os.path.join(cls.daemon.root, "ssh")
        bin_folder = os.path.join(cls.folder, "bin")
        cls.home = tempfile.mkdtemp(prefix="lodge-h-")  # its sockets have short names
        cls.addClassCleanup(shutil.rmtree, cls.home, True)
        os.makedirs(bin_folder)
        for name in ("lodge", "virt-ssh-helper"):
            os.symlink(LODGE, f"{bin_folder}/{name}")
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{cls.folder}/{name}"], check=True)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            cls.port = s.getsockname()[1]
        pathlib.Path(cls.folder, "config").write_text(f"""Port {cls.port}
ListenAddress 127.0.0.1
HostKey {cls.folder}/host
AuthorizedKeysFile {cls.folder}/user.pub
StrictModes no
UsePAM no
PidFile none
SetEnv PATH={bin_folder}:/usr/bin:/bin XDG_RUNTIME_DIR={cls.home} XDG_CONFIG_HOME={cls.home} XDG_DATA_HOME={cls.home}
""")
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        with open(f"{cls.folder}/log", "wb") as log:
            sshd = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", f"{cls.folder}/config"], stderr=log)
        cls.addClassCleanup(sshd.wait)
        cls.addClassCleanup(sshd.terminate)
        manage.until(lambda: listens(cls.port), "sshd listens")
        cls.addClassCleanup(cls.end_session)
        # A client that trusts our host and nothing of the user's who runs the tests.
        ssh = pathlib.Path(cls.folder, "ssh")
        ssh.write_text(f"#!/bin/sh\nexec ssh -F none -o UserKnownHostsFile={cls.folder}/known "
                       f"-o LogLevel=ERROR \"$@\"\n")
        ssh.chmod(0o755)

    @classmethod
    def end_session(cls):
        pid = pathlib.Path(cls.home, "lodge/lodged.pid")
        try:
            os.kill(int(pid.read_text()), 15)
        except (FileNotFoundError, ProcessLookupError):  # nobody was there, or it left by itself
            pass

    def uri(self, path, *params):
        user = pwd.getpwuid(os.geteuid()).pw_name
        more = (f"keyfile={self.folder}/user", "no_verify=1", "no_tty=1", f"command={self.folder}/ssh", *params)
        return f"qemu+ssh://{user}@127.0.0.1:{self.port}{path}?{'&'.join(more)}"

    def both(self, uri, *options):
        """What virsh and lodge say of the other host's name."""
        for program in ("virsh", LODGE):
            with self.subTest(program=os.path.basename(program), uri=uri, options=options):
                p = subprocess.run([program, *options, "-c", uri, "hostname"], capture_output=True, text=True,
                                   stdin=subprocess.DEVNULL, timeout=manage.PATIENCE, check=False)
                self.assertEqual((p.returncode, p.stdout.strip()), (0, NAME), p.stderr + self.log())

    def log(self):
        return pathlib.Path(self.folder, "log").read_text()

    def test_by_socket(self):
        self.both(self.uri("/system", f"socket={self.daemon.socket}"))
        self.both(self.uri("/system", f"socket={self.daemon.socket}-ro"), "-r")

    def test_by_helper(self):
        self.both(self.uri("/session"))

    def test_by_netcat(self):
        """Where there is no lodge."""
        os.rename(f"{self.folder}/bin/lodge", f"{self.folder}/bin/hidden")
        try:
            self.both(self.uri("/system", f"socket={self.daemon.socket}"))
        finally:
            os.rename(f"{self.folder}/bin/hidden", f"{self.folder}/bin/lodge")

    def test_reader_stays_one(self):
        p = subprocess.run([LODGE, "-r", "-c", self.uri("/system", f"socket={self.daemon.socket}-ro"),
                            "net-undefine", "default"], capture_output=True, text=True, check=False,
                           stdin=subprocess.DEVNULL, timeout=manage.PATIENCE)
        self.assertEqual(p.returncode, 1)
        self.assertIn("read only", p.stderr)

    def test_nobody_there(self):
        p = subprocess.run([LODGE, "-c", self.uri("/system", "socket=/no/such"), "list"], capture_output=True,
                           text=True, stdin=subprocess.DEVNULL, timeout=manage.PATIENCE, check=False)
        self.assertEqual(p.returncode, 1)
        self.assertIn("/no/such", p.stderr)


class OwnSockets(unittest.TestCase):
    """`lodged --libvirt-sockets` takes the place of libvirtd for clients that name no socket."""

    def test_system(self):
        """At the system's places, in a mount name space that has those to itself."""
        script = """set -e
            mount --make-rprivate /
            for place in /run /etc/lodge /var/lib/lodge; do mkdir -p $place; mount -t tmpfs none $place; done
            "$LODGED" --libvirt-sockets >/run/log 2>&1 &
            daemon=$!
            trap 'kill $daemon; wait $daemon' EXIT
            until grep -q "ready in" /run/log; do kill -0 $daemon || { cat /run/log; exit 1; }; sleep 0.05; done
            for uri in qemu:///system lodge:///system ""; do virsh -q ${uri:+-c $uri} hostname; done
            virsh -q -r -c qemu:///system hostname
            "$LODGE" -q hostname"""
        p = subprocess.run(["unshare", "--mount", "--net", "sh", "-c", script], capture_output=True, text=True,
                           timeout=manage.PATIENCE, check=False,
                           env={k: v for k, v in os.environ.items() if not k.startswith("LIBVIRT")})
        self.assertEqual((p.returncode, p.stdout.split()), (0, [NAME] * 5), p.stderr)


if __name__ == "__main__":
    sys.exit(unittest.main())
