/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Limits of a machine's memory and disk traffic, and the memory nodes that it uses. */
#include "manage/daemon/files.h"
#include "manage/daemon/params.h"
#include "manage/daemon/tune.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define UNLIMITED_KIB INT64_C(9007199254740991) /* libvirt's "no limit" */

/* Both definitions that a change is for; .live is the machine's own. */
struct change {
    Domain *d;
    Machine *m;
    DomainDef *config;
};

static void change_clear(struct change *c)
{
    g_clear_pointer(&c->m, machine_unref);
    g_clear_pointer(&c->config, domain_def_free);
    if (c->d) {
        domain_job_release(c->d);
    }
}
typedef struct change Change;
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Change, change_clear)

static bool change_begin(struct change *c, const rpc_domain *named, unsigned flags, GError **error)
{
    c->d = domain_take(named, error);
    if (!c->d || !domain_affect(c->d, &flags, error)) {
        return false;
    }
    c->m = flags & AFFECT_LIVE ? machine_of(c->d, error) : NULL;
    c->config = flags & AFFECT_CONFIG ? domain_config(c->d, error) : NULL;
    return (!(flags & AFFECT_LIVE) || c->m) && (!(flags & AFFECT_CONFIG) || c->config);
}

static bool change_end(struct change *c, GError **error)
{
    if (c->m) {
        machine_save(c->m);
    }
    return !c->config || domain_save_config(c->d, c->config, error);
}

/* The definition that a query means, and the machine if it is the live one. */
static DomainDef *look(const rpc_domain *named, unsigned flags, Machine **m, GError **error)
{
    g_autoptr(Domain) d = domain_get(named, error);
    if (!d || !domain_affect(d, &flags, error)) {
        return NULL;
    }
    if (flags & AFFECT_LIVE) {
        *m = machine_of(d, error);
        return *m ? domain_def_copy((*m)->def) : NULL;
    }
    return domain_config(d, error);
}

/* --- memory --- */

static const struct memory_row {
    const char *name;
    size_t offset;
    enum knob knob;
} memory_rows[] = {
    {"hard_limit", offsetof(DomainDef, hard_limit), KNOB_HARD_LIMIT},
    {"soft_limit", offsetof(DomainDef, soft_limit), KNOB_SOFT_LIMIT},
    {"swap_hard_limit", offsetof(DomainDef, swap_hard_limit), KNOB_SWAP_HARD_LIMIT},
};
enum { ROW_HARD, ROW_SOFT, ROW_SWAP };

static int64_t *memory_field(DomainDef *def, unsigned row)
{
    return (int64_t *)(void *)((char *)def + memory_rows[row].offset);
}

/* KiB; version 2 counts swap without memory, libvirt and version 1 with it. */
static bool memory_live(struct machine *m, unsigned row, int64_t *kib, GError **error)
{
    uint64_t v, hard;
    bool two = cgroup_version(m->group, GROUP_MEMORY) == 2;
    if (!cgroup_get(m->group, NULL, memory_rows[row].knob, &v, error)) {
        return false;
    }
    if (two && row == ROW_SWAP && v != KNOB_UNLIMITED) {
        if (!cgroup_get(m->group, NULL, KNOB_HARD_LIMIT, &hard, error)) {
            return false;
        }
        v = hard == KNOB_UNLIMITED ? hard : v + hard;
    }
    *kib = v == KNOB_UNLIMITED ? UNLIMITED_KIB : (int64_t)(v / 1024);
    return true;
}

bool verb_domain_get_memory_parameters(struct call *call, const rpc_domain_int_flags *args,
                                       rpc_params_count *ret, GError **error)
{
    (void)call;
    g_autoptr(Machine) m = NULL;
    g_autoptr(DomainDef) def = look(&args->dom, args->flags & 3, &m, error);
    if (!def) {
        return false;
    }
    if (m && !cgroup_has(m->group, GROUP_MEMORY)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "cgroup memory controller is not mounted");
        return false;
    }
    ret->count = G_N_ELEMENTS(memory_rows);
    if (args->value == 0) {
        return true;
    }
    g_autoptr(GArray) p = params_new();
    for (unsigned i = 0; i < G_N_ELEMENTS(memory_rows) && (int)i < args->value; i++) {
        int64_t v = *memory_field(def, i);
        v = v == XML_ABSENT ? UNLIMITED_KIB : v;
        g_autoptr(GError) own = NULL;
        if (m && !memory_live(m, i, &v, &own)) {
            if (i != ROW_SWAP) { /* a kernel without accounting of swap has no such file */
                g_propagate_error(error, g_steal_pointer(&own));
                return false;
            }
            v = UNLIMITED_KIB;
        }
        params_ullong(p, memory_rows[i].name, (uint64_t)v);
    }
    ret->params.params_val = params_finish(g_steal_pointer(&p), &ret->params.params_len);
    ret->count = (int)ret->params.params_len;
    return true;
}

