/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/options.h"

#include "base/error.h"

/*
 * -smp: what is not given follows from what is, cores before sockets, as QEMU does it since
 * its version 6.2.
 */
struct smp {
    unsigned cpus, maxcpus, sockets, dies, cores, threads; /* 0: not given */
};

enum { CPUS_MAX = 1 << 16 };

static bool take(KeyVal *kv, const char *key, unsigned *out, GError **error)
{
    if (!keyval_unsigned(kv, key, CPUS_MAX, out, error)) {
        return false;
    }
    if (keyval_get(kv, key) && *out == 0) {
        g_set_error(error, LODGE_ERROR, EINVAL, "-smp: %s must be greater than zero", key);
        return false;
    }
    return true;
}

static void complete(struct smp *s)
{
    s->dies = s->dies ? s->dies : 1;
    if (!s->cpus && !s->maxcpus) {
        s->sockets = s->sockets ? s->sockets : 1;
        s->cores = s->cores ? s->cores : 1;
        s->threads = s->threads ? s->threads : 1;
    } else {
        s->maxcpus = s->maxcpus ? s->maxcpus : s->cpus;
        if (!s->cores) {
            s->sockets = s->sockets ? s->sockets : 1;
            s->threads = s->threads ? s->threads : 1;
            s->cores = s->maxcpus / (s->sockets * s->dies * s->threads);
        } else if (!s->sockets) {
            s->threads = s->threads ? s->threads : 1;
            s->sockets = s->maxcpus / (s->dies * s->cores * s->threads);
        }
        if (!s->threads) {
            s->threads = s->maxcpus / (s->sockets * s->dies * s->cores);
        }
    }
}

static uint64_t product(const struct smp *s)
{
    return (uint64_t)s->sockets * s->dies * s->cores * s->threads;
}

static bool fits(const struct smp *s, GError **error)
{
    if (product(s) != s->maxcpus) {
        g_autofree char *dies = s->dies == 1 ? g_strdup("") : g_strdup_printf(" * dies (%u)", s->dies);
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "cpu topology: sockets (%u)%s * cores (%u) * threads (%u) %s maxcpus (%u)",
                    s->sockets, dies, s->cores, s->threads,
                    product(s) > s->maxcpus ? ">" : "!=", s->maxcpus);
        return false;
    }
    if (s->cpus > s->maxcpus) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "cpu topology: maxcpus (%u) must be equal to or greater than cpus (%u)",
                    s->maxcpus, s->cpus);
        return false;
    }
    return true;
}

bool vm_options_smp(struct machine_config *m, const char *text, GError **error)
{
    struct smp s = {0};
    g_autoptr(KeyVal) kv = keyval_parse(text, "cpus", error);
    unsigned clusters = 1;
    if (!kv || !take(kv, "cpus", &s.cpus, error) || !take(kv, "maxcpus", &s.maxcpus, error) ||
        !take(kv, "sockets", &s.sockets, error) || !take(kv, "dies", &s.dies, error) ||
        !take(kv, "cores", &s.cores, error) || !take(kv, "threads", &s.threads, error) ||
        !take(kv, "clusters", &clusters, error) || !keyval_done(kv, error)) {
        g_prefix_error(error, "-smp %s: ", text);
        return false;
    }
    if (clusters != 1) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "-smp: clusters are not supported on x86");
        return false;
    }
    complete(&s);
    uint64_t all = product(&s);
    if (!s.maxcpus && all <= CPUS_MAX) {
        s.maxcpus = (unsigned)all;
    }
    s.cpus = s.cpus ? s.cpus : s.maxcpus;
    if (!fits(&s, error)) {
        return false;
    }
    m->cpus = s.cpus;
    m->maxcpus = s.maxcpus;
    m->topology = (struct cpu_topology){s.sockets, s.dies, s.cores, s.threads};
    return true;
}
