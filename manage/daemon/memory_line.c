/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine's memory as options of lodge-vm: where it comes from on the host, and guest NUMA. */
#include "manage/daemon/memory_line.h"

#include "manage/error.h"
#include "manage/model/cpuset.h"

#include <stdio.h>
#include <string.h>

enum { SOURCE_FILE = 1, SOURCE_ANONYMOUS, SOURCE_MEMFD };
enum { ACCESS_SHARED = 1, ACCESS_PRIVATE };
enum { ALLOCATE_NOW = 1 };

static void add(GPtrArray *out, const char *option, char *value)
{
    g_ptr_array_add(out, g_strdup(option));
    g_ptr_array_add(out, value);
}

/* Where pages of @kib KiB are mounted, 0: of the host's default size; the caller frees. */
static char *hugetlbfs(int64_t kib)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents("/proc/mounts", &text, NULL, NULL)) {
        return NULL;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (unsigned i = 0; lines[i]; i++) {
        g_auto(GStrv) words = g_strsplit(lines[i], " ", -1);
        if (g_strv_length(words) < 4 || strcmp(words[2], "hugetlbfs") != 0) {
            continue;
        }
        const char *size = strstr(words[3], "pagesize=");
        char unit = 'K';
        long n = 0;
        if (size && sscanf(size, "pagesize=%ld%c", &n, &unit) == 2) {
            n *= unit == 'G' ? 1 << 20 : unit == 'M' ? 1 << 10 : 1;
        }
        if (kib == 0 || n == kib) {
            return g_strdup(words[1]);
        }
    }
    return NULL;
}

/* The <page> for guest node @cell; NULL: the one without nodeset, or none. */
static const struct huge_page *page_of(const DomainDef *def, unsigned cell)
{
    const struct huge_page *any = NULL;
    for (unsigned i = 0; i < xml_count(def->pages); i++) {
        const struct huge_page *page = def->pages->pdata[i];
        struct cpuset set;
        if (!page->nodeset) {
            any = page;
        } else if (cpuset_parse(page->nodeset, &set, NULL) && cpuset_has(&set, cell)) {
            return page;
        }
    }
    return any;
}

static const struct numa_memnode *memnode_of(const DomainDef *def, unsigned cell)
{
    for (unsigned i = 0; i < xml_count(def->memnodes); i++) {
        const struct numa_memnode *node = def->memnodes->pdata[i];
        if (node->cell == cell) {
            return node;
        }
    }
    return NULL;
}

static bool put_nodes(GString *text, const char *nodeset, int mode, GError **error)
{
    static const char *const policies[] = {"bind", "bind", "preferred", "interleave", NULL};
    struct cpuset set;
    if (!nodeset || !policies[mode]) {
        return true;
    }
    if (!cpuset_parse(nodeset, &set, error)) {
        return false;
    }
    for (unsigned i = 0; i < CPUSET_BITS; i++) {
        if (cpuset_has(&set, i)) {
            g_string_append_printf(text, ",host-nodes=%u", i);
        }
    }
    g_string_append_printf(text, ",policy=%s", policies[mode]);
    return true;
}

