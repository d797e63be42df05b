/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * nfs: images on NFS servers, by libnfs, without a mount.
 *
 * Names: nfs://HOST/PATH/FILE[?uid=N&gid=N&tcp-syncnt=N&readahead=N&pagecache=N&debug=N]
 *
 * Spec: RFC 1813, "NFS Version 3 Protocol Specification".
 */
#include "base/json.h"
#include "host/image/options.h"
#include "host/image/protocol.h"
#include "host/image/remote.h"

#include <fcntl.h>
#include <inttypes.h>
#include <nfsc/libnfs.h>
#include <string.h>
#include <sys/stat.h>

enum {
    TIMEOUT_MS = 30000,
    RECONNECTS = 3,
    PIECE = 4 << 20,
    READAHEAD_MAX = 1 << 20,
    PAGECACHE_PAGES_MAX = 8 << 20 >> 12,
};

struct share {
    char *host, *path; /* of the file */
    uint64_t uid, gid, syncnt, readahead, pagecache, debug;
    bool has_uid, has_gid;
    GMutex lock; /* libnfs does one thing at a time */
    struct nfs_context *nfs;
    struct nfsfh *fh;
};

/* QEMU's names in a name, and as options. */
static const struct {
    const char *in_name, *option;
    size_t slot;
} numbers[] = {
    {"uid", "user", offsetof(struct share, uid)},
    {"gid", "group", offsetof(struct share, gid)},
    {"tcp-syncnt", "tcp-syn-count", offsetof(struct share, syncnt)},
    {"readahead", "readahead-size", offsetof(struct share, readahead)},
    {"pagecache", "page-cache-size", offsetof(struct share, pagecache)},
    {"debug", "debug", offsetof(struct share, debug)},
};

/* The pairs of a name's query as an object of options. */
static json_t *options_of_query(GHashTable *query, GError **error)
{
    g_autoptr(json_t) o = json_object();
    GHashTableIter iter;
    gpointer key, value;
    g_hash_table_iter_init(&iter, query);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        unsigned i = 0;
        while (i < G_N_ELEMENTS(numbers) && strcmp(numbers[i].in_name, key)) {
            i++;
        }
        if (i == G_N_ELEMENTS(numbers)) {
            g_set_error(error, LODGE_ERROR, EINVAL, "Unknown NFS parameter name: %s", (char *)key);
            return NULL;
        }
        json_object_set_new(o, numbers[i].option, json_string(value));
    }
    return g_steal_pointer(&o);
}

static bool take_numbers(struct share *s, const json_t *o, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(numbers); i++) {
        uint64_t *slot = (uint64_t *)((char *)s + numbers[i].slot);
        if (!json_u64(o, numbers[i].option, slot, error)) {
            return false;
        }
        if (*slot > INT32_MAX) {
            g_set_error(error, LODGE_ERROR, EINVAL, "%s=%" PRIu64 " is too large",
                        numbers[i].option, *slot);
            return false;
        }
    }
    s->has_uid = json_object_get(o, "user");
    s->has_gid = json_object_get(o, "group");
    s->readahead = MIN(s->readahead, READAHEAD_MAX);
    s->pagecache = MIN(s->pagecache, PAGECACHE_PAGES_MAX);
    return true;
}

static bool take_uri(struct share *s, const char *name, GError **error)
{
    g_autoptr(GUri) uri = remote_uri(name, error);
    g_autoptr(GHashTable) query = uri ? remote_query(uri, error) : NULL;
    g_autoptr(json_t) o = query ? options_of_query(query, error) : NULL;
    if (!o) {
        return false;
    }
    const char *host = g_uri_get_host(uri), *path = g_uri_get_path(uri);
    if (!host || !*host || !strrchr(path, '/') || !strrchr(path, '/')[1]) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: want nfs://HOST/PATH/FILE", name);
        return false;
    }
    s->host = g_strdup(host);
    s->path = g_strdup(path);
    return take_numbers(s, o, error);
}

static bool take_options(struct share *s, const json_t *o, GError **error)
{
    static const char *const known[] = {
        "filename",       "server",          "path",  "user", "group", "tcp-syn-count",
        "readahead-size", "page-cache-size", "debug", NULL};
    const char *name = json_text(o, "filename");
    const json_t *server = json_object_get(o, "server");
    if (!remote_options(o, known, error)) {
        return false;
    }
    if (name) {
        return take_uri(s, name, error);
    }
    s->host = g_strdup(json_text(server, "host"));
    s->path = g_strdup(json_text(o, "path"));
    if (!s->host || !s->path || !strrchr(s->path, '/') || !strrchr(s->path, '/')[1]) {
        g_set_error(error, LODGE_ERROR, EINVAL, "nfs: want server.host and path=/PATH/FILE");
        return false;
    }
    return take_numbers(s, o, error);
}

/* @r of libnfs: a negative errno value. */
static bool check(struct share *s, int r, const char *what, GError **error)
{
    if (r >= 0) {
        return true;
    }
    g_set_error(error, LODGE_ERROR, -r, "%s: %s", what, nfs_get_error(s->nfs));
    return false;
}

static void set_numbers(struct share *s)
{
    if (s->has_uid) {
        nfs_set_uid(s->nfs, (int)s->uid);
    }
    if (s->has_gid) {
        nfs_set_gid(s->nfs, (int)s->gid);
    }
    if (s->syncnt) {
        nfs_set_tcp_syncnt(s->nfs, (int)s->syncnt);
    }
    if (s->readahead) {
        nfs_set_readahead(s->nfs, (uint32_t)s->readahead);
    }
    if (s->pagecache) {
        nfs_set_pagecache(s->nfs, (uint32_t)s->pagecache);
    }
    if (s->debug) {
        nfs_set_debug(s->nfs, (int)s->debug);
    }
    nfs_set_timeout(s->nfs, TIMEOUT_MS);
    nfs_set_autoreconnect(s->nfs, RECONNECTS);
}

