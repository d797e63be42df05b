#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What hangs delays nobody but who asked for it, and that one until a time-out: a stopped machine,
files of a dead server, a client that stops in the middle."""
import contextlib
import errno
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import unittest
import unittest.mock

import libvirt
import libvirt_qemu

import manage

TIMED_OUT = libvirt.VIR_ERR_OPERATION_TIMEOUT
AT_LEAST = 10  # answers to others while one waits some seconds: even a very busy host gives more
MACHINE = """<domain type='qemu'><name>{0}</name><memory unit='MiB'>32</memory>
<os><type machine='pc'>hvm</type></os><devices>{1}</devices></domain>"""

AGENT = """<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"""


def disk(path):
    return f"<disk type='file'><source file='{path}'/><target dev='vda' bus='virtio'/></disk>"


class Call(threading.Thread):
    """One call on a thread of its own; .code is libvirt's error number, 0 if it went well."""

    def __init__(self, call, *args):
        super().__init__()
        self.what, self.args, self.code, self.error = call, args, None, None
        self.start()

    def run(self):
        try:
            self.what(*self.args)
            self.code = 0
        except libvirt.libvirtError as e:
            self.code, self.error = e.get_error_code(), str(e)


class Sick(unittest.TestCase):
    def begin(self, *options, **env):
        self.daemon = manage.Daemon(*options, env=env)
        self.addCleanup(self.daemon.close)

    def connect(self):
        conn = self.daemon.connect()
        self.addCleanup(conn.close)
        return conn

    def others_meanwhile(self, call, *names):
        """How many calls of another client are answered before @call comes back."""
        conn, answers = self.connect(), 0
        while call.is_alive():
            conn.getHostname()
            for dom in conn.listAllDomains():
                dom.state()
                dom.info()
                answers += 3
            conn.defineXML(MACHINE.format("other", "")).undefine()
            conn.listAllStoragePools()
            answers += 4
        call.join()
        return answers

    def times_out(self, call, *args):
        waiting = Call(call, *args)
        answers = self.others_meanwhile(waiting)
        self.assertEqual(waiting.code, TIMED_OUT, waiting.error)
        self.assertGreater(answers, AT_LEAST)


