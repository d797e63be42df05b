# SPDX-License-Identifier: GPL-2.0-or-later
"""polkit decides who may use the read-write socket: a real polkitd on a bus of its own.

Runs itself again in a mount namespace where polkit's folders hold only our files.
"""
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import unittest

import manage
from manage import until

HERE = os.path.dirname(os.path.abspath(__file__))
POLICY = os.path.join(HERE, "../../manage/daemon/org.lodge.policy")
ACTIONS, RULES = "/usr/share/polkit-1/actions", "/etc/polkit-1/rules.d"
POLKITD = "/usr/lib/polkit-1/polkitd"
RULE = """polkit.addRule(function(action, subject) {
    if (action.id == "org.lodge.manage" && subject.user == "games") { return polkit.Result.YES; }
    if (action.id == "org.lodge.monitor" && subject.user == "bin") { return polkit.Result.NO; }
});
"""
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/>
<allow user="*"/></policy></busconfig>
"""


class Polkit(unittest.TestCase):
    def start(self, *command, **more):
        p = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        return p

    def virsh_as(self, user, uri):
        them = pwd.getpwnam(user)
        return subprocess.run(["setpriv", f"--reuid={them.pw_uid}", f"--regid={them.pw_gid}", "--clear-groups",
                               "virsh", "-c", uri, "hostname"], capture_output=True, text=True,
                              env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"}, timeout=manage.PATIENCE)

    def test_who_may(self):
        subprocess.run(["mount", "-t", "tmpfs", "none", ACTIONS], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", RULES], check=True)
        shutil.copy(POLICY, ACTIONS)
        with open(RULES + "/lodge.rules", "w") as f:
            f.write(RULE)
        os.chmod(RULES, 0o755)
        folder = tempfile.mkdtemp(prefix="lodge-polkit-")
        self.addCleanup(shutil.rmtree, folder)
        os.chmod(folder, 0o755)
        with open(folder + "/bus.conf", "w") as f:
            f.write(BUS.format(folder + "/bus"))
        self.start("dbus-daemon", "--nofork", "--config-file", folder + "/bus.conf")
        until(lambda: os.path.exists(folder + "/bus"), "the bus")
        bus = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={folder}/bus"}
        daemon = manage.Daemon("-o", "socket.auth=polkit", env=bus)
        self.addCleanup(daemon.close)
        os.chmod(daemon.root, 0o755)
        p = self.virsh_as("games", daemon.uri)  # nobody is there to ask
        self.assertIn("authentication unavailable", p.stderr)
        self.start(POLKITD, "--no-debug", env=bus)
        until(lambda: self.virsh_as("games", daemon.uri).returncode == 0, "polkit's yes")
        p = self.virsh_as("nobody", daemon.uri)
        self.assertIn("access denied by policy", p.stderr)
        self.assertEqual(self.virsh_as("nobody", daemon.uri_ro).returncode, 0)
        self.assertIn("access denied by policy", self.virsh_as("bin", daemon.uri_ro).stderr)
        daemon.virsh("hostname")  # root is not asked


def main():
    if os.geteuid() != 0:
        print("only root can give polkit folders of its own")
        return 77
    if "LODGE_NAMESPACE" not in os.environ:
        return subprocess.run(["unshare", "-m", sys.executable, *sys.argv],
                              env={**os.environ, "LODGE_NAMESPACE": "1"}).returncode
    unittest.main(verbosity=2)


sys.exit(main())
