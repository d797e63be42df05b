/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * The archive of an OVA, by libarchive, and what import and export share.
 *
 * Spec: DMTF DSP0243, "Open Virtualization Format Specification", "Distribution as a single
 * file": a tar file whose first member is the descriptor; no folders.
 */
#include "host/image/tool/ova.h"

#include "base/util.h"
#include "host/image/tool/convert.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 256 << 10, MEMBERS_MAX = 1024 };
#define USTAR_MAX (INT64_C(8) << 30) /* sizes in a plain header have 11 octal digits */

/* ---- small things ---- */

bool scratch_make(struct scratch *s, const char *beside, const char *prefix, GError **error)
{
    g_autofree char *name = g_strdup_printf(".%s-XXXXXX", prefix);
    s->path = g_build_filename(beside, name, NULL);
    if (!g_mkdtemp(s->path)) {
        error_set_errno(error, errno, "cannot make a folder in '%s'", beside);
        g_clear_pointer(&s->path, g_free);
        return false;
    }
    return true;
}

void scratch_remove(struct scratch *s)
{
    const char *name;
    GDir *dir = s->path ? g_dir_open(s->path, 0, NULL) : NULL;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(s->path, name, NULL);
        unlink(path);
    }
    if (dir) {
        g_dir_close(dir);
        rmdir(s->path);
    }
    g_clear_pointer(&s->path, g_free);
}

bool ova_threads(const struct args *args, unsigned *out)
{
    uint64_t n = (uint64_t)CLAMP(sysconf(_SC_NPROCESSORS_ONLN), 1, THREADS_MAX);
    const char *m = args_get(args, "m");
    bool ok = !m || tool_number("number of threads", m, 1, THREADS_MAX, &n);
    *out = (unsigned)n;
    return ok;
}

void member_clear(void *data)
{
    struct member *m = data;
    g_free(m->name);
    g_free(m->path);
    g_free(m->sha1);
    g_free(m->sha256);
    g_free(m);
}

bool digests_begin(struct digests *d, GError **error)
{
    if (gcry_md_open(&d->md, GCRY_MD_SHA256, 0) || gcry_md_enable(d->md, GCRY_MD_SHA1)) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "no SHA-256 or SHA-1 in libgcrypt");
        return false;
    }
    return true;
}

void digests_add(struct digests *d, const void *from, size_t n)
{
    gcry_md_write(d->md, from, n);
}

static char *hex_of(gcry_md_hd_t md, int algorithm)
{
    GString *hex = g_string_new(NULL);
    const uint8_t *bytes = gcry_md_read(md, algorithm);
    for (unsigned i = 0; i < gcry_md_get_algo_dlen(algorithm); i++) {
        g_string_append_printf(hex, "%02x", bytes[i]);
    }
    return g_string_free(hex, FALSE);
}

void digests_end(struct digests *d, struct member *m)
{
    m->sha1 = hex_of(d->md, GCRY_MD_SHA1);
    m->sha256 = hex_of(d->md, GCRY_MD_SHA256);
    gcry_md_close(d->md);
}

/* ---- unpacking ---- */

static bool archive_failed(struct archive *a, const char *file, GError **error)
{
    g_set_error(error, LODGE_ERROR, EINVAL, "'%s': %s", file, archive_error_string(a));
    return false;
}

static bool write_all(int fd, const void *from, size_t n)
{
    const char *at = from;
    while (n) {
        ssize_t put = write(fd, at, n);
        if (put < 0 && errno != EINTR) {
            return false;
        }
        at += MAX(put, 0);
        n -= (size_t)MAX(put, 0);
    }
    return true;
}

static bool copy_out(struct archive *a, const char *file, int fd, struct digests *d,
                     const struct member *m, GError **error)
{
    g_autofree uint8_t *block = g_malloc(BLOCK);
    la_ssize_t n;
    while ((n = archive_read_data(a, block, BLOCK)) > 0) {
        digests_add(d, block, (size_t)n);
        if (!write_all(fd, block, (size_t)n)) {
            error_set_errno(error, errno, "cannot write '%s'", m->path);
            return false;
        }
    }
    return n == 0 || archive_failed(a, file, error);
}

/* What a hostile package could do harm with is refused by name. */
static bool check_entry(struct archive_entry *e, GError **error)
{
    const char *name = archive_entry_pathname(e);
    g_autofree char *shown = g_strescape(name ? name : "", NULL);
    const char *why = !name || !ovf_plain_name(name) ? "is no plain file name"
                      : archive_entry_filetype(e) != AE_IFREG || archive_entry_hardlink(e)
                          ? "is no regular file"
                      : archive_entry_sparse_count(e) ? "is a sparse file"
                                                      : NULL;
    if (why) {
        g_set_error(error, LODGE_ERROR, EPERM, "the archive's member '%s' %s", shown, why);
    }
    return !why;
}

