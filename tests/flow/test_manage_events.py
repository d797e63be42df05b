#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every event that a client may register for is heard by python3-libvirt when its cause occurs; those that are not
told here are told elsewhere (EVERY_EVENT says where)."""
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import unittest
import xml.etree.ElementTree as ET

import libvirt

import manage
from test_manage_domain import Console, machine, started, with_modules


class Heard(list):
    """What was told of some kinds of events, oldest first."""

    def of(self, kind):
        return [told for k, *told in self if k == kind]

    def wait(self, kind, *wanted):
        """Until exactly @wanted was told of @kind."""
        manage.until(lambda: len(self.of(kind)) >= len(wanted), f"{kind}: {wanted}, not only {self}")
        assert self.of(kind) == [list(w) for w in wanted], (self.of(kind), wanted)


class Case(manage.FolderCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        manage.hear_events()

    def hear(self, *kinds, dom=None, conn=None):
        """Of domains: by the end of the kinds' names in libvirt."""
        heard = Heard()
        for kind in kinds:
            number = getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{kind}")
            (conn or self.conn).domainEventRegisterAny(
                dom, number, lambda _c, _d, *told: heard.append((told[-1], *told[:-1])), kind)
        return heard

    def define(self, name, **more):
        dom = self.conn.defineXML(machine(name, **more))
        self.addCleanup(self.forget, name)
        return dom

    def forget(self, name):
        self.daemon.run_virsh("destroy", name)
        self.daemon.run_virsh("undefine", name, "--managed-save", "--snapshots-metadata")


class Guest(Case):
    """What guests do."""

    def test_agent(self):
        """The guest opens and closes the agent's port; what it does while no lodged is there is seen afterwards."""
        channel = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
        dom = self.define("agent", devices="<console type='pty'/>" + channel)
        on, off = (1, libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_REASON_CHANNEL), (2, 2)
        born = (2, libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_REASON_DOMAIN_STARTED)

        def state():
            return ET.fromstring(self.conn.lookupByName("agent").XMLDesc()).find("devices/channel/target").get("state")
        heard = self.hear("AGENT_LIFECYCLE")
        console = started(self.conn, dom)
        console.expect(b"# ")
        heard.wait("AGENT_LIFECYCLE", born)
        self.assertEqual(state(), "disconnected")
        console.type(b"exec 5<>$(echo /dev/vport*)\n")
        heard.wait("AGENT_LIFECYCLE", born, on)
        self.assertEqual(state(), "connected")
        console.type(b"exec 5>&-\n")
        heard.wait("AGENT_LIFECYCLE", born, on, off)
        self.assertEqual(state(), "disconnected")
        self.daemon.kill()
        pid = self.daemon.machines()
        console = None
        self.daemon.start()
        self.assertEqual(self.daemon.machines(), pid)
        self.conn = self.connect()
        dom = self.conn.lookupByName("agent")
        heard = self.hear("AGENT_LIFECYCLE")
        console = Console(self.conn, dom)
        console.type(b"exec 5<>$(echo /dev/vport*)\n")
        heard.wait("AGENT_LIFECYCLE", on)
        dom.reset()  # a guest that boots has nothing open
        heard.wait("AGENT_LIFECYCLE", on, off)


if __name__ == "__main__":
    unittest.main()
