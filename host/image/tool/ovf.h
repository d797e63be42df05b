/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/*
 * What an OVF descriptor says of a machine, as far as an image tool cares.
 *
 * Spec: DMTF DSP0243, "Open Virtualization Format Specification", version 1.1.
 */
enum { OVF_DISKS_MAX = 256, OVF_TEXT_MAX = 4 << 20 };

struct ovf_disk {
    char *id;          /* "vmdisk1" */
    char *file;        /* plain file name beside the descriptor; NULL: an empty disk */
    char *format;      /* our name of the format; NULL: what the URI says is not known */
    uint64_t capacity; /* bytes */
    uint64_t size;     /* of the file, in bytes; 0: not said */
};

struct ovf {
    char *name, *os;
    uint64_t cpus, memory; /* .memory in bytes; 0: not said */
    struct ovf_disk disks[OVF_DISKS_MAX];
    unsigned n_disks;
    char **networks; /* ends with NULL */
};

struct ovf *ovf_parse(const char *text, size_t n, GError **error);
/* The descriptor, g_malloc'd. */
char *ovf_write(const struct ovf *o, GError **error);
void ovf_free(struct ovf *o); /* NULL is fine */
/* Whether @name can only be a file of the folder or archive that names it. */
bool ovf_plain_name(const char *name);
