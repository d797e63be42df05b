#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every word that libvirt's own schemas enumerate, one document each: lodged takes it, or refuses it by its name as
something that it has not got.  A word that stands in no schema is no valid XML, and is told with its line."""
import collections
import pathlib
import re
import unittest
import xml.etree.ElementTree as ET

import libvirt

import manage

SCHEMAS = pathlib.Path("/usr/share/libvirt/schemas")
RNG = "{http://relaxng.org/ns/structure/1.0}"
DEPTH = 9  # of elements in each other
UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
WRONG = "no-such-word"
# Places of which more is known than their word: what is said to a wrong one there, and where any is taken.
OTHERS = {
    "domain/os/type": "only hvm", "domain/os/type@machine": f"machine type '{WRONG}'",
    "domain/os/firmware/feature@name": "'@enabled'", "domain/devices/channel/target@state": "'@type'",
    "domain/clock@adjustment": f"'adjustment'.*'{WRONG}'", "network/bridge@macTableManager": f"macTableManager='{WRONG}'",
    "network/vlan/tag@nativeMode": "'@id'", "network/portgroup/vlan/tag@nativeMode": "'@id'",
}
TAKEN = {f"domain/sysinfo/{kind}/entry@name" for kind in ("bios", "system", "baseBoard", "chassis")}


class Grammar:
    """RELAX NG, as far as libvirt's schemas use it."""
    def __init__(self, file):
        self.defines, self.files = collections.defaultdict(list), set()
        self.start = self.load(file)

    def load(self, file):
        if file in self.files:
            return None
        self.files.add(file)
        start = None
        for e in ET.parse(SCHEMAS / file).getroot():
            tag = self.tag(e)
            if tag == "include":
                self.load(e.get("href"))
                for own in e.findall(RNG + "define"):
                    self.defines[own.get("name")] = [own]
            elif tag == "define":
                self.defines[e.get("name")].append(e)
            elif tag == "start":
                start = e
        return start

    @staticmethod
    def tag(e):
        return e.tag.replace(RNG, "") if isinstance(e.tag, str) else ""

    def inside(self, e, stack):
        """What is in @e, with references followed; @stack are those that are open."""
        for child in e:
            if self.tag(child) != "ref":
                yield child, stack
            elif child.get("name") not in stack:
                for define in self.defines[child.get("name")]:
                    yield define, stack + (child.get("name"),)

    def values(self, e, stack):
        for child, below in self.inside(e, stack):
            if self.tag(child) == "value":
                yield child.text
            elif self.tag(child) not in ("element", "attribute"):
                yield from self.values(child, below)

    def fixed(self, e, stack):
        """Attributes that can have but one value where @e stands."""
        found = {}
        for child, below in self.inside(e, stack):
            if self.tag(child) == "attribute":
                values = list(self.values(child, below))
                if len(values) == 1 and child.find(f".//{RNG}data") is None:
                    found[child.get("name")] = values[0]
            elif self.tag(child) in ("define", "group", "interleave"):
                found.update(self.fixed(child, below))
        return found

    def walk(self, e, stack=(), path=()):
        """(path, attribute or None, word); a path is names with the attributes that belong to this branch."""
        if path:
            name, before = path[-1]
            path = path[:-1] + ((name, tuple({**dict(before), **self.fixed(e, stack)}.items())),)
        for child, below in self.inside(e, stack):
            tag, name = self.tag(child), child.get("name")
            if tag == "attribute":
                for word in self.values(child, below):
                    yield path, name, word
            elif tag == "element":
                if name and len(path) < DEPTH and [n for n, _ in path].count(name) < 2:
                    deeper = path + ((name, ()),)
                    for word in self.values(child, below):
                        yield deeper, None, word
                    yield from self.walk(child, below, deeper)
            elif tag != "value":
                yield from self.walk(child, below, path)

    def words(self):
        return list(dict.fromkeys(self.walk(self.start)))


# What a document needs beside the word: texts and attributes at paths.
NEEDS = {
    "domain": {"@type": "qemu", "name": "w", "uuid": UUID, "memory": "65536", "vcpu": "1", "os/type": "hvm",
               "os/type@machine": "q35"},
    "network": {"name": "w", "uuid": UUID},
    "pool": {"@type": "dir", "name": "w", "uuid": UUID},
    "volume": {"name": "w", "capacity": "1048576"},
    "secret": {"uuid": UUID},
    "filter": {"@name": "w", "uuid": UUID},
    "domainsnapshot": {"name": "w"},
    "domaincheckpoint": {"name": "w"},
    "domainbackup": {},
}