class Machines(Sick):
    def test_an_agent_that_says_nothing(self):
        """Who asks waits for as long as the machine was told, though others wait longer."""
        self.begin()
        conn, flag = self.connect(), libvirt.VIR_DOMAIN_GET_HOSTNAME_AGENT
        waiting = []
        for name, seconds in (("patient", 100000), ("hasty", 1)):
            dom = conn.createXML(MACHINE.format(name, AGENT))
            self.addCleanup(self.daemon.run_virsh, "destroy", name)
            dom.agentSetResponseTimeout(seconds)
            waiting.append(Call(self.connect().lookupByName(name).hostname, flag))
        waiting[1].join()
        self.assertEqual(waiting[1].code, libvirt.VIR_ERR_AGENT_UNRESPONSIVE, waiting[1].error)
        self.assertTrue(waiting[0].is_alive())
        conn.lookupByName("patient").destroy()
        waiting[0].join()
        self.assertTrue(waiting[0].code)

    def test_stopped(self):
        self.begin()
        conn = self.connect()
        conn.createXML(MACHINE.format("hangs", AGENT)).name()
        pid, = self.daemon.machines()
        os.kill(pid, signal.SIGSTOP)
        # Another lodged finds it and starts all the same.
        self.daemon.stop()
        self.daemon.env = {"LODGED_PATIENCE": "2"}
        self.daemon.start()
        conn = self.connect()
        hangs = conn.lookupByName("hangs")
        self.times_out(hangs.suspend)
        self.times_out(hangs.screenshot, conn.newStream(), 0)
        self.assertRegex(self.daemon.virsh("domcontrol", "hangs"), r"^occupied \([1-9]\d*\.\d+s\)$")
        self.assertRegex(subprocess.run([os.environ["LODGE"], "-c", self.daemon.uri, "domcontrol", "hangs"],
                                        capture_output=True, text=True, check=True).stdout, r"^occupied \(\d+\.\d+s\)\n$")
        self.assertEqual(hangs.state()[0], libvirt.VIR_DOMAIN_RUNNING)
        self.assertEqual(hangs.info()[1], 32 << 10)
        conn.getAllDomainStats()  # what is known without it
        for _ in range(6):  # more than its socket has room for
            with self.assertRaises(libvirt.libvirtError):
                libvirt_qemu.qemuAgentCommand(hangs, '{"execute": "guest-ping"}', 1, 0)
        os.kill(pid, signal.SIGCONT)
        manage.until(lambda: self.daemon.virsh("domcontrol", "hangs") == "ok", "all that was asked is answered")
        os.kill(pid, signal.SIGSTOP)
        hangs.destroy()
        self.assertEqual(self.daemon.machines(), [])

    def restarted_while_stopped(self, pid):
        """Another lodged, which finds a machine that says nothing, and gives up on that."""
        os.kill(pid, signal.SIGSTOP)
        self.daemon.stop()
        self.daemon.env = {"LODGED_PATIENCE": "2"}
        given_up = "its monitor does not answer"
        before = self.daemon.log().count(given_up)
        self.daemon.start()
        manage.until(lambda: self.daemon.log().count(given_up) > before, "it is given up")
        return self.connect()

    def test_jobs_of_a_stopped_one(self):
        """A lodged that was started meanwhile knows of them when it goes on."""
        self.begin()
        images = {name: pathlib.Path(self.daemon.root, name) for name in ("disk", "copy")}
        for image in images.values():
            image.write_bytes(os.urandom(1 << 20))
            image.chmod(0o666)
        dom = self.connect().createXML(MACHINE.format("copied", disk(images["disk"])))
        dom.blockCopy("vda", f"<disk type='file'><source file='{images['copy']}'/><driver type='raw'/></disk>",
                      {}, libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)
        manage.until(lambda: dom.blockJobInfo("vda")["cur"] == dom.blockJobInfo("vda")["end"], "both are the same")
        pid, = self.daemon.machines()
        conn = self.restarted_while_stopped(pid)
        dom = conn.lookupByName("copied")
        self.times_out(dom.blockJobInfo, "vda")
        with self.assertRaisesRegex(libvirt.libvirtError, "does not tell what goes on in it"):
            dom.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
        self.times_out(dom.backupGetXMLDesc)
        os.kill(pid, signal.SIGCONT)
        manage.until(lambda: "answers again" in self.daemon.log(), "all is known")
        self.assertEqual(dom.blockJobInfo("vda")["type"], libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY)
        self.assertIn("ready='yes'", dom.XMLDesc())
        dom.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
        self.assertIn(f"<source file='{images['copy']}'", dom.XMLDesc())
        self.assertNotIn("<mirror", dom.XMLDesc())
        # One that ended while nobody could know, and a backup that goes on.
        dom.blockCopy("vda", f"<disk type='file'><source file='{images['disk']}'/><driver type='raw'/></disk>",
                      {}, libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)
        manage.until(lambda: dom.blockJobInfo("vda")["cur"] == dom.blockJobInfo("vda")["end"], "both are the same")
        self.daemon.stop()
        self.ask(dom, {"execute": "block-job-cancel", "arguments": {"device": "job-virtio-disk0"}})
        conn = self.restarted_while_stopped(pid)
        dom = conn.lookupByName("copied")
        self.assertIn("<mirror", dom.XMLDesc())
        os.kill(pid, signal.SIGCONT)
        manage.until(lambda: "<mirror" not in dom.XMLDesc(), "its end is known")
        self.assertEqual(dom.blockJobInfo("vda"), {})
        dom.backupBegin(f"<domainbackup mode='pull'><server transport='unix' socket='{self.daemon.root}/nbd'/></domainbackup>", None)
        conn = self.restarted_while_stopped(pid)
        dom = conn.lookupByName("copied")
        os.kill(pid, signal.SIGCONT)
        manage.until(lambda: self.daemon.run_virsh("backup-dumpxml", "copied").returncode == 0, "the backup is known")
        dom.abortJob()
        manage.until(lambda: self.daemon.run_virsh("backup-dumpxml", "copied").returncode, "and ended")
        dom.destroy()

    def ask(self, dom, *commands):
        """By the machine's own monitor, as no lodged would."""
        wire = socket.socket(socket.AF_UNIX)
        wire.settimeout(manage.PATIENCE)
        wire.connect(f"{self.daemon.root}/run/qemu/{dom.UUIDString()}/qmp")
        with contextlib.closing(wire), wire.makefile("rw") as lines:
            for command in ({"execute": "qmp_capabilities"}, *commands):
                lines.write(json.dumps({**command, "id": "test"}) + "\n")
                lines.flush()
                answer = {}
                while answer.get("id") != "test":
                    answer = json.loads(lines.readline())
                self.assertIn("return", answer)

    def test_states_of_a_stopped_one(self):
        """What it came to while nobody listened, and what follows from that."""
        self.begin()
        conn = self.connect()
        dom = conn.createXML(MACHINE.format("stops", ""))
        pid, = self.daemon.machines()
        self.daemon.stop()
        self.ask(dom, {"execute": "stop"})
        self.daemon.start()
        conn = self.connect()
        dom = conn.lookupByName("stops")
        manage.until(lambda: dom.state()[0] == libvirt.VIR_DOMAIN_PAUSED, "it is asked")
        dom.resume()
        self.daemon.stop()
        self.ask(dom, {"execute": "stop"})
        self.daemon.start()
        conn = self.restarted_while_stopped(pid)
        dom = conn.lookupByName("stops")
        os.kill(pid, signal.SIGCONT)
        manage.until(lambda: dom.state()[0] == libvirt.VIR_DOMAIN_PAUSED, "it answers")
        dom.resume()
        self.assertEqual(dom.state()[0], libvirt.VIR_DOMAIN_RUNNING)
        dom.destroy()

    def test_many_who_ask_a_stopped_one(self):
        """All threads that are for everybody wait for it: who asks for another one has one all the same."""
        self.begin()
        path = pathlib.Path(self.daemon.root, "disk")
        path.write_bytes(bytes(1 << 20))
        path.chmod(0o666)
        conn = self.connect()
        conn.createXML(MACHINE.format("sick", disk(path)))
        pid, = self.daemon.machines()
        os.kill(pid, signal.SIGSTOP)
        well = conn.createXML(MACHINE.format("well", ""))
        lookups = [self.daemon.connect(read_only=True).lookupByName("sick") for _ in range(30)]
        calls = [Call(dom.blockStats, "vda") for dom in lookups for _ in range(5)]
        status = pathlib.Path(f"/proc/{self.daemon.process.pid}/status")
        manage.until(lambda: int(re.search(r"Threads:\s+(\d+)", status.read_text())[1]) > 128, "all wait")
        well.suspend()
        well.resume()
        self.assertTrue(all(call.is_alive() for call in calls))
        os.kill(pid, signal.SIGKILL)
        for call in calls:
            call.join()
            self.assertTrue(call.code)
        manage.until(lambda: [dom.name() for dom in conn.listAllDomains()] == ["well"], "it is gone")
        well.destroy()

    def test_a_pipe_is_no_core(self):
        """Nobody waits for who reads it, and it is none either when there is one."""
        self.begin()
        pipe, conn = f"{self.daemon.root}/pipe", self.connect()
        os.mkfifo(pipe)
        dom = conn.createXML(MACHINE.format("well", ""))
        for flags in (0, libvirt.VIR_DUMP_MEMORY_ONLY):
            with self.assertRaisesRegex(libvirt.libvirtError, "neither a regular file nor a block device"):
                dom.coreDump(pipe, flags)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        with self.assertRaisesRegex(libvirt.libvirtError, "neither a regular file nor a block device"):
            dom.coreDump(pipe, 0)
        os.close(reader)
        self.assertEqual(dom.state()[0], libvirt.VIR_DOMAIN_RUNNING)
        dom.destroy()

    def test_a_server_that_tells_what_files_look_like(self):
        """All that the kernel remembers is told, and whatever is done to a file waits for ever."""
        self.begin()
        folder, conn = f"{self.daemon.root}/half", self.connect()
        os.mkdir(folder)
        names = ["core", "state", "hot", "shot", "nvram", "gone", "larger", "bytes", "peeked"]
        half = manage.dead_folder(self, folder, {name: bytes(1 << 20) for name in names})
        path = dict((name, f"{folder}/{name}") for name in names)
        local = pathlib.Path(self.daemon.root, "local")
        local.write_bytes(bytes(1 << 20))
        local.chmod(0o666)
        machines = {"dumped": "", "plugged": "", "shot": disk(local)}
        for name, disks in machines.items():
            conn.createXML(MACHINE.format(name, disks))
        conn.defineXML(MACHINE.format("firm", "").replace(
            "</type>", f"</type><loader readonly='yes' type='pflash'>/nowhere/code</loader><nvram>{path['nvram']}</nvram>"))
        conn.defineXML(MACHINE.format("peeked", disk(path["peeked"])))
        conn.storagePoolCreateXML(f"<pool type='dir'><name>p</name><target><path>{folder}</path></target></pool>")
        self.daemon.stop()
        self.daemon.env = {"LODGED_PATIENCE": "2"}  # from now on: a start may take longer on a busy host
        self.daemon.start()
        conn, other = self.connect(), self.connect()  # one makes a few calls at a time
        dumped, plugged, shot, firm, peeked = (other.lookupByName(name) for name in (*machines, "firm", "peeked"))
        pool = conn.storagePoolLookupByName("p")
        volume = manage.until(lambda: {vol.name(): vol for vol in pool.listAllVolumes()}, "the pool is looked at")
        for name in names:
            os.stat(path[name])
        half.server.fall_silent()
        image = f"""<domainsnapshot><disks><disk name='vda' snapshot='external'><source file='{path["shot"]}'/></disk>
            </disks></domainsnapshot>"""
        calls = {
            "dump": (dumped.coreDump, path["core"], 0),
            "restore": (conn.restore, path["state"]),
            "attach": (plugged.attachDevice, disk(path["hot"]).replace("vda", "vdb")),
            "snapshot": (shot.snapshotCreateXML, image, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY |
                         libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT),
            "undefine": (firm.undefineFlags, libvirt.VIR_DOMAIN_UNDEFINE_NVRAM),
            "peek": (peeked.blockPeek, path["peeked"], 0, 512),
            "vol-create": (pool.createXML, "<volume><name>new</name><capacity>1000</capacity></volume>"),
            "vol-delete": (volume["gone"].delete,),
            "vol-resize": (volume["larger"].resize, 2 << 20),
            "vol-download": (volume["bytes"].download, conn.newStream(), 0, 0),
        }
        waiting = {name: Call(*call) for name, call in calls.items()}
        answers = sum(self.others_meanwhile(call) for call in waiting.values())
        self.assertEqual({name: (call.code, call.error) for name, call in waiting.items() if call.code != TIMED_OUT}, {})
        self.assertGreater(answers, AT_LEAST)
        half.close()
        for dom in (dumped, plugged, shot):
            dom.destroy()


