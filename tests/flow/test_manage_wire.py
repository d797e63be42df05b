# SPDX-License-Identifier: GPL-2.0-or-later
"""lodged on the wire: connections, who may call what, and clients that behave badly."""
import contextlib
import grp
import os
import pathlib
import platform
import re
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import unittest

import manage
from manage import Daemon, Wire, until

DENIED, NO_SUPPORT, AUTH_FAILED = 29, 3, 45
FEATURE, OPEN, HOSTNAME, RESTORE = 60, 1, 59, 54
REFERENCE = pathlib.Path(__file__).resolve().parents[3] / "shared/reference/libvirt-rpc.md"


def table():
    """Rows of `lodged --verbs`: (program, number, name, who may, whether it is there)."""
    out = subprocess.run([manage.LODGED, "--verbs"], check=True, capture_output=True, text=True).stdout
    for line in out.splitlines():
        program, number, name, may, there = line.split()
        yield (Wire.QEMU if program == "qemu" else Wire.REMOTE), int(number), name, may, there == "yes"


SCHEMA = pathlib.Path(__file__).resolve().parents[2] / "schema"


def shapes():
    """schema/remote.x: name -> [(type, field, "<..>" or "[..]" or "")]."""
    structs = re.findall(r"(?s)struct (\w+) \{(.*?)\};", (SCHEMA / "remote.x").read_text())
    return {name: re.findall(r"([a-z]\w*(?: \w+)*?) (\w+)(<.*?>|\[.*?\])?;", body) for name, body in structs}


def flagged(kinds):
    """Rows of schema/verbs.def: (row, program, number, name, shape of the arguments, known flags or "")."""
    rows = re.findall(r"(?m)^(QEMU_)?VERB(_FLAGS)?\((\d+), (\w+), (\w+), \w+, \w+, \w+(?:, (\w+))?\)",
                      (SCHEMA / "verbs.def").read_text())
    for qemu, with_flags, number, name, shape, known in rows:
        has = any(field == "flags" for _, field, _ in kinds.get(shape, ()))
        if has != bool(with_flags):
            raise AssertionError(f"{name}: VERB_FLAGS is for arguments with flags, and only for them")
        if has:
            yield Wire.QEMU if qemu else Wire.REMOTE, int(number), name, shape, int(known, 0)


def nothing(kinds, shape, flags):
    """Empty arguments of @shape, but for their @flags."""
    out = b""
    for kind, field, many in kinds[shape]:
        if many.startswith("<") or kind.startswith("rpc_maybe_") or kind == "rpc_string":
            out += bytes(4)
        elif kind in kinds:
            out += nothing(kinds, kind, 0)
        elif kind == "rpc_uuid":
            out += bytes(16)
        else:
            out += (flags if field == "flags" else 0).to_bytes(8 if "hyper" in kind else 4, "big")
    return out


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def sasl_folder(folder, mechanisms):
    """@folder, with settings and the passwords of two users."""
    with open(folder + "/libvirt.conf", "w") as f:
        f.write(f"mech_list: {mechanisms}\nsasldb_path: {folder}/db\npwcheck_method: auxprop\n"
                "auxprop_plugin: sasldb\n")
    for user in ("fred", "mallory"):
        subprocess.run(["saslpasswd2", "-p", "-c", "-f", folder + "/db", "-a", "libvirt", user],
                       input="secret\n", text=True, check=True, capture_output=True)
    return folder


