/* SPDX-License-Identifier: GPL-2.0-or-later */

/* probe: telling image formats by their first bytes, also those that this build cannot open. */
#include "host/image/core.h"

#include <string.h>

struct magic {
    const char *name;
    unsigned at, bytes;
    const char *magic;
};

static const struct magic magics[] = {
    {"qcow", 0, 8, "QFI\xfb\0\0\0\1"},
    {"qcow2", 0, 8, "QFI\xfb\0\0\0\2"},
    {"qcow2", 0, 8, "QFI\xfb\0\0\0\3"},
    {"qed", 0, 4, "QED\0"},
    {"vmdk", 0, 4, "KDMV"},
    {"vmdk", 0, 4, "COWD"},
    {"vdi", 0x40, 4, "\x7f\x10\xda\xbe"},
    {"vhdx", 0, 8, "vhdxfile"},
    {"vpc", 0, 8, "conectix"},
    {"parallels", 0, 16, "WithoutFreeSpace"},
    {"parallels", 0, 16, "WithouFreSpacExt"},
    {"luks", 0, 6, "LUKS\xba\xbe"},
    {"bochs", 0, 22, "Bochs Virtual HD Image"},
    {"cloop", 0, 22, "#!/bin/sh\n#V2.0 Format"},
    {"cow", 0, 4, "OOOM"},
};

static size_t line_length(const uint8_t *p, size_t n)
{
    const uint8_t *nl = memchr(p, '\n', n);
    return nl ? (size_t)(nl - p) + 1 : n;
}

static bool is_skipped(const uint8_t *line, size_t n)
{
    size_t blank = 0;
    while (blank < n && strchr(" \r\n", line[blank]) && line[blank]) {
        blank++;
    }
    return blank == n || line[0] == '#';
}

/* A VMDK descriptor: comments and blank lines, then the version. */
static bool is_vmdk_text(const uint8_t *p, size_t n)
{
    while (n) {
        size_t line = line_length(p, n);
        if (!is_skipped(p, line)) {
            return line > 8 && !memcmp(p, "version=", 8) && p[8] >= '1' && p[8] <= '3';
        }
        p += line;
        n -= line;
    }
    return false;
}

const char *image_probe_name(const uint8_t *head, size_t n)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(magics); i++) {
        const struct magic *m = &magics[i];
        if (n >= m->at + m->bytes && !memcmp(head + m->at, m->magic, m->bytes)) {
            return m->name;
        }
    }
    return is_vmdk_text(head, n) ? "vmdk" : NULL;
}
