# SPDX-License-Identifier: GPL-2.0-or-later
"""lodged on the wire: connections, who may call what, and clients that behave badly."""
import os
import platform
import subprocess
import unittest

import manage


class Connection(manage.Case):
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

    def test_wrong_names_are_refused(self):
        bad = self.daemon.uri.replace("/system", "/session")
        self.assertIn("unexpected QEMU URI path", self.virsh("hostname", uri=bad, fails=True))

    def test_the_same_place_twice(self):
        p = subprocess.run([manage.LODGED, "--root", self.daemon.root], capture_output=True,
                           text=True, timeout=manage.PATIENCE)
        self.assertEqual(p.returncode, 1)
        self.assertIn("lodged.pid", p.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