class Connection(manage.Case):
    OPTIONS = ("--libvirt-sockets",)

    def test_virsh_asks_who_we_are(self):
        self.assertEqual(self.virsh("hostname"), platform.node())
        self.assertIn("Running hypervisor: QEMU", self.virsh("version"))
        self.assertIn("Running against daemon:", self.virsh("version", "--daemon"))
        self.assertIn("qemu:///system", self.virsh("uri"))
        info = dict(line.split(":") for line in self.virsh("nodeinfo").splitlines())
        self.assertEqual(int(info["CPU(s)"]), os.cpu_count())
        self.assertIn("<os_type>hvm</os_type>", self.virsh("capabilities"))

    def test_python_too(self):
        conn = self.connect()
        self.assertEqual(conn.getType(), "QEMU")
        self.assertEqual(conn.getHostname(), platform.node())
        self.assertTrue(conn.isAlive())
        self.assertTrue(conn.isSecure())

    def test_wrong_names_are_refused(self):
        bad = self.daemon.uri.replace("/system", "/session")
        self.assertIn("unexpected QEMU URI path", self.virsh("hostname", uri=bad, fails=True))

    def test_the_same_place_twice(self):
        p = subprocess.run([manage.LODGED, "--root", self.daemon.root], capture_output=True,
                           text=True, timeout=manage.PATIENCE)
        self.assertEqual(p.returncode, 1)
        self.assertRegex(p.stderr, f"lodged.pid: another lodged .process {self.daemon.process.pid}. is at work here")

    def test_libvirts_own_sockets(self):
        for name in ("libvirt-sock", "libvirt-sock-ro", "virtlodged-sock-ro"):
            uri = f"qemu:///system?socket={self.daemon.root}/run/libvirt/{name}"
            self.assertEqual(self.virsh("hostname", uri=uri), platform.node())

    def test_as_ssh_does_it(self):
        script = os.path.join(self.daemon.root, "there")
        with open(script, "w") as f:
            f.write(f"#!/bin/sh\nexec nc -U {self.daemon.socket}\n")
        os.chmod(script, 0o755)
        uri = f"qemu+ext:///system?command={script}"
        self.assertEqual(self.virsh("hostname", uri=uri), platform.node())

    def test_modes_of_sockets(self):
        self.assertEqual(os.stat(self.daemon.socket).st_mode & 0o777, 0o660)
        self.assertEqual(os.stat(self.daemon.socket + "-ro").st_mode & 0o777, 0o666)

    def test_a_reader_may_only_read(self):
        """All procedures as a read-only client: those that write are refused before anything."""
        wire = Wire(self.daemon.socket + "-ro")
        self.assertEqual(wire.call(OPEN, struct.pack(">II", 0, 0))[0], 0)
        known = {}
        for program, number, name, may, there in table():
            known[program, number] = may, there
            if may == "writer":
                code = wire.call(number, b"", program)
                self.assertEqual(code, (DENIED if there else NO_SUPPORT, None), name)
        self.assertGreater(len(known), 250)
        for program, end in (Wire.REMOTE, 460), (Wire.QEMU, 12):
            for number in range(1, end):
                if not known.get((program, number), (None, False))[1]:
                    self.assertEqual(wire.call(number, b"", program)[0], NO_SUPPORT, number)
        self.assertEqual(wire.call(HOSTNAME)[0], 0)
        wire.close()

    def test_what_is_missing_is_named(self):
        """Each number of libvirt's that is no call here is refused by the name that its users know it by."""
        rows = re.findall(r"(?m)^(QEMU_)?(\w+?)(?:_FLAGS)?\((\d+),", (SCHEMA / "verbs.def").read_text())
        numbers = [(qemu, int(number)) for qemu, _, number in rows]
        self.assertEqual(len(numbers), len(set(numbers)), "a number has two rows")
        self.assertLessEqual({("", n) for n in range(1, 449)} | {("QEMU_", n) for n in range(1, 8)}, set(numbers))
        wire = Wire(self.daemon.socket)
        self.assertEqual(wire.call(OPEN, struct.pack(">II", 0, 0))[0], 0)
        missing = {(qemu, int(number)) for qemu, kind, number in rows if kind != "VERB"}
        for qemu, number in sorted(missing) + [("", 449), ("", 9999), ("QEMU_", 8)]:
            wire.send(number, b"", Wire.QEMU if qemu else Wire.REMOTE)
            answer = wire.receive()
            self.assertEqual(struct.unpack(">I", answer[5][:4])[0], NO_SUPPORT)
            name = rb"vir[A-Z]\w+|the event " if (qemu, number) in missing else b"procedure %d " % number
            self.assertRegex(answer[5], b"not supported by the connection driver: (" + name + b")", number)
        wire.close()

    def test_unknown_flags_are_refused(self):
        """All procedures with flags: each bit that its row does not name is refused before anything is looked at."""
        wire, kinds = Wire(self.daemon.socket), shapes()
        self.assertEqual(wire.call(OPEN, struct.pack(">II", 0, 0))[0], 0)
        there = {(program, number) for program, number, _, _, there in table() if there}
        rows = [row for row in flagged(kinds) if row[:2] in there]
        self.assertGreater(len(rows), 190)
        for program, number, name, shape, known in rows:
            bits = [1 << i for i in range(32) if not known >> i & 1]
            bits += [1 << 40] if ("unsigned hyper", "flags", "") in kinds[shape] else []
            for bit in bits:
                wire.send(number, nothing(kinds, shape, known | bit), program)
                answer = wire.receive()
                self.assertIsNotNone(answer, f"{name}: the connection is lost")
                self.assertEqual(answer[4], 1, f"{name} takes the flag {bit:#x}")
                self.assertIn(f"unsupported flags ({bit:#x}) in function {name}".encode(), answer[5], name)
        wire.close()

    def test_what_clients_need_is_there(self):
        """Every procedure that the reference ranks as core or common, but for events, which are not called."""
        if not REFERENCE.is_file():
            manage.leave_out(self, f"{REFERENCE} is not there")
        ours = {number for program, number, _, _, there in table() if program == Wire.REMOTE and there}
        ranks = re.findall(r"(?m)^\| (\d+) \| ([A-Z0-9_]+) \| (core|common|rare) \|[^|]*\| *([^|]*)", REFERENCE.read_text())
        self.assertEqual(len(ranks), 443)
        missing = {name for number, name, rank, note in ranks
                   if rank != "rare" and "event" not in note and int(number) not in ours}
        self.assertEqual(missing, set())

    def test_open_as_reader(self):
        wire = Wire(self.daemon.socket)
        self.assertEqual(wire.call(OPEN, struct.pack(">II", 0, 1))[0], 0)
        writers = [n for p, n, _, may, there in table() if may == "writer" and there and p == Wire.REMOTE]
        self.assertEqual(wire.call(writers[0])[0], DENIED)
        wire.close()

    def test_names_of_writers_are_no_readers(self):
        """What changes something or shows a secret must not be marked for readers."""
        for _, _, name, may, _ in table():
            verb = name.replace("_set_identity", "")
            changes = any(word in f"_{verb}_" for word in (
                "_set_", "_create_", "_define_xml", "_destroy_", "_undefine_", "_attach_", "_detach_",
                "_migrate_begin", "_migrate_p", "_migrate_f", "_migrate_c", "_save_params", "_restore_", "_pin_vcpu_flags",
                "_shutdown_", "_reboot_", "_reset_", "_resize_", "_wipe_", "_delete_", "_upload_", "_download_",
                "_peek_", "_console_", "_channel_", "_screenshot_", "_send_key", "_secret_get_value"))
            if changes and may != "writer":
                self.fail(f"{name} is open to {may}")

    def test_events(self):
        listeners = [["event", "--all"], ["pool-event", "--event", "refresh"]]
        listeners += [[kind, "--event", "lifecycle"] for kind in ("net-event", "pool-event", "nodedev-event")]
        running = [subprocess.Popen(["virsh", "-c", self.daemon.uri, *words, "--timeout", "1"], text=True,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE) for words in listeners]
        for p in running:
            out, err = p.communicate(timeout=manage.PATIENCE)
            self.assertEqual(err.strip(), "", p.args)
            self.assertIn("timed out", out)
        p = subprocess.Popen(["virsh", "-c", self.daemon.uri, "secret-event",
                              "--event", "lifecycle", "--timeout", "60"],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(p.kill)
        conn = self.connect()

        def heard():  # define again until the listener has registered
            secret = conn.secretDefineXML("<secret ephemeral='yes' private='no'/>")
            secret.undefine()
            return p.poll() is not None
        until(heard, "the event")
        out = p.communicate()[0]
        self.assertRegex(out, "event 'lifecycle' for secret .*: (Defined|Undefined)")

    def test_many_answers_at_once(self):
        """Calls in a row without waiting: each is answered, the worker's too."""
        wire = Wire(self.daemon.socket)
        for _ in range(200):
            wire.send(HOSTNAME)
            wire.send(111, struct.pack(">II", 0, 0))  # on a worker thread
        seen = sorted(wire.receive()[3] for _ in range(400))
        self.assertEqual(seen, list(range(400)))
        wire.close()

    def test_a_client_that_never_reads(self):
        wire = Wire(self.daemon.socket)
        wire.socket.setblocking(False)
        sent = 0
        try:
            while sent < 200000:
                wire.send(7)  # the capabilities, some KiB each
                sent += 1
        except BlockingIOError:
            pass
        self.assertLess(sent, 200000)
        self.assertEqual(self.virsh("hostname"), platform.node())
        with open(f"/proc/{self.daemon.process.pid}/status") as f:
            rss = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
        self.assertLess(rss, 64 << 10)
        wire.close()

    def test_hundreds_of_clients_at_once(self):
        wires = [Wire(self.daemon.socket) for _ in range(900)]
        for wire in wires:
            wire.send(HOSTNAME)
        self.assertTrue(all(wire.receive()[4] == 0 for wire in wires))
        for wire in wires:
            wire.close()


class Impatient(manage.Case):
    OPTIONS = ("-o", "keepalive.interval=1", "-o", "keepalive.count=2", "-o", "keepalive.stall=1")

    def test_who_stops_half_way_is_dropped(self):
        wire = Wire(self.daemon.socket)
        wire.socket.sendall(b"\0\0\0\x40half")
        self.assertIsNone(wire.receive())
        self.assertIn("half-way", self.daemon.log())
        wire.close()

    def test_who_does_not_answer_is_dropped(self):
        silent, alive = Wire(self.daemon.socket), Wire(self.daemon.socket)
        for wire in (silent, alive):
            self.assertEqual(wire.call(FEATURE, struct.pack(">I", 10)), (0, struct.pack(">I", 1)))
        pings = 0
        while pings < 4:  # by then the silent one is gone
            program, procedure, kind, *_ = alive.receive()
            self.assertEqual((program, procedure, kind), (Wire.KEEPALIVE, 1, 2))
            alive.send(2, program=Wire.KEEPALIVE, kind=2)
            pings += 1
        self.assertEqual(alive.call(HOSTNAME)[0], 0)
        got = []
        while (packet := silent.receive()) is not None:
            got.append(packet[0])
        self.assertEqual(got, [Wire.KEEPALIVE] * 2)
        alive.close()
        silent.close()


class Limits(unittest.TestCase):
    """Each limit lets through as much as it says, and nothing more."""

    def hung_up(self, wire):
        try:
            return wire.receive() is None
        except ConnectionResetError:
            return True

    def is_let_in(self, connect):
        """Whether the daemon answers on one more connection; it is closed again if it does not."""
        wire = connect()
        with contextlib.suppress(BrokenPipeError):
            wire.send(HOSTNAME)
        with contextlib.suppress(ConnectionResetError):
            if wire.receive():
                return wire
        wire.close()
        return None

    def test_clients(self):
        with Daemon("-o", "limits.clients=4") as daemon:
            connect = lambda: Wire(daemon.socket)
            wires = [self.is_let_in(connect) for _ in range(4)]
            self.assertTrue(all(wires))
            self.assertIsNone(self.is_let_in(connect))
            self.assertIsNone(self.is_let_in(lambda: Wire(daemon.socket + "-ro")))
            self.assertEqual(daemon.log().count("turned away: there are 4 already"), 2)
            self.assertTrue(all(wire.call(HOSTNAME)[0] == 0 for wire in wires))
            wires.pop().close()
            wires.append(until(lambda: self.is_let_in(connect), "there is a place again"))
            for wire in wires:
                wire.close()

    def test_strangers(self):
        """Who has not said who he is takes no place from those who have."""
        port = free_port()
        with tempfile.TemporaryDirectory(prefix="lodge-sasl-") as folder, Daemon(
                "-o", f"tcp.listen=127.0.0.1:{port}", "-o", "limits.anonymous=3", "-o", "keepalive.stall=100000",
                "-o", "sasl.folder=" + sasl_folder(folder, "digest-md5")) as daemon:
            def connect():
                return Wire(socket.create_connection(("127.0.0.1", port)))
            strangers = [self.is_let_in(connect) for _ in range(2)]
            self.assertTrue(all(strangers))
            import libvirt

            def login(wanted, _):
                for w in wanted:
                    w[4] = "fred" if w[0] == libvirt.VIR_CRED_AUTHNAME else "secret"
                return 0
            asks = [[libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE], login, None]
            friend = libvirt.openAuth(f"qemu+tcp://127.0.0.1:{port}/system", asks)
            self.assertEqual(friend.getHostname(), platform.node())
            strangers.append(self.is_let_in(connect))  # the friend is none of them any more
            self.assertTrue(strangers[2])
            self.assertIsNone(self.is_let_in(connect))
            self.assertEqual(daemon.log().count("turned away"), 1)
            with self.assertRaises(libvirt.libvirtError):
                libvirt.openAuth(f"qemu+tcp://127.0.0.1:{port}/system", asks)
            self.assertEqual(daemon.virsh("hostname"), platform.node())  # the UNIX socket has no strangers
            self.assertEqual(friend.getHostname(), platform.node())
            strangers.pop().close()
            strangers.append(until(lambda: self.is_let_in(connect), "there is a place again"))
            friend.close()
            for wire in strangers:
                wire.close()

    def test_calls_at_a_time(self):
        """Of five calls that wait none keeps others from their answers, but the sixth waits, with all behind it."""
        with Daemon("-o", "keepalive.interval=0", env={"LODGED_PATIENCE": "1000"}) as daemon:
            folder = f"{daemon.root}/dead"
            os.mkdir(folder)
            server = manage.dead_folder(self, folder)
            restore = struct.pack(">I", len(f"{folder}/x")) + f"{folder}/x".encode()
            restore += bytes(-len(restore) % 4)
            for slow in (4, 5):
                wire, other = Wire(daemon.socket), Wire(daemon.socket)
                for _ in range(slow):
                    wire.send(RESTORE, restore)
                wire.send(HOSTNAME)
                self.assertEqual(other.call(HOSTNAME)[0], 0)
                if slow == 4:
                    self.assertEqual(wire.receive()[3], slow)  # the quick one
                else:
                    for _ in range(20):  # of one that is read the answer would have come long ago
                        self.assertEqual(other.call(HOSTNAME)[0], 0)
                    self.assertEqual(select.select([wire.socket], [], [], 0)[0], [])
                    server.close()
                    serials = [wire.receive()[3] for _ in range(slow + 1)]
                    self.assertEqual(sorted(serials), list(range(slow + 1)))
                    self.assertNotEqual(serials[0], slow)
                wire.close()
                other.close()

    def test_length_of_a_message(self):
        """The longest is answered; one that says it is longer is not even waited for."""
        longest, before = 32 << 20, 256 << 10
        port = free_port()
        with tempfile.TemporaryDirectory(prefix="lodge-sasl-") as folder, Daemon(
                "-o", f"tcp.listen=127.0.0.1:{port}", "-o", "keepalive.stall=100000",
                "-o", "sasl.folder=" + sasl_folder(folder, "digest-md5")) as daemon:
            for connect, limit, code in ((lambda: Wire(daemon.socket), longest, NO_SUPPORT),
                                         (lambda: Wire(socket.create_connection(("127.0.0.1", port))), before, AUTH_FAILED)):
                wire = connect()
                self.assertEqual(wire.call(9999, bytes(limit - 28))[0], code)
                wire.socket.sendall(struct.pack(">IIIIIII", limit + 4, Wire.REMOTE, 1, HOSTNAME, 0, 0, 0))
                self.assertTrue(self.hung_up(wire))
                wire.close()
            self.assertEqual(daemon.log().count("malformed packet"), 2)


class Life(unittest.TestCase):
    def test_leaves_when_nobody_comes(self):
        with Daemon("--timeout", "1") as daemon:
            self.assertEqual(daemon.process.wait(manage.PATIENCE), 0)
            self.assertFalse(os.path.exists(daemon.socket))

    def test_settings(self):
        root = tempfile.mkdtemp(prefix="lodge-d-")
        self.addCleanup(shutil.rmtree, root)
        os.makedirs(root + "/etc")
        group = grp.getgrgid(2).gr_name
        with open(root + "/etc/lodged.conf", "w") as f:
            f.write(f"[socket]\ngroup = {group}\nmode = 0606\n")
        with Daemon(root=root) as daemon:
            there = os.stat(daemon.socket)
            self.assertEqual((there.st_gid, there.st_mode & 0o777), (2, 0o606))
        with open(root + "/etc/lodged.conf", "a") as f:
            f.write("colour = red\n")
        with self.assertRaisesRegex(AssertionError, 'no setting "socket.colour"'):
            Daemon(root=root)
        os.unlink(root + "/etc/lodged.conf")
        for wrong in ("tcp.listen=nowhere", "x=y", "socket.group=nobody-of-this-name"):
            with self.assertRaises(AssertionError):
                Daemon("-o", wrong, root=root)

    def test_session_of_a_user(self):
        """lodge:///session of somebody without privileges, by its plain name."""
        with tempfile.TemporaryDirectory(prefix="lodge-d-") as home:
            os.chmod(home, 0o755)
            program = shutil.copy(manage.LODGED, home)  # the build folder may be root's alone
            runtime = home + "/run"
            os.mkdir(runtime, 0o700)
            become = []
            if os.geteuid() == 0:
                os.chown(runtime, 65534, 65534)
                become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            env = {**os.environ, "XDG_RUNTIME_DIR": runtime, "XDG_CONFIG_HOME": runtime, "HOME": runtime,
                   "XDG_DATA_HOME": runtime, "XDG_CACHE_HOME": runtime, "LIBVIRT_AUTOSTART": "0"}
            p = subprocess.Popen([*become, program], env=env, stderr=subprocess.PIPE, text=True)
            self.addCleanup(p.kill)

            def ask():
                return subprocess.run([*become, "virsh", "-c", "lodge:///session", "hostname"], env=env,
                                      capture_output=True, text=True).stdout or p.poll() is not None
            self.assertEqual(until(ask, "answer of the session"), platform.node() + "\n\n")
            p.terminate()
            self.assertEqual(p.wait(manage.PATIENCE), 0, p.stderr.read())
            p.stderr.close()

    def test_sockets_from_systemd(self):
        with tempfile.TemporaryDirectory(prefix="lodge-d-") as root:
            os.makedirs(root + "/run/libvirt")
            made = []
            for name in ("a", "a-ro"):
                s = socket.socket(socket.AF_UNIX)
                s.bind(f"{root}/{name}")
                s.listen()
                made.append(s)
            notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            notify.bind(root + "/notify")
            notify.settimeout(manage.PATIENCE)

            def pass_on():
                os.dup2(made[0].fileno(), 53)
                os.dup2(made[1].fileno(), 54)
                os.dup2(53, 3)
                os.dup2(54, 4)
                os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", NOTIFY_SOCKET=root + "/notify")
                os.execv(manage.LODGED, [manage.LODGED, "--root", root])
            pid = os.fork()
            if pid == 0:
                try:
                    pass_on()
                finally:
                    os._exit(99)
            self.assertEqual(notify.recv(100), b"READY=1")
            wires = [Wire(root + "/a"), Wire(root + "/a-ro")]
            self.assertEqual(wires[0].call(HOSTNAME)[0], 0)
            writer = next(n for p, n, _, may, there in table() if may == "writer" and there)
            self.assertEqual(wires[1].call(writer)[0], DENIED)
            os.kill(pid, 15)
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
            self.assertTrue(os.path.exists(root + "/a"))  # systemd's, not ours
            for s in (*made, notify, *wires):
                s.close()


def certificate(folder, name, template, ca=None):
    key, cert, text = (f"{folder}/{name}{end}" for end in ("key.pem", "cert.pem", ".tmpl"))
    with open(text, "w") as f:
        f.write(template)
    run = lambda *a: subprocess.run(["certtool", *a], check=True, capture_output=True)
    if os.path.exists(folder + "/key.pem"):  # one for all: making them takes longest
        shutil.copy(folder + "/key.pem", key)
    else:
        run("--generate-privkey", "--key-type", "rsa", "--bits", "2048", "--outfile", key)
        shutil.copy(key, folder + "/key.pem")
    how = ["--generate-self-signed"] if ca is None else [
        "--generate-certificate", "--load-ca-certificate", f"{folder}/{ca}cert.pem",
        "--load-ca-privkey", f"{folder}/{ca}key.pem"]
    run(*how, "--load-privkey", key, "--template", text, "--outfile", cert)


class Network(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="lodge-tls-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        certificate(cls.folder, "ca", "cn = CA\nca\ncert_signing_key\n")
        certificate(cls.folder, "other", "cn = Other\nca\ncert_signing_key\n")
        certificate(cls.folder, "server", "cn = localhost\ndns_name = localhost\ntls_www_server\n"
                    "encryption_key\nsigning_key\n", "ca")
        client = "cn = {}\norganization = Lodge\ntls_www_client\nencryption_key\nsigning_key\n"
        certificate(cls.folder, "friend", client.format("friend"), "ca")
        certificate(cls.folder, "stranger", client.format("stranger"), "ca")
        certificate(cls.folder, "forged", client.format("friend"), "other")
        certificate(cls.folder, "gone", client.format("friend of old"), "ca")
        pathlib.Path(cls.folder, "crl.tmpl").write_text("crl_next_update = 365\ncrl_number = 1\n")
        subprocess.run(["certtool", "--generate-crl", *(f"--load-{word}={cls.folder}/{file}.pem" for word, file in (
            ("ca-certificate", "cacert"), ("ca-privkey", "cakey"), ("certificate", "gonecert"))),
            f"--template={cls.folder}/crl.tmpl", f"--outfile={cls.folder}/crl.pem"], check=True, capture_output=True)

    def pki(self, client):
        folder = f"{self.folder}/pki-{client}"
        os.makedirs(folder, exist_ok=True)
        for there, here in (("cacert", "cacert"), ("clientcert", client + "cert"), ("clientkey", client + "key")):
            shutil.copy(f"{self.folder}/{here}.pem", f"{folder}/{there}.pem")
        return folder

    def test_tls(self):
        port, f = free_port(), self.folder
        options = ["-o", f"tls.listen=127.0.0.1:{port}", "-o", f"tls.ca={f}/cacert.pem",
                   "-o", f"tls.certificate={f}/servercert.pem", "-o", f"tls.key={f}/serverkey.pem",
                   "-o", f"tls.crl={f}/crl.pem"]
        root = tempfile.mkdtemp(prefix="lodge-d-", dir=f)
        os.makedirs(root + "/etc")
        with open(root + "/etc/lodged.conf", "w") as conf:
            conf.write("[tls]\nallow = *CN=friend*;*CN=nobody*\n")
        with Daemon(*options, root=root) as daemon:
            uri = f"qemu+tls://localhost:{port}/system?pkipath=" + self.pki("friend")
            self.assertEqual(daemon.virsh("hostname", uri=uri), platform.node())
            import libvirt
            conn = libvirt.open(uri)
            self.assertTrue(conn.isSecure())
            self.assertGreater(len(conn.getCapabilities()), 1000)
            for _ in range(200):
                conn.getInfo()
            idle = socket.create_connection(("127.0.0.1", port))  # no handshake at all
            uri = f"qemu+tls://localhost:{port}/system?pkipath=" + self.pki("stranger")
            daemon.virsh("hostname", uri=uri, fails=True)
            self.assertIn("not on the list", daemon.log())
            gone = f"qemu+tls://localhost:{port}/system?pkipath=" + self.pki("gone")
            daemon.virsh("hostname", uri=gone, fails=True)
            self.assertIn("the client's certificate is revoked", daemon.log())
            # libvirt's client would not even show this one, nor come without any.
            for client in ("forged", None):
                context = ssl.create_default_context(cafile=f"{f}/cacert.pem")
                if client:
                    context.load_cert_chain(f"{f}/{client}cert.pem", f"{f}/{client}key.pem")
                with self.assertRaises((ssl.SSLError, ConnectionError)):
                    with context.wrap_socket(socket.create_connection(("127.0.0.1", port)),
                                             server_hostname="localhost") as s:
                        if s.recv(1) == b"":
                            raise ConnectionError
            self.assertIn("not trusted", daemon.log())
            conf = daemon.root + "/etc/lodged.conf"
            for text, word in (("[tls]\nallow = *CN=stranger*\n", "settings read again"), ("[tls\n", "lodged.conf")):
                at = len(daemon.log())
                os.makedirs(os.path.dirname(conf), exist_ok=True)
                with open(conf, "w") as f2:
                    f2.write(text)
                daemon.process.send_signal(signal.SIGHUP)
                until(lambda: word in daemon.log()[at:], "the daemon's answer to SIGHUP")
            daemon.virsh("hostname", uri=uri)  # the stranger, who is on the list now
            conn.getInfo()
            conn.close()
            idle.close()
        with self.assertRaisesRegex(AssertionError, "nowhere"):
            Daemon("-o", f"tls.listen=127.0.0.1:{port}", "-o", "tls.ca=/nowhere.pem")
        with self.assertRaisesRegex(AssertionError, "missing.pem"):
            Daemon(*options, "-o", "tls.crl=/missing.pem")
        with Daemon(*options, "-o", "tls.crl=", "-o", "tls.allow=*CN=friend*") as daemon:  # only the list keeps that one out
            daemon.virsh("hostname", uri=gone)

    def virsh_as(self, daemon, user, password, uri):
        auth = f"{self.folder}/auth.conf"
        with open(auth, "w") as f:
            f.write(f"[credentials-x]\nauthname={user}\npassword={password}\n[auth-libvirt-default]\ncredentials=x\n")
        return daemon.run_virsh("capabilities", uri=f"{uri}{'&' if '?' in uri else '?'}authfile={auth}")

    def test_tcp_with_sasl(self):
        port = free_port()
        with Daemon("-o", f"tcp.listen=127.0.0.1:{port}", "-o", "sasl.allow=fred*",
                    "-o", "sasl.folder=" + sasl_folder(tempfile.mkdtemp(prefix="lodge-sasl-", dir=self.folder), "digest-md5")) as daemon:
            uri = f"qemu+tcp://127.0.0.1:{port}/system"
            p = self.virsh_as(daemon, "fred", "secret", uri)
            self.assertIn("</capabilities>", p.stdout, p.stderr + daemon.log())
            for user, password in (("fred", "wrong"), ("mallory", "secret"), ("nobody", "secret")):
                p = self.virsh_as(daemon, user, password, uri)
                self.assertIn("authentication failed", p.stderr, p.stdout)
            # Nothing works before.
            wire = Wire(socket.create_connection(("127.0.0.1", port)))
            self.assertEqual(wire.call(HOSTNAME)[0], AUTH_FAILED)
            self.assertEqual(wire.call(OPEN, struct.pack(">II", 0, 0))[0], AUTH_FAILED)
            self.assertEqual(wire.call(70)[0], AUTH_FAILED)  # polkit was not asked for
            self.assertEqual(wire.call(68, struct.pack(">I4sII", 4, b"NONE", 1, 0))[0], AUTH_FAILED)
            wire.socket.sendall(struct.pack(">I", 1 << 20))  # more than a stranger may send
            self.assertIsNone(wire.receive())
            wire.close()

    def test_tls_with_sasl(self):
        port, f = free_port(), self.folder
        with Daemon("-o", f"tls.listen=127.0.0.1:{port}", "-o", f"tls.ca={f}/cacert.pem",
                    "-o", f"tls.certificate={f}/servercert.pem", "-o", f"tls.key={f}/serverkey.pem",
                    "-o", "tls.allow=*", "-o", "tls.sasl=yes",
                    "-o", "sasl.folder=" + sasl_folder(tempfile.mkdtemp(prefix="lodge-sasl-", dir=self.folder), "scram-sha-256")) as daemon:
            uri = f"qemu+tls://localhost:{port}/system?pkipath=" + self.pki("friend")
            p = self.virsh_as(daemon, "fred", "secret", uri)
            self.assertIn("</capabilities>", p.stdout, p.stderr + daemon.log())
            p = self.virsh_as(daemon, "fred", "wrong", uri)
            self.assertIn("authentication failed", p.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
