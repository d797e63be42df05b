#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots in images of their own: going back and forth in their tree, deleting, what lodged knows of them."""
import os
import pathlib
import re
import unittest

import libvirt

from test_manage_domain import UP
from test_manage_jobs import Work, img


class Variables(Work):
    def forget(self):
        self.daemon.run_virsh("destroy", self.name)
        self.v("undefine", "--nvram", "--snapshots-metadata")

    def test_fresh_ones(self):
        """The firmware's, when the machine goes back to what it was and starts with new ones."""
        xml = re.sub(r"<os>", "<os firmware='efi'>", self.dom.XMLDesc())
        self.dom = self.conn.defineXML(re.sub(r"<(kernel|initrd|cmdline)>.*?</\1>", "", xml))
        self.dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        path = pathlib.Path(re.search(r"<nvram.*>(.*)</nvram>", self.dom.XMLDesc())[1])
        self.dom.destroy()
        new = path.read_bytes()
        self.v("snapshot-create-as", "off", "--disk-only")
        self.assertIn("ask for the domain to run", self.v("snapshot-revert", "off", "--reset-nvram", fails=True))
        for words, kept in (["--paused"], True), (["--paused", "--reset-nvram"], False):
            path.write_bytes(b"mine" + new[4:])
            self.v("snapshot-revert", "off", *words)
            self.assertEqual(self.dom.state()[0], libvirt.VIR_DOMAIN_PAUSED)
            self.assertEqual(path.read_bytes()[:4] == b"mine", kept)
            self.dom.destroy()
        self.assertEqual(path.read_bytes(), new)


