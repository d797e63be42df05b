/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How fast the disks of a machine may be: <iotune>, as lodge-vm's own limits.
 *
 * Spec: libvirt, "Domain XML format", "Hard drives, floppy disks, CDROMs", iotune.
 */
#include "manage/daemon/disks.h"
#include "manage/daemon/params.h"
#include "manage/daemon/tune.h"

#include <string.h>

enum {
    VALUES = G_N_ELEMENTS(((struct iotune *)NULL)->v),
    SIZE_IOPS = 12,
    LENGTHS = 13,
    MAXIMA = 6
};

/* In the order of iotune_words: what lodge-vm calls them. */
static const char *const vm_names[VALUES] = {"bps",
                                             "bps_rd",
                                             "bps_wr",
                                             "iops",
                                             "iops_rd",
                                             "iops_wr",
                                             "bps_max",
                                             "bps_rd_max",
                                             "bps_wr_max",
                                             "iops_max",
                                             "iops_rd_max",
                                             "iops_wr_max",
                                             "iops_size",
                                             "bps_max_length",
                                             "bps_rd_max_length",
                                             "bps_wr_max_length",
                                             "iops_max_length",
                                             "iops_rd_max_length",
                                             "iops_wr_max_length"};
/* Who gives one of a group gives all of it: the others become 0. */
static const struct {
    unsigned first, n;
    const char *what;
} groups[] = {
    {0, 3, "bytes_sec"},  {3, 3, "iops_sec"}, {6, 3, "bytes_sec_max"}, {9, 3, "iops_sec_max"},
    {SIZE_IOPS, 1, NULL}, {LENGTHS, 3, NULL}, {LENGTHS + 3, 3, NULL},
};

static int64_t value_of(const struct iotune *t, unsigned i)
{
    return t && t->v[i] != XML_ABSENT ? t->v[i] : 0;
}

static bool send_limits(struct machine *m, const char *alias, const struct iotune *t,
                        GError **error)
{
    json_t *args = json_pack("{s:s}", "id", alias);
    for (unsigned i = 0; i < VALUES; i++) {
        if (i < MAXIMA || value_of(t, i)) {
            json_object_set_new(args, vm_names[i], json_integer(value_of(t, i)));
        }
    }
    if (t && t->group) {
        json_object_set_new(args, "group", json_string(t->group));
    }
    g_autoptr(json_t) got = qmp_run(m->qmp, "block_set_io_throttle", args, QMP_TIMEOUT_MS, error);
    return got != NULL;
}

static bool check(const struct iotune *t, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(groups); i++) {
        unsigned at = groups[i].first;
        if (groups[i].what && value_of(t, at) && (value_of(t, at + 1) || value_of(t, at + 2))) {
            libvirt_error(error, ERR_INVALID_ARG,
                          "total and read/write of %s cannot be set at the same time",
                          groups[i].what);
            return false;
        }
    }
    for (unsigned i = 0; i < MAXIMA; i++) {
        int64_t rate = value_of(t, i), most = value_of(t, MAXIMA + i);
        if (most && !rate) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "value '%s' must be set if '%s' is set",
                          iotune_words[i + 1], iotune_words[MAXIMA + i + 1]);
            return false;
        }
        if (most && most < rate) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "value '%s' cannot be smaller than '%s'",
                          iotune_words[MAXIMA + i + 1], iotune_words[i + 1]);
            return false;
        }
        if (value_of(t, LENGTHS + i) && !most) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "value '%s' must be set if '%s' is set",
                          iotune_words[MAXIMA + i + 1], iotune_words[LENGTHS + i + 1]);
            return false;
        }
    }
    return true;
}

bool disks_throttle(struct machine *m, GError **error)
{
    g_autoptr(GPtrArray) aliases = g_ptr_array_new_with_free_func(g_free);
    for (unsigned i = 0; i < xml_count(m->def->disks); i++) {
        const struct domain_disk *disk = m->def->disks->pdata[i];
        if (disk->iotune) {
            g_ptr_array_add(aliases, g_strdup(disk->alias));
        }
    }
    for (unsigned i = 0; i < aliases->len; i++) {
        const struct domain_disk *disk = machine_disk(m, aliases->pdata[i]);
        if (disk && disk->iotune &&
            !(check(disk->iotune, error) &&
              send_limits(m, aliases->pdata[i], disk->iotune, error))) {
            return false;
        }
    }
    return true;
}

