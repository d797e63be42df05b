/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/model/cpuset.h"

#include "manage/error.h"

#include <string.h>

static bool number(const char **at, unsigned *v)
{
    const char *s = *at;
    uint64_t n = 0;
    while (g_ascii_isdigit(*s) && n < CPUSET_BITS) {
        n = n * 10 + (uint64_t)(*s++ - '0');
    }
    if (s == *at || n >= CPUSET_BITS) {
        return false;
    }
    *v = (unsigned)n;
    *at = s;
    return true;
}

static bool parse(const char *s, struct cpuset *out)
{
    memset(out, 0, sizeof(*out));
    for (;; s++) {
        unsigned from, to;
        s += strspn(s, " \t\n");
        bool on = *s != '^';
        s += !on;
        if (!number(&s, &from)) {
            return false;
        }
        to = from;
        if (*s == '-') {
            s++;
            if (!on || !number(&s, &to) || to < from) {
                return false;
            }
        }
        for (unsigned i = from; i <= to; i++) {
            cpuset_put(out, i, on);
        }
        s += strspn(s, " \t\n");
        if (*s != ',') {
            return !*s;
        }
    }
}

bool cpuset_parse(const char *text, struct cpuset *out, GError **error)
{
    if (!parse(text, out)) {
        libvirt_error(error, ERR_INVALID_ARG, "Failed to parse bitmap '%s'", text);
        return false;
    }
    if (!cpuset_count(out)) {
        libvirt_error(error, ERR_INVALID_ARG, "Invalid value of 'cpuset': %s", text);
        return false;
    }
    return true;
}

char *cpuset_format(const struct cpuset *s)
{
    GString *out = g_string_new(NULL);
    for (unsigned i = 0; i < CPUSET_BITS; i++) {
        if (!cpuset_has(s, i)) {
            continue;
        }
        unsigned end = i;
        while (cpuset_has(s, end + 1)) {
            end++;
        }
        g_string_append_printf(out, end > i ? "%s%u-%u" : "%s%u", out->len ? "," : "", i, end);
        i = end;
    }
    return g_string_free(out, FALSE);
}

bool cpuset_from_map(const void *map, unsigned n, struct cpuset *out, GError **error)
{
    memset(out, 0, sizeof(*out));
    memcpy(out->bytes, map, MIN(n, CPUSET_BYTES));
    if (!cpuset_count(out)) {
        libvirt_error(error, ERR_INVALID_ARG, "Empty cpu list for pinning");
        return false;
    }
    return true;
}

void cpuset_all(struct cpuset *s, unsigned n)
{
    memset(s, 0, sizeof(*s));
    for (unsigned i = 0; i < MIN(n, CPUSET_BITS); i++) {
        cpuset_put(s, i, true);
    }
}

unsigned cpuset_count(const struct cpuset *s)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CPUSET_BYTES; i++) {
        n += (unsigned)__builtin_popcount(s->bytes[i]);
    }
    return n;
}