class Late(Sick):
    """A server that falls silent, and answers when nobody waits any more."""

    def begin_with(self, files):
        self.begin(LODGED_PATIENCE="2")
        folder = f"{self.daemon.root}/late"
        os.mkdir(folder)
        self.server = manage.dead_folder(self, folder, files).server
        self.conn = self.connect()
        return folder

    def volumes(self, folder):
        pool = self.conn.storagePoolCreateXML(f"<pool type='dir'><name>p</name><target><path>{folder}</path></target></pool>")
        return pool, {vol.name(): vol for vol in pool.listAllVolumes()}

    def test_streams(self):
        """In the middle of reading, of writing, and when all is to be on the disk."""
        size = 16 << 20
        folder = self.begin_with({"read": bytes(size), "written": b"", "flushed": b""})
        pool, volumes = self.volumes(folder)
        lazy = [self.connect() for _ in range(3)]
        streams = [conn.newStream() for conn in lazy]
        own = dict(zip(volumes, (conn.storagePoolLookupByName("p") for conn in lazy)))
        own = {name: pool_of.storageVolLookupByName(name) for name, pool_of in own.items()}
        by_name = dict(zip(volumes, streams))
        own["read"].download(by_name["read"], 0, 0)
        own["written"].upload(by_name["written"], 0, 0)
        own["flushed"].upload(by_name["flushed"], 0, 0)
        by_name["flushed"].send(b"all")
        manage.until(lambda: bytes(self.server.bytes[self.server.names["flushed"]]) == b"all", "it is written")
        self.server.fall_silent()

        def read():
            while by_name["read"].recv(1 << 20):
                pass

        def write():
            for _ in range(size >> 18):
                by_name["written"].send(bytes(1 << 18))
            by_name["written"].finish()
        waiting = [Call(read), Call(write), Call(by_name["flushed"].finish)]
        answers = sum(self.others_meanwhile(call) for call in waiting)
        self.assertEqual([(call.code, call.error) for call in waiting if call.code != TIMED_OUT], [])
        self.assertGreater(answers, AT_LEAST)
        self.server.speak()
        for name in volumes:
            manage.until(lambda name=name: self.daemon.run_virsh("vol-delete", name, "p").returncode == 0, "it is free")
        pool.destroy()

    def test_states(self):
        """A disk that is full while a machine is saved, and one that falls silent while it is restored."""
        folder = self.begin_with({"other": b""})
        dom = self.conn.createXML(MACHINE.format("saved", ""))
        self.server.write, write = lambda node, body: errno.ENOSPC, self.server.write
        with self.assertRaisesRegex(libvirt.libvirtError, "No space left on device"):
            dom.save(f"{folder}/state")
        self.assertEqual((dom.state()[0], list(self.server.names)), (libvirt.VIR_DOMAIN_RUNNING, ["other"]))
        self.server.write = write
        dom.save(f"{folder}/state")  # at once: nothing of the first is still under way
        answer = self.server.answer

        def reads(op, node, body):
            if op == self.server.READ and struct.unpack_from("<Q", body, 8)[0] > 64 << 10:
                self.server.fall_silent()
            return answer(op, node, body)
        self.server.answer = reads
        self.times_out(self.conn.restore, f"{folder}/state")
        self.server.answer = answer
        self.server.speak()
        manage.until(lambda: not self.conn.listAllDomains(), "the half one is gone")
        self.conn.restore(f"{folder}/state")
        dom = self.conn.lookupByName("saved")
        self.assertEqual(dom.state()[0], libvirt.VIR_DOMAIN_RUNNING)
        dom.destroy()

    def test_what_is_done_late_is_undone(self):
        folder = self.begin_with({"hot": bytes(1 << 20)})
        dom = self.conn.createXML(MACHINE.format("well", ""))
        names, hot = self.server.names, self.server.names["hot"]
        self.server.fall_silent()
        self.times_out(dom.attachDevice, disk(f"{folder}/hot"))
        self.times_out(dom.coreDump, f"{folder}/core", 0)
        self.assertNotIn("core", names)
        made = []
        self.server.make, make = lambda body: made.append(body) or make(body), self.server.make
        self.server.speak()
        manage.until(lambda: made and "core" not in names, "the empty core is gone")
        if os.geteuid() == 0:
            manage.until(lambda: len(self.server.owners.get(hot, ())) == 2, "the disk is given back")
            self.assertEqual(self.server.owners[hot][1], 0)
            self.assertNotEqual(self.server.owners[hot][0], 0)
        # A state that comes to have its name when its machine runs on must not be restored.
        manage.until(lambda: dom.state()[0] == libvirt.VIR_DOMAIN_RUNNING, "it goes on after its core")
        renamed = []
        self.server.rename, rename = lambda body: renamed.append(body) or rename(body), self.server.rename
        self.server.fall_silent(self.server.RENAME, self.server.RENAME2, self.server.STATFS)
        self.times_out(dom.save, f"{folder}/state")
        self.assertEqual(dom.state()[0], libvirt.VIR_DOMAIN_RUNNING)
        self.server.speak()
        manage.until(lambda: renamed and "state" not in names, "the state that nobody has saved is gone")
        manage.until(lambda: list(names) == ["hot"], "nothing else is left")
        dom.destroy()


