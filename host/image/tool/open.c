/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/open.h"

#include "host/image/protocol.h"
#include "host/image/secret.h"
#include "host/image/tls.h"
#include "host/image/tool/convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS_REMOTE = 8 };

static const struct {
    const char *mode;
    unsigned flags;
} caches[] = {
    {"none", OPEN_DIRECT},
    {"off", OPEN_DIRECT},
    {"writeback", 0},
    {"unsafe", OPEN_NO_FLUSH},
    {"writethrough", OPEN_WRITETHROUGH},
    {"directsync", OPEN_DIRECT | OPEN_WRITETHROUGH},
};

bool cache_flags(const char *mode, unsigned *flags)
{
    for (unsigned i = 0; mode && i < G_N_ELEMENTS(caches); i++) {
        if (!strcmp(mode, caches[i].mode)) {
            *flags |= caches[i].flags;
            return true;
        }
    }
    return !mode;
}

void tool_close(struct node *node)
{
    if (node) {
        chain_close(node);
    }
}

static bool define_object(const char *text, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_parse(text, "qom-type", error);
    const char *type = kv ? keyval_get(kv, "qom-type") : NULL;
    if (type && tls_object_known(type)) {
        return tls_object_add(type, kv, error) && keyval_done(kv, error);
    }
    if (kv && (!type || strcmp(type, "secret"))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'qom-type' does not accept value '%s'",
                    type ? type : "");
        return false;
    }
    return kv && secret_add(kv, error) && keyval_done(kv, error);
}

bool tool_common(const struct args *args, struct tool_common *out)
{
    *out = (struct tool_common){.image_opts = args_has(args, "image-opts")};
    out->flags |= args_has(args, "U") ? OPEN_SHARE : 0;
    out->flags |= args_has(args, "untrusted") ? OPEN_UNTRUSTED : 0;
    for (unsigned i = 0; i < args->n_given; i++) {
        g_autoptr(GError) error = NULL;
        if (!g_strcmp0(args->given[i].option->name, "object") &&
            !define_object(args->given[i].value, &error)) {
            tool_error("%s", error->message);
            return false;
        }
    }
    return true;
}

const char *tool_one_file(const struct args *args)
{
    if (args->n_operands != 1) {
        tool_usage("Expecting one image file name");
        return NULL;
    }
    return args->operands[0];
}

/* Who lets us guess the format of a disk lets the guest choose it the next time. */
static void warn_of_guess(const struct node *node, const char *name)
{
    if (node_guessed(node) && !node->read_only) {
        fflush(stdout);
        fprintf(stderr,
                "WARNING: Image format was not specified for '%s' and probing guessed raw.\n"
                "         Automatically detecting the format is dangerous for raw images, write "
                "operations on block 0 will be restricted.\n"
                "         Specify the 'raw' format explicitly to remove the restrictions.\n",
                name);
    }
}

/* What opens an image that was made with these options: its key. */
static json_t *keys_of(const Options *made_with)
{
    const char *own = option_str(made_with, "key-secret");
    const char *inner = option_str(made_with, "encrypt.key-secret");
    return own     ? json_pack("{s:s}", "key-secret", own)
           : inner ? json_pack("{s:{s:s}}", "encrypt", "key-secret", inner)
                   : NULL;
}

struct node *tool_open(const struct tool_common *common, const char *name, const char *format,
                       unsigned flags)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(json_t) options = NULL;
    struct chain_open how = {.name = name, .format = format, .flags = flags | common->flags};
    if (!*name) {
        tool_error("Could not open '': The 'file' block driver requires a file name");
        return NULL;
    }
    if (common->made_with) {
        how.options = options = keys_of(common->made_with);
    }
    if (common->image_opts) {
        if (format) {
            tool_error("--image-opts and --format are mutually exclusive");
            return NULL;
        }
        options = options_of_text(name, &error);
        if (!options) {
            tool_error("%s", error->message);
            return NULL;
        }
        how.name = NULL;
        how.options = options;
    }
    struct node *node = chain_open(&how, &error);
    if (!node) {
        tool_error("Could not open '%s': %s", name, error->message);
        return NULL;
    }
    warn_of_guess(node, name);
    return node;
}

unsigned tool_threads(const struct node *node)
{
    unsigned n = (unsigned)CLAMP(sysconf(_SC_NPROCESSORS_ONLN), 1, THREADS_MAX);
    for (; node; node = node->backing) {
        if (node->file->fd < 0) {
            return MAX(n, THREADS_REMOTE); /* who waits for a network needs no processor */
        }
    }
    return n;
}

bool tool_flush(struct node *node, const char *name)
{
    int error = node->read_only ? 0 : chain_flush(node);
    if (error) {
        tool_error("Could not write '%s': %s", name, g_strerror(-error));
    }
    return !error;
}

bool tool_load_snapshot(struct node *node, const char *id_or_name, GError **error)
{
    const struct format_tools *tools = node->format->tools;
    if (!tools || !tools->snapshots || !tools->snapshots->load) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "Block format '%s' used by device '' does not support temporarily loading "
                    "internal snapshots",
                    node->format->name);
        return false;
    }
    bool ok = tools->snapshots->load(node, id_or_name, error);
    chain_forget(node);
    return ok;
}

json_t *json_text_of(const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    return json_string(valid);
}

bool target_is_device(const struct node *node)
{
    return node->file->block_device;
}

/* As QEMU guesses it: the file takes clearly less space than it is long. */
static bool took_space_before(struct node *node)
{
    static const char *const formats[] = {"qcow2", "vdi", NULL};
    if (!strcmp(node->format->name, "vpc") || !strcmp(node->format->name, "vmdk")) {
        return node->granule == 1; /* fixed, flat */
    }
    return g_strv_contains(formats, node->format->name) &&
           file_size(node->file) / 10 * 9 > file_allocated(node->file);
}

void status_as_told(struct chain_status *s)
{
    if (s->zero && !s->data && s->offset_valid && s->node && strcmp(s->node->format->name, "raw")) {
        s->data = true;
        s->zero = took_space_before(s->node);
    }
}

char *realpath_of(const char *name)
{
    const char *local = name_local_path(name);
    char *real = local ? realpath(local, NULL) : NULL;
    char *copy = g_strdup(real);
    free(real);
    return copy;
}

char *backing_path(const char *name, const char *backing)
{
    g_autofree char *scheme = name_scheme(backing);
    const char *local = name_local_path(name);
    if (scheme || g_path_is_absolute(backing) || !local) {
        return g_strdup(backing);
    }
    g_autofree char *folder = g_path_get_dirname(local);
    return strcmp(folder, ".") ? g_build_filename(folder, backing, NULL) : g_strdup(backing);
}
