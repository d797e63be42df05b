# SPDX-License-Identifier: GPL-2.0-or-later
"""A session of QMP; the firmware is guest enough."""
import json
import os
import signal
import socket
import tempfile
import unittest

from rfb import Viewer
from vm import Vm


class Qmp(unittest.TestCase):
    def test_greeting_names_a_version(self):
        with Vm("-S") as vm:
            self.assertEqual(vm.greeting["QMP"]["version"]["qemu"]["major"], 7)
            self.assertEqual(vm.greeting["QMP"]["capabilities"], [])

    def test_every_query_answers(self):
        with Vm("-S", "-M", "q35", "-smp", "2,maxcpus=4", "-name", "x", "-device", "e1000,id=n0") as vm:
            names = [c["name"] for c in vm.ok("query-commands")]
            for name in names:
                if name.startswith("query-"):
                    with self.subTest(name=name):
                        answer = vm.command(name)
                        self.assertTrue("return" in answer or name in ("query-vnc", "query-balloon",
                                                                   "query-cpu-model-expansion"), answer)
            self.assertEqual(len(vm.ok("query-cpus-fast")), 2)
            self.assertEqual(len(vm.ok("query-hotpluggable-cpus")), 4)
            self.assertEqual(vm.ok("query-name"), {"name": "x"})
            threads = {cpu["thread-id"] for cpu in vm.ok("query-cpus-fast")}
            self.assertEqual(len(threads - {0}), 2)  # also before they have run
            model = {"name": "qemu64", "props": {"sse2": False}}
            got = vm.ok("query-cpu-model-expansion", type="full", model=model)["model"]
            self.assertEqual((got["name"], got["props"]["sse2"], got["props"]["sse"]), ("qemu64", False, True))
            self.assertIn("desc", vm.command("query-cpu-model-expansion", type="full", model={"name": "x"})["error"])

    def test_the_schema_knows_every_command(self):
        with Vm("-S") as vm:
            schema = {e["name"]: e for e in vm.ok("query-qmp-schema")}
            for command in vm.ok("query-commands"):
                entry = schema[command["name"]]
                self.assertEqual(entry["meta-type"], "command")
                self.assertIn(entry["arg-type"], schema)
                self.assertIn(entry["ret-type"], schema)

    def test_core_dump(self):
        with tempfile.TemporaryDirectory(prefix="lodge-core-") as d, Vm("-S", "-m", "16", "-smp", "2") as vm:
            core = os.path.join(d, "core")
            for wrong in ({"paging": True, "protocol": f"file:{core}"}, {"protocol": "tcp:1"},
                          {"protocol": f"file:{core}", "begin": 1}, {"protocol": "fd:none"},
                          {"protocol": f"file:{core}", "format": "kdump-zlib"},
                          {"protocol": f"file:{core}", "begin": 1 << 40, "length": 4096}):
                self.assertIn("error", vm.command("dump-guest-memory", **{"paging": False, **wrong}), wrong)
            self.assertEqual(vm.ok("query-dump")["status"], "none")
            vm.ok("dump-guest-memory", paging=False, protocol=f"file:{core}", begin=0x100000, length=0x2000)
            self.assertEqual(vm.ok("query-dump"), {"status": "completed", "completed": 0x2000, "total": 0x2000})
            vm.events.clear()
            vm.ok("dump-guest-memory", paging=False, protocol=f"file:{core}", detach=True)
            self.assertEqual(vm.wait_event("DUMP_COMPLETED")["data"]["result"]["status"], "completed")
            with open(core, "rb") as f:
                data = f.read(4096)
            self.assertEqual((data[:4], data[16], data.count(b"CORE\0"), data.count(b"QEMU\0")),
                             (b"\x7fELF", 4, 2, 2))
            vm.events.clear()
            vm.ok("dump-guest-memory", paging=False, protocol="file:/dev/full", detach=True)
            self.assertIn("No space left", vm.wait_event("DUMP_COMPLETED")["data"]["error"])

    def test_stop_and_cont_are_told(self):
        with Vm() as vm:
            vm.ok("stop")
            self.assertEqual(vm.ok("query-status")["status"], "paused")
            vm.ok("cont")
            self.assertTrue(vm.ok("query-status")["running"])
            self.assertEqual([e["event"] for e in vm.events], ["STOP", "RESUME"])

    def test_reset_and_quit(self):
        with Vm("-S") as vm:
            vm.ok("system_reset")
            event = vm.wait_event("RESET")
            self.assertEqual(event["data"], {"guest": False, "reason": "host-qmp-system-reset"})
            vm.ok("quit")
            code, err = vm.wait_exit()
            self.assertEqual((code, err), (0, ""))

    def test_signals_end_it_in_order(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with Vm() as vm:
                vm.process.send_signal(number)
                self.assertEqual(vm.wait_exit(), (0, ""))
                self.assertFalse(os.path.exists(vm.path))

    def test_errors_have_qemus_classes(self):
        with Vm("-S") as vm:
            self.assertEqual(vm.refused("nosuch")["class"], "CommandNotFound")
            self.assertEqual(vm.refused("device_del", id="nosuch")["class"], "DeviceNotFound")
            self.assertEqual(vm.refused("stop", x=1)["desc"], "Parameter 'x' is unexpected")
            self.assertEqual(vm.refused("screendump")["desc"], "Parameter 'filename' is missing")
            self.assertEqual(vm.refused("screendump", filename=1)["desc"],
                             "Invalid parameter type for 'filename', expected: string")
            self.assertEqual(vm.refused("qmp_capabilities")["class"], "CommandNotFound")

    def test_malformed_json_is_an_error_and_the_connection_stays(self):
        with Vm("-S") as vm:
            for text in ('{"execute": nonsense}\n', '[1]\n', '"x"\n', '{}\n', '{"execute": 1}\n',
                         '{"execute": "stop", "x": 1}\n', '{"execute": "stop", "arguments": 1}\n',
                         '{"execute": "stop", "execute": "stop"}\n', "[" * 100 + "\n" + "]" * 100):
                vm.send(text)
                self.assertIn("error", vm.receive(), text)
            vm.ok("query-status")

    def test_ids_come_back(self):
        with Vm("-S") as vm:
            vm.send('{"execute":"query-status","id":{"a":[1]}}{"execute":"nosuch","id":"b"}')
            self.assertEqual(vm.receive()["id"], {"a": [1]})
            self.assertEqual(vm.receive()["id"], "b")

    def test_a_message_without_end_is_cut_off(self):
        with Vm("-S") as vm:
            try:
                vm.send('{"execute": "' + "x" * (5 << 20))
            except OSError:
                pass
            with self.assertRaises((AssertionError, OSError)):
                for _ in range(3):
                    vm.receive()
            again = socket.socket(socket.AF_UNIX)
            again.connect(vm.path)
            self.assertIn("QMP", json.loads(again.makefile("r").readline()))
            again.close()

    def test_the_human_monitor_is_at_hand(self):
        with Vm("-S") as vm:
            self.assertEqual(vm.hmp("info status"), "VM status: paused (prelaunch)\r\n")
            self.assertIn("unknown command", vm.hmp("nosuch"))
            self.assertEqual(vm.hmp("print 2*(3+4)"), "0xe\r\n")
            self.assertIn("0xea", vm.hmp("xp /1xb 0xfffffff0"))
            self.assertIn("rip=000000000000fff0", vm.hmp("info registers"))
            for topic in vm.hmp("info").split("\r\n"):
                word = topic.split()[1] if len(topic.split()) > 1 else ""
                if word not in ("", "device", "gva2gpa", "balloon"):
                    self.assertNotIn("Error", vm.hmp("info " + word), word)

    def test_ports_of_the_host_come_and_go(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with Vm("-S", "-netdev", "user,id=n0") as vm:
            for more in ((), ("n0",)):
                self.assertEqual(vm.hmp(" ".join(("hostfwd_add", *more, f"tcp:127.0.0.1:{port}-:22"))), "")
                self.assertIn(f"127.0.0.1 {port}", " ".join(vm.hmp("info usernet").split()))
                socket.create_connection(("127.0.0.1", port), 60).close()
                self.assertIn("removed", vm.hmp(" ".join(("hostfwd_remove", *more, f"tcp:127.0.0.1:{port}"))))
                with self.assertRaises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port), 60)
            for refused, words in ((f"hostfwd_remove tcp:127.0.0.1:{port}", "not found"), ("hostfwd_remove n0 22", "22: not"),
                                   ("hostfwd_add nosuch tcp::1-:2", "nosuch"), ("hostfwd_add n0 tcp:1-2", "not an address")):
                self.assertIn(words, vm.hmp(refused))

    def test_code_is_disassembled(self):
        with Vm("-S") as vm:
            self.assertEqual(vm.hmp("x /1i $pc"), vm.hmp("x/i 0xfffffff0"))
            self.assertIn("ljmp", vm.hmp("x/i 0xfffffff0"))
            self.assertIn("Cannot access", vm.hmp("x/i 0x100000000000"))

    def test_page_tables_are_shown(self):
        with Vm("-S") as vm:
            self.assertEqual(vm.hmp("info mem"), "PG disabled\r\n")
            self.assertEqual(vm.hmp("info jit"), "no CPU runs translated code\r\n")
            self.assertEqual(vm.ok("query-jit")["cpus"], [])

    def test_a_set_clock_is_told(self):
        with Vm("-S") as vm:
            for command in ("o /b 0x70 0x32", "o /b 0x71 0x19", "o /b 0x70 9", "o /b 0x71 0x99"):
                vm.hmp(command)
            event = vm.wait_event("RTC_CHANGE")
            self.assertLess(event["data"]["offset"], -26 * 365 * 86400)

    def test_viewers_are_told(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "vnc")
            with Vm("-S", "-vga", "std", "-vnc", f"unix:{path}") as vm:
                self.assertEqual(vm.ok("query-vnc")["clients"], [])
                viewer = Viewer(path)
                client = vm.wait_event("VNC_INITIALIZED")["data"]["client"]
                self.assertEqual(client["family"], "unix")
                answer = vm.ok("query-vnc")
                self.assertEqual((answer["family"], answer["auth"], answer["host"]), ("unix", "none", path))
                self.assertEqual(answer["clients"], [client])
                viewer.close()
                vm.wait_event("VNC_DISCONNECTED")
                self.assertEqual([e["event"] for e in vm.events],
                                 ["VNC_CONNECTED", "VNC_INITIALIZED", "VNC_DISCONNECTED"])
                self.assertEqual(vm.ok("query-vnc")["clients"], [])

    def test_media_change(self):
        with Vm("-S", "-drive", "if=ide,index=2,media=cdrom,id=cd") as vm:
            iso = os.path.join(vm.dir.name, "iso")
            with open(iso, "wb") as f:
                f.write(bytes(65536))
            vm.ok("blockdev-change-medium", device="cd", filename=iso, format="raw")
            self.assertEqual(vm.ok("query-block")[0]["inserted"]["file"], iso)
            vm.ok("eject", device="cd")
            self.assertNotIn("inserted", vm.ok("query-block")[0])
            self.assertIn("error", vm.command("blockdev-change-medium", device="cd", filename="/no/such"))

    def test_no_reboot_exits(self):
        with Vm("-S", "-no-reboot") as vm:
            vm.hmp("o /b 0xcf9 6")
            self.assertEqual(vm.wait_exit()[0], 0)


if __name__ == "__main__":
    unittest.main()
