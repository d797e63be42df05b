/* SPDX-License-Identifier: GPL-2.0-or-later */

/* export: disks as streamOptimized vmdk, a descriptor, a manifest. */
#include "base/util.h"
#include "host/image/codec.h"
#include "host/image/tool/convert.h"
#include "host/image/tool/ova.h"
#include "host/image/vmdk_stream.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ROOM = VMDK_STREAM_UNIT + (VMDK_STREAM_UNIT >> 3) }; /* for what does not get smaller */

struct export
{
    struct args *args;
    struct tool_common common;
    const char *target;
    char *folder; /* where the target is */
    bool archive;
    const char *digest; /* "SHA256", "SHA1"; NULL: no manifest */
    unsigned threads;
    uint64_t level;
    struct scratch scratch;
    struct ovf *ovf;
    GPtrArray *members; /* of struct member: the descriptor, the manifest, disks */
};

/* ---- one disk ---- */

struct out {
    struct sink sink;
    struct vmdk_writer *writer;
    int fd;
    struct digests digests;
    uint64_t written;
    uint8_t *unit, *room;
    int level;
};

static int put_bytes(void *owner, const void *from, size_t n)
{
    struct out *o = owner;
    digests_add(&o->digests, from, n);
    o->written += n;
    for (const char *at = from; n;) {
        ssize_t put = write(o->fd, at, n);
        if (put < 0 && errno != EINTR) {
            return -errno;
        }
        at += MAX(put, 0);
        n -= (size_t)MAX(put, 0);
    }
    return 0;
}

static int put_grain(struct out *o, uint64_t offset, const void *packed, size_t n)
{
    g_autoptr(GError) error = NULL;
    return vmdk_writer_grain(o->writer, offset, packed, n, &error) ? 0 : -error_errno(error);
}

static int on_packed(struct sink *s, uint64_t offset, const void *from, uint32_t stored)
{
    return put_grain(container_of(s, struct out, sink), offset, from, stored);
}

/* A unit that gets larger when packed: a stream has no other form for it. */
static int on_data(struct sink *s, uint64_t offset, const void *from, uint64_t n)
{
    struct out *o = container_of(s, struct out, sink);
    memcpy(o->unit, from, n);
    memset(o->unit + n, 0, VMDK_STREAM_UNIT - n);
    int64_t stored = codec_zlib.pack(o->unit, VMDK_STREAM_UNIT, o->room, ROOM, o->level);
    return stored > 0 ? put_grain(o, offset, o->room, (size_t)stored) : stored ? (int)stored : -EIO;
}

static int on_zero(struct sink *s, uint64_t offset, uint64_t n)
{
    (void)s, (void)offset, (void)n;
    return 0; /* what no grain covers reads as zero */
}

static bool copy_disk(struct export *x, struct node *node, struct out *o, const char *name,
                      GError **error)
{
    struct feed *feed = feed_of_chains(&node, 1);
    struct copy run = {.feed = feed,
                       .sink = &o->sink,
                       .threads = x->threads,
                       .sparse = SPARSE_DEFAULT,
                       .level = (int)x->level,
                       .progress_of = node->size,
                       .progress = progress_bytes};
    int r = copy_run(&run);
    feed_free(feed);
    if (r) {
        error_set_errno(error, -r, "'%s': error while %s at byte %" PRIu64, name,
                        run.failed_writing ? "writing" : "reading", run.failed_at);
    }
    return !r;
}

static bool write_disk(struct export *x, struct node *node, struct out *o, struct member *m,
                       const char *name, GError **error)
{
    struct vmdk_stream_options how = {
        .size = (node->size + 511) & ~UINT64_C(511), .name = m->name, .adapter_type = "lsilogic"};
    o->sink = (struct sink){.size = node->size,
                            .granule = VMDK_STREAM_UNIT,
                            .codec = &codec_zlib,
                            .unit = VMDK_STREAM_UNIT,
                            .ordered = true,
                            .starts_zero = true,
                            .data = on_data,
                            .zero = on_zero,
                            .packed = on_packed};
    o->writer = vmdk_writer_new(&how, put_bytes, o, error);
    return o->writer && copy_disk(x, node, o, name, error) && vmdk_writer_finish(o->writer, error);
}

