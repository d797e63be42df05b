/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/machine/numa.h"

#include "base/error.h"
#include "vmm/build.h"
#include "vmm/vm.h"

#include <inttypes.h>
#include <string.h>

/*
 * -numa: nodes, their processors and memory, distances.  Uses are read in order: processors
 * and distances name nodes that came before them.
 */
enum { NO_NODE = 0xff };

struct numa_build {
    struct machine_config *m;
    struct numa *numa;
    bool present[NUMA_NODES_MAX], by_cpus;
    const char *memdev[NUMA_NODES_MAX];
    unsigned ids; /* one more than the greatest */
    bool any_mem, any_memdev;
};

/* ---- node ---- */

static bool give_cpu(struct numa_build *b, unsigned cpu, unsigned node, GError **error)
{
    uint8_t *at = &b->numa->cpu_node[cpu];
    if (*at != NO_NODE && *at != node) {
        g_set_error(error, LODGE_ERROR, EINVAL, "CPU is already assigned to node-id: %u", *at);
        return false;
    }
    *at = (uint8_t)node;
    b->by_cpus = true;
    return true;
}

/* "3" or "0-3". */
static bool give_cpus(struct numa_build *b, const char *text, unsigned node, GError **error)
{
    g_auto(GStrv) ends = g_strsplit(text, "-", 2);
    uint64_t first, last;
    if (!ends[0] || !text_u64(ends[0], &first) || !text_u64(ends[1] ? ends[1] : ends[0], &last) ||
        last < first) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'cpus' expects a uint64 value or range");
        return false;
    }
    for (uint64_t i = first; i <= last; i++) {
        if (i >= b->m->maxcpus) {
            g_set_error(error, LODGE_ERROR, EINVAL,
                        "CPU index (%" PRIu64 ") should be smaller than maxcpus (%u)", i,
                        b->m->maxcpus);
            return false;
        }
        if (!give_cpu(b, (unsigned)i, node, error)) {
            return false;
        }
    }
    return true;
}

static bool node_id(struct numa_build *b, KeyVal *kv, unsigned *node, GError **error)
{
    *node = 0;
    while (*node < NUMA_NODES_MAX && b->present[*node]) {
        (*node)++;
    }
    if (!keyval_unsigned(kv, "nodeid", UINT16_MAX, node, error)) {
        return false;
    }
    if (*node >= NUMA_NODES_MAX || b->present[*node]) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    *node >= NUMA_NODES_MAX ? "Max number of NUMA nodes reached: %u"
                                            : "Duplicate NUMA nodeid: %u", *node);
        return false;
    }
    return true;
}

static bool node_memory(struct numa_build *b, KeyVal *kv, unsigned node, GError **error)
{
    uint64_t bytes = 0;
    const char *memdev = keyval_get(kv, "memdev");
    bool mem = keyval_get(kv, "mem");
    if (!keyval_size(kv, "mem", 1 << 20, &bytes, error)) {
        return false;
    }
    b->any_mem |= mem;
    b->any_memdev |= memdev != NULL;
    if (b->any_mem && b->any_memdev) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "numa configuration should use either mem= or memdev=, mixing both is not allowed");
        return false;
    }
    if (bytes & (PAGE_SIZE - 1)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "mem= must be in pages of 4 KiB");
        return false;
    }
    b->memdev[node] = memdev ? vm_options_keep((struct vm_options *)vm_options(), memdev) : NULL;
    b->numa->bytes[node] = bytes;
    return !memdev || build_memory_backend(memdev, &b->numa->bytes[node], error) != NULL;
}

static bool on_node(struct numa_build *b, KeyVal *kv, GError **error)
{
    unsigned node;
    if (!node_id(b, kv, &node, error) || !node_memory(b, kv, node, error)) {
        return false;
    }
    keyval_get(kv, "cpus");
    if (!keyval_done(kv, error)) {
        return false;
    }
    for (unsigned i = 0; i < keyval_count(kv); i++) { /* cpus= may stand there several times */
        if (g_str_equal(keyval_key(kv, i), "cpus") &&
            !give_cpus(b, keyval_value(kv, i), node, error)) {
            return false;
        }
    }
    b->present[node] = true;
    b->ids = MAX(b->ids, node + 1);
    return true;
}

/* ---- dist ---- */

static bool needed(KeyVal *kv, const char *key, unsigned limit, unsigned *out, GError **error)
{
    *out = 0;
    if (!keyval_get(kv, key)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter '%s' is missing", key);
        return false;
    }
    return keyval_unsigned(kv, key, limit, out, error);
}