class Files(Sick):
    def setUp(self):
        self.begin(LODGED_PATIENCE="2")
        self.folder = f"{self.daemon.root}/dead"
        os.mkdir(self.folder)
        self.server = manage.dead_folder(self, self.folder)

    def code(self, call, *args):
        with self.assertRaises(libvirt.libvirtError) as caught:
            call(*args)
        return caught.exception.get_error_code()

    def test_disk_on_a_dead_server(self):
        conn = self.connect()
        dom = conn.defineXML(MACHINE.format("sick", disk(f"{self.folder}/disk")))
        self.times_out(dom.create)
        self.assertEqual(self.code(dom.create), TIMED_OUT)  # at once: it is known to be dead
        self.assertEqual(self.code(dom.blockInfo, "vda"), TIMED_OUT)
        self.assertIn("/dead/disk", dom.XMLDesc())
        self.server.close()
        manage.until(lambda: self.code(dom.create) == libvirt.VIR_ERR_SYSTEM_ERROR,
                     "it answers, and has no such file")
        dom.undefine()

    def test_states_and_devices_on_a_dead_server(self):
        conn = self.connect()
        self.times_out(conn.restore, f"{self.folder}/state")
        dom = conn.createXML(MACHINE.format("well", ""))
        self.times_out(dom.save, f"{self.folder}/state")
        self.times_out(dom.attachDevice, disk(f"{self.folder}/disk"))
        self.assertEqual(dom.state()[0], libvirt.VIR_DOMAIN_RUNNING)
        dom.destroy()

    def test_building_on_a_dead_server(self):
        conn = self.connect()
        xml = "<pool type='dir'><name>{0}</name><target><path>{1}/{0}</path></target></pool>"
        built, deleted = (conn.storagePoolDefineXML(xml.format(name, self.folder)) for name in ("built", "deleted"))
        self.times_out(built.build, 0)
        self.times_out(deleted.delete, 0)
        self.assertEqual(self.code(built.create, libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD), TIMED_OUT)  # at once
        self.assertEqual([pool.isActive() for pool in (built, deleted)], [0, 0])
        self.server.close()

        def works():
            try:
                return built.build(0) == 0
            except libvirt.libvirtError as e:
                self.assertEqual(e.get_error_code(), TIMED_OUT)
        manage.until(works, "it answers")
        self.assertTrue(os.path.isdir(f"{self.folder}/built"))

    def test_a_pipe_is_no_state(self):
        pipe = f"{self.daemon.root}/pipe"
        os.mkfifo(pipe)
        self.assertEqual(self.code(self.connect().restore, pipe), libvirt.VIR_ERR_OPERATION_FAILED)


