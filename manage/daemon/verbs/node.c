/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/capabilities.h"
#include "manage/daemon/sysinfo.h"
#include "manage/daemon/verb.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The host: what it has and how busy it is. */

bool verb_node_get_info(struct call *call, const rpc_none *args, rpc_node_info *ret, GError **error)
{
    const struct host_cpus *h = host_cpus();
    (void)call, (void)args, (void)error;
    g_strlcpy(ret->model, "x86_64", sizeof(ret->model));
    ret->memory = host_memory();
    ret->cpus = h->online;
    ret->mhz = h->mhz;
    ret->nodes = h->nodes;
    ret->sockets = h->sockets;
    ret->cores = h->cores;
    ret->threads = h->threads;
    return true;
}

bool verb_connect_get_sysinfo(struct call *call, const rpc_flags *args, rpc_text *ret,
                              GError **error)
{
    (void)call, (void)args, (void)error;
    ret->text = sysinfo_xml();
    return true;
}

bool verb_connect_get_max_vcpus(struct call *call, const rpc_maybe_text *args, rpc_int *ret,
                                GError **error)
{
    (void)call, (void)args, (void)error;
    ret->value = 255;
    return true;
}

bool verb_node_get_free_memory(struct call *call, const rpc_none *args, rpc_uhyper *ret,
                               GError **error)
{
    (void)call, (void)args, (void)error;
    ret->value = host_node_memory(-1, "MemFree") * 1024;
    return true;
}

static bool check_cell(int cell, GError **error)
{
    int last = host_cpus()->nodes - 1;
    if (cell < 0 || cell > last) {
        libvirt_error(error, ERR_INVALID_ARG, "start cell %d out of range (0-%d)", cell, last);
        return false;
    }
    return true;
}

bool verb_node_get_cells_free_memory(struct call *call, const rpc_cells_args *args, rpc_cells *ret,
                                     GError **error)
{
    (void)call;
    if (!check_cell(args->start, error) || args->max < 1) {
        return false;
    }
    unsigned n = (unsigned)MIN(args->max, MIN(host_cpus()->nodes - args->start, 1024));
    ret->cells.cells_val = g_new0(u_quad_t, n);
    ret->cells.cells_len = n;
    for (unsigned i = 0; i < n; i++) {
        ret->cells.cells_val[i] = host_node_memory(args->start + (int)i, "MemFree") * 1024;
    }
    return true;
}

struct stat_row {
    const char *field;
    uint64_t value;
};

/* A caller with no room asks how many there are. */
static bool put_stats(const struct stat_row *rows, int n, int room, rpc_node_stats *ret,
                      GError **error)
{
    ret->count = n;
    if (!room) {
        return true;
    }
    if (room < n) {
        libvirt_error(error, ERR_INVALID_ARG, "nparams in %s must be %d", "node statistics", n);
        return false;
    }
    ret->stats.stats_val = g_new0(rpc_node_stat, n);
    ret->stats.stats_len = (unsigned)n;
    for (int i = 0; i < n; i++) {
        ret->stats.stats_val[i] = (rpc_node_stat){g_strdup(rows[i].field), rows[i].value};
    }
    return true;
}

bool verb_node_get_memory_stats(struct call *call, const rpc_node_memory_stats_args *args,
                                rpc_node_stats *ret, GError **error)
{
    int cell = args->cell;
    const struct stat_row rows[] = {{"total", host_node_memory(cell, "MemTotal")},
                                    {"free", host_node_memory(cell, "MemFree")},
                                    {"buffers", host_node_memory(-1, "Buffers")},
                                    {"cached", host_node_memory(-1, "Cached")}};
    (void)call;
    if (cell >= host_cpus()->nodes) {
        libvirt_error(error, ERR_INVALID_ARG, "no NUMA cell %d", cell);
        return false;
    }
    /* One cell alone has no buffers and page cache of its own. */
    return put_stats(rows, args->cell < 0 ? 4 : 2, args->max, ret, error);
}