def document(path, attribute, word):
    """The least text in which @word stands."""
    line = []
    for name, fixed in path:
        line.append(ET.Element(name))
        if len(line) > 1:
            line[-2].append(line[-1])
    if attribute:
        line[-1].set(attribute, word)  # in front of all others
    else:
        line[-1].text = word
    for e, (_, fixed) in zip(line, path):
        for key, value in fixed:
            e.attrib.setdefault(key, value)
    for rule in line[0].iter("rule"):
        rule.attrib.setdefault("action", "drop")
        rule.attrib.setdefault("direction", "in")
    for where, text in NEEDS.get(line[0].tag, {}).items():
        names, _, key = where.partition("@")
        e = line[0]
        for name in filter(None, names.split("/")):
            below = e.find(name)
            e = ET.SubElement(e, name) if below is None else below
        if key:
            e.attrib.setdefault(key, text)
        else:
            e.text = e.text or text
    return ET.tostring(line[0], encoding="unicode")


class Schemas(manage.Case):
    def setUp(self):
        self.conn = self.connect()

    def schema(self, file, take, wrong=False):
        """The answers to all words of a schema, counted; with @wrong a word in each place that is in no schema."""
        found, places = collections.Counter(), set()
        for path, attribute, word in Grammar(file).words():
            place = "/".join(name for name, _ in path) + ("@" + attribute if attribute else "")
            found[self.known(place, attribute, word, document(path, attribute, word), take)] += 1
            if wrong and (path, attribute) not in places:
                places.add((path, attribute))
                self.unknown(place, document(path, attribute, WRONG), take)
        return found

    def known(self, place, attribute, word, text, take):
        try:
            take(text)
            return "taken"
        except libvirt.libvirtError as e:
            code, words = e.get_error_code(), str(e)
        if code == libvirt.VIR_ERR_CONFIG_UNSUPPORTED:
            names = {"'%s'" % word, "'%s'" % attribute, *re.findall(r"<(\w[\w-]*)", text)}
            self.assertTrue(any(name in words for name in names), f"{place}={word}: {words}")
            return "refused"
        self.assertNotRegex(words, f"Invalid value.*'{re.escape(word)}'", f"{place}: {text}")
        return "else"

    def unknown(self, place, text, take):
        """A wrong word, in whose place lodged has words."""
        try:
            take(text)
        except libvirt.libvirtError as e:
            code, words = e.get_error_code(), str(e)
            if code == libvirt.VIR_ERR_CONFIG_UNSUPPORTED and WRONG not in words:
                return  # something around it is refused
            if OTHERS.get(place):
                self.assertRegex(words, OTHERS[place])
                return
            self.assertEqual(code, libvirt.VIR_ERR_XML_ERROR, words)
            self.assertRegex(words, f"'{WRONG}' .line 1.", f"{place}: {text}")
            return
        self.assertIn(place, TAKEN, text)

    def test_domain(self):
        found = self.schema("domain.rng", self.conn.defineXML, wrong=True)
        self.conn.lookupByUUIDString(UUID).undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        self.assertGreater(found["refused"], 3000, found)
        self.assertGreater(found["taken"], 200, found)

    def test_network(self):
        found = self.schema("network.rng", self.conn.networkDefineXML, wrong=True)
        self.conn.networkLookupByUUIDString(UUID).undefine()
        self.assertGreater(found["taken"], 10, found)

    def test_pool(self):
        found = self.schema("storagepool.rng", lambda text: self.conn.storagePoolDefineXML(text).undefine())
        self.assertGreater(found["taken"] + found["else"], 100, found)

    def test_volume(self):
        pool = self.conn.storagePoolCreateXML(
            f"<pool type='dir'><name>here</name><target><path>{self.daemon.root}</path></target></pool>")
        self.addCleanup(pool.destroy)
        found = self.schema("storagevol.rng", lambda text: pool.createXML(text).delete())
        self.assertGreater(found["taken"], 15, found)

    def test_secret(self):
        self.schema("secret.rng", lambda text: self.conn.secretDefineXML(text).undefine())

    def test_points(self):
        dom = self.conn.defineXML("<domain type='qemu'><name>holder</name><memory unit='MiB'>64</memory>"
                                  "<os><type machine='q35'>hvm</type></os></domain>")
        self.addCleanup(dom.undefine)
        self.schema("domainsnapshot.rng", lambda text: dom.snapshotCreateXML(text).delete())
        self.schema("domaincheckpoint.rng", lambda text: dom.checkpointCreateXML(text).delete())
        dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        self.addCleanup(dom.destroy)
        self.schema("domainbackup.rng", lambda text: dom.backupBegin(text, None))

    def test_filter(self):
        found = self.schema("nwfilter.rng", lambda text: self.conn.nwfilterDefineXML(text).undefine())
        self.assertEqual(set(found), {"taken"})
        for rule, words in (("<rule action='drop' direction='up'/>", "'direction' in element 'rule': 'up' .line 1."),
                            ("<rule action='eat' direction='in'/>", "'action' in element 'rule': 'eat' .line 1."),
                            ("<rule action='drop'/>", "'@direction'"), ("<rules/>", "element <rules> in <filter>")):
            with self.subTest(rule=rule), self.assertRaisesRegex(libvirt.libvirtError, words):
                self.conn.nwfilterDefineXML(f"<filter name='w'>{rule}</filter>")


if __name__ == "__main__":
    unittest.main()
