/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * doorbells - registers whose writes the kernel turns into counts on eventfds
 *
 * Spec: KVM API documentation, "KVM_IOEVENTFD".
 *
 * What should be registered follows from the list of doorbells and from where their regions
 * lie now; what is registered is kept beside it, and the difference goes to the kernel.
 */
#include "guest/cpu/kvm/kvm.h"

#include <glib.h>
#include <linux/kvm.h>
#include <string.h>

enum { BELLS_MAX = 512 };

static struct {
    struct space *space[2]; /* memory, ports */
    struct space_listener listener[2];
    struct kvm_ioeventfd have[BELLS_MAX], want[BELLS_MAX];
    unsigned n_have, n_want;
    bool any_length; /* the kernel takes a doorbell for writes of every size */
} bells;

static bool is_among(const struct kvm_ioeventfd *e, const struct kvm_ioeventfd *set, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (memcmp(e, &set[i], sizeof(*e)) == 0) {
            return true;
        }
    }
    return false;
}

static void want_one(const struct doorbell *d, uint64_t address, bool port)
{
    struct kvm_ioeventfd e = {.addr = address, .fd = d->fd};
    e.len = d->bytes || bells.any_length ? d->bytes : 2;
    e.datamatch = d->match ? d->value : 0;
    e.flags = (d->match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0) | (port ? KVM_IOEVENTFD_FLAG_PIO : 0);
    if (bells.n_want < BELLS_MAX && !is_among(&e, bells.want, bells.n_want)) {
        bells.want[bells.n_want++] = e;
    }
}

static void want_in(struct space *s, bool port)
{
    for (struct span v = space_find(s, 0); v.end != UINT64_MAX; v = space_find(s, v.end)) {
        for (const struct doorbell *d = v.region ? doorbells : NULL; d; d = d->next) {
            if (v.region == d->region && d->at >= v.region_at &&
                d->at - v.region_at < v.end - v.start) {
                want_one(d, v.start + d->at - v.region_at, port);
            }
        }
    }
}

static void follow(void)
{
    bells.n_want = 0;
    for (unsigned i = 0; i < 2 && doorbells; i++) {
        want_in(bells.space[i], i == 1);
    }
    unsigned kept = 0;
    for (unsigned i = 0; i < bells.n_have; i++) {
        struct kvm_ioeventfd e = bells.have[i];
        if (is_among(&e, bells.want, bells.n_want)) {
            bells.have[kept++] = e;
        } else {
            e.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
            kvm_vm_ioctl(KVM_IOEVENTFD, &e);
        }
    }
    bells.n_have = kept;
    /* One that the kernel refuses stays an ordinary write: slower, no less right. */
    for (unsigned i = 0; i < bells.n_want; i++) {
        struct kvm_ioeventfd e = bells.want[i];
        if (!is_among(&e, bells.have, kept) && kvm_vm_ioctl(KVM_IOEVENTFD, &e) >= 0) {
            bells.have[bells.n_have++] = bells.want[i];
        }
    }
}

static void moved(struct space_listener *l, struct space *s)
{
    (void)l, (void)s;
    if (doorbells || bells.n_have) {
        follow();
    }
}

void kvm_doorbells_init(struct space *memory, struct space *ports)
{
    if (!kvm_has(KVM_CAP_IOEVENTFD)) {
        return;
    }
    bells.any_length = kvm_has(KVM_CAP_IOEVENTFD_ANY_LENGTH);
    bells.space[0] = memory;
    bells.space[1] = ports;
    for (unsigned i = 0; i < 2; i++) {
        bells.listener[i].changed = moved;
        space_listen(bells.space[i], &bells.listener[i]);
    }
    doorbells_changed = follow;
    follow();
}