static bool memory_set(struct machine *m, unsigned row, int64_t kib, int64_t hard, GError **error)
{
    uint64_t v = kib >= UNLIMITED_KIB ? KNOB_UNLIMITED : (uint64_t)kib * 1024;
    if (row == ROW_SWAP && v != KNOB_UNLIMITED && cgroup_version(m->group, GROUP_MEMORY) == 2) {
        v -= (uint64_t)hard * 1024;
    }
    return cgroup_set(m->group, NULL, memory_rows[row].knob, v, error);
}

/* Version 1 never lets memory alone exceed memory with swap: which comes first depends. */
static bool memory_apply(struct machine *m, const int64_t want[3], GError **error)
{
    int64_t hard = want[ROW_HARD], swap_now = UNLIMITED_KIB;
    if (hard == XML_ABSENT && !memory_live(m, ROW_HARD, &hard, error)) {
        return false;
    }
    memory_live(m, ROW_SWAP, &swap_now, NULL);
    bool swap_first = want[ROW_SWAP] != XML_ABSENT && want[ROW_SWAP] > swap_now;
    const unsigned order[][3] = {{ROW_HARD, ROW_SWAP, ROW_SOFT}, {ROW_SWAP, ROW_HARD, ROW_SOFT}};
    for (unsigned i = 0; i < 3; i++) {
        unsigned row = order[swap_first][i];
        if (want[row] != XML_ABSENT && !memory_set(m, row, want[row], hard, error)) {
            return false;
        }
    }
    return true;
}

static bool memory_params(const rpc_domain_params_flags *args, int64_t want[3], GError **error)
{
    for (unsigned i = 0; i < args->params.params_len; i++) {
        const rpc_param *p = &args->params.params_val[i];
        unsigned row = 0;
        while (row < 3 && strcmp(memory_rows[row].name, p->field) != 0) {
            row++;
        }
        if (row == 3) {
            libvirt_error(error, ERR_INVALID_ARG, "parameter '%s' not supported", p->field);
            return false;
        }
        if (!param_number(p, &want[row], error)) {
            return false;
        }
        want[row] = want[row] < 0 ? UNLIMITED_KIB : MIN(want[row], UNLIMITED_KIB);
    }
    return true;
}

/* The limits of @def with @want over them. */
static bool memory_fits(const DomainDef *def, const int64_t want[3], GError **error)
{
    int64_t hard = want[ROW_HARD] == XML_ABSENT ? def->hard_limit : want[ROW_HARD];
    int64_t swap = want[ROW_SWAP] == XML_ABSENT ? def->swap_hard_limit : want[ROW_SWAP];
    hard = hard == XML_ABSENT ? want[ROW_SWAP] == XML_ABSENT ? 0 : UNLIMITED_KIB : hard;
    swap = swap == XML_ABSENT ? UNLIMITED_KIB : swap;
    if (hard > swap) {
        libvirt_error(error, ERR_INVALID_ARG,
                      "memory hard_limit tunable value must be lower than or equal to "
                      "swap_hard_limit");
        return false;
    }
    return true;
}

static void memory_write(DomainDef *def, const int64_t want[3])
{
    for (unsigned i = 0; i < 3; i++) {
        if (want[i] != XML_ABSENT) {
            *memory_field(def, i) = want[i] == UNLIMITED_KIB ? XML_ABSENT : want[i];
        }
    }
}

