/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * import: what others made is unpacked to a folder of its own, checked against its manifest, and
 * only then opened, as images that nobody vouches for.
 */
#include "host/image/tool/convert.h"
#include "host/image/tool/ova.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct import {
    struct args *args;
    const char *source, *format, *folder;
    unsigned threads;
    bool json, list, packed;
    struct scratch scratch;
    GPtrArray *members; /* of struct member */
    struct ovf *ovf;
    char *made[OVF_DISKS_MAX]; /* paths of new disks */
};

/* ---- the package ---- */

static struct member *find_member(const struct import *x, const char *name)
{
    for (unsigned i = 0; i < x->members->len; i++) {
        struct member *m = g_ptr_array_index(x->members, i);
        if (!strcmp(m->name, name)) {
            return m;
        }
    }
    return NULL;
}

static const struct member *find_suffix(const struct import *x, const char *suffix)
{
    for (unsigned i = 0; i < x->members->len; i++) {
        const struct member *m = g_ptr_array_index(x->members, i);
        g_autofree char *low = g_ascii_strdown(m->name, -1);
        if (g_str_has_suffix(low, suffix)) {
            return m;
        }
    }
    return NULL;
}

static bool read_text(const struct member *m, char **text, size_t *n, GError **error)
{
    struct stat st;
    if (!stat(m->path, &st) && st.st_size > OVF_TEXT_MAX) {
        g_set_error(error, LODGE_ERROR, EFBIG, "'%s' has more than %d bytes", m->name,
                    OVF_TEXT_MAX);
        return false;
    }
    return g_file_get_contents(m->path, text, n, error);
}

/* A file beside a descriptor that is no archive. */
static struct member *add_file(struct import *x, const char *folder, const char *name)
{
    struct member *m = g_new0(struct member, 1);
    m->name = g_strdup(name);
    m->path = g_build_filename(folder, name, NULL);
    g_ptr_array_add(x->members, m);
    return m;
}

static bool digest_file(struct member *m, GError **error)
{
    struct digests d;
    g_autofree uint8_t *block = g_malloc(1 << 20);
    int fd = open(m->path, O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;
    if (fd >= 0 && digests_begin(&d, error)) {
        while ((n = read(fd, block, 1 << 20)) > 0) {
            digests_add(&d, block, (size_t)n);
        }
        digests_end(&d, m);
    }
    if (n < 0 && error && !*error) {
        error_set_errno(error, errno, "cannot read '%s'", m->path);
    }
    if (fd >= 0) {
        close(fd);
    }
    return n == 0;
}

/* "SHA256(name)= digits" */
static bool check_line(const struct import *x, char *line, GError **error)
{
    char *open = strchr(line, '('), *close = strrchr(line, ')');
    char *equals = close ? strchr(close, '=') : NULL;
    if (!open || !equals || open > close) {
        g_autofree char *shown = g_strescape(line, NULL);
        g_set_error(error, LODGE_ERROR, EINVAL, "the manifest's line '%s' is not valid", shown);
        return false;
    }
    *open = *close = '\0';
    const char *name = open + 1, *want = g_strstrip(equals + 1), *kind = g_strstrip(line);
    bool sha1 = !g_ascii_strcasecmp(kind, "SHA1");
    if (!sha1 && g_ascii_strcasecmp(kind, "SHA256")) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "the manifest's digest '%s' is not known", kind);
        return false;
    }
    struct member *m = find_member(x, name);
    if (!m) {
        g_set_error(error, LODGE_ERROR, ENOENT, "the manifest's file '%s' is missing", name);
        return false;
    }
    if (!m->sha256 && !digest_file(m, error)) {
        return false;
    }
    if (g_ascii_strcasecmp(sha1 ? m->sha1 : m->sha256, want)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "'%s' is not what the manifest says (%s)", name,
                    kind);
        return false;
    }
    return true;
}