static struct member *unpack_one(struct archive *a, struct archive_entry *e, const char *file,
                                 const char *folder, GError **error)
{
    struct digests d;
    if (!check_entry(e, error) || !digests_begin(&d, error)) {
        return NULL;
    }
    struct member *m = g_new0(struct member, 1);
    m->name = g_strdup(archive_entry_pathname(e));
    m->path = g_build_filename(folder, m->name, NULL);
    autofd int fd = open(m->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool ok = fd >= 0;
    if (!ok) {
        error_set_errno(error, errno, "cannot make '%s'", m->path);
    }
    ok = ok && copy_out(a, file, fd, &d, m, error);
    digests_end(&d, m);
    if (!ok) {
        member_clear(m);
        return NULL;
    }
    return m;
}

static bool unpack_all(struct archive *a, const char *file, const char *folder, GPtrArray *all,
                       GError **error)
{
    struct archive_entry *e;
    int r;
    while ((r = archive_read_next_header(a, &e)) == ARCHIVE_OK) {
        if (all->len == MEMBERS_MAX) {
            g_set_error(error, LODGE_ERROR, EFBIG, "'%s' has more than %d members", file,
                        MEMBERS_MAX);
            return false;
        }
        struct member *m = unpack_one(a, e, file, folder, error);
        if (!m) {
            return false;
        }
        g_ptr_array_add(all, m);
    }
    return r == ARCHIVE_EOF || archive_failed(a, file, error);
}

GPtrArray *ova_unpack(const char *file, const char *folder, GError **error)
{
    struct archive *a = archive_read_new();
    GPtrArray *all = g_ptr_array_new_with_free_func(member_clear);
    bool in = !strcmp(file, "-");
    archive_read_support_format_tar(a);
    bool ok = archive_read_open_filename(a, in ? NULL : file, BLOCK) == ARCHIVE_OK ||
              archive_failed(a, file, error);
    ok = ok && unpack_all(a, file, folder, all, error);
    archive_read_free(a);
    if (!ok) {
        g_ptr_array_unref(all);
        return NULL;
    }
    return all;
}

/* ---- packing ---- */

static bool copy_in(struct archive *a, const char *file, const struct member *m, GError **error)
{
    g_autofree uint8_t *block = g_malloc(BLOCK);
    autofd int fd = open(m->path, O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;
    while (fd >= 0 && (n = read(fd, block, BLOCK)) > 0) {
        if (archive_write_data(a, block, (size_t)n) != n) {
            return archive_failed(a, file, error);
        }
    }
    if (n < 0) {
        error_set_errno(error, errno, "cannot read '%s'", m->path);
    }
    return n == 0;
}

static bool pack_one(struct archive *a, const char *file, const struct member *m, GError **error)
{
    struct archive_entry *e = archive_entry_new();
    autofd int fd = open(m->path, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    archive_entry_set_pathname(e, m->name);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, 0644);
    archive_entry_set_size(e, size);
    archive_entry_set_mtime(e, g_get_real_time() / G_USEC_PER_SEC, 0);
    bool ok =
        size >= 0 && (archive_write_header(a, e) == ARCHIVE_OK || archive_failed(a, file, error));
    archive_entry_free(e);
    if (size < 0) {
        error_set_errno(error, errno, "cannot read '%s'", m->path);
    }
    return ok && copy_in(a, file, m, error);
}

static bool any_large(const GPtrArray *members)
{
    for (unsigned i = 0; i < members->len; i++) {
        const struct member *m = g_ptr_array_index(members, i);
        autofd int fd = open(m->path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && lseek(fd, 0, SEEK_END) >= USTAR_MAX) {
            return true;
        }
    }
    return false;
}

bool ova_pack(const char *file, const GPtrArray *members, GError **error)
{
    struct archive *a = archive_write_new();
    if (any_large(members)) {
        archive_write_set_format_gnutar(a);
    } else {
        archive_write_set_format_ustar(a);
    }
    bool ok = archive_write_open_filename(a, file) == ARCHIVE_OK || archive_failed(a, file, error);
    for (unsigned i = 0; i < members->len && ok; i++) {
        ok = pack_one(a, file, g_ptr_array_index(members, i), error);
    }
    if (ok && archive_write_close(a) != ARCHIVE_OK) {
        ok = archive_failed(a, file, error);
    }
    archive_write_free(a);
    return ok;
}