class Definitions(Sick):
    """A disk that takes no definition delays those who define the like, and what it did not take is not there."""
    NETWORK = "<network><name>{0}</name><bridge name='{0}'/></network>"
    POOL = "<pool type='dir'><name>{0}</name><target><path>/nowhere/{0}</path></target></pool>"
    SECRET = "<secret><usage type='volume'><volume>{0}</volume></usage></secret>"
    FILTER = "<filter name='{0}'/>"

    def setUp(self):
        self.begin(LODGED_PATIENCE="2")
        self.conn = self.connect()

    def lists(self, conn):
        return [sorted(x.name() for x in conn.listAllNetworks()), sorted(x.name() for x in conn.listAllStoragePools()),
                sorted(x.usageID() for x in conn.listAllSecrets()), sorted(x.name() for x in conn.listAllNWFilters())]

    def slow(self, folder, define, changed, xml):
        """@define of a first works; of two more one waits for the disk and one for that."""
        define(xml.format("one"))
        before = self.lists(self.conn)
        path = f"{self.daemon.root}/etc/{folder}"
        server = manage.dead_folder(self, path)
        calls = [Call(define, xml.format(name)) for name in ("two", "three")]
        manage.until(lambda: self.lists(self.connect()) and not all(c.is_alive() for c in calls), "the other gives up")
        late, stuck = sorted(calls, key=Call.is_alive)
        self.assertEqual(late.code, TIMED_OUT, late.error)
        self.assertTrue(stuck.is_alive())
        server.close()
        stuck.join()
        self.assertTrue(stuck.code)
        self.assertEqual(self.lists(self.conn), before)
        define(xml.format("two"))
        self.assertNotEqual(self.lists(self.conn), before)
        changed()

    def test_networks(self):
        def changed():
            """What runs by another definition than the lasting one falls back to that."""
            net = self.conn.networkLookupByName("one")
            was = net.XMLDesc()
            self.conn.networkCreateXML(was.replace("<bridge", "<domain name='passing'/><bridge"))
            self.assertIn("passing", net.XMLDesc())
            self.assertNotIn("passing", net.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE))
            net.destroy()
            self.assertEqual(net.XMLDesc(), was)
        self.slow("qemu/networks", self.conn.networkDefineXML, changed, self.NETWORK)

    def test_pools(self):
        def changed():
            pool = self.conn.storagePoolLookupByName("one")
            was = pool.XMLDesc()
            self.conn.storagePoolCreateXML(was.replace("/nowhere/one", self.daemon.root))
            self.assertIn(f"<path>{self.daemon.root}</path>", pool.XMLDesc())
            pool.destroy()
            self.assertEqual(pool.XMLDesc(), was)
        self.slow("storage", self.conn.storagePoolDefineXML, changed, self.POOL)

    def test_secrets(self):
        def changed():
            self.conn.secretLookupByUsage(libvirt.VIR_SECRET_USAGE_TYPE_VOLUME, "one").undefine()
        self.slow("secrets", self.conn.secretDefineXML, changed, self.SECRET)

    def test_filters(self):
        self.slow("nwfilter", self.conn.nwfilterDefineXML,
                  lambda: self.conn.nwfilterLookupByName("one").undefine(), self.FILTER)