static bool on_dist(struct numa_build *b, KeyVal *kv, GError **error)
{
    unsigned src, dst, val;
    if (!needed(kv, "src", NUMA_NODES_MAX - 1, &src, error) ||
        !needed(kv, "dst", NUMA_NODES_MAX - 1, &dst, error) ||
        !needed(kv, "val", UINT8_MAX, &val, error) || !keyval_done(kv, error)) {
        return false;
    }
    if (!b->present[src] || !b->present[dst]) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Source/Destination NUMA node is missing. "
                    "Please use '-numa node' option to declare it first.");
        return false;
    }
    if (val < NUMA_LOCAL) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "NUMA distance (%u) is invalid, it shouldn't be less than %d.", val, NUMA_LOCAL);
        return false;
    }
    if (src == dst && val != NUMA_LOCAL) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Local distance of node %u should be %d.", src,
                    NUMA_LOCAL);
        return false;
    }
    b->numa->distance[src][dst] = (uint8_t)val;
    b->numa->has_distances = true;
    return true;
}

/* ---- cpu ---- */

enum { SOCKET, DIE, CORE, THREAD, LEVELS };
static const char *const levels[LEVELS] = {"socket-id", "die-id", "core-id", "thread-id"};

static void place_of(const struct cpu_topology *t, unsigned cpu, unsigned at[LEVELS])
{
    unsigned threads = MAX(t->threads, 1), cores = MAX(t->cores, 1), dies = MAX(t->dies, 1);
    at[THREAD] = cpu % threads;
    at[CORE] = cpu / threads % cores;
    at[DIE] = cpu / threads / cores % dies;
    at[SOCKET] = cpu / threads / cores / dies;
}

static bool read_place(struct numa_build *b, KeyVal *kv, unsigned want[LEVELS], GError **error)
{
    for (unsigned i = 0; i < LEVELS; i++) {
        want[i] = UINT32_MAX;
        if (!keyval_unsigned(kv, levels[i], UINT16_MAX, &want[i], error)) {
            return false;
        }
    }
    if (want[DIE] != UINT32_MAX && b->m->topology.dies <= 1) {
        g_set_error(error, LODGE_ERROR, EINVAL, "die-id is not supported");
        return false;
    }
    return keyval_done(kv, error);
}

static bool on_cpu(struct numa_build *b, KeyVal *kv, GError **error)
{
    unsigned node = 0, want[LEVELS], is[LEVELS];
    bool found = false;
    if (!keyval_get(kv, "node-id")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Missing mandatory node-id property");
        return false;
    }
    if (!keyval_unsigned(kv, "node-id", UINT16_MAX, &node, error) ||
        !read_place(b, kv, want, error)) {
        return false;
    }
    if (node >= NUMA_NODES_MAX || !b->present[node]) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Invalid node-id=%u, NUMA node must be defined with "
                    "-numa node,nodeid=ID before it's used with -numa cpu,node-id=ID", node);
        return false;
    }
    for (unsigned cpu = 0; cpu < b->m->maxcpus; cpu++) {
        bool same = true;
        place_of(&b->m->topology, cpu, is);
        for (unsigned i = 0; i < LEVELS; i++) {
            same &= want[i] == UINT32_MAX || want[i] == is[i];
        }
        if (same && !give_cpu(b, cpu, node, error)) {
            return false;
        }
        found |= same;
    }
    if (!found) {
        g_set_error(error, LODGE_ERROR, ENOENT, "no match found");
    }
    return found;
}

static bool on_numa(const struct option_use *use, void *owner, GError **error)
{
    static const struct {
        const char *kind;
        bool (*take)(struct numa_build *b, KeyVal *kv, GError **error);
    } kinds[] = {{"node", on_node}, {"dist", on_dist}, {"cpu", on_cpu}};
    g_autoptr(KeyVal) kv = vm_keyval(use->text, "type", error);
    const char *kind = kv ? keyval_get(kv, "type") : NULL;
    bool known = !kv, ok = false;
    for (unsigned i = 0; kv && i < G_N_ELEMENTS(kinds); i++) {
        if (g_strcmp0(kind, kinds[i].kind) == 0) {
            known = true;
            ok = kinds[i].take(owner, kv, error);
        }
    }
    if (!known) {
        g_set_error(error, LODGE_ERROR, EINVAL, "want node, dist or cpu");
    }
    if (!ok) {
        g_prefix_error(error, "-numa %s: ", use->text);
    }
    return ok;
}

/* ---- when all were read ---- */

static bool ids_without_gaps(const struct numa_build *b, GError **error)
{
    for (unsigned i = b->ids; i--;) {
        if (!b->present[i]) {
            g_set_error(error, LODGE_ERROR, EINVAL, "numa: Node ID missing: %u", i);
            return false;
        }
    }
    return true;
}

