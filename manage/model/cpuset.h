/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* Sets of processors or memory nodes, as libvirt writes them: "0-3,^2,8". */
enum { CPUSET_BITS = 8192, CPUSET_BYTES = CPUSET_BITS / 8 };
struct cpuset {
    uint8_t bytes[CPUSET_BYTES];
};

static inline bool cpuset_has(const struct cpuset *s, unsigned i)
{
    return i < CPUSET_BITS && (s->bytes[i / 8] >> i % 8 & 1);
}
static inline void cpuset_put(struct cpuset *s, unsigned i, bool on)
{
    s->bytes[i / 8] =
        (uint8_t)(on ? s->bytes[i / 8] | 1u << i % 8 : s->bytes[i / 8] & ~(1u << i % 8));
}
/* False with ERR_INVALID_ARG; an empty set is no set. */
bool cpuset_parse(const char *text, struct cpuset *out, GError **error);
char *cpuset_format(const struct cpuset *s);
/* From and to the bytes on the wire: processor 0 is bit 0 of byte 0. */
bool cpuset_from_map(const void *map, unsigned n, struct cpuset *out, GError **error);
/* All of the first @n. */
void cpuset_all(struct cpuset *s, unsigned n);
unsigned cpuset_count(const struct cpuset *s);