class NoTaps(unittest.TestCase):
    """A host without /dev/net/tun: what needs a tap says so, and nothing of it stays."""

    def test_start(self):
        if os.geteuid() != 0:
            manage.leave_out(self, "only root has name spaces")
        with tempfile.TemporaryDirectory() as folder:
            script = pathlib.Path(folder, "lodged")
            script.write_text('#!/bin/sh\nexec unshare --mount --net sh -c \'mount -t tmpfs none /dev/net && exec "$0" "$@"\' '
                              f'{manage.LODGED} "$@"\n')
            script.chmod(0o755)
            with unittest.mock.patch("manage.LODGED", str(script)), manage.Daemon() as daemon:
                conn = daemon.connect()
                conn.networkDefineXML("<network><name>n</name><bridge name='brn' stp='off'/></network>").create()
                dom = conn.defineXML(MACHINE.format("card", "<interface type='network'><source network='n'/></interface>"))
                for _ in range(2):  # the second finds nothing in its way
                    with self.assertRaisesRegex(libvirt.libvirtError, "/dev/net/tun"):
                        dom.create()
                self.assertEqual((dom.state()[0], daemon.machines()), (libvirt.VIR_DOMAIN_SHUTOFF, []))
                devices = pathlib.Path(f"/proc/{daemon.process.pid}/net/dev").read_text()
                self.assertIn("brn", devices)
                self.assertNotIn("vnet", devices)
                conn.close()


