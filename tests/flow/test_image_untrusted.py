# SPDX-License-Identifier: GPL-2.0-or-later
"""Images that nobody vouches for: what they name is followed only inside their own directory."""
import json
import os
import subprocess
import tempfile
import unittest

IMG = os.environ["LODGE_IMG"]
MIB = 1 << 20
SECRET = b"topsecret"


class Untrusted(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="lodge-untrusted-")
        self.addCleanup(self.dir.cleanup)
        for folder in "in", "out", "in/deeper":
            os.mkdir(self.path(folder))
        for name in "in/good", "out/secret", "in/deeper/file":
            with open(self.path(name), "wb") as f:
                f.write(SECRET)
                f.truncate(MIB)
        os.symlink("../out/secret", self.path("in/link"))
        os.symlink("good", self.path("in/inner"))
        os.mkfifo(self.path("in/fifo"))

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def img(self, *args):
        return subprocess.run([IMG, *args], cwd=self.dir.name, capture_output=True, text=True, timeout=60)

    def convert(self, name, *more):
        """Whether the untrusted image converts; its refusal is one line."""
        p = self.img("convert", "--untrusted", *more, "-O", "raw", name, "converted")
        self.assertIn(p.returncode, (0, 1))
        if p.returncode:
            self.assertEqual(len(p.stderr.strip().splitlines()), 1, p.stderr)
            self.assertIn(name, p.stderr)
        return p.returncode == 0

    BAD = ("{}/out/secret", "../out/secret", "link", "deeper/file", "deeper", "fifo", "/dev/null", "missing",
           "file:good", "nbd://localhost/x", "https://localhost/x",
           'json:{{"driver":"raw","file":{{"driver":"file","filename":"{}/out/secret"}}}}')

    def test_backing_files(self):
        for name in self.BAD:
            name = name.format(self.dir.name)
            with self.subTest(name=name):
                self.assertEqual(self.img("create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", "raw",
                                          "in/top", "1M").returncode, 0)
                self.assertFalse(self.convert("in/top", "-f", "qcow2"))
        for name in "good", "inner", self.path("in/good"):
            with self.subTest(name=name):
                self.img("create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", "raw", "in/top", "1M")
                self.assertTrue(self.convert("in/top", "-f", "qcow2"))
                with open(self.path("converted"), "rb") as f:
                    self.assertEqual(f.read(len(SECRET)), SECRET)

    def test_a_backing_file_without_a_format_is_not_probed(self):
        self.img("create", "-q", "-f", "qed", "-b", "good", "-F", "raw", "in/top", "1M")
        p = self.img("create", "-q", "-u", "-f", "qcow2", "-b", "good", "-F", "raw", "in/top", "1M")
        self.assertEqual(p.returncode, 0, p.stderr)
        with open(self.path("in/top"), "r+b") as f:  # the extension with the format's name goes
            head = bytearray(f.read(4096))
            at = head.index(b"\xe2\x79\x2a\xca")
            head[at:at + 4] = b"\x01\x02\x03\x04"  # one that nobody knows
            f.seek(0)
            f.write(head)
        self.assertFalse(self.convert("in/top", "-f", "qcow2"))

    def test_the_second_image_is_not_trusted_either(self):
        self.img("create", "-q", "-u", "-f", "qcow2", "-b", "../out/secret", "-F", "raw", "in/mid", "1M")
        self.img("create", "-q", "-u", "-f", "qcow2", "-b", "mid", "-F", "qcow2", "in/top", "1M")
        self.assertFalse(self.convert("in/top", "-f", "qcow2"))

    def test_data_files(self):
        for name, fine in (("data", True), ("../out/data", False)):
            with self.subTest(name=name):
                p = self.img("create", "-q", "-f", "qcow2", "-o", f"data_file={name}", "in/top", "1M")
                self.assertEqual(p.returncode, 0, p.stderr)
                self.assertTrue(os.path.exists(self.path(os.path.join("in", name))))
                self.assertEqual(self.convert("in/top", "-f", "qcow2"), fine)

    def test_extents_of_vmdk(self):
        if self.img("create", "-f", "vmdk", "-o", "help").returncode:
            self.skipTest("vmdk is not there")
        for name, fine in (("good", True), ("../out/secret", False), ("/etc/passwd", False), ("link", False)):
            with self.subTest(name=name), open(self.path("in/top.vmdk"), "w") as f:
                f.write("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
                        f'createType="monolithicFlat"\n\nRW 2048 FLAT "{name}" 0\n')
                f.flush()
                self.assertEqual(self.convert("in/top.vmdk", "-f", "vmdk"), fine)

    def test_info_opens_nothing_else(self):
        self.img("create", "-q", "-u", "-f", "qcow2", "-b", "fifo", "-F", "raw", "in/top", "1M")
        p = self.img("info", "--untrusted", "--output=json", "in/top")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(json.loads(p.stdout)["backing-filename"], "fifo")


if __name__ == "__main__":
    unittest.main(verbosity=2)