static struct domain_disk *disk_of(const DomainDef *def, const char *name, GError **error)
{
    struct domain_disk *disk = domain_find_disk((DomainDef *)(uintptr_t)def, name);
    if (!disk) {
        libvirt_error(error, ERR_INVALID_ARG, "disk '%s' was not found in the domain config", name);
    }
    return disk;
}

/* --- asking --- */

bool verb_domain_get_block_io_tune(struct call *call, const rpc_domain_maybe_int_flags *args,
                                   rpc_params_count *ret, GError **error)
{
    (void)call;
    unsigned flags = args->flags & (AFFECT_LIVE | AFFECT_CONFIG);
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d || !domain_affect(d, &flags, error)) {
        return false;
    }
    if (!args->max) { /* how many there are */
        ret->count = VALUES + 1;
        return true;
    }
    g_autoptr(DomainDef) def = domain_def_of(d, flags & AFFECT_LIVE, error);
    const struct domain_disk *disk = def && args->of ? disk_of(def, *args->of, error) : NULL;
    if (!disk) {
        if (def && !args->of) {
            libvirt_error(error, ERR_INVALID_ARG, "a disk must be named");
        }
        return false;
    }
    const struct iotune *t = disk->iotune;
    Params *p = params_new();
    for (unsigned i = 0; i < VALUES; i++) {
        params_ullong(p, iotune_words[i + 1], (uint64_t)value_of(t, i));
        if (i == SIZE_IOPS && t && t->group) {
            params_text(p, "group_name", t->group);
        }
    }
    g_array_set_size(p, MIN(p->len, (unsigned)MAX(args->max, 0)));
    ret->params.params_len = p->len;
    ret->params.params_val = (rpc_param *)(void *)g_array_free(p, FALSE);
    ret->count = (int)ret->params.params_len;
    return true;
}

/* --- setting --- */

/* What was given, the rest XML_ABSENT; @given gets what the event will say. */
static bool take(const rpc_domain_of_params_flags *args, struct iotune *t, Params *given,
                 GError **error)
{
    for (unsigned i = 0; i < args->params.params_len; i++) {
        const rpc_param *p = &args->params.params_val[i];
        unsigned k = 0;
        int64_t v;
        while (k < VALUES && strcmp(p->field, iotune_words[k + 1]) != 0) {
            k++;
        }
        if (strcmp(p->field, "group_name") == 0 && p->value.type == 7) {
            g_free(t->group);
            t->group = g_strdup(p->value.rpc_value_u.s);
            params_text(given, "blkdeviotune.group_name", t->group);
            continue;
        }
        if (k == VALUES) {
            libvirt_error(error, ERR_INVALID_ARG, "parameter '%s' not supported", p->field);
            return false;
        }
        if (!param_number(p, &v, error)) {
            return false;
        }
        if (v < 0 || v >= INT64_C(1000000000000000)) {
            libvirt_error(error, ERR_INVALID_ARG,
                          "block I/O throttle limit value must be no more than %lu",
                          1000000000000000ul);
            return false;
        }
        t->v[k] = v;
        g_autofree char *name = g_strconcat("blkdeviotune.", p->field, NULL);
        params_ullong(given, name, (uint64_t)v);
    }
    return true;
}

/* @t with what @disk had where no one of the group was given. */
static void fill(struct iotune *t, const struct iotune *old)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(groups); i++) {
        bool said = false;
        for (unsigned k = 0; k < groups[i].n; k++) {
            said |= t->v[groups[i].first + k] != XML_ABSENT;
        }
        for (unsigned k = 0; k < groups[i].n; k++) {
            unsigned at = groups[i].first + k;
            t->v[at] = said ? value_of(t, at) : value_of(old, at);
        }
    }
}