class External(Work):
    def images(self):
        return sorted(os.listdir(self.folder))

    def top(self):
        return os.path.basename(self.source("--inactive")[0])

    def test_tree_of_a_machine_that_runs(self):
        self.boot()
        self.write(1, "wone")
        self.v("snapshot-create-as", "s1", "--disk-only", "--atomic")
        self.write(1, "wtwo")
        self.v("snapshot-create-as", "s2", "--disk-only")
        self.write(1, "wthree")
        # Back to s1: what came after it is given up, but for what s2 is of.
        self.v("snapshot-revert", "s1", "--running")
        self.dom = self.conn.lookupByName(self.name)
        self.assertEqual(self.dom.state(), [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_FROM_SNAPSHOT])
        self.assertEqual(self.v("snapshot-current", "--name"), "s1")
        first = self.top()
        self.assertRegex(first, r"^a\.\d+$")
        self.assertEqual(self.images(), sorted(["a.qcow2", "a.s1", first]))
        self.assertIn("<revertDisks>", self.v("snapshot-dumpxml", "s1"))
        # Another branch, and to the end of the first one; its machine is off then.
        self.v("snapshot-create-as", "s3", "--disk-only")
        self.assertEqual(self.v("snapshot-parent", "s3"), "s1")
        self.assertIn("s1\n  |\n  +- s2\n  +- s3", self.v("snapshot-list", "--tree"))
        self.v("snapshot-revert", "s2")
        self.assertEqual(self.v("domstate", "--reason"), "shut off (from snapshot)")
        self.assertEqual(self.images(), sorted(["a.qcow2", "a.s1", first, self.top()]))
        self.boot()
        self.assertEqual(self.words(1), ["wtwo"])
        self.write(1, "wfive")
        for name, words in (("s1", "with multiple children snapshots"),):
            self.assertIn(words, self.v("snapshot-delete", name, fails=True))
        # A branch on which nothing runs goes away with its image.
        self.v("snapshot-delete", "s3")
        self.assertEqual(self.images(), sorted(["a.qcow2", "a.s1", self.top()]))
        # s1's image takes in that of s2, which the machine is over; s2 is what it was.
        self.v("snapshot-delete", "s1")
        self.assertEqual(self.files(), [self.top(), "a.qcow2"])
        self.assertEqual(self.words(1), ["wfive"])
        self.v("snapshot-revert", "s2", "--running")
        self.boot_again()
        self.assertEqual(self.words(1), ["wtwo"])
        # The last: the machine goes on with what it has, in the image that was there first.
        self.write(3, "wlast")
        self.v("snapshot-delete", "--current")
        self.assertEqual(self.v("snapshot-list", "--name"), "")
        self.assertEqual((self.files(), self.images()), (["a.qcow2"], ["a.qcow2"]))
        self.assertEqual(self.words(1, 3), ["wtwo", "wlast"])
        self.dom.destroy()
        img("check", "-q", self.path("a.qcow2"))

    def boot_again(self):
        self.dom = self.conn.lookupByName(self.name)
        self.talk()
        self.console.expect(UP)
        self.console.expect(b"# ")

    def test_with_memory(self):
        """The machine goes on where it was, with the disk as it was."""
        self.boot()
        self.say("word=kept")
        self.write(1, "wone")
        self.v("snapshot-create-as", "m", "--memspec", f"file={self.path('mem')},snapshot=external")
        self.say("word=lost")
        self.write(1, "wtwo")
        for flags, state in (((), libvirt.VIR_DOMAIN_RUNNING), (("--paused",), libvirt.VIR_DOMAIN_PAUSED)):
            self.v("snapshot-revert", "m", *flags)
            self.dom = self.conn.lookupByName(self.name)
            self.assertEqual(self.dom.state()[0], state)
            if flags:
                self.dom.resume()
            self.talk()
            self.assertIn("it-is-kept", self.say("echo it-is-$word"))
            self.assertEqual(self.words(1), ["wone"])
            self.write(1, "wthree")
            self.assertEqual(self.images(), sorted(["a.qcow2", "mem", self.top()]))
        # lodged dies and comes back in between.
        self.restart()
        self.v("snapshot-revert", "m")
        self.talk()
        self.assertIn("it-is-kept", self.say("echo it-is-$word"))
        os.rename(self.path("mem"), self.path("elsewhere"))
        self.assertIn("the memory of snapshot 'm' is not in", self.v("snapshot-revert", "m", fails=True))
        self.assertEqual(self.conn.lookupByName(self.name).state()[0], libvirt.VIR_DOMAIN_RUNNING)
        os.rename(self.path("elsewhere"), self.path("mem"))
        self.v("snapshot-delete", "m")
        self.assertEqual(self.images(), ["a.qcow2"])
        self.assertEqual(self.words(1), ["wone"])

    def test_machine_that_is_off(self):
        base = self.path("a.qcow2")
        self.v("snapshot-create-as", "s1", "--disk-only")
        self.v("snapshot-create-as", "s2", "--disk-only")
        self.v("snapshot-create-as", "s3", "--disk-only")
        self.v("snapshot-revert", "s1")
        self.v("snapshot-delete", "s3")
        self.assertEqual(self.images(), sorted(["a.qcow2", "a.s1", self.top()]))
        self.assertIn("not a leaf", self.v("snapshot-delete", "s1", fails=True))
        self.v("snapshot-delete", "s1", "--children-only")
        self.assertEqual(self.images(), sorted(["a.qcow2", self.top()]))
        self.v("snapshot-delete", "s1")
        self.assertEqual(self.source("--inactive"), [base])
        self.assertEqual(self.images(), ["a.qcow2"])
        # Its definition comes back too.
        self.v("snapshot-create-as", "t", "--disk-only")
        self.v("setmaxmem", "200M", "--config")
        self.v("snapshot-revert", "t")
        self.assertNotIn("204800", self.v("dumpxml", "--inactive"))
        # An image that the machine writes to again cannot be what a snapshot was of.
        xml = self.v("dumpxml", "--inactive")
        self.conn.defineXML(re.sub(r"<source file='[^']*/a\.\d+'", f"<source file='{base}'", xml))
        self.assertIn("writes to image", self.v("snapshot-revert", "t", fails=True))

    def test_internal_and_external_in_one_tree(self):
        """Nothing is written below a snapshot's image, and no dead branch goes into the image in use."""
        self.boot()
        self.write(8, "wold")
        self.v("snapshot-create-as", "i1")
        self.write(8, "wnew")
        self.v("snapshot-create-as", "e1", "--disk-only")
        self.write(0, "wover")
        self.v("snapshot-create-as", "i3")
        self.assertRegex(self.v("snapshot-revert", "i1", fails=True),
                         r"snapshot '(e1|i3)' needs image '.*a.qcow2' as it is")
        self.write(0, "wlater")
        self.v("snapshot-revert", "i3")
        self.assertEqual(self.words(0, 8), ["wover", "wnew"])
        # The overlay goes into what it is over: then the way back is free.
        self.v("snapshot-delete", "i3")
        self.v("snapshot-delete", "e1")
        self.assertEqual((self.files(), self.words(0, 8)), (["a.qcow2"], ["wover", "wnew"]))
        self.v("snapshot-revert", "i1")
        self.talk()
        self.assertEqual(self.words(8), ["wold"])

    def test_what_was_committed_stays(self):
        """Overlays that a block job has emptied go away with their snapshots, and nothing of theirs comes back."""
        self.boot()
        self.v("snapshot-create-as", "s1", "--disk-only")
        self.write(0, "wone")
        self.v("snapshot-create-as", "s2", "--disk-only")
        self.write(0, "wtwo")
        self.v("blockcommit", "vda", "--active", "--pivot", "--wait")
        self.write(0, "wfinal")
        self.dom.destroy()
        self.v("snapshot-delete", "s1")
        self.v("snapshot-delete", "s2")
        self.boot()
        self.assertEqual((self.files(), self.words(0)), (["a.qcow2"], ["wfinal"]))

    def test_what_is_saved_knows_its_disks(self):
        """A managed save image holds memory of the disks as they are; going back elsewhere ends it."""
        self.boot()
        self.v("snapshot-create-as", "off-later", "--disk-only")
        self.v("snapshot-create-as", "i1")
        self.assertIn("cannot migrate domain with 2 snapshots", self.v("migrate", self.daemon.uri, "--live", fails=True))
        self.say("word=late")
        self.v("managedsave")
        self.assertIn("needs its disks as they are", self.v("snapshot-create-as", "e2", "--disk-only", fails=True))
        self.assertIn("snapshot without memory state", self.v("snapshot-revert", "off-later", fails=True))
        self.assertIn("Managed save:   yes", self.v("dominfo"))
        self.v("start")
        self.talk()
        self.assertIn("it-is-late", self.say("echo it-is-$word"))
        self.v("managedsave")
        self.v("snapshot-revert", "i1")
        self.assertIn("Managed save:   no", self.v("dominfo"))
        self.v("managedsave")
        self.v("snapshot-revert", "off-later", "--force")
        self.assertIn("Managed save:   no", self.v("dominfo"))
        self.assertEqual([str(p) for p in pathlib.Path(self.daemon.root, "var").rglob(f"{self.name}.save*")], [])

    def test_end_of_a_machine_without_definition(self):
        """What was known of it goes with it: the next one of its name begins with nothing."""
        xml = re.sub("<uuid>.*</uuid>", "", self.v("dumpxml", "--inactive"))
        self.dom.create()
        self.v("snapshot-create-as", "ghost")
        self.v("checkpoint-create-as", "point")
        self.v("undefine")
        for _ in range(2):
            self.assertEqual(self.v("snapshot-list", "--name"), "ghost")
            self.assertEqual(self.v("checkpoint-list", "--name"), "point")
            self.assertIn(self.name, self.virsh("list", "--name", "--with-snapshot", "--with-checkpoint"))
            self.daemon.kill()
            self.daemon.start()
        self.v("destroy")
        self.conn = self.connect()
        self.conn.defineXML(xml)
        self.assertEqual(self.v("snapshot-list", "--name"), "")
        self.assertEqual(self.v("checkpoint-list", "--name"), "")
        self.conn.lookupByName(self.name).undefine()
        self.conn.defineXML(xml)

    def test_said_once_more(self):
        """Redefine, edit, current: the metadata alone."""
        for name in ("s1", "s2"):
            self.v("snapshot-create-as", name, "--disk-only")
        xml = {name: self.v("snapshot-dumpxml", name, "--security-info") for name in ("s1", "s2")}
        file = self.path("s.xml")

        def again(text, *more, **rest):
            with open(file, "w") as f:
                f.write(text)
            return self.v("snapshot-create", file, "--redefine", *more, **rest)
        self.v("snapshot-current", "s1")
        self.assertEqual(self.v("snapshot-current", "--name"), "s1")
        for name in ("s2", "s1"):
            self.v("snapshot-delete", name, "--metadata")
        self.assertIn("parent s1 for snapshot s2 not found", again(xml["s2"], fails=True))
        again(xml["s1"])
        again(xml["s2"], "--current")
        self.assertEqual(self.v("snapshot-current", "--name"), "s2")
        for wrong, text in (("would create cycle", xml["s1"].replace("<state>", "<parent><name>s2</name></parent><state>")),
                            ("must use uuid", xml["s2"].replace(self.dom.UUIDString(), "11111111-2222-3333-4444-555555555555")),
                            ("missing creationTime", re.sub("<creationTime>.*</creationTime>", "", xml["s2"])),
                            ("between online and offline", xml["s2"].replace(">disk-snapshot<", ">running<").replace(">shutoff<", ">running<"))):
            self.assertIn(wrong, again(text, fails=True))
        again(xml["s2"].replace("<state>", "<description>told</description><state>"))
        self.assertEqual(self.v("snapshot-current", "--name"), "s2")
        self.assertIn("<description>told</description>", self.v("snapshot-dumpxml", "s2"))
        editor = self.path("editor")
        with open(editor, "w") as f:
            f.write("#!/bin/sh\nsed -i s/told/edited/ \"$1\"\n")
        os.chmod(editor, 0o755)
        os.environ["EDITOR"] = editor
        self.addCleanup(os.environ.pop, "EDITOR")
        self.v("snapshot-edit", "s2")
        self.assertIn("<description>edited</description>", self.v("snapshot-dumpxml", "s2"))
        self.assertEqual(self.v("snapshot-list", "--name", "--from", "s1"), "s2")
        self.v("snapshot-revert", "s1")
        self.assertEqual(self.v("snapshot-current", "--name"), "s1")


if __name__ == "__main__":
    unittest.main()