bool verb_domain_set_memory_parameters(struct call *call, const rpc_domain_params_flags *args,
                                       rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    int64_t want[3] = {XML_ABSENT, XML_ABSENT, XML_ABSENT};
    g_auto(Change) c = {0};
    if (!change_begin(&c, &args->dom, args->flags & 3, error) ||
        !memory_params(args, want, error) || (c.m && !memory_fits(c.m->def, want, error)) ||
        (c.config && !memory_fits(c.config, want, error))) {
        return false;
    }
    if (c.m && !cgroup_has(c.m->group, GROUP_MEMORY)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "cgroup memory controller is not mounted");
        return false;
    }
    if (c.m && !memory_apply(c.m, want, error)) {
        return false;
    }
    if (c.m) {
        memory_write(c.m->def, want);
    }
    if (c.config) {
        memory_write(c.config, want);
    }
    return change_end(&c, error);
}

/* --- disk traffic --- */

static const struct blkio_row {
    const char *name;
    size_t offset;
    enum knob knob;
} blkio_rows[] = {
#define B(member) offsetof(struct blkio_device, member)
    {"device_weight", B(weight), KNOB_DEVICE_WEIGHT},
    {"device_read_iops_sec", B(read_iops), KNOB_READ_IOPS},
    {"device_write_iops_sec", B(write_iops), KNOB_WRITE_IOPS},
    {"device_read_bytes_sec", B(read_bytes), KNOB_READ_BYTES},
    {"device_write_bytes_sec", B(write_bytes), KNOB_WRITE_BYTES},
#undef B
};
enum { BLKIO_PARAMS = 1 + G_N_ELEMENTS(blkio_rows), WEIGHT_MIN = 10, WEIGHT_MAX = 1000 };

static int64_t *blkio_field(struct blkio_device *device, const struct blkio_row *row)
{
    return (int64_t *)(void *)((char *)device + row->offset);
}

/* "/dev/sda,500,/dev/sdb,300" */
static char *blkio_words(const DomainDef *def, const struct blkio_row *row)
{
    GString *out = g_string_new(NULL);
    for (unsigned i = 0; i < xml_count(def->blkio_devices); i++) {
        struct blkio_device *device = def->blkio_devices->pdata[i];
        int64_t v = *blkio_field(device, row);
        if (v != XML_ABSENT && v != 0) {
            g_string_append_printf(out, "%s%s,%" PRId64, out->len ? "," : "", device->path, v);
        }
    }
    return g_string_free(out, FALSE);
}

bool verb_domain_get_blkio_parameters(struct call *call, const rpc_domain_int_flags *args,
                                      rpc_params_count *ret, GError **error)
{
    (void)call;
    g_autoptr(Machine) m = NULL;
    g_autoptr(DomainDef) def = look(&args->dom, args->flags & 3, &m, error);
    uint64_t weight = def && def->blkio_weight != XML_ABSENT ? (uint64_t)def->blkio_weight : 0;
    if (!def) {
        return false;
    }
    if (m && !cgroup_has(m->group, GROUP_BLKIO)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "blkio cgroup isn't mounted");
        return false;
    }
    ret->count = BLKIO_PARAMS;
    if (args->value == 0) {
        return true;
    }
    if (m && !cgroup_get(m->group, NULL, KNOB_WEIGHT, &weight, NULL)) {
        weight = 0; /* this kernel has no scheduler that weighs */
    }
    Params *p = params_new();
    params_uint(p, "weight", (unsigned)weight);
    for (unsigned i = 0; i < G_N_ELEMENTS(blkio_rows) && p->len < (unsigned)args->value; i++) {
        g_autofree char *text = blkio_words(def, &blkio_rows[i]);
        params_text(p, blkio_rows[i].name, text);
    }
    ret->params.params_val = params_finish(p, &ret->params.params_len);
    ret->count = (int)ret->params.params_len;
    return true;
}

static struct blkio_device *blkio_device_of(DomainDef *def, const char *path)
{
    for (unsigned i = 0; i < xml_count(def->blkio_devices); i++) {
        struct blkio_device *device = def->blkio_devices->pdata[i];
        if (strcmp(device->path, path) == 0) {
            return device;
        }
    }
    struct blkio_device *device = g_new0(struct blkio_device, 1);
    device->path = g_strdup(path);
    for (unsigned i = 0; i < G_N_ELEMENTS(blkio_rows); i++) {
        *blkio_field(device, &blkio_rows[i]) = XML_ABSENT;
    }
    xml_append(NULL, &def->blkio_devices, device);
    return device;
}

