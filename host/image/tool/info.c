/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/describe.h"
#include "host/image/tool/open.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* lodge-img info */

static const struct tool_option options[] = {
    OPTION_HELP,
    OPTION_LONG_FORMAT,
    {0, "backing-chain", NULL, "tell of the backing files too"},
    OPTION_OUTPUT,
    OPTION_SHARE,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED,
    {0},
};

static void print_backing(const json_t *info)
{
    const char *name = json_text(info, "backing-filename");
    const char *full = json_text(info, "full-backing-filename");
    const char *format = json_text(info, "backing-filename-format");
    if (!name) {
        return;
    }
    printf("backing file: %s", name);
    if (!full) {
        printf(" (cannot determine actual path)");
    } else if (strcmp(name, full)) {
        printf(" (actual path: %s)", full);
    }
    putchar('\n');
    if (format) {
        printf("backing file format: %s\n", format);
    }
}

static void print_human(struct node *node, const json_t *info)
{
    const json_t *actual = json_object_get(info, "actual-size");
    g_autofree char *size = size_text(node->size);
    g_autofree char *used =
        actual ? size_text((uint64_t)json_integer_value(actual)) : g_strdup("unavailable");
    const struct format_tools *tools = node->format->tools;
    const json_t *cluster = json_object_get(info, "cluster-size");
    const json_t *specific = json_object_get(info, "format-specific");
    printf("image: %s\nfile format: %s\nvirtual size: %s (%" PRIu64 " bytes)\ndisk size: %s\n",
           json_text(info, "filename"), json_text(info, "format"), size, node->size, used);
    if (json_object_get(info, "encrypted")) {
        puts("encrypted: yes");
    }
    if (cluster) {
        printf("cluster_size: %" JSON_INTEGER_FORMAT "\n", json_integer_value(cluster));
    }
    if (json_is_true(json_object_get(info, "dirty-flag"))) {
        puts("cleanly shut down: no");
    }
    print_backing(info);
    if (json_object_get(info, "snapshots")) {
        print_snapshots(node, tools->snapshots);
    }
    if (specific) {
        puts("Format specific information:");
        print_plain(json_object_get(specific, "data"), 1);
    }
}

struct walk {
    struct tool_common common;
    bool json, chain;
    json_t *all;      /* what there is to tell, of .nodes */
    GPtrArray *nodes; /* open until all are known to be there */
    GHashTable *seen;
};

/* Looks at one image; *@name and *@format become those of what is below it, or NULL. */
static bool look(struct walk *w, char **name, char **format)
{
    if (!g_hash_table_add(w->seen, g_strdup(*name))) {
        tool_error("Backing file '%s' creates an infinite loop.", *name);
        return false;
    }
    struct node *node =
        tool_open(&w->common, *name, *format, OPEN_READ_ONLY | OPEN_NO_IO | OPEN_NO_BACKING);
    if (!node) {
        return false;
    }
    g_ptr_array_add(w->nodes, node);
    json_array_append_new(w->all, node_info(node));
    g_free(*name);
    g_free(*format);
    *name = w->chain && node->backing_name ? node_backing_path(node) : NULL;
    *format = *name ? g_strdup(node->backing_format) : NULL;
    w->common.image_opts = false;
    return true;
}

static bool tell_all(struct walk *w, const char *file, const char *format_name)
{
    g_autofree char *name = g_strdup(file), *format = g_strdup(format_name);
    while (name) {
        if (!look(w, &name, &format)) {
            return false;
        }
    }
    if (w->json) {
        print_json(w->chain ? w->all : json_array_get(w->all, 0));
        return true;
    }
    for (unsigned i = 0; i < w->nodes->len; i++) {
        fputs(i ? "\n" : "", stdout);
        print_human(w->nodes->pdata[i], json_array_get(w->all, i));
    }
    return true;
}

static int run(struct args *args)
{
    struct walk w = {.chain = args_has(args, "backing-chain")};
    if (!tool_wants_json(args, &w.json) || !tool_common(args, &w.common)) {
        return 1;
    }
    const char *file = tool_one_file(args);
    if (!file) {
        return 1;
    }
    w.all = json_array();
    w.nodes = g_ptr_array_new_with_free_func((GDestroyNotify)tool_close);
    w.seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    bool ok = tell_all(&w, file, args_get(args, "f"));
    g_hash_table_unref(w.seen);
    g_ptr_array_unref(w.nodes);
    json_decref(w.all);
    return ok ? 0 : 1;
}

const struct verb verb_info = {"info", "tell what an image is", "FILE", options, run};