/* Lengths of bursts that are no more, as libvirt: they go with them. */
static void trim(struct iotune *t)
{
    for (unsigned i = 0; i < MAXIMA; i++) {
        t->v[LENGTHS + i] = t->v[MAXIMA + i] ? t->v[LENGTHS + i] : 0;
    }
}

/* Becomes @disk's; zeroes are not written. */
static void give_one(struct domain_disk *disk, const struct iotune *t)
{
    struct iotune *copy = xml_new(&iotune_table);
    bool any = false;
    for (unsigned i = 0; i < VALUES; i++) {
        copy->v[i] = t->v[i] ? t->v[i] : XML_ABSENT;
        any |= t->v[i] != 0;
    }
    copy->group = g_strdup(t->group);
    xml_free(&iotune_table, disk->iotune);
    disk->iotune = any ? copy : NULL;
    if (!any) {
        xml_free(&iotune_table, copy);
    }
}

/* Disks of one group share one set of limits. */
static void give(DomainDef *def, struct domain_disk *disk, const struct iotune *t)
{
    for (unsigned i = 0; t->group && i < xml_count(def->disks); i++) {
        struct domain_disk *other = def->disks->pdata[i];
        if (other != disk && other->iotune && !g_strcmp0(other->iotune->group, t->group)) {
            give_one(other, t);
        }
    }
    give_one(disk, t);
}

/* Of the group that was named, or else of the disk's own. */
static const char *group_of(const struct iotune *wanted, const struct domain_disk *disk)
{
    return wanted->group ? wanted->group : disk->iotune ? disk->iotune->group : NULL;
}

static bool set_live(Domain *d, const char *name, const struct iotune *wanted, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    struct domain_disk *disk = m ? disk_of(m->def, name, error) : NULL;
    if (!disk) {
        return false;
    }
    struct iotune t = *wanted;
    g_autofree char *alias = g_strdup(disk->alias), *group = g_strdup(group_of(wanted, disk));
    t.group = group;
    fill(&t, disk->iotune);
    trim(&t);
    if (!check(&t, error) || !send_limits(m, alias, &t, error)) {
        return false;
    }
    disk = machine_disk(m, alias);
    if (disk && !m->ended) {
        give(m->def, disk, &t);
        machine_save(m);
    }
    return true;
}

static bool set_config(Domain *d, const char *name, const struct iotune *wanted, GError **error)
{
    g_autoptr(DomainDef) def = domain_config(d, error);
    struct domain_disk *disk = def ? disk_of(def, name, error) : NULL;
    if (!disk) {
        return false;
    }
    struct iotune t = *wanted;
    g_autofree char *group = g_strdup(group_of(wanted, disk));
    t.group = group;
    fill(&t, disk->iotune);
    trim(&t);
    if (!check(&t, error)) {
        return false;
    }
    give(def, disk, &t);
    return domain_save_config(d, def, error);
}

bool verb_domain_set_block_io_tune(struct call *call, const rpc_domain_of_params_flags *args,
                                   rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    unsigned flags = args->flags;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    struct iotune wanted = {0};
    for (unsigned i = 0; i < VALUES; i++) {
        wanted.v[i] = XML_ABSENT;
    }
    if (!d || !domain_affect(d, &flags, error)) {
        return false;
    }
    Params *given = params_new();
    bool ok = take(args, &wanted, given, error) &&
              (!(flags & AFFECT_LIVE) || set_live(d, args->of, &wanted, error)) &&
              (!(flags & AFFECT_CONFIG) || set_config(d, args->of, &wanted, error));
    g_free(wanted.group);
    params_text(given, "blkdeviotune.disk", args->of);
    if (ok && (flags & AFFECT_LIVE)) {
        tune_event(d, given);
        return true;
    }
    rpc_params_count unused = {0};
    unused.params.params_val = params_finish(given, &unused.params.params_len);
    xdr_free((xdrproc_t)xdr_rpc_params_count, (char *)&unused);
    return ok;
}
