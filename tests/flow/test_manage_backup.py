#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Checkpoints and backups through lodged with virsh: pushed into images, pulled by nbdcopy and nbdinfo, whole and
of what has changed, over snapshots and while lodged dies."""
import json
import os
import re
import subprocess
import unittest

import libvirt

import manage
from test_manage_jobs import DISK, Events, Work, img


def run(*args):
    p = subprocess.run(args, capture_output=True, text=True, timeout=manage.PATIENCE)
    assert p.returncode == 0, (args, p.stdout, p.stderr)
    return p.stdout


class Backups(Work):
    def backup(self, xml, checkpoint=None, fails=False, *more):
        file = self.path("backup.xml")
        with open(file, "w") as f:
            f.write(xml)
        words = [file]
        if checkpoint:
            with open(self.path("checkpoint.xml"), "w") as f:
                f.write(f"<domaincheckpoint><name>{checkpoint}</name></domaincheckpoint>")
            words += [self.path("checkpoint.xml")]
        return self.v("backup-begin", *words, *more, fails=fails)

    def over(self, kind="Completed"):
        manage.until(lambda: "None" in self.v("domjobinfo"), "the backup is over")
        info = self.v("domjobinfo", "--completed")
        self.assertRegex(info, rf"Job type: +{kind}")
        self.assertRegex(info, "Operation: +Backup")
        return info

    def push(self, to, incremental=None, checkpoint=None):
        since = f"<incremental>{incremental}</incremental>" if incremental else ""
        self.backup(f"<domainbackup>{since}<disks><disk name='vda' type='file'><target file='{self.path(to)}'/>"
                    "</disk></disks></domainbackup>", checkpoint)
        self.over()

    def sector(self, image, n):
        img("convert", "-O", "raw", image, self.path("flat"))
        with open(self.path("flat"), "rb") as f:
            f.seek(n * 512)
            return f.read(16).split(b"\n")[0].decode()

    def test_push(self):
        self.assertIn("inactive domain", self.v("checkpoint-create-as", "c0", fails=True))
        self.boot()
        self.write(1, "wone")
        self.assertIn("no domain backup job present", self.v("backup-dumpxml", fails=True))
        self.push("full", checkpoint="c1")
        self.assertEqual(self.sector(self.path("full"), 1), "wone")
        self.write(1, "wtwo")
        self.write(4000, "wthree")
        self.assertIn("already exists", self.backup(
            f"<domainbackup><disks><disk name='vda'><target file='{self.path('full')}'/></disk></disks></domainbackup>",
            fails=True))
        self.assertIn("not found", self.backup("<domainbackup><incremental>c9</incremental></domainbackup>", fails=True))
        self.assertIn("tls is not supported", self.backup("<domainbackup mode='pull'><server tls='yes'/></domainbackup>",
                                                          fails=True))
        # A snapshot between two backups: what was written before it and after it counts.
        self.v("snapshot-create-as", "s", "--disk-only", "--no-metadata", "--diskspec", f"vda,file={self.path('over')}")
        self.write(8000, "wfour")
        self.push("inc", incremental="c1", checkpoint="c2")
        info = json.loads(img("info", "--output=json", self.path("inc")))
        self.assertLess(info["actual-size"], 2 << 20)
        for n, word in ((1, "wtwo"), (4000, "wthree"), (8000, "wfour")):
            self.assertEqual(self.sector(self.path("inc"), n), word)
        img("rebase", "-u", "-b", self.path("full"), "-F", "qcow2", self.path("inc"))
        self.assertIn("c1\n  |\n  +- c2", self.v("checkpoint-list", "--tree"))
        # The snapshot goes: its bitmaps do not.
        self.v("blockcommit", "vda", "--active", "--pivot")
        self.write(12000, "wfive")
        self.push("inc2", incremental="c2")
        img("rebase", "-u", "-b", self.path("inc"), "-F", "qcow2", self.path("inc2"))
        self.assertEqual(self.sector(self.path("inc2"), 12000), "wfive")
        size = self.v("checkpoint-dumpxml", "c2", "--size", "--no-domain")
        self.assertRegex(size, r"bitmap='c2' size='[1-9]\d+'")
        self.assertNotIn("<domain>", size)
        self.dom.destroy()
        run("qemu-img", "compare", "-q", self.path("a.qcow2"), self.path("inc2"))
        run("qemu-img", "check", "-q", self.path("a.qcow2"))

    def test_checkpoints(self):
        self.boot()
        file = self.path("c.xml")
        for name in ("c1", "c2", "c3"):
            self.v("checkpoint-create-as", name, "--diskspec", "vda,checkpoint=bitmap", "--description", f"it is {name}")
        self.assertEqual(self.v("checkpoint-list", "--name"), "c1\nc2\nc3")
        self.assertEqual(self.v("checkpoint-list", "--name", "--leaves"), "c3")
        self.assertEqual(self.v("checkpoint-list", "--name", "--roots"), "c1")
        self.assertEqual(self.v("checkpoint-list", "--name", "--from", "c1", "--descendants"), "c2\nc3")
        self.assertEqual(self.v("checkpoint-parent", "c3"), "c2")
        self.assertRegex(self.v("checkpoint-info", "c2"), r"Parent: +c1\nChildren: +1\nDescendants: +1")
        self.assertIn("already exists", self.v("checkpoint-create-as", "c3", fails=True))
        self.assertIn("no disk named", self.v("checkpoint-create-as", "c4", "--diskspec", "vdz", fails=True))
        xml = self.v("checkpoint-dumpxml", "c3")
        with open(file, "w") as f:
            f.write(xml)
        run("virt-xml-validate", file, "domaincheckpoint")
        self.v("checkpoint-delete", "c3", "--metadata")
        self.v("checkpoint-create", file, "--redefine")
        self.assertEqual(self.v("checkpoint-parent", "c3"), "c2")
        self.restart()
        self.v("checkpoint-delete", "c2")
        self.assertEqual(self.v("checkpoint-parent", "c3"), "c1")
        self.v("checkpoint-delete", "c1", "--children-only")
        self.assertEqual(self.v("checkpoint-list", "--name"), "c1")
        listed = json.loads(img("info", "-U", "--output=json", self.path("a.qcow2")))["format-specific"]["data"]
        self.assertEqual([b["name"] for b in listed["bitmaps"]], ["c1"])
        self.dom.destroy()
        self.assertIn("1 checkpoints", self.virsh("undefine", self.name, fails=True))
        self.assertEqual(self.virsh("list", "--all", "--name", "--with-checkpoint"), self.name)

    def test_pull(self):
        self.boot()
        self.write(1, "wone")
        sock = self.path("sock")
        os.chmod(self.folder, 0o777)
        self.backup(f"<domainbackup mode='pull'><server transport='unix' socket='{sock}'/></domainbackup>", "c1")
        self.assertIn("another job", self.backup("<domainbackup/>", fails=True))
        self.assertRegex(self.v("domjobinfo"), r"Job type: +Unbounded")
        self.assertRegex(self.v("domcontrol"), r"^background job \(\d+\.\d+s\)$")
        for words in (("detach-disk", "vda"), ("blockcopy", "vda", self.path("c"), "--transient-job"), ("blockpull", "vda")):
            self.assertIn("disk 'vda' already in active block job", self.v(*words, fails=True))
        self.assertRegex(self.v("save", self.path("state"), fails=True), "domain has active block job")
        self.assertRegex(self.v("snapshot-create-as", "s", fails=True), "disk 'vda' already in active block job")
        self.write(1, "wtwo")
        uri = f"nbd+unix:///vda?socket={sock}"
        run("nbdcopy", uri, self.path("full.raw"))
        with open(self.path("full.raw"), "rb") as f:
            self.assertEqual(f.read(517)[512:], b"wone\n")
        xml = self.v("backup-dumpxml")
        self.assertIn("mode='pull'", xml)
        with open(self.path("b.xml"), "w") as f:
            f.write(xml)
        run("virt-xml-validate", self.path("b.xml"), "domainbackup")
        scratch = re.search(r"<scratch file='(.*)'", xml)[1]
        self.assertTrue(os.path.exists(scratch))
        # lodged dies, and the clients go on.
        self.daemon.kill()
        run("nbdcopy", uri, self.path("again.raw"))
        self.daemon.start()
        self.conn = self.connect()
        self.dom = self.conn.lookupByName(self.name)
        run("cmp", self.path("full.raw"), self.path("again.raw"))
        self.assertIn("mode='pull'", manage.until(lambda: self.daemon.run_virsh("backup-dumpxml", self.name).stdout,
                                                  "lodged has found the backup"))
        self.v("domjobabort")
        self.over("Cancelled")
        self.assertFalse(os.path.exists(scratch) or os.path.exists(sock))
        # What has changed since, over TCP.
        self.talk()
        self.write(4000, "wthree")
        port = 20000 + os.getpid() % 20000
        self.backup(f"<domainbackup mode='pull'><incremental>c1</incremental><server name='127.0.0.1' port='{port}'/>"
                    f"<disks><disk name='vda' exportname='disk' exportbitmap='marks'><scratch file='{self.path('s')}'/>"
                    "</disk></disks></domainbackup>")
        uri = f"nbd://127.0.0.1:{port}/disk"
        marks = json.loads(run("nbdinfo", "--json", "--map=qemu:dirty-bitmap:marks", uri))
        marked = [(e["offset"], e["offset"] + e["length"]) for e in marks if e["type"]]
        for n in (1, 4000):
            self.assertTrue(any(a <= n * 512 < b for a, b in marked), marked)
        self.assertFalse(any(a <= 10 << 20 < b for a, b in marked), marked)
        self.write(20000, "wlater")
        for pid in self.daemon.machines():
            os.kill(pid, 9)
        manage.until(lambda: not os.path.exists(self.path("s")), "the scratch image is gone")
        self.assertEqual(self.v("domstate", "--reason"), "shut off (crashed)")
        img("check", "-q", "-r", "leaks", self.path("a.qcow2"))  # what a power cut may leave

    def test_given_up(self):
        """A push that is aborted leaves no half image; the next one is whole."""
        self.boot()
        self.say("dd if=/dev/urandom of=/dev/vda bs=1M count=12 conv=fsync")
        target = self.path("t")
        seen = Events(self.conn)
        self.v("blkdeviotune", "vda", "--total-bytes-sec", "1M", "--live")
        xml = f"<domainbackup><disks><disk name='vda'><target file='{target}'/></disk></disks></domainbackup>"
        self.backup(xml)
        self.daemon.run_virsh("domjobabort", self.name)
        manage.until(lambda: "None" in self.v("domjobinfo"), "the backup is over")
        if "Cancelled" in self.v("domjobinfo", "--completed", "--keep-completed"):
            self.assertFalse(os.path.exists(target))
        else:
            os.unlink(target)
        self.assertEqual(seen.seen, [])
        self.backup(xml)
        self.over()
        self.dom.destroy()
        run("qemu-img", "compare", "-q", self.path("a.qcow2"), target)


if __name__ == "__main__":
    unittest.main()