/* Takes devices out of whose limits nothing is left. */
static void blkio_tidy(DomainDef *def)
{
    for (unsigned i = xml_count(def->blkio_devices); i-- > 0;) {
        struct blkio_device *device = def->blkio_devices->pdata[i];
        bool any = false;
        for (unsigned k = 0; k < G_N_ELEMENTS(blkio_rows); k++) {
            int64_t *v = blkio_field(device, &blkio_rows[k]);
            *v = *v == 0 ? XML_ABSENT : *v;
            any |= *v != XML_ABSENT;
        }
        if (!any) {
            g_free(device->path);
            g_free(device);
            g_ptr_array_remove_index(def->blkio_devices, i);
        }
    }
}

static bool blkio_number(const char *text, const struct blkio_row *row, int64_t *v, GError **error)
{
    guint64 n;
    if (!g_ascii_string_to_unsigned(text, 10, 0, INT64_MAX, &n, NULL)) {
        libvirt_error(error, ERR_INVALID_ARG, "invalid value '%s' for parameter '%s' of device",
                      text, row->name);
        return false;
    }
    if (row->knob == KNOB_DEVICE_WEIGHT && n && (n < WEIGHT_MIN || n > WEIGHT_MAX)) {
        libvirt_error(error, ERR_INVALID_ARG, "%s must be in range [%d, %d]", row->name, WEIGHT_MIN,
                      WEIGHT_MAX);
        return false;
    }
    *v = (int64_t)n;
    return true;
}

static bool blkio_devices(DomainDef *def, struct machine *m, const struct blkio_row *row,
                          const rpc_param *p, GError **error)
{
    if (p->value.type != 7) {
        libvirt_error(error, ERR_INVALID_ARG, "invalid type of parameter '%s'", p->field);
        return false;
    }
    g_auto(GStrv) words = g_strsplit(p->value.rpc_value_u.s, ",", -1);
    for (unsigned i = 0; words[i]; i += 2) {
        int64_t v;
        struct stat st;
        if (words[i][0] != '/' || !words[i + 1]) {
            libvirt_error(error, ERR_INVALID_ARG, "unable to parse blkio device '%s' '%s'",
                          p->field, p->value.rpc_value_u.s);
            return false;
        }
        if (!blkio_number(words[i + 1], row, &v, error)) {
            return false;
        }
        if (m && (path_stat(words[i], &st) != 0 || !S_ISBLK(st.st_mode))) {
            libvirt_error(error, ERR_SYSTEM, "Path '%s' must be a block device", words[i]);
            return false;
        }
        if (m && !cgroup_set_device(m->group, row->knob, st.st_rdev, (uint64_t)v, error)) {
            return false;
        }
        *blkio_field(blkio_device_of(def, words[i]), row) = v;
    }
    return true;
}

/* @m NULL: only the definition. */
static bool blkio_change(DomainDef *def, struct machine *m, const rpc_param *p, GError **error)
{
    if (strcmp(p->field, "weight") == 0) {
        int64_t v;
        if (!param_number(p, &v, error)) {
            return false;
        }
        if (v && (v < WEIGHT_MIN || v > WEIGHT_MAX)) {
            libvirt_error(error, ERR_INVALID_ARG, "weight must be in range [%d, %d]", WEIGHT_MIN,
                          WEIGHT_MAX);
            return false;
        }
        if (m && v && !cgroup_set(m->group, NULL, KNOB_WEIGHT, (uint64_t)v, error)) {
            return false;
        }
        def->blkio_weight = v ? v : XML_ABSENT;
        return true;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(blkio_rows); i++) {
        if (strcmp(p->field, blkio_rows[i].name) == 0) {
            return blkio_devices(def, m, &blkio_rows[i], p, error);
        }
    }
    libvirt_error(error, ERR_INVALID_ARG, "parameter '%s' not supported", p->field);
    return false;
}

bool verb_domain_set_blkio_parameters(struct call *call, const rpc_domain_params_flags *args,
                                      rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    g_auto(Change) c = {0};
    if (!change_begin(&c, &args->dom, args->flags & 3, error)) {
        return false;
    }
    if (c.m && !cgroup_has(c.m->group, GROUP_BLKIO)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "blkio cgroup isn't mounted");
        return false;
    }
    bool ok = true;
    for (unsigned i = 0; i < args->params.params_len && ok; i++) {
        const rpc_param *p = &args->params.params_val[i];
        ok = (!c.config || blkio_change(c.config, NULL, p, error)) &&
             (!c.m || blkio_change(c.m->def, c.m, p, error));
    }
    if (c.m) {
        blkio_tidy(c.m->def);
    }
    if (c.config) {
        blkio_tidy(c.config);
    }
    return ok && change_end(&c, error);
}

