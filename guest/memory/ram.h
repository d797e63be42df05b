/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Guest RAM, ROM and video memory: host pages with a flag byte each.
 *
 * All blocks lie in one reserved range of host addresses, so a host address of guest
 * memory names its page flag by subtraction, and the translator can bound what its code
 * may touch.  Each block is followed by a guard of RAM_GUARD bytes that nothing maps: an
 * access that starts in a block and runs over its end faults in the host and never reaches
 * the next block or the VMM.
 */
enum { PAGE_BITS = 12, PAGE_SIZE = 1 << PAGE_BITS };
#define PAGE_MASK (~(uint64_t)(PAGE_SIZE - 1))
#define RAM_GUARD (UINT64_C(1) << 20) /* larger than any access, XSAVE areas included */

enum page_flag {
    PAGE_CODE = 1 << 0,        /* an engine holds translations of it: writes must tell it */
    PAGE_CLEAN_VGA = 1 << 1,   /* not written since the display last looked */
    PAGE_CLEAN_LOG = 1 << 2,   /* not written since the migration log last looked */
    PAGE_WATCH = 1 << 3,       /* a debugger's watchpoint lies in it */
};

/* A stretch of a block that has one thing behind it. */
struct ram_part {
    uint64_t at, bytes, page; /* page: of the host, in bytes */
    int fd;                   /* owned; -1 if anonymous */
};

struct ram {
    const char *name;  /* "pc.ram", "vga.vram": the key in the state stream */
    uint8_t *host;     /* page-aligned */
    uint64_t size;     /* bytes, a multiple of PAGE_SIZE */
    struct ram_part *parts; /* in order, without gaps */
    unsigned n_parts;
    bool read_only;    /* ROM: guest writes are dropped; the host may write */
};

struct ram_source {
    const char *mem_path; /* directory (hugetlbfs, tmpfs) or file; NULL: anonymous memory */
    bool share;           /* other processes may map it (memory-backend-memfd, vhost-user) */
    bool prealloc;
    bool merge_off, dump_off;
    int policy; /* Linux' number for mbind(); 0: the process's own */
    uint64_t nodes; /* of the host, one bit each */
    const struct ram_source *next; /* of what follows the first .bytes of the block */
    uint64_t bytes;                /* counts only before a .next */
};

/*
 * Makes a block of @size bytes, zero-filled.  NULL with ENOMEM, EINVAL (size), or the
 * errno of @source's path.  Lives as long as the process: a device that is unplugged gives
 * its block back with ram_free().
 */
extern bool ram_locked;   /* -overcommit mem-lock=on: guest memory is never paged out */
extern bool ram_in_files; /* anonymous memory is in a file (hugefile.h), so that more can map it */
struct ram *ram_new(const char *name, uint64_t size, const struct ram_source *source,
                    GError **error);
void ram_free(struct ram *ram);
/*
 * Gives the memory of whole pages in [@host, @host + @bytes) back to the host; they read as
 * zero afterwards.  Notes the write.  Where the host's pages are larger (hugetlbfs), or on a
 * host that refuses, the bytes stay as they are.  Any thread.
 */
void ram_discard(void *host, uint64_t bytes);
/* All blocks, in the order in which they were made; for state streams and the debugger. */
struct ram *ram_at(unsigned i); /* NULL after the last */
struct ram *ram_find(const char *name);

/* ---- page flags; data path, any thread ---- */

extern uint8_t *ram_pool;               /* start of the reserved range */
extern uint64_t ram_pool_size;          /* its bytes, guards included */
extern _Atomic uint8_t *ram_page_flags; /* one a page of the pool */

static inline size_t ram_page_index(const void *host)
{
    return (size_t)((const uint8_t *)host - ram_pool) >> PAGE_BITS;
}

static inline uint8_t ram_flags(const void *host)
{
    return atomic_load_explicit(&ram_page_flags[ram_page_index(host)], memory_order_relaxed);
}

static inline void ram_flags_set(const void *host, uint8_t flags)
{
    atomic_fetch_or(&ram_page_flags[ram_page_index(host)], flags);
}

static inline void ram_flags_clear(const void *host, uint8_t flags)
{
    atomic_fetch_and(&ram_page_flags[ram_page_index(host)], (uint8_t)~flags);
}

/*
 * Somebody is about to write, or has just written, @bytes bytes at @host (all in one
 * block): clears PAGE_CLEAN_* of the pages and calls the code listener for PAGE_CODE.
 * An engine may keep a direct write path to a page only while its flags are 0.
 */
void ram_note_write(void *host, uint64_t bytes);

/*
 * Who wants to hear of writes to PAGE_CODE pages: the translator; one listener.  Called
 * in the writer's thread.  The listener clears PAGE_CODE where it has dropped all code.
 */
extern void (*ram_code_written)(void *host, uint64_t bytes);

/*
 * An engine that learns of writes late (KVM's dirty log) notes those to @ram now; called by
 * ram_collect_dirty().  NULL: all writes are noted as they happen.
 */
extern void (*ram_sync_writes)(struct ram *ram);

/*
 * Copies which pages of @ram from byte @from, @bytes long, lost @flag (a PAGE_CLEAN_* bit)
 * into @bitmap (bit 0 is the page at @from) and marks them clean again.  Returns whether
 * any was dirty.  The caller must then make every vCPU drop its direct write paths:
 * vcpus_flush_tlb(); pages written meanwhile show up in the next call.
 */
bool ram_collect_dirty(struct ram *ram, uint64_t from, uint64_t bytes, uint8_t flag,
                       uint64_t *bitmap);
