/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stdint.h>

/*
 * load - kernels that start without firmware.  Parsing knows nothing of the machine but
 * where its RAM ends.
 */
enum boot_kind { BOOT_LINUX, BOOT_PVH, BOOT_MULTIBOOT };
enum { BOOT_MODULES = 32 };

struct boot_module {
    GBytes *bytes;
    char *text;
    uint64_t at;
};

/* A kernel that lies unpacked in guest memory; it is entered in 64-bit mode. */
struct vmlinux {
    uint64_t at, end, entry;
    bool random; /* its virtual addresses were chosen by chance */
};

struct direct_boot {
    enum boot_kind kind;
    char *path;
    GBytes *file, *initrd;
    const uint8_t *data;
    gsize size;
    bool elf, text_mode;
    uint64_t setup_bytes;                   /* Linux: in front of what is loaded */
    uint64_t load_from, load_at, load_bytes; /* not ELF */
    uint64_t memory_end, memory_top;        /* RAM: needed up to here; there up to here */
    uint32_t entry, pvh_entry, initrd_max, text_max;
    struct vmlinux vmlinux; /* .end is 0: the kernel's own decompressor is started */
    uint64_t initrd_at, initrd_bytes;
    struct boot_module module[BOOT_MODULES];
    unsigned n_modules;
    char *text;
};

struct boot_request {
    const char *kernel, *initrd, *append; /* initrd and append may be NULL */
    uint64_t ram_top; /* RAM from 1 MiB to here is free */
};
/* NULL with one line that names the file and what is wrong. */
struct direct_boot *direct_boot_parse(const struct boot_request *r, GError **error);
/* Its own loader would be a BIOS's: multiboot kernels may call it. */
bool direct_boot_wants_bios(const char *kernel);
void direct_boot_free(struct direct_boot *d);

/* ---- vmlinux.c ---- */
enum { VMLINUX_RANGES = 4 };
struct ram_range {
    uint64_t at, bytes;
    uint8_t *host;
};
/*
 * Unpacks the kernel of a bzImage into free memory of @ram, which has at most VMLINUX_RANGES.
 * False if the kernel's own decompressor has to; memory of @ram may have been written to.
 */
bool vmlinux_place(const struct direct_boot *d, const struct ram_range *ram, unsigned n,
                   struct vmlinux *out);
/* Whether it would use page tables of five levels on a processor that has them. */
bool vmlinux_wants_five_levels(const struct direct_boot *d);

/* ---- unpack.c ---- */
/* Fills @room bytes at @to from what a kernel's build packed.  False if that cannot be. */
bool kernel_unpack(const uint8_t *from, size_t n, uint8_t *to, size_t room);
