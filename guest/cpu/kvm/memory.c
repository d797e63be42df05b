/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * memory - guest RAM as KVM's memory slots, and KVM's log of written pages
 *
 * Spec: KVM API documentation, "KVM_SET_USER_MEMORY_REGION", "KVM_GET_DIRTY_LOG".
 *
 * Slots follow the flat view of a space: neighbouring spans that are one piece of host
 * memory make one slot.  A slot logs writes from the first time somebody asks for them.
 */
#include "guest/cpu/kvm/kvm.h"

#include <linux/kvm.h>
#include <string.h>

enum { SLOTS_MAX = 400, SPANS_MAX = 1024, LOG_WORDS = 512 };

struct slot {
    uint64_t gpa, size;
    uint8_t *host;
    bool read_only, logging, used;
};

/* Address space 0 is what the guest sees, 1 what it sees in SMM. */
struct view {
    struct space_listener listener;
    unsigned number;
    struct slot slots[SLOTS_MAX];
};

static struct view views[2];
static struct span spans[SPANS_MAX];
static struct slot wanted[SLOTS_MAX];

static int slot_commit(const struct view *v, unsigned i, const struct slot *s)
{
    struct kvm_userspace_memory_region r = {
        .slot = i | v->number << 16,
        .flags = (s->read_only ? KVM_MEM_READONLY : 0) | (s->logging ? KVM_MEM_LOG_DIRTY_PAGES : 0),
        .guest_phys_addr = s->gpa,
        .memory_size = s->used ? s->size : 0,
        .userspace_addr = (uintptr_t)s->host,
    };
    return kvm_vm_ioctl(KVM_SET_USER_MEMORY_REGION, &r);
}

/* What the slots should be.  Spans off page boundaries stay I/O: KVM maps pages. */
static unsigned want_slots(struct space *s)
{
    unsigned n = MIN(space_spans(s, spans, SPANS_MAX), SPANS_MAX), out = 0;
    for (unsigned i = 0; i < n; i++) {
        const struct span *p = &spans[i];
        if (!p->host || ((p->start | p->end | (uintptr_t)p->host) & (PAGE_SIZE - 1))) {
            continue;
        }
        struct slot *last = out ? &wanted[out - 1] : NULL;
        if (last && last->gpa + last->size == p->start && last->host + last->size == p->host &&
            last->read_only == !p->writable) {
            last->size += p->end - p->start;
        } else if (out < SLOTS_MAX) {
            wanted[out++] = (struct slot){.gpa = p->start,
                                          .size = p->end - p->start,
                                          .host = p->host,
                                          .read_only = !p->writable,
                                          .used = true};
        }
    }
    return out;
}

static bool same(const struct slot *a, const struct slot *b)
{
    return a->used && b->used && a->gpa == b->gpa && a->size == b->size && a->host == b->host &&
           a->read_only == b->read_only;
}

static bool is_among(const struct slot *s, const struct slot *set, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (same(s, &set[i])) {
            return true;
        }
    }
    return false;
}

static void collect(struct view *v, unsigned i);

/* First drop what vanished, then add: slots must never overlap. */
static void memory_changed(struct space_listener *l, struct space *s)
{
    struct view *v = (struct view *)l;
    unsigned n = want_slots(s);
    for (unsigned i = 0; i < SLOTS_MAX; i++) {
        if (v->slots[i].used && !is_among(&v->slots[i], wanted, n)) {
            collect(v, i); /* what was written so far would be forgotten */
            v->slots[i].used = false;
            slot_commit(v, i, &v->slots[i]);
        }
    }
    for (unsigned i = 0; i < n; i++) {
        if (is_among(&wanted[i], v->slots, SLOTS_MAX)) {
            continue;
        }
        unsigned free_slot = 0;
        while (v->slots[free_slot].used) {
            free_slot++;
        }
        v->slots[free_slot] = wanted[i];
        slot_commit(v, free_slot, &wanted[i]);
    }
}

/* Notes the pages of slot @i that the guest wrote since the last time. */
static void collect(struct view *v, unsigned i)
{
    struct slot *s = &v->slots[i];
    if (!s->logging) {
        return;
    }
    size_t pages = s->size >> PAGE_BITS;
    g_autofree uint64_t *bitmap = g_try_new0(uint64_t, (pages + 63) / 64);
    struct kvm_dirty_log log = {.slot = i | v->number << 16, .dirty_bitmap = bitmap};
    if (!bitmap || kvm_vm_ioctl(KVM_GET_DIRTY_LOG, &log) < 0) {
        ram_note_write(s->host, s->size); /* unknown is written */
        return;
    }
    for (size_t p = 0; p < pages; p++) {
        if (bitmap[p / 64] >> (p % 64) & 1) {
            ram_note_write(s->host + (p << PAGE_BITS), PAGE_SIZE);
        }
    }
}

/* ram.h's hook: somebody looks at the page flags of @ram now. */
static void sync_writes(struct ram *ram)
{
    for (unsigned k = 0; k < 2; k++) {
        for (unsigned i = 0; i < SLOTS_MAX; i++) {
            struct slot *s = &views[k].slots[i];
            if (!s->used || s->read_only || s->host < ram->host ||
                s->host >= ram->host + ram->size) {
                continue;
            }
            if (s->logging) {
                collect(&views[k], i);
            } else {
                s->logging = true;
                slot_commit(&views[k], i, s);
                ram_note_write(s->host, s->size);
            }
        }
    }
}

bool kvm_memory_init(struct space *memory, struct space *memory_smm, GError **error)
{
    static bool done;
    if (done) {
        return true;
    }
    done = true;
    views[0].listener.changed = memory_changed;
    space_listen(memory, &views[0].listener);
    memory_changed(&views[0].listener, memory);
    if (memory_smm && kvm_has(KVM_CAP_MULTI_ADDRESS_SPACE) && kvm_has(KVM_CAP_X86_SMM)) {
        views[1].number = 1;
        views[1].listener.changed = memory_changed;
        space_listen(memory_smm, &views[1].listener);
        memory_changed(&views[1].listener, memory_smm);
    }
    if (!views[0].slots[0].used) {
        g_set_error(error, LODGE_ERROR, EINVAL, "KVM: the machine has no memory");
        return false;
    }
    ram_sync_writes = sync_writes;
    return true;
}