static bool mount_share(struct share *s, GError **error)
{
    char *slash = strrchr(s->path, '/');
    g_autofree char *dir =
        slash == s->path ? g_strdup("/") : g_strndup(s->path, (size_t)(slash - s->path));
    s->nfs = nfs_init_context();
    if (!s->nfs) {
        g_set_error(error, LODGE_ERROR, ENOMEM, "Failed to init NFS context");
        return false;
    }
    set_numbers(s);
    return check(s, nfs_mount(s->nfs, s->host, dir), "Failed to mount nfs share", error);
}

static const char *base_name(const struct share *s)
{
    return strrchr(s->path, '/'); /* the slash belongs to it: it is at the mount's root */
}

static void share_free(struct share *s)
{
    if (s->fh) {
        nfs_close(s->nfs, s->fh);
    }
    if (s->nfs) {
        nfs_destroy_context(s->nfs);
    }
    g_mutex_clear(&s->lock);
    g_free(s->host);
    g_free(s->path);
    g_free(s);
}

static struct share *share_new(const json_t *options, GError **error)
{
    struct share *s = g_new0(struct share, 1);
    g_mutex_init(&s->lock);
    if (!take_options(s, options, error) || !mount_share(s, error)) {
        share_free(s);
        return NULL;
    }
    return s;
}

static bool open_file(struct share *s, bool read_only, struct nfsfh **fh, GError **error)
{
    return check(s, nfs_open(s->nfs, base_name(s), read_only ? O_RDONLY : O_RDWR, fh),
                 "Failed to open file", error);
}

static bool share_open(struct file *f, const json_t *options, unsigned flags, GError **error)
{
    struct nfs_stat_64 st;
    struct share *s = share_new(options, error);
    f->priv = s;
    if (!s || !open_file(s, flags & OPEN_READ_ONLY, &s->fh, error) ||
        !check(s, nfs_fstat64(s->nfs, s->fh, &st), "Failed to fstat file", error)) {
        return false;
    }
    if (!S_ISREG(st.nfs_mode)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "'%s' is not a regular file", s->path);
        return false;
    }
    f->size = st.nfs_size;
    f->read_only = flags & OPEN_READ_ONLY;
    if (!f->name) {
        f->name = g_strdup_printf("nfs://%s%s", s->host, s->path);
    }
    return true;
}

static void share_close(struct file *f)
{
    if (f->priv) {
        share_free(f->priv);
        f->priv = NULL;
    }
}

static int share_read(struct file *f, uint64_t at, void *to, size_t n)
{
    struct share *s = f->priv;
    int r = 1;
    g_mutex_lock(&s->lock);
    for (uint8_t *p = to; n && r > 0; p += r, at += (uint64_t)r, n -= (size_t)r) {
        r = nfs_pread(s->nfs, s->fh, at, MIN(n, PIECE), p);
        if (r <= 0) {
            break;
        }
    }
    g_mutex_unlock(&s->lock);
    return r > 0 ? 0 : r ? r : -EIO;
}

static int share_write(struct file *f, uint64_t at, const void *from, size_t n)
{
    struct share *s = f->priv;
    int r = 1;
    g_mutex_lock(&s->lock);
    for (const uint8_t *p = from; n; p += r, at += (uint64_t)r, n -= (size_t)r) {
        r = nfs_pwrite(s->nfs, s->fh, at, MIN(n, PIECE), p);
        if (r <= 0) {
            break;
        }
    }
    g_mutex_unlock(&s->lock);
    return r > 0 ? 0 : r ? r : -EIO;
}

static int share_flush(struct file *f)
{
    struct share *s = f->priv;
    g_mutex_lock(&s->lock);
    int r = nfs_fsync(s->nfs, s->fh);
    g_mutex_unlock(&s->lock);
    return r;
}

static int share_resize(struct file *f, uint64_t size)
{
    struct share *s = f->priv;
    g_mutex_lock(&s->lock);
    int r = nfs_ftruncate(s->nfs, s->fh, size);
    g_mutex_unlock(&s->lock);
    return r;
}

static uint64_t share_allocated(struct file *f)
{
    struct share *s = f->priv;
    struct nfs_stat_64 st;
    g_mutex_lock(&s->lock);
    int r = nfs_fstat64(s->nfs, s->fh, &st);
    g_mutex_unlock(&s->lock);
    return r < 0 ? f->size : st.nfs_blocks * 512;
}

static bool share_create(const json_t *options, uint64_t size, GError **error)
{
    struct share *s = share_new(options, error);
    bool ok = s &&
              check(s, nfs_create(s->nfs, base_name(s), O_RDWR | O_CREAT | O_TRUNC, 0644, &s->fh),
                    "Failed to create file", error) &&
              check(s, nfs_ftruncate(s->nfs, s->fh, size), "Failed to set the file's size", error);
    if (s) {
        share_free(s);
    }
    return ok;
}

static bool share_reopen(struct file *f, bool read_only, GError **error)
{
    struct share *s = f->priv;
    struct nfsfh *fh;
    if (!open_file(s, read_only, &fh, error)) {
        return false;
    }
    nfs_close(s->nfs, s->fh);
    s->fh = fh;
    f->read_only = read_only;
    return true;
}

const struct protocol lodge_protocol = {
    .name = "nfs",
    .open = share_open,
    .close = share_close,
    .read = share_read,
    .write = share_write,
    .flush = share_flush,
    .resize = share_resize,
    .allocated = share_allocated,
    .create = share_create,
    .reopen = share_reopen,
};
