#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Networks, from virsh and python3-libvirt, in network name spaces of our own: `host` is where
lodged runs, `world` is what lies beyond, and each machine is a name space on a bridge port.
"""
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import libvirt

sys.path.insert(0, os.path.dirname(__file__))
import manage
from test_manage_domain import machine, resumed

TAG = f"l{os.getpid() % 100000}"
LODGED = manage.LODGED


def run(*argv, check=True, **more):
    return subprocess.run(argv, capture_output=True, text=True, check=check, timeout=manage.PATIENCE, **more)


class Space:
    """A network name space."""

    def __init__(self, name):
        self.name = f"{TAG}-{name}"
        run("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *argv, **more):
        return run("ip", "netns", "exec", self.name, *argv, **more).stdout

    def enter(self, function):
        """What @function gives in a child that lives here, as JSON."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with open(f"/run/netns/{self.name}") as ns:
                    os.setns(ns.fileno()) if hasattr(os, "setns") else _setns(ns.fileno())
                os.write(write, json.dumps(function()).encode())
                code = 0
            except Exception as e:  # the parent tells of it
                os.write(write, json.dumps({"error": repr(e)}).encode())
            finally:
                os._exit(code)
        os.close(write)
        with os.fdopen(read) as f:
            text = f.read()
        os.waitpid(pid, 0)
        return json.loads(text)

    def delete(self):
        run("ip", "netns", "del", self.name, check=False)


