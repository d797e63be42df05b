#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the man page of lodge-vm from the table of its options."""
import re
import sys

HEAD = r""".TH LODGE-VM 1 "" "Lodge" "User Commands"
.SH NAME
lodge-vm \- run one x86 virtual machine
.SH SYNOPSIS
.B lodge-vm
.RI [ options ] " " [ disk-image ]
.SH DESCRIPTION
Runs an unmodified x86 operating system in one process, with the command line of QEMU 7.2.
Guest code runs on
.B kvm
where that is usable, else on
.BR bt ,
a translator of x86 to x86;
.B interp
is the plain interpreter that the two are compared with.
.PP
With
.B \-nographic
the serial port and the monitor share the terminal; Ctrl-A h lists the keys that move between
them, Ctrl-A x ends the machine.
.PP
An option of QEMU that is not supported is refused by name.
.SH OPTIONS
"""

TAIL = r""".SH EXIT STATUS
0 after the guest has powered off or the machine was told to quit, 1 after an error (one line on
standard error says which), and what the guest wrote to
.B isa-debug-exit
as that device makes it.
.SH EXAMPLES
.nf
lodge-vm \-m 2G \-drive file=disk.raw,format=raw \-cdrom install.iso \-boot once=d
lodge-vm \-nographic \-kernel bzImage \-initrd initrd \-append console=ttyS0
.fi
.SH SEE ALSO
.BR qemu-system-x86_64 (1),
.BR gdb (1)
"""


def escape(text):
    return text.replace("\\", "\\\\").replace("-", "\\-")


out = [HEAD]
for line in open(sys.argv[1], encoding="utf-8"):
    section = re.match(r'SECTION\("(.*)"\),', line)
    row = re.match(r'\{"([^"]+)", (NULL|"((?:[^"\\]|\\.)*)"), (.*?), (NULL|"((?:[^"\\]|\\.)*)")\},', line)
    if section:
        out.append(f".SS {section.group(1)}\n")
    elif row and row.group(4) != "NO":
        name, arg, text = row.group(1), row.group(3), row.group(6)
        # A long argument may be broken behind a comma or bar.
        arg = " \\fI" + re.sub(r"([,|])", r"\1\\:", escape(arg)) + "\\fR" if arg else ""
        out.append(f".TP\n\\fB\\-{escape(name)}\\fR{arg}\n{escape(text) if text else 'The same.'}\n")
out.append(TAIL)
open(sys.argv[2], "w", encoding="utf-8").write("".join(out))