class Clients(Sick):
    def setUp(self):
        self.begin("-o", "keepalive.stall=1", "-o", "keepalive.interval=0")

    def dropped(self, count=1):
        manage.until(lambda: self.daemon.log().count("half-way") >= count, "it is dropped")

    def test_who_does_not_fetch_a_stream(self):
        conn, folder = self.connect(), f"{self.daemon.root}/pool"
        os.mkdir(folder)
        pool = conn.storagePoolCreateXML(
            f"<pool type='dir'><name>p</name><target><path>{folder}</path></target></pool>")
        pathlib.Path(folder, "big").write_bytes(bytes(16 << 20))
        pool.refresh()
        lazy = self.daemon.connect()
        stream = lazy.newStream()
        lazy.storagePoolLookupByName("p").storageVolLookupByName("big").download(stream, 0, 0)
        waiting = Call(self.dropped)
        self.others_meanwhile(waiting)
        self.assertEqual(waiting.code, 0)
        # The volume is free again.
        manage.until(lambda: self.daemon.run_virsh("vol-delete", "big", "p").returncode == 0, "it is free")

    def test_who_vanishes_in_a_stream(self):
        conn, folder = self.connect(), f"{self.daemon.root}/pool2"
        os.mkdir(folder)
        pool = conn.storagePoolCreateXML(
            f"<pool type='dir'><name>p2</name><target><path>{folder}</path></target></pool>")
        vol = pool.createXML("<volume><name>v</name><capacity unit='MiB'>8</capacity></volume>")
        child = os.fork()
        if child == 0:
            own = self.daemon.connect()
            stream = own.newStream()
            own.storagePoolLookupByName("p2").storageVolLookupByName("v").upload(stream, 0, 0)
            stream.send(bytes(1 << 20))
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        self.assertEqual(conn.getHostname(), os.uname().nodename)
        manage.until(lambda: self.daemon.run_virsh("vol-delete", "v", "p2").returncode == 0, "it is free")
        self.assertTrue(vol)

    def test_who_opens_too_many_streams(self):
        conn, many = self.connect(), self.daemon.connect()
        dom = conn.createXML(MACHINE.format("talks", "<console type='pty'/>"))
        self.addCleanup(dom.destroy)
        streams, error = [], ""
        while not error and len(streams) < 1000:
            streams.append(many.newStream(libvirt.VIR_STREAM_NONBLOCK))
            try:
                many.lookupByName("talks").openConsole(None, streams[-1], libvirt.VIR_DOMAIN_CONSOLE_FORCE)
            except libvirt.libvirtError as e:
                error = str(e)
        self.assertIn("streams on one connection", error)
        streams.clear()
        many.close()
        fds = f"/proc/{self.daemon.process.pid}/fd"
        manage.until(lambda: len(os.listdir(fds)) < 50, "all are closed again")

    def test_one_definition_by_many_at_once(self):
        """What the list says in the end is what the disk says."""
        xml = MACHINE.format("torn</name><uuid>d2dbd4c5-1fbe-4a5f-9e0b-2f3f8d1d7a11</uuid><name>", "")
        xml = xml.replace("<name></name>", "")

        def both(conn, first):
            for i in range(20):
                with contextlib.suppress(libvirt.libvirtError):
                    if (i + first) % 2:
                        conn.defineXML(xml)
                    else:
                        conn.lookupByName("torn").undefine()
        calls = [Call(both, self.connect(), i) for i in range(4)]
        for call in calls:
            call.join()
        conn, path = self.connect(), pathlib.Path(self.daemon.root, "etc/qemu/torn.xml")
        self.assertEqual([d.name() for d in conn.listAllDomains()], ["torn"] if path.exists() else [])
        dom = conn.defineXML(xml)
        self.assertEqual(dom.UUIDString(), "d2dbd4c5-1fbe-4a5f-9e0b-2f3f8d1d7a11")
        dom.undefine()
        self.assertFalse(path.exists())
        self.assertEqual(list(path.parent.glob("torn*")), [])

    def test_starts_that_fail_at_once(self):
        xml = MACHINE.format("fails", disk(f"{self.daemon.root}/nowhere"))

        def start(conn):
            for _ in range(5):
                try:
                    conn.createXML(xml)
                except libvirt.libvirtError as e:
                    if e.get_error_code() not in (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_OPERATION_FAILED):
                        raise
        calls = [Call(start, self.connect()) for _ in range(4)]
        for call in calls:
            call.join()
            self.assertEqual(call.code, 0, call.error)
        self.assertEqual(self.connect().listAllDomains(), [])

    def test_who_says_too_much(self):
        for length in (27, (32 << 20) + 1, 0xffffffff):
            wire = manage.Wire(self.daemon.socket)
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                wire.socket.sendall(struct.pack(">IIIIIII", length, manage.Wire.REMOTE, 1, 1, 0, 0, 0))
                self.assertIsNone(wire.receive())
            wire.close()
        manage.until(lambda: self.daemon.log().count("malformed packet") == 3, "none of them only for being slow")
        self.assertEqual(self.connect().getHostname(), os.uname().nodename)


if __name__ == "__main__":
    unittest.main()
