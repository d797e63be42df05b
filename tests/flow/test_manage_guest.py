#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""One running guest with Debian's qemu-guest-agent: what the agent knows and does, the guest's addresses,
and network cards that come, move to another network and go while it runs."""
import os
import pathlib
import re
import subprocess
import unittest

import guest
import manage
from test_manage_domain import GUEST, machine, started, UP
from test_manage_network import NetworkCase

AGENT, LODGE = "/usr/sbin/qemu-ga", os.environ["LODGE"]
NETWORKS = [("lab", "<bridge name='labbr' stp='off'/><ip address='10.41.0.1' prefix='24'><dhcp>"
             "<range start='10.41.0.2' end='10.41.0.99'/></dhcp></ip>"),
            ("bare", "<bridge name='barebr' stp='off'/>")]


def with_agent(folder):
    """The tiny guest's initramfs with qemu-ga and the libraries it needs."""
    files = {"qemu-ga": AGENT}
    for line in subprocess.run(["ldd", AGENT], capture_output=True, text=True, check=True).stdout.split("\n"):
        path = re.search(r"(/\S+) \(", line)
        if path:
            files[path[1].rsplit("/", 1)[1]] = path[1]
    more = {name: pathlib.Path(path).read_bytes() for name, path in files.items()}
    loader = next(name for name in files if name.startswith("ld-"))
    old, path = (GUEST / "initrd").read_bytes(), pathlib.Path(folder, "initrd")
    path.write_bytes(old + bytes(-len(old) % 4) + guest.cpio(more))
    return path, loader