/* Where no option said anything about processors, sockets take turns. */
static void place_cpus(struct numa_build *b)
{
    g_autoptr(GString) lacking = g_string_new(NULL);
    unsigned at[LEVELS];
    for (unsigned i = 0; i < b->m->maxcpus; i++) {
        if (b->numa->cpu_node[i] != NO_NODE) {
            continue;
        }
        place_of(&b->m->topology, i, at);
        b->numa->cpu_node[i] = (uint8_t)(b->by_cpus ? 0 : at[SOCKET] % b->ids);
        g_string_append_printf(lacking, "%s%u", lacking->len ? ", " : "", i);
    }
    if (b->by_cpus && lacking->len) {
        vm_report("warning: CPU(s) not present in any NUMA nodes: CPU %s", lacking->str);
    }
}

/* A distance may be given one way only, unless some pair has two that differ. */
static bool complete_distances(struct numa_build *b, GError **error)
{
    bool asymmetric = false, one_way = false;
    for (unsigned i = 0; i < b->ids; i++) {
        b->numa->distance[i][i] = NUMA_LOCAL;
        for (unsigned j = 0; j < i; j++) {
            uint8_t *there = &b->numa->distance[i][j], *back = &b->numa->distance[j][i];
            if (!*there && !*back) {
                g_set_error(error, LODGE_ERROR, EINVAL,
                            "The distance between node %u and %u is missing, at least one distance "
                            "value between each nodes should be provided.", j, i);
                return false;
            }
            asymmetric |= *there && *back && *there != *back;
            one_way |= !*there || !*back;
            *there = *there ? *there : *back;
            *back = *back ? *back : *there;
        }
    }
    if (asymmetric && one_way) {
        g_set_error(error, LODGE_ERROR, EINVAL, "At least one asymmetrical pair of distances is given, "
                    "please provide distances for both directions of all node pairs.");
        return false;
    }
    return true;
}

/* One chain of what is behind the nodes' memory, in their order. */
static bool join_memory(struct numa_build *b, GError **error)
{
    uint64_t all = 0;
    struct ram_source *last = NULL;
    if (b->any_memdev && (vm_options()->memory_backend || vm_options()->mem_path)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "'%s' and '-numa memdev' properties are mutually "
                    "exclusive", vm_options()->mem_path ? "-mem-path" : "-machine memory-backend");
        return false;
    }
    for (unsigned i = 0; i < b->ids; i++) {
        all += b->numa->bytes[i];
    }
    if (all != b->m->ram_bytes) {
        g_set_error(error, LODGE_ERROR, EINVAL, "total memory for NUMA nodes (0x%" PRIx64
                    ") should equal RAM size (0x%" PRIx64 ")", all, b->m->ram_bytes);
        return false;
    }
    for (unsigned i = 0; i < b->ids && b->any_memdev; i++) {
        for (unsigned j = 0; j < i && b->memdev[i]; j++) {
            if (g_strcmp0(b->memdev[i], b->memdev[j]) == 0) {
                g_set_error(error, LODGE_ERROR, EINVAL,
                            "memory backend %s can't be used multiple times.", b->memdev[i]);
                return false;
            }
        }
        if (b->memdev[i]) {
            struct ram_source *s = last ? g_new(struct ram_source, 1) : &b->m->ram_source;
            *s = *build_memory_backend(b->memdev[i], &s->bytes, NULL);
            s->bytes = b->numa->bytes[i];
            if (last) {
                last->next = s;
            }
            last = s;
        }
    }
    return true;
}

bool build_numa(struct vm_options *o, GError **error)
{
    struct numa_build b = {.m = &o->machine};
    bool modules = !vm_options_used(o, "numa");
    if (modules && !o->machine.ram_slots) {
        return true;
    }
    o->machine.numa = b.numa = g_new0(struct numa, 1); /* the machine's: lives as long as it */
    b.numa->cpu_node = g_malloc(o->machine.maxcpus);
    memset(b.numa->cpu_node, NO_NODE, o->machine.maxcpus);
    if (!vm_options_each(o, (const char *const[]){"numa", NULL}, on_numa, &b, error) ||
        !ids_without_gaps(&b, error) || (!modules && !join_memory(&b, error)) ||
        (b.numa->has_distances && !complete_distances(&b, error))) {
        return false;
    }
    if (modules) { /* guests learn from SRAT that there may be more memory: one node of all */
        b.ids = 1;
        b.numa->bytes[0] = o->machine.ram_bytes;
    }
    b.numa->nodes = b.ids;
    place_cpus(&b);
    return true;
}