/* -object for @kib KiB of guest node @cell; @nodeset: of the host, NULL: as the node has it. */
static char *backend(const struct memory_line *l, const char *id, int64_t kib, unsigned cell,
                     int access, const char *nodeset, GError **error)
{
    const DomainDef *def = l->def;
    const struct huge_page *page = page_of(def, cell);
    access = access ? access : def->memory_access;
    bool shared = access == ACCESS_SHARED || (def->memory_source == SOURCE_MEMFD && !access);
    g_autofree char *folder = NULL;
    if (def->hugepages && (page || !def->pages)) {
        folder = hugetlbfs(page ? page->size : 0);
        if (!folder) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          "Unable to find any usable hugetlbfs mount for %ld KiB",
                          page ? (long)page->size : 0L);
            return NULL;
        }
    } else if (def->memory_source == SOURCE_FILE) {
        folder = g_build_filename(l->folder, "own", NULL);
    }
    const char *kind = folder                                         ? "file"
                       : shared || def->memory_source == SOURCE_MEMFD ? "memfd"
                                                                      : "ram";
    g_autoptr(GString) text = g_string_new(NULL);
    g_string_append_printf(text, "memory-backend-%s,id=%s,size=%ldk", kind, id, (long)kib);
    if (folder) {
        g_auto(GStrv) parts = g_strsplit(folder, ",", -1);
        g_autofree char *doubled = g_strjoinv(",,", parts);
        g_string_append_printf(text, ",mem-path=%s", doubled);
    }
    if (strcmp(kind, "ram") != 0) {
        g_string_append_printf(text, ",share=%s", shared ? "on" : "off");
    }
    if (def->memory_allocation == ALLOCATE_NOW || def->hugepages) {
        g_string_append(text, ",prealloc=on");
    }
    if (def->nosharepages) {
        g_string_append(text, ",merge=off");
    }
    if (def->dump_core) {
        g_string_append_printf(text, ",dump=%s", def->dump_core == TRI_YES ? "on" : "off");
    }
    const struct numa_memnode *node = memnode_of(def, cell);
    if (!put_nodes(text,
                   nodeset ? nodeset
                   : node  ? node->nodeset
                           : NULL,
                   nodeset || !node ? 0 : node->mode, error)) {
        return NULL;
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static bool add_backend(GPtrArray *out, const struct memory_line *l, const char *id, int64_t kib,
                        unsigned cell, int access, GError **error)
{
    char *text = backend(l, id, kib, cell, access, NULL, error);
    if (text) {
        add(out, "-object", text);
    }
    return text != NULL;
}

char *memory_module(const struct memory_line *l, const struct domain_memory_device *dimm,
                    GError **error)
{
    g_autofree char *id = g_strconcat("mem", dimm->alias, NULL);
    return backend(l, id, dimm->size, dimm->node == XML_ABSENT ? 0 : (unsigned)dimm->node,
                   dimm->access, dimm->nodeset, error);
}

/* "kind,key=value,..." with doubled commas as the arguments of object-add. */
json_t *memory_module_object(const struct memory_line *l, const struct domain_memory_device *dimm,
                             GError **error)
{
    g_autofree char *text = memory_module(l, dimm, error);
    json_t *o = text ? json_object() : NULL, *nodes = json_array();
    g_autoptr(GString) word = g_string_new(NULL);
    for (const char *p = text; p; p++) {
        if (*p && (*p != ',' || p[1] == ',')) {
            g_string_append_c(word, *p);
            p += *p == ',';
            continue;
        }
        char *eq = strchr(word->str, '=');
        if (!eq) {
            json_object_set_new(o, "qom-type", json_string(word->str));
        } else {
            *eq = '\0';
            if (strcmp(word->str, "host-nodes") == 0) {
                json_array_append_new(nodes, json_string(eq + 1));
            } else {
                json_object_set_new(o, word->str, json_string(eq + 1));
            }
        }
        g_string_truncate(word, 0);
        if (!*p) {
            break;
        }
    }
    if (o && json_array_size(nodes)) {
        json_object_set(o, "host-nodes", nodes);
    }
    json_decref(nodes);
    return o;
}

static bool put_cpus(GString *text, const struct cpu_cell *cell, GError **error)
{
    struct cpuset set;
    if (!cell->cpus) {
        return true;
    }
    if (!cpuset_parse(cell->cpus, &set, error)) {
        return false;
    }
    g_autofree char *ranges = cpuset_format(&set);
    g_auto(GStrv) parts = g_strsplit(ranges, ",", -1);
    for (unsigned i = 0; parts[i]; i++) {
        g_string_append_printf(text, ",cpus=%s", parts[i]);
    }
    return true;
}

static bool add_cells(GPtrArray *out, const struct memory_line *l, GError **error)
{
    const GPtrArray *cells = l->def->cpu->cells;
    for (unsigned i = 0; i < cells->len; i++) {
        const struct cpu_cell *cell = cells->pdata[i];
        g_autofree char *id = g_strdup_printf("ram-node%ld", (long)cell->id);
        g_autoptr(GString) text = g_string_new(NULL);
        g_string_append_printf(text, "node,nodeid=%ld,memdev=%s", (long)cell->id, id);
        if (!add_backend(out, l, id, cell->memory, (unsigned)cell->id, cell->access, error) ||
            !put_cpus(text, cell, error)) {
            return false;
        }
        add(out, "-numa", g_string_free(g_steal_pointer(&text), FALSE));
    }
    for (unsigned i = 0; i < cells->len; i++) {
        const struct cpu_cell *cell = cells->pdata[i];
        for (unsigned k = 0; k < xml_count(cell->distances); k++) {
            const struct cell_distance *d = cell->distances->pdata[k];
            add(out, "-numa",
                g_strdup_printf("dist,src=%ld,dst=%ld,val=%ld", (long)cell->id, (long)d->id,
                                (long)d->value));
        }
    }
    return true;
}

bool memory_line(GPtrArray *out, const struct memory_line *l, GError **error)
{
    const DomainDef *def = l->def;
    g_autofree char *more = def->max_memory == XML_ABSENT
                                ? g_strdup("")
                                : g_strdup_printf(",slots=%ld,maxmem=%ldk", (long)def->memory_slots,
                                                  (long)def->max_memory);
    int64_t base = def->memory - domain_modules(def);
    add(out, "-m", g_strdup_printf("size=%ldk%s", (long)base, more));
    if (def->cpu && def->cpu->cells) {
        return add_cells(out, l, error);
    }
    if (!def->hugepages && !def->nosharepages && !def->dump_core && !def->memory_source &&
        !def->memory_access && !memnode_of(def, 0)) {
        if (def->memory_allocation == ALLOCATE_NOW) {
            g_ptr_array_add(out, g_strdup("-mem-prealloc"));
        }
        return true; /* plain memory needs no object */
    }
    add(out, "-machine", g_strdup("memory-backend=pc.ram"));
    return add_backend(out, l, "pc.ram", base, 0, 0, error);
}
