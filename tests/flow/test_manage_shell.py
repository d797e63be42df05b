# SPDX-License-Identifier: GPL-2.0-or-later
"""The shell beside virsh: the same verb at the same daemon prints the same and ends the same."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import unittest

import libvirt

import manage

MACHINE = """<domain type='qemu'><name>{0}</name>{1}<memory unit='MiB'>32</memory>
<os><type machine='q35'>hvm</type></os><devices><controller type='pci' model='pcie-root-port'/></devices></domain>"""

LODGE = os.environ["LODGE"]

# Each line in its turn, and what it must say (manage.expectation()); {d} is a folder of one's own.  The state is the
# same for both shells.
VERBS = """
hostname ??
uri => qemu:///system?socket= .. /run/libvirt/virtlodged-sock
nodeinfo => CPU model: x86_64 CPU(s):
maxvcpus == 255
nodecpumap => CPUs present:
cpu-models x86_64 => qemu64 qemu32 kvm64 kvm32 486 pentium pentium2 pentium3 Conroe Penryn
nosuch !! unknown command: 'nosuch'
start !! command 'start' requires <domain> option
list --bad !! command 'list' doesn't support option --bad
start nosuch !! failed to get domain 'nosuch'
dominfo nosuch !! failed to get domain 'nosuch'
domid nosuch !! failed to get domain 'nosuch'
help nosuch !! command or command group 'nosuch' doesn't exist
echo a b == a b
pwd => /
secret-list == UUID Usage
nodedev-list => computer .. net_lo_00_00_00_00_00_00
nodedev-info computer == Name: computer Parent: Active: yes Persistent: yes Autostart: yes
nodedev-info net_lo_00_00_00_00_00_00 => Name: net_lo_00_00_00_00_00_00 Parent: computer Active: yes Persistent:
nodedev-info nosuch !! Node device not found: no node device with matching name 'nosuch'
iface-list => lo
iface-list --all => lo
iface-list --inactive ??
iface-mac lo == MAC
iface-dumpxml lo => <link state='unknown'/>
iface-dumpxml nosuch !! Interface not found: couldn't find interface named 'nosuch'
nwfilter-list => clean-traffic
nwfilter-dumpxml clean-traffic => <rule action="accept" direction="inout" priority="-500">
nwfilter-dumpxml nosuch !! Network filter not found: no nwfilter with matching name 'nosuch'
nwfilter-define {d}/filter.xml == Network filter ours defined from {d}/filter.xml
nwfilter-define {d}/nosuch.xml !! Failed to open file '{d}/nosuch.xml': No such file or directory
nwfilter-dumpxml ours => <rule action="drop" direction="in">
nwfilter-edit ours == Network filter ours XML configuration not changed.
nwfilter-undefine nosuch !! Network filter not found: no nwfilter with matching name 'nosuch'
event --list => lifecycle reboot rtc-change watchdog io-error graphics io-error-reason
event !! one of --list, --all, or --event <type> is required
event --event nosuch !! unknown event type nosuch
event --all --timeout 1 !! event loop timed out events received: 0
net-event --list == lifecycle
net-event !! either --list or --event <type> is required
net-event --event lifecycle --timeout 1 !! event loop timed out events received: 0
nodedev-event --list == lifecycle update
pool-event --list == lifecycle refresh
pool-event --event refresh --timeout 1 !! event loop timed out events received: 0
secret-event --list == lifecycle value-changed
net-list --all == Name State Autostart Persistent default inactive no yes
net-list --name --all == default
net-info default => Name: default UUID: UUID Active: no Persistent: yes Autostart: no Bridge: virbr0
net-info nosuch !! Network not found: no network with matching name 'nosuch'
net-uuid default == UUID
net-dumpxml default => <range start='192.168.122.2' end='192.168.122.254'/>
net-dhcp-leases default => Expiry Time
net-start nosuch !! Network not found: no network with matching name 'nosuch'
net-destroy default !! Requested operation is not valid: network 'default' is not active
net-dumpxml nosuch !! Network not found: no network with matching name 'nosuch'
net-autostart nosuch !! Network not found: no network with matching name 'nosuch'
net-update default add dns-txt {d}/txt.xml --config == Updated network default persistent config
net-update default add dns-txt {d}/txt.xml --config !! Requested operation is not valid: there is an existing DNS TXT entry in
net-update default frob dns-txt {d}/txt.xml !! unrecognized command name 'frob'
net-dumpxml default --inactive => <txt name='a' value='b'/>
net-update default delete dns-txt {d}/txt.xml --config == Updated network default persistent config
net-undefine nosuch !! Network not found: no network with matching name 'nosuch'
pool-list --all == Name State Autostart
pool-define-as p dir --print-xml --target {d}/p => <path>{d}/p</path>
pool-define-as p iscsi --print-xml --source-host h --source-path /p --source-dev d --source-name n --target /t --source-format f --auth-type chap --auth-username u --secret-usage s --source-initiator iqn.x --source-protocol-ver 4 => <auth type='chap' username='u'>
pool-define-as p !! command 'pool-define-as' requires <type> option
pool-define-as p dir --target {d}/p == Pool p defined
pool-define-as q dir --target {d}/p !! operation failed: Storage source conflict with pool: 'p'
pool-define-as q gluster --source-host h --source-name n --target /t !! internal error: missing backend for pool type 11 (gluster)
find-storage-pool-sources dir !! this function is not supported by the connection driver
find-storage-pool-sources netfs !! invalid argument: hostname must be specified for netfs sources
find-storage-pool-sources nosuch !! internal error: unknown storage pool type nosuch
find-storage-pool-sources-as logical == <sources> </sources>
pool-capabilities => <pool type='iscsi-direct' supported='yes'>
pool-list --all == Name State Autostart p inactive no
pool-info p => Name: p UUID: UUID State: inactive Persistent: yes Autostart: no
pool-build p == Pool p built
pool-start p == Pool p started
pool-start p !! Requested operation is not valid: storage pool 'p' is already active
pool-list == Name State Autostart p active no
pool-list --all --name == p
pool-autostart p == Pool p marked as autostarted
pool-autostart p --disable == Pool p unmarked as autostarted
pool-dumpxml p --inactive => <path>{d}/p</path>
pool-refresh p == Pool p refreshed
vol-list p == Name Path
vol-create-as p v1 1M == Vol v1 created
vol-create-as p v2 10M --format qcow2 == Vol v2 created
vol-create-as p v3 10M --format qcow2 --print-xml --backing-vol v2 --backing-vol-format qcow2 => <capacity>10485760</capacity>
vol-create-as p v1 1M !! storage volume 'v1' exists already
vol-list p == Name Path v1 {d}/p/v1 v2 {d}/p/v2
vol-info v1 --pool p == Name: v1 Type: file Capacity: 1.00 MiB Allocation:
vol-info v1 !! Storage volume not found: no storage vol with matching path 'v1'
vol-info v1 --pool p --bytes == Name: v1 Type: file Capacity: 1048576 bytes Allocation:
vol-path v1 p == {d}/p/v1
vol-key v1 --pool p == {d}/p/v1
vol-name {d}/p/v1 == v1
vol-pool {d}/p/v1 == p
vol-clone v1 v4 --pool p == Vol v4 cloned from v1
vol-resize v1 -1 --pool p !! negative size requires --shrink
vol-resize v1 2M --pool p == Size of volume 'v1' successfully changed to 2M
vol-upload v1 {d}/data --pool p
vol-download {d}/p/v1 {d}/back --sparse
vol-wipe v1 --pool p == Vol v1 wiped
vol-delete v1 --pool p == Vol v1 deleted
vol-delete v1 --pool p !! Storage volume not found: no storage vol with matching path 'v1'
vol-create-as p v5 1M --format frob !! unsupported configuration: unknown volume format type frob
vol-create-as nosuch v5 1M !! Storage pool not found: no storage pool with matching name 'nosuch'
vol-dumpxml nosuch p !! Storage volume not found: no storage vol with matching path 'nosuch'
vol-resize v2 20M --pool p --allocate == Size of volume 'v2' successfully changed to 20M
vol-resize v2 1M --pool p --delta == Size of volume 'v2' successfully changed by 1M
vol-resize v2 1M --pool p --delta --shrink == Size of volume 'v2' successfully changed by 1M
vol-wipe v4 --pool p --algorithm gutmann == Vol v4 wiped
vol-list nosuch !! Storage pool not found: no storage pool with matching name 'nosuch'
vol-list p --details => v2 {d}/p/v2 file 20.00 MiB .. v4 {d}/p/v4 file 1.00 MiB
pool-delete p !! Requested operation is not valid: storage pool 'p' is still active
pool-info nosuch !! Storage pool not found: no storage pool with matching name 'nosuch'
pool-undefine p !! Requested operation is not valid: storage pool 'p' is still active
pool-destroy p == Pool p destroyed
pool-destroy p !! Requested operation is not valid: storage pool 'p' is not active
pool-undefine p == Pool p has been undefined
""".strip().splitlines()


# What tells something, of a running machine "mini" and its host.
JSON_VERBS = """
version
sysinfo
hostname
uri
nodeinfo
nodecpumap
nodecpustats
nodecpustats --percent
nodememstats
maxvcpus
freecell
capabilities
domcapabilities
cpu-models x86_64
list --all
list --name
net-list
net-info default
net-uuid default
net-dumpxml default
pool-capabilities
nwfilter-list
nodedev-list
nodedev-info computer
iface-list
secret-list
dominfo mini
domstate mini --reason
domid mini
domuuid mini
domcontrol mini
domjobinfo mini
domstats mini
domblklist mini
domiflist mini
dommemstat mini
dumpxml mini
desc mini
desc mini --title
schedinfo mini
memtune mini
blkiotune mini
numatune mini
vcpucount mini
vcpuinfo mini
vcpupin mini
emulatorpin mini
iothreadinfo mini
cpu-stats mini
snapshot-list mini
checkpoint-list mini
validate-host
pwd
echo a
"""


def shell(daemon, *args, **more):
    return subprocess.run([LODGE, "-c", daemon.uri, *args], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=manage.PATIENCE, check=False, **more)


def bare(text):
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "UUID", text)
    text = re.sub(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC", text)
    text = re.sub(r"(?m)^(Allocation|Available): .*$", r"\1:", text)
    text = re.sub(r"<(allocation|available) unit='bytes'>\d+", r"<\1", text)
    text = re.sub(r"(?m)^(net_(?!lo_)|block_(loop|nbd|dm)).*\n", "", text)  # other tests' devices come and go
    return re.sub(r"(?m) +$", "", text)  # virsh fills up the last column of some


class Shell(unittest.TestCase):
    def transcript(self, program):
        """What each verb printed, from a daemon and a folder of its own."""
        seen = []
        with manage.Daemon() as d:
            folder = os.path.join(d.root, "work")
            os.mkdir(folder)
            with open(os.path.join(folder, "data"), "wb") as f:
                f.write(b"lodge" * 1000)
            with open(os.path.join(folder, "filter.xml"), "w", encoding="ascii") as f:
                f.write("<filter name='ours'><uuid>0a0b0c0d-0001-4000-8000-000000000001</uuid>"
                        "<rule action='drop' direction='in'><all/></rule></filter>")
            with open(os.path.join(folder, "txt.xml"), "w", encoding="ascii") as f:
                f.write("<txt name='a' value='b'/>")
            for line in VERBS:
                line, check = manage.expectation(line)
                p = subprocess.run([*program, "-c", d.uri, *line.format(d=folder).split()],
                                   capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                   timeout=manage.PATIENCE, check=False, env={**os.environ, "VISUAL": "true"})
                seen.append((line, check, p.returncode, *(bare(text).replace(d.root, "ROOT") for text in (p.stdout, p.stderr))))
            with open(os.path.join(folder, "back"), "rb") as f:
                self.assertTrue(f.read().startswith(b"lodge" * 1000))
        return seen

    def test_prints_what_virsh_prints(self):
        for theirs, ours in zip(self.transcript(["virsh"]), self.transcript([LODGE])):
            with self.subTest(verb=theirs[0]):
                self.assertEqual(ours[2:], theirs[2:])
                ours[1]({"d": "ROOT/work"}, *ours[2:])

    def test_prints_the_events_that_virsh_prints(self):
        """Both listen to one daemon; marks before and after say that they heard what was between."""
        with manage.Daemon() as d:
            conn = d.connect()
            listeners = []
            for program in ("virsh", LODGE):
                path = f"{d.root}/{os.path.basename(program)}"
                for verb in ("event --all", "net-event --event lifecycle", "pool-event --event lifecycle",
                             "secret-event --event lifecycle"):
                    with open(f"{path}-{verb.split()[0]}", "w", encoding="utf-8") as out:
                        listeners.append((out.name, subprocess.Popen(
                            [program, "-c", d.uri, *verb.split(), "--loop"], stdout=out, stdin=subprocess.DEVNULL)))
                    self.addCleanup(listeners[-1][1].wait)
                    self.addCleanup(listeners[-1][1].kill)

            def text(path):
                with open(path, encoding="utf-8") as f:
                    return f.read()

            def things(name):
                secret = conn.secretDefineXML(f"<secret ephemeral='yes'><usage type='volume'><volume>{name}</volume>"
                                              f"</usage><uuid>{uuids[name]}</uuid></secret>")
                secret.undefine()
                net = conn.networkDefineXML(f"<network><name>{name}</name><bridge name='{name}'/></network>")
                net.undefine()
                pool = conn.storagePoolDefineXML(
                    f"<pool type='dir'><name>{name}</name><target><path>{d.root}/{name}</path></target></pool>")
                pool.build()
                pool.create()
                pool.destroy()
                pool.delete()
                pool.undefine()
                conn.defineXML(MACHINE.format(name, "")).undefine()

            def marked(name):
                things(name)
                return all(f"{name}" in text(path) or uuids[name] in text(path) for path, _ in listeners)
            uuids = {name: f"0a0b0c0d-0001-4000-8000-00000000000{i}" for i, name in enumerate(("mbefore", "mafter", "real"))}
            manage.until(lambda: marked("mbefore"), "all listen")
            things("real")
            dom = conn.defineXML(MACHINE.format("real", "<description>words</description>"))
            dom.create()
            dom.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, "title", None, None)
            dom.suspend()
            dom.resume()
            dom.reset()
            dom.destroy()
            dom.undefine()
            manage.until(lambda: marked("mafter"), "all have heard")
            for _, p in listeners:
                p.terminate()
                p.wait()
            seen = {os.path.basename(path): [line for line in text(path).splitlines()
                                             if "real" in line or uuids["real"] in line] for path, _ in listeners}
            self.assertGreater(len(seen["lodge-event"]), 8, seen)
            for verb in ("event", "net-event", "pool-event", "secret-event"):
                self.assertEqual(seen["lodge-" + verb], seen["virsh-" + verb])

    def test_checkpoints_and_backups(self):
        """On one machine, by turns: the same words but for the names."""
        with manage.Daemon() as d:
            disk, out = f"{d.root}/disk.qcow2", f"{d.root}/out"
            subprocess.run([os.environ["LODGE_IMG"], "create", "-q", "-f", "qcow2", disk, "1M"], check=True)
            os.mkdir(out, 0o777)
            os.chmod(out, 0o777)
            conn = d.connect()
            dom = conn.createXML(MACHINE.format("cp", "").replace("<devices>", f"""<devices><disk type='file'>
                <driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>"""),
                libvirt.VIR_DOMAIN_START_PAUSED)

            def both(line, *names):
                """virsh with the first of the names, lodge with the second."""
                said = []
                for program, name in zip(("virsh", LODGE), names or ("-", "-")):
                    p = subprocess.run([program, "-c", d.uri, *line.format(name).split()], capture_output=True,
                                       text=True, stdin=subprocess.DEVNULL, timeout=manage.PATIENCE, check=False)
                    said.append((p.returncode, p.stdout.replace(name, "NAME"), p.stderr.replace(name, "NAME")))
                with self.subTest(verb=line):
                    self.assertEqual(said[1], said[0])
                return said[0]
            for name in ("one", "two"):
                with open(f"{out}/{name}.xml", "w", encoding="ascii") as f:
                    f.write(f"<domaincheckpoint><name>{name}</name></domaincheckpoint>")
            self.assertEqual(both("checkpoint-create cp " + out + "/{}.xml", "one", "two")[0], 0)
            both("checkpoint-dumpxml cp two --no-domain")
            both("checkpoint-dumpxml cp two --xpath //parent")
            both("checkpoint-parent cp two")
            both("checkpoint-parent cp one")
            both("checkpoint-parent cp three")
            both("checkpoint-create cp " + out + "/one.xml")
            both("backup-dumpxml cp")
            both("backup-begin cp " + out + "/nosuch.xml")
            self.assertEqual(both("checkpoint-delete cp {}", "two", "one")[0], 0)
            both("checkpoint-delete cp one")
            dom.destroy()

    def test_json_lines_and_quiet(self):
        with manage.Daemon() as d:
            nets = json.loads(shell(d, "--json", "net-list", "--all").stdout)
            self.assertEqual([n["name"] for n in nets], ["default"])
            self.assertEqual(json.loads(shell(d, "--json", "net-info", "default").stdout)["bridge"],
                             "virbr0")
            self.assertEqual(json.loads(shell(d, "--json", "pool-list").stdout), [])
            self.assertEqual(shell(d, "-q", "net-list", "--name", "--all").stdout, "default\n")
            both = shell(d, "-q", "hostname; net-uuid 'default' # and no more").stdout.split()
            self.assertEqual(len(both), 2)
            self.assertEqual(shell(d, "hostname; nosuch; hostname").returncode, 1)
            self.assertIn("missing", shell(d, "echo 'a").stderr)

    def test_json_values_are_bare(self):
        """No padding for people and no end of a line in what a program reads."""
        def check(line, value, where=""):
            if isinstance(value, str):
                self.assertEqual(value, value.strip(), f"{line}{where}")
            for key in value if isinstance(value, dict) else ():
                check(line, value[key], f"{where}.{key}")
            for one in value if isinstance(value, list) else ():
                check(line, one, where)

        with manage.Daemon() as d:
            dom = d.connect().createXML(MACHINE.format("mini", ""))
            self.assertEqual(shell(d, "desc", "mini", "--title", "of it").returncode, 0)
            for line in JSON_VERBS.strip().splitlines():
                p = shell(d, "--json", *line.split())
                self.assertEqual(p.returncode, 0, f"{line}: {p.stderr}")
                check(line, json.loads(p.stdout))
            self.assertEqual(json.loads(shell(d, "--json", "uri").stdout), {"uri": d.uri})
            self.assertEqual(json.loads(shell(d, "--json", "schedinfo", "mini").stdout)["scheduler"], "posix")
            self.assertEqual(json.loads(shell(d, "--json", "domjobinfo", "mini").stdout)["job_type"], "None")
            with open(f"{d.root}/secret.xml", "w", encoding="utf-8") as f:
                f.write("<secret><uuid>11111111-1111-1111-1111-111111111111</uuid></secret>")
            shell(d, "-q", "secret-define", f"{d.root}/secret.xml").stdout
            uuid = "11111111-1111-1111-1111-111111111111"
            shell(d, "secret-set-value", uuid, "IGEgCg==")
            self.assertEqual(json.loads(shell(d, "--json", "secret-get-value", "--plain", uuid).stdout)["value"], " a \n")
            dom.destroy()

    def test_completes_verbs_options_and_names(self):
        with manage.Daemon() as d:
            def offers(*words):
                return shell(d, "-q", "complete", "--", *words).stdout.split()
            self.assertIn("net-start", offers("net-st"))
            self.assertIn("--disable", offers("net-autostart", "--d"))
            self.assertEqual(offers("net-start", ""), ["default"])

    def test_prompt_runs_lines_until_quit(self):
        with manage.Daemon() as d:
            p = subprocess.run([LODGE, "-q", "-c", d.uri], input="hostname\nnosuch\nuri\nquit\nuri\n",
                               capture_output=True, text=True, timeout=manage.PATIENCE,
                               env={**os.environ, "HOME": d.root}, check=False)
            self.assertEqual(p.stdout.count(d.uri), 1)
            self.assertIn("unknown command", p.stderr)

    def on_terminal(self, *argv, keys=(), **env):
        """What the shell shows on a terminal on which somebody types: (what must be seen before, keys)."""
        with manage.Terminal(LODGE, *argv, **env) as t:
            for seen_before, typed in keys:
                t.expect(seen_before)
                t.type(typed)
            self.assertEqual(t.end(), 0, t.seen)
            return t.seen

    def test_remembers_lines_and_completes_on_a_terminal(self):
        with manage.Daemon() as d:
            prompt = b"lodge # "
            self.on_terminal("-c", d.uri, keys=((prompt, b"net-uuid default\n"), (prompt, b"quit\n")),
                             XDG_CACHE_HOME=d.root)
            again = self.on_terminal("-c", d.uri, keys=((prompt, b"\x10\x10\n"), (prompt, b"net-inf\tdefa\t\n"),
                                                        (prompt, b"quit\n")), XDG_CACHE_HOME=d.root)
            self.assertIn(d.virsh("net-uuid", "default").encode(), again)
            self.assertIn(b"virbr0", again)
            with open(f"{d.root}/lodge/history", encoding="utf-8") as f:
                self.assertIn("net-uuid default", f.read().replace("\\040", " "))

    def test_colours_on_a_terminal_alone(self):
        self.assertIn(b"\033[32m", self.on_terminal("validate-host"))
        p = subprocess.run([LODGE, "validate-host"], capture_output=True, check=True)
        self.assertNotIn(b"\033", p.stdout)

    def test_top(self):
        with manage.Daemon() as d:
            self.assertIn("Name", shell(d, "top", "--count", "1").stdout)
            dom = d.connect().createXML(MACHINE.format("busy", ""))
            self.assertRegex(shell(d, "top", "--count", "2", "--delay", "0").stdout, r"(?s)busy.*busy")
            rows = json.loads(shell(d, "--json", "top", "--count", "1").stdout)
            self.assertIn("busy", str(rows))
            self.assertIn(b"busy", self.on_terminal("-c", d.uri, "top", keys=((b"busy", b"q"),)))
            self.look_for_ever(d)
            dom.destroy()

    def look_for_ever(self, d):
        """Each look is a line of JSON at once; without a reader there are no more, however it learns of it."""
        for delay, ignored in (("0", False), ("0", True), ("86400", False)):
            p = subprocess.Popen([LODGE, "-c", d.uri, "--json", "top", "--delay", delay], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
                                 preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN) if ignored else None)
            for _ in range(3 if delay == "0" else 0):
                self.assertEqual(json.loads(p.stdout.readline())[0]["name"], "busy")
            p.stdout.close()
            p.wait(timeout=manage.PATIENCE)
            self.assertEqual(p.stderr.read(), "")
            p.stderr.close()

    def test_manual_holds_every_verb(self):
        names = re.findall(r"(?m)^    ([a-z-]+) ", subprocess.run(
            [LODGE, "help"], capture_output=True, text=True, check=True).stdout)
        self.assertGreater(len(names), 100)
        page = subprocess.run([LODGE, "--manual=man"], capture_output=True, text=True, check=True).stdout
        for name in names:
            self.assertIn(".B " + name.replace("-", "\\-"), page)
        for kind in ("bash", "zsh", "fish"):
            script = subprocess.run([LODGE, "--manual=" + kind], capture_output=True, text=True,
                                    check=True).stdout
            self.assertIn("lodge -q", script)

    def test_runs_an_image_to_its_console_and_back(self):
        tiny = os.path.join(os.environ["LODGE_BUILD"], "guests/tiny")
        with manage.Daemon() as d:
            with subprocess.Popen(
                [LODGE, "-c", d.uri, "run", "--name", "x", "--kernel", f"{tiny}/vmlinuz", "--initrd",
                 f"{tiny}/initrd", "--append", "console=ttyS0 quiet lodge.run=poweroff", "--memory",
                 "128M"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
                out = p.stdout.read()  # its input stays open, as a terminal does
                self.assertEqual(p.wait(manage.PATIENCE), 0, out)
            p = subprocess.run(  # and one that is empty is no reason to leave the guest alone
                [LODGE, "-c", d.uri, "run", "--name", "y", "--kernel", f"{tiny}/vmlinuz", "--initrd", f"{tiny}/initrd",
                 "--append", "console=ttyS0 quiet lodge.run=poweroff", "--memory", "128M"], stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=manage.PATIENCE, check=True)
            self.assertIn("user space is up", p.stdout)
            self.assertIn("Connected to domain 'x'", out)
            self.assertIn("user space is up", out)
            self.assertEqual(shell(d, "-q", "list", "--all", "--name").stdout.strip(), "")
            bad = shell(d, "run", "/no/such/image")
            self.assertEqual(bad.returncode, 1)
            self.assertIn("/no/such/image", bad.stderr)

    def test_runs_an_image_as_what_it_is(self):
        with manage.Daemon() as d:
            def xml(name, head, *options):
                path = os.path.join(d.root, name)
                with open(path, "wb") as f:
                    f.write(head)
                p = shell(d, "run", path, *options, "--print-xml")
                self.assertEqual(p.returncode, 0, p.stderr)
                return p.stdout
            cd = bytes(0x8001) + b"CD001" + bytes(100)
            self.assertRegex(xml("a.iso", cd), "<boot dev='cdrom'/>.*device='cdrom'.*bus='sata'")
            self.assertRegex(xml("a.iso", cd, "--format", "raw"), "<boot dev='hd'/>.*device='disk'")
            self.assertRegex(xml("b", bytes(512), "--cdrom", f"{d.root}/a.iso"),
                             "(?s)<boot dev='hd'/><boot dev='cdrom'/>.*device='disk'.*device='cdrom'")
            self.assertIn("type='qcow2'", xml("c", b"QFI\xfb\0\0\0\3" + bytes(504)))

    def test_runs_files_alone(self):
        for words in (["http://host/x.img"], ["--cdrom", "https://host/x.iso"]):
            p = subprocess.run([LODGE, "run", *words], capture_output=True, text=True, check=False)
            self.assertEqual(p.returncode, 1)
            self.assertRegex(p.stderr, f"'{words[-1]}' is a URL.*lodge-img convert")

    def test_a_start_that_was_cut_short_leaves_nothing(self):
        with manage.Daemon() as d:
            d.kill()
            folder = f"{d.root}/run/qemu/9a1b6c1e-6a5c-4b41-8a1a-3c4f0e8f6d11"
            os.makedirs(folder + "/own")
            d.start()
            manage.until(lambda: not os.path.exists(folder), "the folder goes")

    def test_verbs_explain_themselves(self):
        for words in (("list", "--help"), ("help", "list")):
            p = subprocess.run([LODGE, *words], capture_output=True, text=True, check=True)
            self.assertIn("--managed-save", p.stdout)

    def test_validates_the_host(self):
        p = subprocess.run([LODGE, "--json", "validate-host"], capture_output=True, text=True,
                           check=True)
        self.assertEqual(json.loads(p.stdout)["program_lodge_vm"], "PASS")

    def test_bad_uris_get_one_line(self):
        for uri, part in (("qemu+tcp://h/system", "tcp"), ("xen:///", "xen"), ("nothing", ""),
                          ("lodge:///nonsense", "unexpected path '/nonsense'"),
                          ("qemu+ssh://h/nonsense", "unexpected path"),
                          ("qemu:///system?socket=/no/such", "/no/such")):
            p = subprocess.run([LODGE, "-c", uri, "list"], capture_output=True, text=True, check=False)
            self.assertEqual(p.returncode, 1)
            self.assertRegex(p.stderr, r"\Aerror: failed to connect to the hypervisor\nerror: .+\n\Z")
            self.assertIn(part, p.stderr)

    def alone(self, script):
        """The words before a command that sees no system's lodged, but what @script makes of an empty /run."""
        words = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none /run && {script or ":"} && exec "$@"', "sh"]
        words = words if os.getuid() == 0 else []
        p = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
        if p.returncode:
            manage.leave_out(self, f"no mount name spaces: {p.stderr.strip()}")
        return words

    def test_root_goes_to_the_system_if_it_listens(self):
        if os.getuid() != 0:
            manage.leave_out(self, "not root")
        env = {k: v for k, v in os.environ.items() if k not in ("LODGE_URI", "LIBVIRT_DEFAULT_URI")}
        with manage.Daemon() as d:
            first = self.alone(f"mkdir /run/libvirt && ln -s {d.socket} /run/libvirt/virtlodged-sock")
            p = subprocess.run([*first, LODGE, "uri; net-list --all"], capture_output=True, text=True, env=env,
                               timeout=manage.PATIENCE, check=False)
            self.assertEqual(p.returncode, 0, p.stderr)
            self.assertRegex(p.stdout, r"(?s)qemu:///system\n.*default")

    def test_starts_a_session_of_its_own(self):
        if os.getuid() == 0 and not shutil.which("setpriv"):
            self.fail("setpriv is missing")
        root = subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip()
        os.chmod(root, 0o755)
        run = os.path.join(root, "run")
        os.mkdir(run, 0o700)
        env = {**os.environ, "XDG_RUNTIME_DIR": run, "HOME": run, "XDG_CONFIG_HOME": run,
               "XDG_DATA_HOME": run, "XDG_CACHE_HOME": run}
        try:
            p = subprocess.run([LODGE, "-c", "qemu:///session", "hostname"], capture_output=True,
                               text=True, env=env, timeout=manage.PATIENCE, check=False)
            self.assertEqual(p.returncode, 0, p.stderr)
            env.pop("LODGE_URI", None)
            env.pop("LIBVIRT_DEFAULT_URI", None)
            first = self.alone("")
            for words in (("uri",), ("list", "--all"), ("run", "--print-xml", "--kernel", __file__)):
                p = subprocess.run([*first, LODGE, *words], capture_output=True, text=True, env=env,
                                   timeout=manage.PATIENCE, check=False)
                self.assertEqual(p.returncode, 0, p.stderr)
                self.assertIn({"uri": "/session", "list": "State", "run": "<domain "}[words[0]], p.stdout)
            with open(os.path.join(run, "lodge/lodged.pid")) as f:
                os.kill(int(f.read()), 15)
        finally:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(unittest.main())
