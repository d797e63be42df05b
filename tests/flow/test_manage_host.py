# SPDX-License-Identifier: GPL-2.0-or-later
"""What lodged tells of its host; secrets and network filters."""
import base64
import os
import pathlib
import subprocess
import tempfile
import unittest

import manage


class Host(manage.Case):
    def validates(self, text, schema):
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as f:
            f.write(text)
            f.flush()
            p = subprocess.run(["virt-xml-validate", f.name, schema], capture_output=True, text=True)
        self.assertEqual(p.returncode, 0, p.stdout + p.stderr + text)

    def test_memory_and_processors(self):
        conn = self.connect()
        total = conn.getMemoryStats(-1)["total"]
        self.assertEqual(conn.getInfo()[1], total // 1024)
        self.assertLessEqual(conn.getFreeMemory(), total * 1024)
        self.assertEqual(len(conn.getCellsFreeMemory(0, 1)), 1)
        before = conn.getCPUStats(-1)
        self.assertEqual(sorted(before), ["idle", "iowait", "kernel", "user"])
        self.assertGreaterEqual(sum(conn.getCPUStats(-1).values()), sum(before.values()))
        self.assertIn("idle", conn.getCPUStats(0))
        cpus, bits, online = conn.getCPUMap()
        self.assertEqual((cpus, sum(bits)), (os.cpu_count(), online))
        self.assertEqual(conn.getMaxVcpus(None), 255)
        self.assertIn("Total", self.virsh("freecell", "--all"))
        self.assertIn("KiB", self.virsh("freecell"))
        self.assertIn("user:", self.virsh("nodecpustats"))
        self.assertIn("cached", self.virsh("nodememstats"))
        self.assertIn("4KiB:", self.virsh("freepages", "--cellno", "0", "--pagesize", "4").replace(" ", ""))

    def test_capabilities_are_valid(self):
        self.validates(self.virsh("capabilities"), "capability")

    def test_devices(self):
        names = self.virsh("nodedev-list").split()
        self.assertIn("computer", names)
        self.assertTrue([n for n in names if n.startswith("net_lo_")], names)
        for name in names:
            self.validates(self.virsh("nodedev-dumpxml", name), "nodedev")
        nets = self.virsh("nodedev-list", "--cap", "net").split()
        self.assertEqual(sorted(nets), sorted(n for n in names if n.startswith("net_")))
        self.assertIn("computer", self.virsh("nodedev-list", "--tree"))
        self.assertIn("Node device not found", self.virsh("nodedev-dumpxml", "none", fails=True))
        conn = self.connect()
        self.assertEqual(conn.numOfDevices(None, 0), len(names))
        self.assertEqual(sorted(conn.listDevices(None, 0)), sorted(names))
        self.assertIsNone(conn.nodeDeviceLookupByName("computer").parent())


    def test_interfaces(self):
        names = os.listdir("/sys/class/net")
        shown = self.virsh("iface-list", "--all")
        for name in names:
            if os.path.exists(f"/sys/class/net/{name}/address"):
                self.assertIn(f" {name} ", shown)
        xml = self.virsh("iface-dumpxml", "lo")
        reference = pathlib.Path(__file__).resolve().parents[3] / "shared/reference/xml/libvirtd-iface-lo.xml"
        if reference.exists():
            self.assertEqual(xml.strip(), reference.read_text().strip())
        self.assertIn("name='lo'", xml)
        self.validates(xml, "interface")
        self.assertEqual(self.virsh("iface-mac", "lo"), "00:00:00:00:00:00")
        self.assertIn("Interface not found", self.virsh("iface-dumpxml", "../lo", fails=True))


SECRET = """<secret ephemeral='no' private='{private}'>
  <description>of &lt;a&gt; disk</description>
  <usage type='volume'>
    <volume>/images/{n}.img</volume>
  </usage>
</secret>
"""
FILTER = "<filter name='{}' chain='root'><rule action='drop' direction='in'><all/></rule></filter>"


class Definitions(unittest.TestCase):
    def setUp(self):
        self.daemon = manage.Daemon()
        self.addCleanup(self.daemon.close)
        self.virsh = self.daemon.virsh

    def file(self, text):
        f = tempfile.NamedTemporaryFile("w", suffix=".xml")
        self.addCleanup(f.close)
        f.write(text)
        f.flush()
        return f.name

    def test_secrets(self):
        out = self.virsh("secret-define", self.file(SECRET.format(private="no", n=1)))
        uuid = out.split()[1]
        self.assertIn("does not have a value", self.virsh("secret-get-value", uuid, fails=True))
        value = base64.b64encode(b"open\0sesame").decode()
        self.virsh("secret-set-value", uuid, "--base64", value)
        self.virsh("secret-define", self.file(SECRET.format(private="yes", n=2)))
        path = f"{self.daemon.root}/etc/secrets/{uuid}.base64"
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        self.assertIn("already defined for use",
                      self.virsh("secret-define", self.file(SECRET.format(private="no", n=1)), fails=True))
        self.daemon.kill()
        self.daemon.start()
        self.assertIn(uuid, self.virsh("secret-list"))
        self.assertIn("/images/1.img", self.virsh("secret-list"))
        self.assertEqual(self.virsh("secret-get-value", uuid), value)
        self.assertIn("<description>of &lt;a&gt; disk</description>", self.virsh("secret-dumpxml", uuid))
        conn = self.daemon.connect()
        self.assertEqual(len(conn.listAllSecrets(4)), 1)  # private ones
        secret = conn.secretLookupByUsage(1, "/images/2.img")
        secret.setValue(b"x", 0)
        with self.assertRaisesRegex(Exception, "Invalid secret: secret is private"):
            secret.value()
        conn.close()
        ro = self.daemon.connect(read_only=True)
        with self.assertRaisesRegex(Exception, "read only"):
            ro.secretLookupByUUIDString(uuid).value()
        ro.close()
        self.virsh("secret-undefine", uuid)
        self.assertFalse(os.path.exists(path))
        self.assertIn("Secret not found", self.virsh("secret-dumpxml", uuid, fails=True))

    def test_filters(self):
        self.virsh("nwfilter-define", self.file(FILTER.format("no-in")))
        xml = self.virsh("nwfilter-dumpxml", "no-in")
        self.assertIn("<uuid>", xml)
        self.assertIn('<rule action="drop" direction="in">', xml)
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(self.virsh("nwfilter-dumpxml", "no-in"), xml)
        self.virsh("nwfilter-define", self.file(FILTER.format("no-in")))  # the same uuid
        self.assertEqual(self.virsh("nwfilter-dumpxml", "no-in"), xml)
        self.assertIn("no-in", self.virsh("nwfilter-list"))
        self.assertIn("valid name", self.virsh("nwfilter-define", self.file(FILTER.format("../x")),
                                               fails=True))
        conn = self.daemon.connect()
        self.addCleanup(conn.close)
        paths = [self.file(f.XMLDesc()) for f in conn.listAllNWFilters()]  # those that are shipped, too
        subprocess.run(["xmllint", "--noout", "--relaxng", "/usr/share/libvirt/schemas/nwfilter.rng", *paths], check=True,
                       capture_output=True)
        self.virsh("nwfilter-undefine", "no-in")
        self.assertIn("Network filter not found", self.virsh("nwfilter-dumpxml", "no-in", fails=True))


if __name__ == "__main__":
    unittest.main(verbosity=2)
