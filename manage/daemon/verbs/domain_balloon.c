/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The balloon's statistics: how often they are collected, and what they are.
 *
 * Spec: libvirt, "Domain XML format", "Memory balloon device", stats.
 */
#include "manage/daemon/balloon.h"
#include "manage/daemon/verb.h"

static const struct {
    const char *vm, *stat;
    int tag;
    bool bytes;
} names[] = {
    {"stat-swap-in", "swap_in", 0, true},
    {"stat-swap-out", "swap_out", 1, true},
    {"stat-major-faults", "major_fault", 2, false},
    {"stat-minor-faults", "minor_fault", 3, false},
    {"stat-free-memory", "unused", 4, true},
    {"stat-total-memory", "available", 5, true},
    {"stat-available-memory", "usable", 8, true},
    {"stat-disk-caches", "disk_caches", 10, true},
    {"stat-htlb-pgalloc", "hugetlb_pgalloc", 11, false},
    {"stat-htlb-pgfail", "hugetlb_pgfail", 12, false},
};
enum { LAST_UPDATE = 9 };

static bool has_balloon(const DomainDef *def)
{
    return def->balloon && def->balloon->model == BALLOON_VIRTIO && def->balloon->alias;
}

static json_t *path_of(const struct machine *m)
{
    return json_sprintf("/machine/peripheral/%s", m->def->balloon->alias);
}

unsigned balloon_figures(struct machine *m, unsigned ms, struct balloon_figure out[BALLOON_FIGURES])
{
    unsigned n = 0;
    if (!has_balloon(m->def)) {
        return 0;
    }
    g_autoptr(json_t) got =
        qmp_run(m->qmp, "qom-get",
                json_pack("{s:o, s:s}", "path", path_of(m), "property", "guest-stats"), ms, NULL);
    json_int_t when = json_integer_value(json_object_get(got, "last-update"));
    const json_t *stats = json_object_get(got, "stats");
    for (unsigned i = 0; when > 0 && i < G_N_ELEMENTS(names); i++) {
        json_int_t v = json_integer_value(json_object_get(stats, names[i].vm));
        if (v >= 0 && json_object_get(stats, names[i].vm)) {
            out[n++] = (struct balloon_figure){names[i].tag, names[i].stat,
                                               (uint64_t)v / (names[i].bytes ? 1024 : 1)};
        }
    }
    if (when > 0) {
        out[n++] = (struct balloon_figure){LAST_UPDATE, "last-update", (uint64_t)when};
    }
    return n;
}

static bool set_period(struct machine *m, int64_t seconds, GError **error)
{
    g_autoptr(json_t) got =
        qmp_run(m->qmp, "qom-set",
                json_pack("{s:o, s:s, s:I}", "path", path_of(m), "property",
                          "guest-stats-polling-interval", "value", (json_int_t)seconds),
                QMP_TIMEOUT_MS, error);
    return got != NULL;
}

bool balloon_start(struct machine *m, GError **error)
{
    return !has_balloon(m->def) || m->def->balloon->period == XML_ABSENT ||
           set_period(m, m->def->balloon->period, error);
}

static bool check(const DomainDef *def, GError **error)
{
    if (!def->balloon || def->balloon->model != BALLOON_VIRTIO) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "Memory balloon model must be virtio to set the collection period");
        return false;
    }
    return true;
}

static bool set_live(Domain *d, int64_t seconds, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    if (!m || !check(m->def, error) || !set_period(m, seconds, error)) {
        return false;
    }
    if (!m->ended) {
        m->def->balloon->period = seconds ? seconds : XML_ABSENT;
        machine_save(m);
    }
    return true;
}

static bool set_config(Domain *d, int64_t seconds, GError **error)
{
    g_autoptr(DomainDef) def = domain_config(d, error);
    if (!def || !check(def, error)) {
        return false;
    }
    def->balloon->period = seconds ? seconds : XML_ABSENT;
    return domain_save_config(d, def, error);
}

bool verb_domain_set_memory_stats_period(struct call *call, const rpc_domain_int_flags *args,
                                         rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    unsigned flags = args->flags;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    if (d && args->value < 0) {
        libvirt_error(error, ERR_INVALID_ARG, "the period is a number of seconds, 0 ends it");
        return false;
    }
    return d && domain_affect(d, &flags, error) &&
           (!(flags & AFFECT_LIVE) || set_live(d, args->value, error)) &&
           (!(flags & AFFECT_CONFIG) || set_config(d, args->value, error));
}
