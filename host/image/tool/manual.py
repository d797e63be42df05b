#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes lodge-img's man page, or completions for shells, from the tables of its verbs.

Usage: manual.py man|bash|zsh|fish OUT tool.h VERB.c...
"""
import re
import sys

STRING = r'(NULL|(?:"(?:[^"\\]|\\.)*"\s*)+)'
ROW = re.compile(r"\{\s*('(.)'|0),\s*" + STRING + r",\s*" + STRING + r",\s*" + STRING + r"\s*\}")
MACRO = re.compile(r"#define (OPTION_\w+)\s*\\?\s*((?:.*\\\n)*.*)")
TABLE = re.compile(r"struct tool_option \w+\[\] = \{(.*?)\n\};", re.S)
VERB = re.compile(r"const struct verb verb_\w+ = \{\s*" + STRING + r",\s*" + STRING + r",\s*" + STRING, re.S)


def text(literal):
    """C string literals beside each other; None for NULL."""
    if literal == "NULL":
        return None
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literal)).replace('\\"', '"').replace("\\\\", "\\")


def rows_of(body, macros):
    found = []
    for part in re.finditer(ROW.pattern + r"|(OPTION_\w+)", body):
        if part.group(6):
            found += macros.get(part.group(6), [])
        else:
            found.append((part.group(2), text(part.group(3)), text(part.group(4)), text(part.group(5))))
    return found


def read(paths):
    header = open(paths[0], encoding="utf-8").read()
    macros = {m.group(1): rows_of(m.group(2).replace("\\\n", ""), {}) for m in MACRO.finditer(header)}
    verbs = []
    for path in paths[1:]:
        source = open(path, encoding="utf-8").read()
        table, verb = TABLE.search(source), VERB.search(source)
        if not table or not verb:
            sys.exit(f"{path}: no table of options or no verb")
        verbs.append((*(text(verb.group(i)) for i in (1, 2, 3)), rows_of(table.group(1), macros)))
    return verbs


HEAD = r""".TH LODGE-IMG 1 "" "Lodge" "User Commands"
.SH NAME
lodge-img \- make, convert, check and serve disk images
.SH SYNOPSIS
.B lodge-img
.I COMMAND
.RI [ options ] " " FILE ...
.br
.B lodge-img
.BR \-\-help " | " \-\-version
.br
.B lodge-img
.I COMMAND
.B \-\-help
.SH DESCRIPTION
Works on disk images of virtual machines with the commands, options, output and exit codes of
qemu-img 7.2; called by that name (through a symbolic link) its messages start so, too.
Formats: raw, qcow2, qcow, cow, qed, vdi, vmdk, vpc (VHD), vhdx, parallels and luks, and, for reading
only, bochs, cloop and dmg. A FILE is a path, a name with a protocol (nbd://, nbd+unix://, http://,
https://, ftp://, ssh://, iscsi://, nfs://, rbd:), or json:{...} with the options of QEMU's
.BR \-blockdev .
A format that is not named is found out by looking at the first bytes.
.PP
Sizes take the suffixes k, M, G, T, P and E (powers of 1024).
.PP
Long work tells its progress with
.BR \-p ,
or once on standard error when the process gets SIGUSR1. On a terminal rate and remaining time follow.
.PP
.B convert
takes
.B \-
as a name: raw, qcow2 and streamOptimized vmdk come through standard input and go to standard output.
It reads, packs and writes on all processors.
.PP
With
.B \-\-untrusted
nothing that a hostile image names outside of its own folder is opened, and no format is guessed.
Images from the network are always treated so.
.SH COMMANDS
"""

PROTOCOLS = r""".SH NAMES AND OPTIONS OF PROTOCOLS
Options are written
.B file.KEY=VALUE
with
.BR \-\-image\-opts ,
beside
.BR file.driver= .
Passwords are given as
.BR password\-secret=ID " of " "\-\-object secret,id=ID,file=PATH" .
.TP
.B nbd
nbd:HOST:PORT[:exportname=NAME], nbd:unix:PATH[:exportname=NAME], nbd://HOST[:PORT]/NAME,
nbd+unix:///NAME?socket=PATH, nbds: for TLS. Options: server.type, server.host, server.port, server.path
(or host, port, path), export, tls\-creds, reconnect\-delay, open\-timeout (seconds).
.TP
.B http, https, ftp, ftps
Read only; the server must give out ranges. Options: url, readahead (256k), timeout (5 seconds without a
byte), sslverify, username, password\-secret, proxy\-username, proxy\-password\-secret, cookie,
cookie\-secret.
.TP
.B ssh
ssh://[USER@]HOST[:PORT]/PATH[?host_key_check=yes|no|md5:HEX|sha1:HEX|sha256:HEX]. Keys come from the
agent or the user's files. Options: server.host, server.port, path, user, host\-key\-check.mode (none,
known_hosts, hash), host\-key\-check.type, host\-key\-check.hash.
.TP
.B iscsi
iscsi://[USER[%PASSWORD]@]HOST[:PORT]/TARGET/LUN. Options: transport (tcp), portal, target, lun, user,
password\-secret, initiator\-name, header\-digest, timeout.
.TP
.B nfs
nfs://HOST/PATH/FILE[?uid=N&gid=N&tcp\-syncnt=N&readahead=N&pagecache=N&debug=N]. Options: server.host,
path, user, group, tcp\-syn\-count, readahead\-size, page\-cache\-size, debug.
.TP
.B rbd
rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][:id=USER][:conf=FILE][:KEY=VALUE...]. Options: pool, namespace,
image, snapshot, conf, user, server, auth\-client\-required, key\-secret.
"""

TAIL = r""".SH EXIT STATUS
0 after success, 1 after an error, which one line on standard error tells.
.B check
ends with 0 for a clean image, 1 if the check itself failed, 2 for corruption, 3 for lost space only,
63 if the format has no check.
.B compare
ends with 0 for the same bytes, 1 for different ones, 2 if an image could not be opened, 3 if its map and
4 if its bytes could not be read.
.SH ENVIRONMENT
.TP
.B TMPDIR
Where files without a name go that
.B convert
needs for standard input and output of formats that cannot be streamed (/var/tmp).
.SH EXAMPLES
.nf
lodge-img create \-f qcow2 disk.qcow2 20G
lodge-img create \-f qcow2 \-b base.qcow2 \-F qcow2 overlay.qcow2
lodge-img convert \-p \-c \-O qcow2 disk.raw disk.qcow2
lodge-img convert \-c \-O qcow2 \-\-compression zstd \-\-level 9 disk.vmdk disk.qcow2
ssh host cat disk.vmdk | lodge-img convert \-f vmdk \-O qcow2 \- disk.qcow2
lodge-img convert \-O vmdk disk.qcow2 \- | gzip > disk.vmdk.gz
lodge-img info \-\-output=json disk.qcow2
lodge-img serve \-f qcow2 \-k /run/disk.sock \-t disk.qcow2
lodge-img import \-d /srv/machines appliance.ova
.fi
.SH SEE ALSO
.BR lodge-vm (1),
.BR qemu-img (1)
"""


def escape(s):
    return s.replace("\\", "\\\\").replace("-", "\\-")


def flags(row):
    letter, name, _, _ = row
    return [f for f in (f"-{letter}" if letter else None, f"--{name}" if name else None) if f]


def man(verbs):
    out = [HEAD]
    for name, about, operands, rows in verbs:
        out.append(f".SS {name} [options] {escape(operands)}\n{escape(about[0].upper() + about[1:])}.\n")
        for row in rows:
            value = f" \\fI{escape(row[2])}\\fR" if row[2] else ""
            names = ", ".join(f"\\fB{escape(f)}\\fR" for f in flags(row))
            out.append(f".TP\n{names}{value}\n{escape(row[3])}\n")
    return "".join(out) + PROTOCOLS + TAIL


def bash(verbs):
    cases = "".join(f"        {name}) words=\"{' '.join(f for r in rows for f in flags(r))}\" ;;\n"
                    for name, _, _, rows in verbs)
    return f"""# bash completion of lodge-img; made from the tables of its verbs