static bool check_manifest(const struct import *x, GError **error)
{
    const struct member *m = find_suffix(x, ".mf");
    g_autofree char *text = NULL;
    size_t n;
    if (!m) {
        return true; /* it may be left out */
    }
    if (!read_text(m, &text, &n, error)) {
        return false;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (unsigned i = 0; lines[i]; i++) {
        if (*g_strstrip(lines[i]) && !check_line(x, lines[i], error)) {
            return false;
        }
    }
    return true;
}

static bool read_descriptor(struct import *x, GError **error)
{
    const struct member *m = find_suffix(x, ".ovf");
    g_autofree char *text = NULL;
    size_t n;
    if (!m) {
        g_set_error(error, LODGE_ERROR, EINVAL, "there is no .ovf file in it");
        return false;
    }
    x->ovf = read_text(m, &text, &n, error) ? ovf_parse(text, n, error) : NULL;
    return x->ovf;
}

static bool take_archive(struct import *x, GError **error)
{
    if (!scratch_make(&x->scratch, x->folder, "lodge-import", error)) {
        return false;
    }
    x->members = ova_unpack(x->source, x->scratch.path, error);
    return x->members && read_descriptor(x, error) && check_manifest(x, error);
}

/* The descriptor's folder holds the rest; only what it names is looked at. */
static bool take_folder(struct import *x, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(x->source);
    g_autofree char *name = g_path_get_basename(x->source);
    g_autofree char *stem = g_strndup(name, strlen(name) - 4), *mf = g_strconcat(stem, ".mf", NULL);
    x->members = g_ptr_array_new_with_free_func(member_clear);
    add_file(x, folder, name);
    if (!read_descriptor(x, error)) {
        return false;
    }
    for (unsigned i = 0; i < x->ovf->n_disks; i++) {
        const char *file = x->ovf->disks[i].file;
        if (file && !find_member(x, file)) {
            add_file(x, folder, file);
        }
    }
    g_autofree char *path = g_build_filename(folder, mf, NULL);
    if (!access(path, F_OK)) {
        add_file(x, folder, mf);
    }
    return x->list || check_manifest(x, error);
}

/* ---- disks ---- */

/* Where disk @i goes: named as its file, or as its number if it has none. */
static char *target_path(const struct import *x, unsigned i)
{
    const char *file = x->ovf->disks[i].file;
    g_autofree char *stem = file ? g_strdup(file) : g_strdup_printf("disk%u", i + 1);
    char *dot = strrchr(stem, '.');
    if (dot && dot != stem) {
        *dot = '\0';
    }
    g_autofree char *name = g_strdup_printf("%s.%s", stem, x->format);
    return g_build_filename(x->folder, name, NULL);
}

static struct node *open_source(const struct import *x, const struct ovf_disk *d, GError **error)
{
    const struct member *m = find_member(x, d->file);
    struct chain_open how = {.format = d->format,
                             .flags = OPEN_READ_ONLY | OPEN_UNTRUSTED | OPEN_NO_BACKING};
    if (!m) {
        g_set_error(error, LODGE_ERROR, ENOENT, "the disk '%s' is missing", d->file);
        return NULL;
    }
    how.name = m->path;
    struct node *node = chain_open(&how, error);
    if (!node) {
        g_prefix_error(error, "disk '%s': ", d->file);
    } else if (node->backing_name) {
        g_set_error(error, LODGE_ERROR, EPERM, "disk '%s' has a backing file", d->file);
        chain_close(node);
        return NULL;
    }
    return node;
}

static bool copy_disk(const struct import *x, struct node *from, struct node *to, const char *name,
                      GError **error)
{
    struct sink_options how = {.packed = x->packed && to->codec, .starts_zero = true};
    struct feed *feed = feed_of_chains(&from, 1);
    struct sink *sink = sink_of_chain(to, &how);
    struct copy run = {.feed = feed,
                       .sink = sink,
                       .threads = x->threads,
                       .sparse = SPARSE_DEFAULT,
                       .progress_of = from->size,
                       .progress = progress_bytes};
    int r = copy_run(&run);
    feed_free(feed);
    sink_free(sink);
    r = r ? r : chain_flush(to);
    if (r) {
        error_set_errno(error, -r, "disk '%s': error while %s at byte %" PRIu64, name,
                        run.failed_writing ? "writing" : "reading", run.failed_at);
    }
    return !r;
}

static bool make_disk(struct import *x, unsigned i, GError **error)
{
    const struct ovf_disk *d = &x->ovf->disks[i];
    g_autofree char *options = args_joined(x->args, "o");
    g_autoptr(Node) from = d->file ? open_source(x, d, error) : NULL;
    if (d->file && !from) {
        return false;
    }
    g_autofree char *path = target_path(x, i);
    if (!args_has(x->args, "force") && !access(path, F_OK)) {
        g_set_error(error, LODGE_ERROR, EEXIST, "'%s' is there already (--force overwrites)", path);
        return false;
    }
    struct tool_create create = {
        .name = path, .format = x->format, .size = from ? from->size : d->capacity};
    bool ok = create_prepare(&create, options, error) && create_run(&create, error);
    options_free(create.options);
    if (!ok) {
        return false;
    }
    x->made[i] = g_strdup(path);
    struct tool_common common = {0};
    g_autoptr(Node) to =
        tool_open(&common, path, x->format, OPEN_NO_BACKING | OPEN_UNMAP | OPEN_NO_FLUSH);
    return to && (!from || copy_disk(x, from, to, d->file, error));
}

/* ---- what it has ---- */

static json_t *describe_disk(const struct import *x, unsigned i)
{
    const struct ovf_disk *d = &x->ovf->disks[i];
    json_t *o = json_object();
    json_object_set_new(o, "id", json_text_of(d->id));
    json_object_set_new(o, "capacity", json_integer((json_int_t)d->capacity));
    if (d->file) {
        json_object_set_new(o, "file", json_text_of(d->file));
    }
    if (d->format) {
        json_object_set_new(o, "format", json_string(d->format));
    }
    if (x->made[i]) {
        json_object_set_new(o, "path", json_text_of(x->made[i]));
    }
    return o;
}

static void print_as_json(const struct import *x)
{
    json_t *o = json_object(), *disks = json_array(), *networks = json_array();
    json_object_set_new(o, "name", json_text_of(x->ovf->name ? x->ovf->name : ""));
    json_object_set_new(o, "os", json_text_of(x->ovf->os ? x->ovf->os : ""));
    json_object_set_new(o, "cpus", json_integer((json_int_t)x->ovf->cpus));
    json_object_set_new(o, "memory", json_integer((json_int_t)x->ovf->memory));
    for (unsigned i = 0; i < x->ovf->n_disks; i++) {
        json_array_append_new(disks, describe_disk(x, i));
    }
    for (unsigned i = 0; x->ovf->networks[i]; i++) {
        json_array_append_new(networks, json_text_of(x->ovf->networks[i]));
    }
    json_object_set_new(o, "disks", disks);
    json_object_set_new(o, "networks", networks);
    print_json(o);
    json_decref(o);
}

/* Names are a stranger's: no control characters to a terminal. */
static void print_for_people(const struct import *x)
{
    const struct ovf *o = x->ovf;
    g_autofree char *name = g_strescape(o->name ? o->name : "", NULL);
    g_autofree char *memory = size_text(o->memory);
    printf("machine: %s\nprocessors: %" PRIu64 "\nmemory: %s\n", name, o->cpus, memory);
    for (unsigned i = 0; i < o->n_disks; i++) {
        g_autofree char *size = size_text(o->disks[i].capacity);
        g_autofree char *file = g_strescape(o->disks[i].file ? o->disks[i].file : "(empty)", NULL);
        printf("disk: %s, %s%s%s\n", file, size, x->made[i] ? " -> " : "",
               x->made[i] ? x->made[i] : "");
    }
    for (unsigned i = 0; o->networks[i]; i++) {
        g_autofree char *network = g_strescape(o->networks[i], NULL);
        printf("network: %s\n", network);
    }
}

/* ---- all of it ---- */

static bool take_args(struct import *x)
{
    const char *format = args_get(x->args, "O"), *folder = args_get(x->args, "d");
    x->source = tool_one_file(x->args);
    x->format = format ? format : "qcow2";
    x->folder = folder ? folder : ".";
    x->list = args_has(x->args, "list");
    x->packed = args_has(x->args, "c");
    return x->source && tool_wants_json(x->args, &x->json) && ova_threads(x->args, &x->threads);
}

static bool work(struct import *x, GError **error)
{
    bool folder = g_str_has_suffix(x->source, ".ovf");
    if (!(folder ? take_folder(x, error) : take_archive(x, error))) {
        return false;
    }
    for (unsigned i = 0; i < x->ovf->n_disks && !x->list; i++) {
        if (!make_disk(x, i, error)) {
            return false;
        }
    }
    return true;
}

int lodge_import(struct args *args)
{
    struct import x = {.args = args};
    g_autoptr(GError) error = NULL;
    bool ok = take_args(&x) && progress_begin(args) && work(&x, &error);
    if (ok && !x.list) {
        progress_end();
    }
    if (error) {
        tool_error("%s: %s", x.source, error->message);
    }
    if (ok && x.json) {
        print_as_json(&x);
    } else if (ok && !args_has(args, "q")) {
        print_for_people(&x);
    }
    for (unsigned i = 0; i < OVF_DISKS_MAX; i++) {
        if (x.made[i] && !ok) {
            unlink(x.made[i]);
        }
        g_free(x.made[i]);
    }
    scratch_remove(&x.scratch);
    if (x.members) {
        g_ptr_array_unref(x.members);
    }
    ovf_free(x.ovf);
    return ok ? 0 : 1;
}