class Guest(NetworkCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for name, inside in NETWORKS:
            pathlib.Path(cls.dir, "net.xml").write_text(f"<network><name>{name}</name>{inside}</network>")
            cls.daemon.virsh("net-create", f"{cls.dir}/net.xml")
        initrd, loader = with_agent(cls.daemon.root)
        ports = "".join("<controller type='pci' model='pcie-root-port'/>" for _ in range(4))
        cls.conn = cls.daemon.connect()
        cls.addClassCleanup(cls.conn.close)
        cls.dom = cls.conn.defineXML(machine("g", initrd=initrd, memory=192, more="<vcpu>2</vcpu>", devices=f"""<console type='pty'/>{ports}
            <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
            <interface type='network'><mac address='52:54:00:41:00:02'/><source network='lab'/>
            <model type='virtio'/></interface>"""))
        cls.console = started(cls.conn, cls.dom)
        cls.addClassCleanup(cls.dom.destroy)
        cls.console.expect(UP)
        cls.console.expect(b"# ")
        cls.console.type(b"mkdir -p /var/run /var/log /run /etc; hostname tiny-one; echo 'ID=tiny' >/etc/os-release; "
                         b"for p in /dev/vport*; do ln -s $p /dev/agent; done; /" + loader.encode() +
                         b" --library-path / /qemu-ga -p /dev/agent -t /tmp -d; echo agent''-$?\n")
        cls.console.expect(b"agent-0")

    def ask(self, command):
        """What the guest's shell prints."""
        self.console.type(f"{command}; echo do''ne\n".encode())
        at = len(self.console.seen)
        self.console.expect(b"done")
        while b"\ndone" not in self.console.seen[at:]:
            self.console.seen += self.console.stream.recv(4096)
        return self.console.seen[at:].decode()

    def test_quiet_snapshot(self):
        """What the guest had not yet written is in the image that a quiesced snapshot leaves behind."""
        base, top = os.path.join(self.dir, "base.raw"), os.path.join(self.dir, "top")
        os.chmod(self.dir, 0o755)
        with open(base, "wb") as f:
            f.truncate(4 << 20)
        self.virsh("attach-disk", "g", base, "vda", "--subdriver", "raw", "--live")
        manage.until(lambda: "8192" in self.ask("cat /sys/block/vda/size"), "the disk is there")
        self.assertIn("mounted", self.ask("mke2fs -q /dev/vda && mkdir -p /mnt && mount -t ext4 /dev/vda /mnt && echo moun''ted"))
        self.assertIn("Froze 0 filesystem", self.virsh("domfsfreeze", "g", "--mountpoint", "/nosuch"))
        self.assertIn("not supported", self.virsh("domfsthaw", "g", "--mountpoint", "/mnt", fails=True))
        self.virsh("domfsthaw", "g")
        self.assertIn("Specifying mount point is not supported",
                      self.virsh("domfstrim", "g", "--mountpoint", "/mnt", fails=True))
        self.ask("echo not-flushed''-yet > /mnt/x")
        self.virsh("snapshot-create-as", "g", "--disk-only", "--no-metadata", "--quiesce", "--diskspec", f"vda,file={top}")
        with open(base, "rb") as f:
            self.assertIn(b"not-flushed-yet", f.read())
        self.assertIn("thawed", self.virsh("qemu-agent-command", "g", '{"execute":"guest-fsfreeze-status"}'))
        self.assertIn("goes-on", self.ask("echo goes''-on > /mnt/y && sync && cat /mnt/y; umount /mnt"))
        self.virsh("detach-disk", "g", "vda", "--live")

    def test_agent(self):
        self.assertEqual(self.virsh("qemu-agent-command", "g", '{"execute":"guest-ping"}'), '{"return": {}}')
        self.assertEqual(self.virsh("domhostname", "g", "--source", "agent"), "tiny-one")
        self.assertEqual(self.virsh("domhostname", "g"), "tiny-one")
        self.assertIn("no hostname found", self.virsh("domhostname", "g", "--source", "lease", fails=True))
        self.ask("udhcpc -q -n -t 50 -i eth0 -x hostname:tiny-lease -s /bin/lease")
        self.assertEqual(self.virsh("domhostname", "g", "--source", "lease"), "tiny-lease")
        self.assertRegex(self.virsh("domtime", "g"), r"Time: \d{10}")
        self.dom.setTime({"seconds": 1234567890, "nseconds": 0})
        self.assertLess(abs(self.dom.getTime()["seconds"] - 1234567890), 3600)
        self.assertRegex(self.virsh("guestvcpus", "g"), r"vcpus +: 0-1\s+online +: 0-1\s+offlinable +: 1")
        info = self.virsh("guestinfo", "g", "--os", "--hostname")
        self.assertIn("os.id", info)
        self.assertIn("tiny-one", info)
        self.assertIsInstance(self.dom.guestInfo(), dict)
        self.assertIn("No filesystems", self.virsh("domfsinfo", "g"))
        self.virsh("guest-agent-timeout", "g", "--timeout", "60")
        self.assertIn("agent", self.virsh("set-user-password", "g", "nobody", "secret", fails=True))

    def test_our_own_shell(self):
        """lodge's verbs do and print what virsh's do."""
        def shell(program, *words):
            return subprocess.run([program, "-c", self.daemon.uri, *words], capture_output=True, text=True,
                                  timeout=manage.PATIENCE, stdin=subprocess.DEVNULL)

        def both(words, fails=None):
            """The same, well or with words like these."""
            a, b = shell("virsh", *words), shell(LODGE, *words)
            with self.subTest(verb=words):
                self.assertEqual((b.returncode, b.stdout, b.stderr), (a.returncode, a.stdout, a.stderr))
                self.assertEqual(b.returncode, 1 if fails else 0, b.stderr)
                self.assertRegex(b.stderr, fails or "^$")
            return a.stdout

        both(["domifaddr", "g"])
        both(["domifaddr", "g", "--source", "agent"])
        both(["domifaddr", "g", "--source", "agent", "--full", "--interface", "lo"])
        both(["domhostname", "g", "--source", "agent"])
        both(["domhostname", "g", "--source", "lease"])
        both(["guestvcpus", "g"])
        both(["guestvcpus", "g", "--cpulist", "0"], "is required by option --cpulist")
        both(["guestvcpus", "g", "--cpulist", "0", "--enable"])
        both(["guestvcpus", "g", "--cpulist", "x", "--enable"], "Failed to parse bitmap 'x'")
        both(["qemu-agent-command", "g", '{"execute":"guest-ping"}'])
        both(["qemu-agent-command", "g", '{"execute":"nonsense"}'], "unable to execute QEMU agent command 'nonsense': .*nonsense")
        both(["detach-device-alias", "g", "net77", "--live"], "no device found")
        both(["domfsinfo", "g"])
        both(["domfstrim", "g"])
        both(["guestinfo", "g", "--hostname"])
        both(["guestinfo", "g", "--os"])
        both(["guestinfo", "g", "--user"])
        both(["set-user-password", "g", "nobody", "secret"], "cannot find 'passwd' program")
        both(["guest-agent-timeout", "g", "--timeout", "20"])
        both(["guest-agent-timeout", "nosuch"], "failed to get domain")
        both(["qemu-agent-command", "g", "--pretty", '{"execute":"guest-get-vcpus"}'])
        both(["qemu-agent-command", "g", "--timeout", "100", '{"execute":"guest-ping"}'])
        both(["qemu-agent-command", "g", "--block", '{"execute":"guest-ping"}'])
        both(["vcpucount", "g", "--guest"])
        for program in ("virsh", LODGE):  # the guest takes one of its processors out of use, and into it again
            for count in ("1", "2"):
                self.assertEqual(shell(program, "setvcpus", "g", count, "--guest").stderr, "")
                self.assertEqual(both(["vcpucount", "g", "--guest"]).strip(), count)
        both(["setvcpus", "g", "9", "--guest"], "9 > 2")
        both(["setvcpus", "g", "1", "--guest", "--config"], "mutually exclusive")
        self.assertRegex(shell(LODGE, "domtime", "g").stdout, r"Time: \d+")
        # Froze by one, thawed by the other.
        for first, second in (("virsh", LODGE), (LODGE, "virsh")):
            self.assertRegex(shell(first, "domfsfreeze", "g").stdout, r"^Froze \d+ filesystem\(s\)\n")
            self.assertRegex(shell(second, "domfsthaw", "g").stdout, r"^Thawed \d+ filesystem\(s\)\n")

    def test_addresses(self):
        lease = self.virsh("domifaddr", "g")
        address = re.search(r"52:54:00:41:00:02 +ipv4 +(10\.41\.0\.\d+)/24", lease)
        self.assertTrue(address, lease)
        by_agent = self.virsh("domifaddr", "g", "--source", "agent", "--full")
        self.assertIn(address[1], by_agent)
        self.assertIn("lo ", by_agent)
        self.ask(f"ping -c 1 10.41.0.1")
        self.assertEqual(self.virsh("domifaddr", "g", "--source", "nonsense", fails=True)[:7], "Unknown")

    def ports(self, bridge):
        return self.host.run("ip", "-o", "link", "show", "master", bridge)

    def test_cards(self):
        """Attached by name, by XML; moved; unplugged by the words of a shell and by alias."""
        mac = "52:54:00:41:00:07"
        self.virsh("attach-interface", "g", "network", "lab", "--mac", mac, "--model", "virtio", "--live")
        target = re.search(rf"(vnet\d+) +network +lab +virtio +{mac}", self.virsh("domiflist", "g"))[1]
        self.assertIn(target, self.ports("labbr"))
        manage.until(lambda: mac in self.ask("cat /sys/class/net/*/address"), "the guest has the card")
        card = re.findall(r"/sys/class/net/(\w+)/address", self.ask(f"grep -l {mac} /sys/class/net/*/address"))[-1]
        self.ask(f"ifconfig {card} up; udhcpc -q -n -t 50 -i {card} -s /bin/lease")
        self.assertIn(mac, self.virsh("domifaddr", "g"))
        self.virsh("domif-setlink", "g", target, "down")
        manage.until(lambda: "DOWN-0" in self.ask(f"echo DOWN-$(cat /sys/class/net/{card}/carrier)"), "no carrier")
        self.virsh("domif-setlink", "g", target, "up")
        moved = pathlib.Path(self.dir, "moved.xml")
        moved.write_text(f"<interface type='network'><mac address='{mac}'/><source network='bare'/>"
                         f"<model type='virtio'/></interface>")
        self.virsh("update-device", "g", str(moved), "--live")
        self.assertIn(target, self.ports("barebr"))
        self.assertRegex(self.virsh("domiflist", "g"), rf"{target} +network +bare +virtio +{mac}")
        moved.write_text(moved.read_text().replace("'bare'", "'nowhere'"))
        self.assertIn("no network", self.virsh("update-device", "g", str(moved), "--live", fails=True).lower())
        self.virsh("detach-interface", "g", "network", "--mac", mac, "--live")
        manage.until(lambda: mac not in self.virsh("domiflist", "g"), "the card is out")
        manage.until(lambda: target not in self.ports("barebr"), "its tap is gone")
        self.virsh("attach-interface", "g", "bridge", "barebr", "--mac", mac, "--model", "virtio", "--live")
        self.assertRegex(self.virsh("domiflist", "g"), rf"bridge +barebr +virtio +{mac}")
        manage.until(lambda: mac in self.ask("cat /sys/class/net/*/address"), "the guest has the card")
        alias = re.search(rf"{mac}.*?<alias name='(\w+)'", self.dom.XMLDesc(), re.S)[1]
        self.virsh("detach-device-alias", "g", alias, "--live")
        manage.until(lambda: mac not in self.virsh("domiflist", "g"), "the card is out")
        self.assertIn("no device found", self.virsh("detach-device-alias", "g", "net77", "--live", fails=True))
        self.assertIn("there is no bridge", self.virsh("attach-interface", "g", "bridge", "nobr", "--live", fails=True))
        self.assertNotIn("nobr", self.dom.XMLDesc())


if __name__ == "__main__":
    unittest.main()