_lodge_img()
{{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} words=
    local formats="raw qcow2 qcow cow qed vdi vmdk vpc vhdx parallels luks bochs cloop dmg"
    if [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -W "{' '.join(v[0] for v in verbs)} --help --version" -- "$word"))
        return
    fi
    case $before in
    -f | -O | -F) COMPREPLY=($(compgen -W "$formats" -- "$word")); return ;;
    -t | -T) COMPREPLY=($(compgen -W "none writeback writethrough directsync unsafe" -- "$word")); return ;;
    esac
    case $word in
    -*)
        case ${{COMP_WORDS[1]}} in
{cases}        esac
        COMPREPLY=($(compgen -W "$words" -- "$word")) ;;
    *) COMPREPLY=($(compgen -f -- "$word")) ;;
    esac
}}
complete -o filenames -F _lodge_img lodge-img
"""


def zsh(verbs):
    quoted = lambda s: re.sub(r"([\[\]:'])", lambda m: "'\\''" if m.group(1) == "'" else "\\" + m.group(1), s)
    out = ["#compdef lodge-img\n# made from the tables of lodge-img's verbs\nlocal -a verbs\nverbs=(\n"]
    out += [f"  '{name}:{quoted(about)}'\n" for name, about, _, _ in verbs]
    out.append(")\nif (( CURRENT == 2 )); then\n  _describe command verbs\n  return\nfi\n"
               "local verb=$words[2]\nshift words\n(( CURRENT-- ))\ncase $verb in\n")
    for name, _, _, rows in verbs:
        out.append(f"{name})\n  _arguments '*:file:_files'")
        for row in rows:
            value = f":{quoted(row[2])}:_files" if row[2] else ""
            out += [f" \\\n    '{f}[{quoted(row[3])}]{value}'" for f in flags(row)]
        out.append(" ;;\n")
    return "".join(out) + "esac\n"


def fish(verbs):
    quoted = lambda s: s.replace("\\", "\\\\").replace("'", "\\'")
    out = ["# completions of lodge-img; made from the tables of its verbs\n"]
    for name, about, _, rows in verbs:
        out.append(f"complete -c lodge-img -n __fish_use_subcommand -a {name} -d '{quoted(about)}'\n")
        for letter, long_name, value, about_row in rows:
            out.append(f"complete -c lodge-img -n '__fish_seen_subcommand_from {name}'"
                       + (f" -s {letter}" if letter else "") + (f" -l {long_name}" if long_name else "")
                       + (" -r" if value else "") + f" -d '{quoted(about_row)}'\n")
    return "".join(out)


kind, target = sys.argv[1:3]
open(target, "w", encoding="utf-8").write({"man": man, "bash": bash, "zsh": zsh, "fish": fish}[kind](read(sys.argv[3:])))