/* --- memory nodes --- */

enum { MODE_STRICT = 1, MODE_RESTRICTIVE = 4 }; /* in the XML; one less on the wire */

bool verb_domain_get_numa_parameters(struct call *call, const rpc_domain_int_flags *args,
                                     rpc_params_count *ret, GError **error)
{
    (void)call;
    g_autoptr(Machine) m = NULL;
    g_autoptr(DomainDef) def = look(&args->dom, args->flags & 3, &m, error);
    if (!def) {
        return false;
    }
    ret->count = 2;
    if (args->value == 0) {
        return true;
    }
    Params *p = params_new();
    params_int(p, "numa_mode", def->numatune_mode ? def->numatune_mode - 1 : 0);
    if (args->value > 1) {
        params_text(p, "numa_nodeset", def->numatune_nodeset ? def->numatune_nodeset : "");
    }
    ret->params.params_val = params_finish(p, &ret->params.params_len);
    ret->count = (int)ret->params.params_len;
    return true;
}

struct numa_want {
    int64_t mode; /* as in the XML; 0: not said */
    char *nodes;
};

static bool numa_params(const rpc_domain_params_flags *args, struct numa_want *want, GError **error)
{
    for (unsigned i = 0; i < args->params.params_len; i++) {
        const rpc_param *p = &args->params.params_val[i];
        struct cpuset set;
        if (strcmp(p->field, "numa_mode") == 0) {
            int64_t v;
            if (!param_number(p, &v, error)) {
                return false;
            }
            if (v < 0 || v >= MODE_RESTRICTIVE) {
                libvirt_error(error, ERR_INVALID_ARG, "unsupported numatune mode: '%ld'", (long)v);
                return false;
            }
            want->mode = v + 1;
        } else if (strcmp(p->field, "numa_nodeset") == 0 && p->value.type == 7) {
            if (!cpuset_parse(p->value.rpc_value_u.s, &set, error)) {
                return false;
            }
            g_free(want->nodes);
            want->nodes = cpuset_format(&set);
        } else {
            libvirt_error(error, ERR_INVALID_ARG, "parameter '%s' not supported", p->field);
            return false;
        }
    }
    return true;
}

/* Of a running machine only the nodes can change, and only what the kernel can move with them. */
static bool numa_live(struct machine *m, const struct numa_want *want, GError **error)
{
    int mode = m->def->numatune_mode ? m->def->numatune_mode : MODE_STRICT;
    if (want->mode && want->mode != mode) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "can't change numatune mode for running domain");
        return false;
    }
    if (!want->nodes) {
        return true;
    }
    if (mode != MODE_STRICT && mode != MODE_RESTRICTIVE) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "change of nodeset for running domain requires strict numa mode");
        return false;
    }
    if (!cgroup_has(m->group, GROUP_CPUSET)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "cgroup cpuset controller is not mounted");
        return false;
    }
    cgroup_set(m->group, NULL, KNOB_MIGRATE_MEMORY, 1, NULL); /* version 2 always does */
    if (!cgroup_set_text(m->group, NULL, KNOB_MEMS, want->nodes, error)) {
        return false;
    }
    g_free(m->def->numatune_nodeset);
    m->def->numatune_nodeset = g_strdup(want->nodes);
    m->def->numatune_mode = mode;
    return true;
}

bool verb_domain_set_numa_parameters(struct call *call, const rpc_domain_params_flags *args,
                                     rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    struct numa_want want = {0};
    g_auto(Change) c = {0};
    bool ok = change_begin(&c, &args->dom, args->flags & 3, error) &&
              numa_params(args, &want, error) && (!c.m || numa_live(c.m, &want, error));
    if (ok && c.config) {
        c.config->numatune_mode = want.mode                 ? (int)want.mode
                                  : c.config->numatune_mode ? c.config->numatune_mode
                                                            : MODE_STRICT;
        if (want.nodes) {
            g_free(c.config->numatune_nodeset);
            c.config->numatune_nodeset = g_strdup(want.nodes);
        }
    }
    g_free(want.nodes);
    return ok && change_end(&c, error);
}