bool verb_node_get_cpu_stats(struct call *call, const rpc_node_cpu_stats_args *args,
                             rpc_node_stats *ret, GError **error)
{
    unsigned long long user, nice, kernel, idle, wait, irq, soft;
    g_autofree char *text = NULL, *key = NULL;
    (void)call;
    key = args->cpu < 0 ? g_strdup("cpu ") : g_strdup_printf("cpu%d ", args->cpu);
    const char *at =
        g_file_get_contents("/proc/stat", &text, NULL, NULL) ? strstr(text, key) : NULL;
    if (!at || sscanf(at + strlen(key), "%llu %llu %llu %llu %llu %llu %llu", &user, &nice, &kernel,
                      &idle, &wait, &irq, &soft) != 7) {
        libvirt_error(error, ERR_INVALID_ARG, "Invalid cpuNum in %s", "node CPU statistics");
        return false;
    }
    const uint64_t tick = 1000000000ull / (uint64_t)sysconf(_SC_CLK_TCK);
    const struct stat_row rows[] = {{"kernel", (kernel + irq + soft) * tick},
                                    {"user", (user + nice) * tick},
                                    {"idle", idle * tick},
                                    {"iowait", wait * tick}};
    return put_stats(rows, 4, args->max, ret, error);
}

bool verb_node_get_cpu_map(struct call *call, const rpc_cpu_map_args *args, rpc_cpu_map *ret,
                           GError **error)
{
    int cpus = MIN(host_cpus()->present, RPC_CPUMAP_MAX * 8), bytes = (cpus + 7) / 8;
    g_autofree uint8_t *map = g_malloc0((size_t)bytes);
    (void)call, (void)error;
    for (int i = 0; i < cpus; i++) {
        g_autofree char *path = g_strdup_printf("/sys/devices/system/cpu/cpu%d/online", i);
        g_autofree char *text = NULL;
        /* The first processor often cannot be switched off and then has no such file. */
        if (!g_file_get_contents(path, &text, NULL, NULL) || text[0] == '1') {
            map[i / 8] |= (uint8_t)(1u << i % 8);
            ret->online++;
        }
    }
    if (args->need_map) {
        ret->map.map_val = (char *)g_steal_pointer(&map);
        ret->map.map_len = (unsigned)bytes;
    }
    ret->count = cpus;
    return true;
}

/* Text as an array of characters with its end. */
static char *put_chars(const char *text, unsigned *length)
{
    *length = (unsigned)strlen(text) + 1;
    return g_strdup(text);
}

bool verb_node_get_security_model(struct call *call, const rpc_none *args, rpc_security_model *ret,
                                  GError **error)
{
    (void)call, (void)args, (void)error;
    ret->model.model_val = put_chars("none", &ret->model.model_len);
    ret->doi.doi_val = put_chars("0", &ret->doi.doi_len);
    return true;
}

bool verb_node_get_free_pages(struct call *call, const rpc_free_pages_args *args, rpc_counts *ret,
                              GError **error)
{
    (void)call;
    if (!check_cell(args->start, error)) {
        return false;
    }
    unsigned sizes = args->sizes.sizes_len, n = 0;
    unsigned cells = MIN(args->cells, (unsigned)(host_cpus()->nodes - args->start));
    ret->counts.counts_val = g_new0(u_quad_t, MAX(sizes * cells, 1));
    for (unsigned cell = 0; cell < cells; cell++) {
        for (unsigned i = 0; i < sizes; i++) {
            unsigned kib = args->sizes.sizes_val[i];
            uint64_t pages = host_node_pages(args->start + (int)cell, kib, "free_hugepages");
            if (kib == 0 || pages == UINT64_MAX) {
                libvirt_error(error, ERR_OPERATION_FAILED, "no pages of %u KiB on this host", kib);
                return false;
            }
            ret->counts.counts_val[n++] = pages;
        }
    }
    ret->counts.counts_len = n;
    return true;
}