static bool add_disk(struct export *x, const char *name, GError **error)
{
    g_autoptr(Node) node = tool_open(&x->common, name, args_get(x->args, "f"), OPEN_READ_ONLY);
    if (!node) {
        return false; /* and it has been told */
    }
    struct ovf_disk *d = &x->ovf->disks[x->ovf->n_disks];
    struct member *m = g_new0(struct member, 1);
    struct out o = {
        .level = (int)x->level, .unit = g_malloc(VMDK_STREAM_UNIT), .room = g_malloc(ROOM)};
    m->name = g_strdup_printf("%s-disk%u.vmdk", x->ovf->name, x->ovf->n_disks + 1);
    m->path = g_build_filename(x->scratch.path, m->name, NULL);
    g_ptr_array_add(x->members, m);
    o.fd = open(m->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (o.fd < 0) {
        error_set_errno(error, errno, "cannot make '%s'", m->path);
    }
    bool ok = o.fd >= 0 && digests_begin(&o.digests, error);
    if (ok) {
        ok = write_disk(x, node, &o, m, name, error);
        digests_end(&o.digests, m);
    }
    if (o.fd >= 0 && close(o.fd) && ok) {
        error_set_errno(error, errno, "cannot write '%s'", m->path);
        ok = false;
    }
    vmdk_writer_free(o.writer);
    g_free(o.unit);
    g_free(o.room);
    *d = (struct ovf_disk){.id = g_strdup_printf("vmdisk%u", ++x->ovf->n_disks),
                           .file = g_strdup(m->name),
                           .capacity = node->size,
                           .size = o.written};
    return ok;
}

/* ---- texts ---- */

static bool add_text(struct export *x, unsigned at, const char *suffix, const char *text,
                     GError **error)
{
    struct member *m = g_new0(struct member, 1);
    struct digests d;
    m->name = g_strconcat(x->ovf->name, suffix, NULL);
    m->path = g_build_filename(x->scratch.path, m->name, NULL);
    g_ptr_array_insert(x->members, (int)at, m);
    if (!digests_begin(&d, error)) {
        return false;
    }
    digests_add(&d, text, strlen(text));
    digests_end(&d, m);
    return g_file_set_contents(m->path, text, -1, error);
}

static bool add_manifest(struct export *x, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    for (unsigned i = 0; i < x->members->len; i++) {
        const struct member *m = g_ptr_array_index(x->members, i);
        const char *hex = !strcmp(x->digest, "SHA1") ? m->sha1 : m->sha256;
        g_string_append_printf(text, "%s(%s)= %s\n", x->digest, m->name, hex);
    }
    return add_text(x, 1, ".mf", text->str, error);
}

/* ---- all of it ---- */

/* What is there is replaced only by who says so. */
static bool may_replace(const struct export *x, const char *path, GError **error)
{
    if (g_file_test(path, G_FILE_TEST_EXISTS) && !args_has(x->args, "force")) {
        g_set_error(error, LODGE_ERROR, EEXIST, "'%s' exists: --force replaces it", path);
        return false;
    }
    return true;
}

/* Out of the scratch folder, the descriptor last: who sees it sees the rest. */
static bool move_members(struct export *x, GError **error)
{
    for (unsigned i = 1; i < x->members->len; i++) {
        const struct member *m = g_ptr_array_index(x->members, i);
        g_autofree char *to = g_build_filename(x->folder, m->name, NULL);
        if (!may_replace(x, to, error)) {
            return false;
        }
    }
    for (unsigned i = x->members->len; i-- > 0;) {
        const struct member *m = g_ptr_array_index(x->members, i);
        g_autofree char *to = g_build_filename(x->folder, m->name, NULL);
        if (rename(m->path, i ? to : x->target)) {
            error_set_errno(error, errno, "cannot make '%s'", to);
            return false;
        }
    }
    return true;
}

static bool finish(struct export *x, GError **error)
{
    g_autofree char *packed = g_build_filename(x->scratch.path, "package", NULL);
    if (!x->archive) {
        return move_members(x, error);
    }
    if (!ova_pack(packed, x->members, error)) {
        return false;
    }
    if (rename(packed, x->target)) {
        error_set_errno(error, errno, "cannot make '%s'", x->target);
        return false;
    }
    return true;
}

static bool make(struct export *x, GError **error)
{
    if (!may_replace(x, x->target, error)) {
        return false;
    }
    for (unsigned i = 0; i + 1 < x->args->n_operands; i++) {
        if (!add_disk(x, x->args->operands[i], error)) {
            return false;
        }
    }
    g_autofree char *text = ovf_write(x->ovf, error);
    return text && add_text(x, 0, ".ovf", text, error) && (!x->digest || add_manifest(x, error)) &&
           finish(x, error);
}

static bool take_machine(struct export *x)
{
    const char *cpus = args_get(x->args, "cpus"), *memory = args_get(x->args, "memory");
    const char *name = args_get(x->args, "n"), *os = args_get(x->args, "os");
    g_autofree char *base = g_path_get_basename(x->target);
    base[strlen(base) - 4] = '\0';
    x->ovf->name = g_strdup(name ? name : base);
    x->ovf->os = g_strdup(os);
    x->ovf->cpus = 1;
    x->ovf->memory = 1 << 30;
    if (!ovf_plain_name(x->ovf->name) || (os && !g_utf8_validate(os, -1, NULL))) {
        tool_error("Invalid machine name '%s'", x->ovf->name);
        return false;
    }
    return (!cpus || tool_number("number of processors", cpus, 1, 4096, &x->ovf->cpus)) &&
           (!memory || tool_number("memory size", memory, 1 << 20, INT64_MAX, &x->ovf->memory));
}

static bool take_args(struct export *x)
{
    const char *manifest = args_get(x->args, "manifest"), *level = args_get(x->args, "level");
    if (x->args->n_operands < 2) {
        tool_usage("Expecting disks and the name of an OVA or OVF file");
        return false;
    }
    x->target = x->args->operands[x->args->n_operands - 1];
    x->archive = g_str_has_suffix(x->target, ".ova");
    if (!x->archive && !g_str_has_suffix(x->target, ".ovf")) {
        tool_error("'%s': want a name that ends in .ova or .ovf", x->target);
        return false;
    }
    x->folder = g_path_get_dirname(x->target);
    x->digest = !manifest || !strcmp(manifest, "sha256") ? "SHA256"
                : !strcmp(manifest, "sha1")              ? "SHA1"
                                                         : NULL;
    if (!x->digest && strcmp(manifest, "none")) {
        tool_error("Invalid --manifest value '%s': want sha256, sha1 or none", manifest);
        return false;
    }
    if (x->args->n_operands - 1 > OVF_DISKS_MAX) {
        tool_error("more than %d disks", OVF_DISKS_MAX);
        return false;
    }
    return (!level || tool_number("level", level, 1, 12, &x->level)) &&
           ova_threads(x->args, &x->threads) && tool_common(x->args, &x->common) && take_machine(x);
}

int lodge_export(struct args *args)
{
    struct export x = {.args = args, .ovf = g_new0(struct ovf, 1)};
    g_autoptr(GError) error = NULL;
    x.members = g_ptr_array_new_with_free_func(member_clear);
    bool ok = take_args(&x) && progress_begin(args) &&
              scratch_make(&x.scratch, x.folder, "lodge-export", &error) && make(&x, &error);
    if (ok) {
        progress_end();
    }
    if (error) {
        tool_error("%s: %s", x.target, error->message);
    }
    scratch_remove(&x.scratch);
    g_ptr_array_unref(x.members);
    ovf_free(x.ovf);
    g_free(x.folder);
    return ok ? 0 : 1;
}