def _setns(fd):
    import ctypes
    if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Server:
    """Accepts TCP and tells every caller where it came from."""

    def __init__(self, space, port, with_port=False):
        code = ("import socket\ns = socket.create_server(('', %d))\nprint('up', flush=True)\n"
                "while True:\n    c, a = s.accept()\n    c.sendall(%s.encode())\n    c.close()\n"
                % (port, "('%s %d' % a)" if with_port else "a[0]"))
        self.process = subprocess.Popen(["ip", "netns", "exec", space.name, sys.executable, "-c", code],
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().strip() == "up"

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def ask(address, port, timeout=5):
    """What the server saw as our address, or the name of the error."""
    try:
        with socket.create_connection((address, port), timeout) as c:
            return c.recv(100).decode()
    except OSError as e:
        return type(e).__name__


def lookup(server, name, kind):
    """The answer to a question of @kind (16: TXT, 33: SRV, 12: PTR) as bytes; b"" if there is none."""
    question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0" + struct.pack(">2H", kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(10)
        s.connect((server, 53))
        s.send(struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + question)
        try:
            answer = s.recv(1000)
        except OSError as e:
            return type(e).__name__
    return answer[12 + len(question):].decode("latin-1") if struct.unpack(">6H", answer[:12])[3] else ""


def solicit(device):
    """What a DHCPv6 server advertises for us on @device: an address, or the name of the error."""
    duid = b"\0\x03\0\x01\x52\x54\0\0\0\x66"
    message = b"\1abc" + struct.pack(">2H", 1, len(duid)) + duid + struct.pack(">2H3I", 3, 12, 1, 0, 0)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        index = socket.if_nametoindex(device)
        for _ in range(100):  # no link-local address at first, then an answer at last
            try:
                s.bind(("::", 546)) if not s.getsockname()[1] else None
                s.sendto(message, ("ff02::1:2", 547, 0, index))
                answer = s.recv(2000)
                break
            except OSError as e:
                error = type(e).__name__
                time.sleep(0.1)
        else:
            return error
    at = answer.find(struct.pack(">2H", 5, 24))  # IA address
    return socket.inet_ntop(socket.AF_INET6, answer[at + 4:at + 20]) if at > 0 else "none"


class Names:
    """A DNS server that knows one address for all names."""

    def __init__(self, space, address):
        code = ("import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', 53))\nprint('up', flush=True)\n"
                "while True:\n    q, a = s.recvfrom(2000)\n    s.sendto(q[:2] + b'\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0' + q[12:q.index(b'\\0', 12)"
                " + 5] + b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4' + socket.inet_aton('%s'), a)\n" % address)
        self.process = subprocess.Popen(["ip", "netns", "exec", space.name, sys.executable, "-c", code],
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().strip() == "up"

    close = Server.close


def resolve(server, name):
    """The A record of @name as the DNS server gives it; None: there is none."""
    question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(10)
        s.sendto(struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + question, (server, 53))
        answer = s.recv(1000)
    count = struct.unpack(">6H", answer[:12])[3]
    return socket.inet_ntoa(answer[-4:]) if count else None


class NetworkCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="lodge-net-")
        cls.addClassCleanup(shutil.rmtree, cls.dir, True)
        cls.host = cls.space("host")
        cls.world = cls.space("world")
        run("ip", "link", "add", "ext0", "netns", cls.host.name, "type", "veth", "peer", "name", "ext0",
            "netns", cls.world.name)
        for space, address in ((cls.host, "203.0.113.1/24"), (cls.world, "203.0.113.2/24")):
            space.run("ip", "addr", "add", address, "dev", "ext0")
            space.run("ip", "link", "set", "ext0", "up")
        cls.daemon = cls.start_daemon()

    @classmethod
    def space(cls, name):
        made = Space(name)
        cls.addClassCleanup(made.delete)
        return made

    @classmethod
    def start_daemon(cls, clean_up=None, before="", **more):
        wrapper = f"{cls.dir}/lodged{len(os.listdir(cls.dir))}"
        with open(wrapper, "w") as f:
            f.write(f"#!/bin/sh\nexec {before} ip netns exec {cls.host.name} {LODGED} \"$@\"\n")
        os.chmod(wrapper, 0o755)
        manage.LODGED = wrapper
        daemon = manage.Daemon(**more)
        clean_up = clean_up or cls.addClassCleanup
        clean_up(daemon.close)
        clean_up(cls.stop_networks, daemon)
        return daemon

    @staticmethod
    def stop_networks(daemon):
        for name in daemon.virsh("net-list", "--name").split():
            daemon.virsh("net-destroy", name)

    def virsh(self, *args, **more):
        return self.daemon.virsh(*args, **more)

    def define(self, xml, **more):
        with open(f"{self.dir}/in.xml", "w") as f:
            f.write(xml)
        return self.virsh("net-define", f"{self.dir}/in.xml", **more)

    def network(self, xml):
        """Defined and started for this test."""
        name = xml.split("<name>")[1].split("</name>")[0]
        self.define(xml)
        self.addCleanup(self.virsh, "net-undefine", name)
        self.virsh("net-start", name)
        self.addCleanup(self.virsh, "net-destroy", name)
        return name

    def machine(self, name, bridge, mac=None):
        """A name space whose eth0 is a port of @bridge."""
        guest = Space(name)
        self.addCleanup(guest.delete)
        port = f"{name}p"
        run("ip", "link", "add", port, "netns", self.host.name, "type", "veth", "peer", "name", "eth0",
            "netns", guest.name)
        self.host.run("ip", "link", "set", port, "master", bridge, "up")
        if mac:
            guest.run("ip", "link", "set", "eth0", "address", mac)
        guest.run("ip", "link", "set", "eth0", "up")
        return guest

    def dhcp(self, guest, hostname):
        """Gets a lease and uses it; the address."""
        script = f"{self.dir}/udhcpc"
        with open(script, "w") as f:
            f.write("#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr add $ip/$mask dev $interface\n"
                    "[ -z \"$router\" ] || ip route add default via $router\necho $ip > $out\n")
        os.chmod(script, 0o755)
        out = f"{self.dir}/{guest.name}.ip"
        guest.run("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "20", "-T", "1", "-x",
                  f"hostname:{hostname}", "-s", script, env={**os.environ, "out": out})
        with open(out) as f:
            return f.read().strip()

    def static(self, guest, address, gateway=None):
        guest.run("ip", "addr", "add", address, "dev", "eth0")
        if gateway:
            guest.run("ip", "route", "add", "default", "via", gateway)

    def tables(self):
        out = json.loads(self.host.run("nft", "-j", "list", "tables"))
        return {t["table"]["name"] for t in out["nftables"] if "table" in t}


class Traffic(NetworkCase):
    def test_default_network(self):
        """Two machines get addresses and names, meet each other and, through NAT, the world."""
        listed = self.virsh("net-list", "--all")
        self.assertRegex(listed, r"default +inactive +no +yes")
        self.virsh("net-start", "default")
        self.addCleanup(self.virsh, "net-destroy", "default")
        self.assertRegex(self.virsh("net-info", "default"), r"Bridge: +virbr0")
        one = self.machine("one", "virbr0", "52:54:00:00:00:01")
        two = self.machine("two", "virbr0", "52:54:00:00:00:02")
        address = [self.dhcp(one, "first"), self.dhcp(two, "second")]
        for a in address:
            self.assertRegex(a, r"^192\.168\.122\.")
        leases = self.virsh("net-dhcp-leases", "default")
        self.assertRegex(leases, rf"52:54:00:00:00:01 +ipv4 +{address[0]}/24 +first ")
        self.assertNotIn("00:01", self.virsh("net-dhcp-leases", "default", "52:54:00:00:00:02"))
        conn = self.daemon.connect()
        self.addCleanup(conn.close)
        lease = conn.networkLookupByName("default").DHCPLeases("52:54:00:00:00:02")[0]
        self.assertEqual((lease["ipaddr"], lease["prefix"], lease["hostname"], lease["iface"]),
                         (address[1], 24, "second", "virbr0"))
        self.assertEqual(one.enter(lambda: resolve("192.168.122.1", "second")), address[1])
        for server in (Server(two, 80), Server(self.world, 81), Server(one, 82)):
            self.addCleanup(server.close)
        self.assertEqual(one.enter(lambda: ask(address[1], 80)), address[0])
        self.assertEqual(one.enter(lambda: ask("203.0.113.2", 81)), "203.0.113.1")
        self.world.run("ip", "route", "add", "192.168.122.0/24", "via", "203.0.113.1")
        self.addCleanup(self.world.run, "ip", "route", "del", "192.168.122.0/24")
        self.assertEqual(self.world.enter(lambda: ask(address[0], 82)), "ConnectionRefusedError")

    def test_forwarded_port(self):
        self.network("""<network><name>fwd</name><bridge stp='off'/><metadata><l:forward xmlns:l='urn:lodge:network:1' proto='tcp'
            port='2222' to='10.20.0.2' toPort='22'/></metadata><forward mode='nat'/>
            <ip address='10.20.0.1' prefix='24'/></network>""")
        bridge = self.virsh("net-info", "fwd").split("Bridge:")[1].strip()
        guest = self.machine("inside", bridge)
        self.static(guest, "10.20.0.2/24", "10.20.0.1")
        for server in (Server(guest, 22), Server(guest, 23)):
            self.addCleanup(server.close)
        self.assertEqual(self.world.enter(lambda: ask("203.0.113.1", 2222)), "203.0.113.2")
        self.assertEqual(self.world.enter(lambda: ask("203.0.113.1", 22)), "ConnectionRefusedError")
        self.assertIn("urn:lodge:network:1", self.virsh("net-dumpxml", "fwd"))

    def test_routed(self):
        self.network("""<network><name>routed</name><bridge stp='off'/><forward mode='route' dev='ext0'/>
            <ip address='10.21.0.1' prefix='24'/></network>""")
        bridge = self.virsh("net-info", "routed").split("Bridge:")[1].strip()
        guest = self.machine("rguest", bridge)
        self.static(guest, "10.21.0.2/24", "10.21.0.1")
        self.world.run("ip", "route", "add", "10.21.0.0/24", "via", "203.0.113.1")
        self.addCleanup(self.world.run, "ip", "route", "del", "10.21.0.0/24")
        for server in (Server(guest, 80), Server(self.world, 83)):
            self.addCleanup(server.close)
        self.assertEqual(self.world.enter(lambda: ask("10.21.0.2", 80)), "203.0.113.2")
        self.assertEqual(guest.enter(lambda: ask("203.0.113.2", 83)), "10.21.0.2")

    def test_isolated(self):
        self.network("""<network><name>isol</name><bridge name='isolbr' stp='on' delay='2'/>
            <ip address='10.22.0.1' prefix='24'><dhcp><range start='10.22.0.10' end='10.22.0.20'/></dhcp></ip>
            </network>""")
        with self.subTest("the bridge is as it was asked for"):
            detail = json.loads(self.host.run("ip", "-j", "-d", "link", "show", "isolbr"))[0]["linkinfo"]["info_data"]
            self.assertEqual((detail["stp_state"], detail["forward_delay"]), (1, 200))
        guest = self.machine("cutoff", "isolbr")
        self.assertRegex(self.dhcp(guest, "cut"), r"^10\.22\.0\.")
        self.assertNotIn("default", guest.run("ip", "route"))
        guest.run("ip", "route", "add", "default", "via", "10.22.0.1")
        for server in (Server(self.world, 84), Server(self.host, 85)):
            self.addCleanup(server.close)
        self.assertEqual(guest.enter(lambda: ask("203.0.113.2", 84)), "ConnectionRefusedError")
        self.assertRegex(guest.enter(lambda: ask("10.22.0.1", 85)), r"^10\.22\.0\.")

    def test_open(self):
        self.network("<network><name>open</name><forward mode='open'/><ip address='10.23.0.1' prefix='24'/></network>")
        bridge = self.virsh("net-info", "open").split("Bridge:")[1].strip()
        listed = self.host.run("nft", "list", "table", "inet", f"lodge_{bridge}")
        self.assertNotIn("chain", listed)

    def test_hosts_and_update(self):
        name = self.network("""<network><name>hosts</name><bridge stp='off'/><domain name='lab' localOnly='yes'/><dns>
            <host ip='10.24.0.77'><hostname>printer</hostname></host></dns><forward/>
            <ip address='10.24.0.1' prefix='24'><dhcp><range start='10.24.0.100' end='10.24.0.200'/>
            <host mac='52:54:00:00:00:09' name='fixed' ip='10.24.0.9'/></dhcp></ip></network>""")
        bridge = self.virsh("net-info", name).split("Bridge:")[1].strip()
        guest = self.machine("fixed", bridge, "52:54:00:00:00:09")
        self.assertEqual(self.dhcp(guest, "fixed"), "10.24.0.9")
        self.assertEqual(guest.enter(lambda: resolve("10.24.0.1", "printer.lab")), "10.24.0.77")
        self.assertIsNone(guest.enter(lambda: resolve("10.24.0.1", "other.lab")))
        self.virsh("net-update", name, "add", "dns-host",
                   "<host ip='10.24.0.78'><hostname>other</hostname></host>", "--live", "--config")
        self.assertEqual(guest.enter(lambda: resolve("10.24.0.1", "other.lab")), "10.24.0.78")
        self.virsh("net-update", name, "add", "ip-dhcp-host",
                   "<host mac='52:54:00:00:00:0a' ip='10.24.0.10'/>", "--live")
        late = self.machine("late", bridge, "52:54:00:00:00:0a")
        self.assertEqual(self.dhcp(late, "late"), "10.24.0.10")
        self.assertIn("10.24.0.9", self.virsh("net-dhcp-leases", name))  # the older lease lasts
        self.assertIn("'10.24.0.10'", self.virsh("net-dumpxml", name))
        self.assertNotIn("'10.24.0.10'", self.virsh("net-dumpxml", name, "--inactive"))
        self.assertIn("10.24.0.78", self.virsh("net-dumpxml", name, "--inactive"))
        self.assertIn("existing dhcp host entry", self.virsh(
            "net-update", name, "add", "ip-dhcp-host", "<host mac='52:54:00:00:00:0a' ip='10.24.0.11'/>",
            "--live", fails=True))
        self.virsh("net-update", name, "delete", "ip-dhcp-host", "<host mac='52:54:00:00:00:0a'/>", "--live")
        self.assertIn("can't update 'bridge'", self.virsh("net-update", name, "add", "bridge", "<bridge/>",
                                                          "--config", fails=True))

    def test_names(self):
        """Records, forwarders, what stays in the domain, reverse names and dnsmasq's own options."""
        self.addCleanup(Names(self.world, "198.51.100.7").close)
        name = self.network("""<network xmlns:d='http://libvirt.org/schemas/network/dnsmasq/1.0'><name>names</name>
            <bridge name='namesbr' stp='off'/><forward/><domain name='lab' localOnly='yes'/><dns forwardPlainNames='no'>
            <forwarder domain='corp.example' addr='203.0.113.2'/><forwarder addr='203.0.113.2'/>
            <txt name='note' value='two words'/><srv service='ldap' protocol='tcp' domain='lab' target='srv.lab' port='389'/>
            <host ip='10.26.0.9'><hostname>srv</hostname><hostname>other</hostname></host></dns>
            <ip address='10.26.0.1' prefix='24' localPtr='yes'/><ip address='10.27.0.1' prefix='24'/>
            <route address='10.99.0.0' prefix='16' gateway='10.26.0.7' metric='5'/>
            <d:options><d:option value='address=/by.option/10.26.0.66'/></d:options></network>""")
        guest = self.machine("namesg", "namesbr")
        self.static(guest, "10.26.0.2/24", "10.26.0.1")

        def asks(function, *args):
            return guest.enter(lambda: function("10.26.0.1", *args))
        self.assertEqual(asks(resolve, "www.corp.example"), "198.51.100.7")
        self.assertEqual(asks(resolve, "elsewhere.example"), "198.51.100.7")
        self.assertEqual(asks(resolve, "other.lab"), "10.26.0.9")
        self.assertIsNone(asks(resolve, "nobody.lab"))
        self.assertIsNone(asks(resolve, "nobody"))
        self.assertEqual(asks(resolve, "by.option"), "10.26.0.66")
        self.assertIn("two words", asks(lookup, "note", 16))
        self.assertIn(struct.pack(">H", 389).decode("latin-1"), asks(lookup, "_ldap._tcp.lab", 33))
        self.assertIn("srv", asks(lookup, "9.0.26.10.in-addr.arpa", 12))
        self.assertEqual(asks(lookup, "44.0.26.10.in-addr.arpa", 12), "")
        self.assertIn("10.99.0.0/16 via 10.26.0.7 dev namesbr proto static metric 5", self.host.run("ip", "route"))
        self.assertRegex(guest.run("busybox", "ping", "-c", "1", "-W", "60", "10.27.0.1"), "1 packets received")
        self.assertIn("<dnsmasq:option value='address=/by.option/10.26.0.66'/>", self.virsh("net-dumpxml", name))
        path = f"{self.dir}/names.xml"
        for more in ([], ["--inactive"]):
            with open(path, "w") as f:
                f.write(self.virsh("net-dumpxml", name, *more))
            run("virt-xml-validate", path, "network")
        for record, question, found in (("dns-txt", ("more", 16), "<txt name='more' value='third'/>"),
                                        ("dns-srv", ("_sip._udp.lab", 33), "<srv service='sip' protocol='udp' domain='lab' "
                                                                           "target='srv.lab' port='5060'/>")):
            self.virsh("net-update", name, "add-first", record, found, "--live")
            self.assertNotEqual(asks(lookup, *question), "")
            self.virsh("net-update", name, "delete", record, found, "--current")
            self.assertEqual(asks(lookup, *question), "")

    def test_no_names(self):
        self.network("""<network><name>mute</name><bridge name='mutebr' stp='off'/><dns enable='no'/>
            <ip address='10.28.0.1' prefix='24'><dhcp><range start='10.28.0.5' end='10.28.0.9'/></dhcp></ip></network>""")
        guest = self.machine("muteg", "mutebr")
        self.assertRegex(self.dhcp(guest, "mute"), r"^10\.28\.0\.")
        self.assertEqual(guest.enter(lambda: lookup("10.28.0.1", "a.b", 1)), "ConnectionRefusedError")

    def test_dhcp_options_and_mtu(self):
        """What a guest hears besides its address, of a network with a small MTU; how long it may keep it."""
        self.network("""<network><name>small</name><bridge name='smallbr' stp='off'/><mtu size='1380'/><forward/>
            <ip address='10.29.0.1' prefix='24'><tftp root='/'/><dhcp><range start='10.29.0.5' end='10.29.0.9'>
            <lease expiry='5' unit='minutes'/></range><bootp file='pxe.img' server='10.29.0.1'/></dhcp></ip></network>""")
        self.assertIn("mtu 1380", self.host.run("ip", "link", "show", "smallbr"))
        guest = self.machine("smallg", "smallbr")
        script, out = f"{self.dir}/tells", f"{self.dir}/told"
        with open(script, "w") as f:
            f.write("#!/bin/sh\n[ \"$1\" != bound ] || echo $mtu $boot_file $siaddr $lease $router > $out\n")
        os.chmod(script, 0o755)
        guest.run("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "20", "-T", "1", "-O", "mtu", "-O", "bootfile",
                  "-s", script, env={**os.environ, "out": out})
        with open(out) as f:
            self.assertEqual(f.read().split(), ["1380", "pxe.img", "10.29.0.1", "300", "10.29.0.1"])

    def test_nat_pool(self):
        """The addresses and ports that machines are seen as."""
        self.host.run("ip", "addr", "add", "203.0.113.77/32", "dev", "ext0")
        self.addCleanup(self.host.run, "ip", "addr", "del", "203.0.113.77/32", "dev", "ext0")
        self.network("""<network><name>pool</name><bridge name='poolbr' stp='off'/><forward mode='nat'><nat>
            <address start='203.0.113.77' end='203.0.113.77'/><port start='40000' end='40009'/></nat></forward>
            <ip address='10.38.0.1' prefix='24'/></network>""")
        guest = self.machine("poolg", "poolbr")
        self.static(guest, "10.38.0.2/24", "10.38.0.1")
        server = Server(self.world, 91, with_port=True)
        self.addCleanup(server.close)
        address, _, port = guest.enter(lambda: ask("203.0.113.2", 91)).partition(" ")
        self.assertEqual(address, "203.0.113.77")
        self.assertIn(int(port), range(40000, 40010))

    def test_ipv6_addresses(self):
        """DHCPv6 with a router's advertisement, and addresses that guests make of an advertised prefix."""
        self.network("""<network><name>six2</name><bridge name='sixbr' stp='off'/><forward mode='route'/>
            <ip family='ipv6' address='fd00:26::1' prefix='64'><dhcp><range start='fd00:26::100' end='fd00:26::100'/></dhcp></ip>
            </network>""")
        self.network("""<network><name>slaac</name><bridge name='slaacbr' stp='off'/><forward mode='route'/>
            <ip family='ipv6' address='fd00:27::1' prefix='64'/></network>""")
        one, two = self.machine("sixg", "sixbr"), self.machine("slaacg", "slaacbr", "52:54:00:00:00:44")
        self.assertEqual(one.enter(lambda: solicit("eth0")), "fd00:26::100")
        manage.until(lambda: "default via fe80" in one.run("ip", "-6", "route"), "an advertisement")
        manage.until(lambda: "fd00:27::5054:ff:fe00:44/64" in two.run("ip", "-6", "addr"), "an address of the prefix")

    def test_ipv6(self):
        self.network("""<network><name>six</name><bridge stp='off'/><forward mode='nat'><nat ipv6='yes'/></forward>
            <ip family='ipv6' address='fd00:25::1' prefix='64'><dhcp><range start='fd00:25::100' end='fd00:25::1ff'/>
            </dhcp></ip></network>""")
        bridge = self.virsh("net-info", "six").split("Bridge:")[1].strip()
        self.assertIn("fd00:25::1/64", self.host.run("ip", "addr", "show", bridge))
        self.assertIn("masquerade", self.host.run("nft", "list", "table", "inet", f"lodge_{bridge}"))
        guest = self.machine("six", bridge)
        self.static(guest, "fd00:25::2/64")
        self.world.run("ip", "addr", "add", "2001:db8::2/64", "dev", "ext0", "nodad")
        self.host.run("ip", "addr", "add", "2001:db8::1/64", "dev", "ext0", "nodad")
        guest.run("ip", "-6", "route", "replace", "default", "via", "fd00:25::1")
        code = ("import socket\ns = socket.create_server(('::', 86), family=socket.AF_INET6)\nprint('up', flush=True)\n"
                "c, a = s.accept()\nc.sendall(a[0].encode())\n")
        p = subprocess.Popen(["ip", "netns", "exec", self.world.name, sys.executable, "-c", code],
                             stdout=subprocess.PIPE, text=True)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        p.stdout.readline()
        # The address of a port that has just come up is tried out first.
        manage.until(lambda: guest.enter(lambda: ask("2001:db8::2", 86)) == "2001:db8::1", "IPv6 through NAT")


class Guests(NetworkCase):
    """Real machines, whose interfaces are lodged's own taps."""
    XML = """<network><name>lab</name><metadata><l:forward xmlns:l='urn:lodge:network:1' proto='tcp' port='2222'
        to='10.40.0.2' toPort='22'/></metadata><forward mode='nat'/><bridge stp='off'/><ip address='10.40.0.1' prefix='24'>
        <dhcp><range start='10.40.0.2' end='10.40.0.99'/><host mac='52:54:00:40:00:02' ip='10.40.0.2'/>
        <host mac='52:54:00:40:00:03' ip='10.40.0.3'/></dhcp></ip></network>"""

    def boot(self, conn, number):
        devices = (f"<interface type='network'><mac address='52:54:00:40:00:0{number}'/><source network='lab'/>"
                   "<model type='virtio'/></interface><console type='pty'/>")
        dom = conn.createXML(machine(f"guest{number}", devices=devices), libvirt.VIR_DOMAIN_START_PAUSED)
        self.addCleanup(dom.destroy)
        return dom, resumed(conn, dom)

    def test_lease_neighbour_world_and_forwarded_port(self):
        conn = self.daemon.connect()
        self.addCleanup(conn.close)
        self.network(self.XML)
        booted = [self.boot(conn, n) for n in (2, 3)]
        consoles = [console for _, console in booted]
        for console in consoles:
            console.expect(b"busybox")
        leases = self.virsh("net-dhcp-leases", "lab")
        for n in (2, 3):
            self.assertRegex(leases, rf"52:54:00:40:00:0{n} +ipv4 +10\.40\.0\.{n}/24")
        self.assertIn("<target dev='vnet0'/>", booted[0][0].XMLDesc() + booted[1][0].XMLDesc())
        self.addCleanup(Server(self.world, 81).close)
        # The machine at 10.40.0.2 answers one caller after the other at port 22.
        consoles[0].type(b"while true; do echo its-$((40+2)) | nc -l -p 22; done &\n")
        consoles[1].type(b"until nc 10.40.0.2 22 </dev/null | grep its-42; do sleep 1; done\n")
        consoles[1].expect(b"\nits-42")
        consoles[1].type(b"echo seen-as $(nc 203.0.113.2 81 </dev/null)\n")
        consoles[1].expect(b"seen-as 203.0.113.1")
        manage.until(lambda: self.world.enter(lambda: ask("203.0.113.1", 2222)) == "its-42\n", "the forwarded port")


class Management(NetworkCase):
    XML = "<network><name>%s</name>%s<ip address='10.%d.0.1' prefix='24'/></network>"

    def test_life(self):
        self.define(self.XML % ("life", "<forward/>", 30))
        xml = self.virsh("net-dumpxml", "life")
        for part in ("<forward mode='nat'/>", "stp='on' delay='0'", "<mac address='52:54:00:"):
            self.assertIn(part, xml)
        with open(f"{self.dir}/out.xml", "w") as f:
            f.write(xml)
        run("virt-xml-validate", f"{self.dir}/out.xml", "network")
        self.assertIn("already exists with uuid", self.define(self.XML % ("life", "", 30), fails=True))
        self.virsh("net-start", "life")
        self.assertIn("already active", self.virsh("net-start", "life", fails=True))
        self.assertIn("<port start='1024' end='65535'/>", self.virsh("net-dumpxml", "life"))
        self.assertNotIn("<port", self.virsh("net-dumpxml", "life", "--inactive"))
        self.virsh("net-autostart", "life")
        self.assertRegex(self.virsh("net-list", "--autostart"), r"life +active +yes +yes")
        self.assertEqual(self.virsh("net-name", self.virsh("net-uuid", "life")), "life")
        env = dict(os.environ, EDITOR="sed -i s,10.30.0.1,10.31.0.1,")
        p = run("virsh", "-c", self.daemon.uri, "net-edit", "life", env=env, check=False)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn("10.30.0.1", self.virsh("net-dumpxml", "life"))
        self.virsh("net-undefine", "life")
        self.assertRegex(self.virsh("net-list", "--all"), r"life +active +no +no")
        self.virsh("net-destroy", "life")
        self.assertIn("no network with matching name 'life'", self.virsh("net-destroy", "life", fails=True))
        with open(f"{self.dir}/t.xml", "w") as f:
            f.write(self.XML % ("passing", "", 32))
        self.virsh("net-create", f"{self.dir}/t.xml")
        self.assertIn("transient", self.virsh("net-autostart", "passing", fails=True))
        self.assertIn("transient", self.virsh("net-undefine", "passing", fails=True))
        self.virsh("net-destroy", "passing")
        self.assertNotIn("passing", self.virsh("net-list", "--all"))

    def test_half_made_things_are_undone(self):
        self.host.run("ip", "link", "add", "taken", "type", "bridge")
        self.addCleanup(self.host.run, "ip", "link", "del", "taken")
        self.define(self.XML % ("bad", "<bridge name='taken'/>", 33))
        self.assertIn("bridge name 'taken' is taken", self.virsh("net-start", "bad", fails=True))
        self.host.run("ip", "link", "show", "taken")  # it is somebody else's and still there
        self.virsh("net-undefine", "bad")
        self.define("<network><name>bad</name><ip address='203.0.113.9' prefix='24'/></network>")
        self.assertIn("already in use by interface ext0", self.virsh("net-start", "bad", fails=True))
        self.virsh("net-undefine", "bad")
        self.define("""<network><name>bad</name><bridge name='badbr'/><ip address='10.33.0.1' prefix='24'/>
            <route address='10.99.0.0' prefix='16' gateway='10.98.0.1'/></network>""")
        error = self.virsh("net-start", "bad", fails=True)
        self.assertIn("Unable to add a route", error)
        self.assertNotIn("badbr", self.host.run("ip", "link"))
        self.assertNotIn("lodge_badbr", self.tables())
        self.virsh("net-undefine", "bad")

    def test_dnsmasq_is_missing(self):
        hide = f"{self.dir}/hide"
        with open(hide, "w") as f:
            f.write("#!/bin/sh\nmount --bind /dev/null /usr/sbin/dnsmasq && exec \"$@\"\n")
        os.chmod(hide, 0o755)
        d = self.start_daemon(self.addCleanup, before=f"unshare -m {hide}")
        error = d.virsh("net-start", "default", fails=True)
        self.assertIn("dnsmasq", error)
        self.assertIn("not installed", error)
        self.assertNotIn("virbr0", self.host.run("ip", "link"))
        self.assertEqual({t for t in self.tables() if "virbr0" in t}, set())

    def test_flushed_rules_come_back(self):
        self.network(self.XML % ("rules", "<forward/><bridge name='rulesbr'/>", 34))
        self.host.run("nft", "add", "table", "inet", "others")
        self.assertIn("lodge_rulesbr", self.tables())
        self.host.run("nft", "flush", "ruleset")
        manage.until(lambda: "lodge_rulesbr" in self.tables(), "our table is back")
        listed = self.host.run("nft", "list", "table", "inet", "lodge_rulesbr")
        self.assertIn("masquerade", listed)
        self.host.run("nft", "add", "table", "inet", "others")
        self.virsh("net-destroy", "rules")
        self.assertEqual(self.tables(), {"others"})
        self.virsh("net-start", "rules")
        self.assertEqual(self.tables(), {"others", "lodge_rulesbr"})

    def test_restart(self):
        root = tempfile.mkdtemp(prefix="lodge-d-")
        self.addCleanup(shutil.rmtree, root, True)
        d = self.start_daemon(self.addCleanup, root=root)
        with open(f"{self.dir}/r.xml", "w") as f:
            f.write(self.XML % ("again", "<forward/><bridge name='againbr'/>", 35))
        d.virsh("net-define", f"{self.dir}/r.xml")
        d.virsh("net-start", "again")
        with open(f"{root}/run/dnsmasq/again.pid") as f:
            pid = f.read()
        d.kill()
        self.host.run("nft", "flush", "ruleset")
        d.start()
        self.assertRegex(d.virsh("net-list"), r"again +active")
        with open(f"{root}/run/dnsmasq/again.pid") as f:
            self.assertEqual(f.read(), pid)
        self.assertIn("lodge_againbr", self.tables())
        d.virsh("net-autostart", "again")
        d.kill()
        self.host.run("ip", "link", "del", "againbr")  # as after a restart of the host
        os.kill(int(pid), 9)
        d.start()
        self.assertRegex(d.virsh("net-list"), r"again +active +yes")
        self.host.run("ip", "link", "show", "againbr")
        d.virsh("net-destroy", "again")
        self.assertFalse(os.path.exists(f"{root}/run/dnsmasq/again.pid"))
        d.virsh("net-undefine", "default")
        d.kill()
        d.start()
        self.assertNotIn("default", d.virsh("net-list", "--all"))  # it ships once

    def test_two_daemons(self):
        other = self.start_daemon(self.addCleanup)
        self.virsh("net-start", "default")
        self.addCleanup(self.virsh, "net-destroy", "default")
        self.assertIn("is taken", other.virsh("net-start", "default", fails=True))
        with open(f"{self.dir}/o.xml", "w") as f:
            f.write(self.XML % ("default2", "<forward/>", 36))
        other.virsh("net-define", f"{self.dir}/o.xml")
        self.assertNotIn("virbr0'", other.virsh("net-dumpxml", "default2"))
        other.virsh("net-start", "default2")
        other.virsh("net-destroy", "default2")
        self.assertIn("lodge_virbr0", self.tables())
        self.assertIn("virbr0", self.host.run("ip", "link"))

    def test_others_bridges_and_devices(self):
        self.host.run("ip", "link", "add", "hostbr", "type", "bridge")
        self.addCleanup(self.host.run, "ip", "link", "del", "hostbr")
        self.network("<network><name>ext</name><forward mode='bridge'/><bridge name='hostbr'/></network>")
        self.assertEqual({t for t in self.tables() if "hostbr" in t}, set())
        self.virsh("net-destroy", "ext")
        self.host.run("ip", "link", "show", "hostbr")
        self.virsh("net-start", "ext")
        self.network("<network><name>mac</name><forward mode='bridge'><interface dev='ext0'/></forward></network>")
        self.assertIn("dev='ext0'", self.virsh("net-dumpxml", "mac"))
        self.define("<network><name>no</name><forward mode='private'><interface dev='nosuch0'/></forward></network>")
        self.assertIn("needs device 'nosuch0'", self.virsh("net-start", "no", fails=True))
        self.virsh("net-undefine", "no")
        self.define("<network><name>no</name><forward mode='bridge'/><bridge name='nobr'/></network>")
        self.assertIn("needs bridge 'nobr'", self.virsh("net-start", "no", fails=True))
        self.virsh("net-undefine", "no")

    def test_bad_xml(self):
        for xml, words in (("<network><name>x</name>\n<ip></network>", ":2:"),
                           ("<network><name>x</name><frob/></network>", "<frob>"),
                           ("<network><name>a/b</name></network>", "cannot contain '/'"),
                           ("<network><name>x</name><forward mode='bridge'/></network>", "needs a <bridge>"),
                           ("<network><name>x</name><bandwidth><outbound average='1' floor='2'/></bandwidth></network>",
                            "'floor' attribute is not allowed"),
                           ("<network><name>x</name><virtualport type='openvswitch'/></network>", "<virtualport>")):
            self.assertIn(words, self.define(xml, fails=True))

    def test_events_and_errors(self):
        libvirt.virEventRegisterDefaultImpl()
        conn = self.daemon.connect()
        self.addCleanup(conn.close)
        seen = []
        conn.networkEventRegisterAny(None, libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE,
                                     lambda c, n, e, d, o: seen.append((n.name(), e)), None)
        self.define(self.XML % ("ev", "", 37))
        for verb in ("net-start", "net-destroy", "net-undefine"):
            self.virsh(verb, "ev")
        timer = libvirt.virEventAddTimeout(100, lambda *_: None, None)
        manage.until(lambda: libvirt.virEventRunDefaultImpl() or len(seen) == 4, "four events")
        libvirt.virEventRemoveTimeout(timer)
        with subprocess.Popen(["virsh", "-c", self.daemon.uri, "net-event", "--event", "lifecycle", "--timestamp"],
                              stdout=subprocess.PIPE, text=True) as shell:
            while shell.poll() is None:  # until it has registered and heard of one
                self.define(self.XML % ("ev", "", 37))
                self.virsh("net-undefine", "ev")
            self.assertRegex(shell.stdout.read(), r"event 'lifecycle' for network '?ev'?: (Defined|Undefined)")
        self.assertEqual(seen, [("ev", 0), ("ev", 2), ("ev", 3), ("ev", 1)])
        with self.assertRaises(libvirt.libvirtError) as caught:
            conn.networkLookupByName("nosuch")
        self.assertEqual(caught.exception.get_error_code(), libvirt.VIR_ERR_NO_NETWORK)
        reader = self.daemon.connect(read_only=True)
        self.addCleanup(reader.close)
        reader.networkLookupByName("default").XMLDesc()
        with self.assertRaises(libvirt.libvirtError):
            reader.networkLookupByName("default").create()


if __name__ == "__main__":
    manage.need_networks()
    unittest.main()
