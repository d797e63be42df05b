/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/memory/ram.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Address spaces: what answers at a guest-physical address or an I/O port.
 *
 * Regions are placed into a space with a priority; where several cover an address the
 * highest wins (later wins among equals).  The result is kept flat and sorted (struct
 * span), so a lookup is a binary search with a one-entry memory and never walks a tree.
 * A machine has three spaces: memory, memory as seen in SMM, and I/O ports.
 */

/*
 * What a region of registers does.  @at is bytes from the start of the region.  Accesses
 * arrive with natural size: 1, 2, 4 or 8 bytes, split to [min_bytes, max_bytes] if those
 * are set (0 means 1 and 8); an unaligned access is split into bytes first unless
 * .unaligned is set.  Runs with the machine lock held unless .lockless is set.
 */
struct region_ops {
    uint64_t (*read)(void *owner, uint64_t at, unsigned bytes);
    void (*write)(void *owner, uint64_t at, uint64_t value, unsigned bytes);
    /* May be NULL: up to @count reads at @at in a row, to memory; how many it did, 0: one by one. */
    uint64_t (*read_many)(void *owner, uint64_t at, unsigned bytes, uint8_t *to, uint64_t count);
    uint8_t min_bytes, max_bytes;
    bool unaligned;
    bool lockless;
};

/*
 * A thing that can be placed in a space.  Exactly one of .ram and .ops is set, or both:
 * then reads go to the RAM and writes to .ops (flash in read-array mode: .rom_device).
 * Embedded in its owner.
 */
struct region {
    const char *name; /* for `info mtree` */
    uint64_t size;    /* bytes */
    struct ram *ram;
    uint64_t ram_at;  /* offset of the region in .ram */
    bool read_only;   /* guest writes go to .ops if there is one, else are dropped */
    const struct region_ops *ops;
    void *owner;      /* handed to .ops */
};

struct span {
    uint64_t start, end; /* [start, end) in the space */
    struct region *region;
    uint64_t region_at;  /* what .start is in the region */
    uint8_t *host;       /* of .start, if reads go straight to memory; else NULL */
    bool writable;       /* writes may go to .host too, subject to page flags */
};

struct space;

struct space *space_new(const char *name, uint64_t size);
void space_free(struct space *s);

/*
 * Control plane; machine lock held, no vCPU needs to be stopped.  Every change makes a new
 * flat view and calls the listeners.  space_begin() and space_commit() bracket many changes
 * into one (they nest).  A region may be placed more than once (mirrors): space_place()
 * returns a handle.
 */
struct placing;
struct placing *space_place(struct space *s, struct region *r, uint64_t at, int priority);
/* A window: @length bytes of @r from @from on. */
struct placing *space_place_part(struct space *s, struct region *r, uint64_t from,
                                 uint64_t length, uint64_t at, int priority);
void space_move(struct placing *p, uint64_t at);
void space_show(struct placing *p, bool visible);
void space_remove(struct placing *p); /* NULL is fine */
/* All that is in @below shows in @s where nothing else of a higher priority does. */
struct placing *space_place_space(struct space *s, struct space *below, int priority);
void space_begin(struct space *s);
void space_commit(struct space *s);

struct space_listener {
    void (*changed)(struct space_listener *l, struct space *s);
    struct space_listener *next; /* the space's */
};
void space_listen(struct space *s, struct space_listener *l);

/*
 * A register that only says "look": an engine that can (KVM) turns a guest's write to it into
 * a count on an eventfd, and the guest goes on at once.  Engines that cannot call .ops->write
 * as ever, so who has a doorbell must do with both.  Embedded in its owner; machine lock held.
 */
struct doorbell {
    struct region *region;
    uint64_t at;      /* bytes from the start of the region */
    unsigned bytes;   /* size of the write; 0: any */
    bool match;       /* only a write of .value */
    uint64_t value;
    int fd;           /* the eventfd */
    struct doorbell *next;
};
void doorbell_add(struct doorbell *d);
void doorbell_remove(struct doorbell *d);
extern struct doorbell *doorbells;       /* all of them */
extern void (*doorbells_changed)(void);  /* the engine's; NULL: it has no use for them */

/*
 * Data path, any thread, no lock.  A region, and memory behind a span, goes away only while
 * all vCPUs are paused.
 */
struct span space_find(struct space *s, uint64_t at); /* .region NULL: nothing there */
unsigned space_spans(struct space *s, struct span *out, unsigned room); /* returns how many */

/*
 * Reads or writes @n bytes with all side effects, as a device's DMA or a CPU would.
 * Unmapped bytes read as 0xff and are dropped on write.  Notes writes to RAM.  Returns
 * false if any byte was unmapped.  Takes the machine lock where a region needs it, unless
 * this thread holds it.
 */
bool space_read(struct space *s, uint64_t at, void *to, uint64_t n);
bool space_write(struct space *s, uint64_t at, const void *from, uint64_t n);
/* One register-sized access: 1, 2, 4 or 8 bytes, little-endian. */
uint64_t space_load(struct space *s, uint64_t at, unsigned bytes);
void space_store(struct space *s, uint64_t at, uint64_t value, unsigned bytes);
/* So many loads of the same register, one behind the other to @to. */
void space_load_many(struct space *s, uint64_t at, unsigned bytes, void *to, uint64_t count);

/*
 * Direct access to RAM for DMA: host address of @at and in *@n how many bytes (at most
 * what was asked) lie there together.  NULL if it is not plain RAM (use space_read and
 * space_write).  After writing through it: ram_note_write().
 */
void *space_map(struct space *s, uint64_t at, uint64_t *n, bool for_write);

/* Changes whenever the view does: for those that keep what space_map() gave them. */
uint32_t space_generation(const struct space *s);

/* Text for `info mtree`. */
void space_describe(struct space *s, GString *out);
