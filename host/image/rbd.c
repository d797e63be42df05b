/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * rbd: Ceph block devices, by librbd, which is safe for threads.
 *
 * Names: rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][:KEY=VALUE...]; id=, conf=, the rest is Ceph's
 * configuration.  A backslash takes a separator's meaning away.
 */
#include "host/image/options.h"
#include "host/image/protocol.h"
#include "host/image/remote.h"

#include <rbd/librbd.h>
#include <string.h>

enum { TIMEOUT_SECONDS = 30 };

struct volume {
    char *pool, *space, *image, *snapshot, *conf, *user, *key;
    GPtrArray *config; /* key, value, key, value... */
    rados_t cluster;
    rados_ioctx_t io;
    rbd_image_t rbd;
};

/* ---- names and options ---- */

/* Cuts *@at at the first @stop without a backslash before it; *@at is NULL after the last. */
static char *next_part(char **at, const char *stop, char *found)
{
    char *begin = *at, *to = begin, *from = begin;
    while (*from && !strchr(stop, *from)) {
        from += from[0] == '\\' && from[1];
        *to++ = *from++;
    }
    *found = *from;
    *at = *from ? from + 1 : NULL;
    *to = '\0';
    return begin;
}

static bool bad_name(const char *name, GError **error)
{
    g_set_error(error, LODGE_ERROR, EINVAL,
                "%s: want rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][:KEY=VALUE...]", name);
    return false;
}

static void take_pair(struct volume *v, const char *key, const char *value)
{
    if (!strcmp(key, "id")) {
        v->user = g_strdup(value);
    } else if (!strcmp(key, "conf")) {
        v->conf = g_strdup(value);
    } else {
        g_ptr_array_add(v->config, g_strdup(key));
        g_ptr_array_add(v->config, g_strdup(value));
    }
}

static bool take_name(struct volume *v, const char *name, GError **error)
{
    g_autofree char *copy = g_strdup(name + strlen("rbd:"));
    char *at = copy, found;
    v->pool = g_strdup(next_part(&at, "/", &found));
    if (!at) {
        return bad_name(name, error);
    }
    char *part = next_part(&at, "/@:", &found);
    if (found == '/') {
        v->space = g_strdup(part);
        part = next_part(&at, "@:", &found);
    }
    v->image = g_strdup(part);
    if (found == '@') {
        v->snapshot = g_strdup(next_part(&at, ":", &found));
    }
    if (!*v->pool || !*v->image) {
        return bad_name(name, error);
    }
    while (at) {
        char *key = next_part(&at, "=", &found);
        if (!at) {
            g_set_error(error, LODGE_ERROR, EINVAL, "conf option %s has no value", key);
            return false;
        }
        take_pair(v, key, next_part(&at, ":", &found));
    }
    return true;
}

/* server: [{host, port}, ...] as Ceph's mon_host. */
static void take_servers(struct volume *v, const json_t *servers)
{
    size_t i;
    const json_t *one;
    g_autoptr(GString) all = g_string_new(NULL);
    json_array_foreach(servers, i, one)
    {
        const char *host = json_text(one, "host"), *port = json_text(one, "port");
        if (host) {
            bool six = strchr(host, ':');
            g_string_append_printf(all, six ? "%s[%s]%s%s" : "%s%s%s%s", all->len ? ";" : "", host,
                                   port ? ":" : "", port ? port : "");
        }
    }
    if (all->len) {
        take_pair(v, "mon_host", all->str);
    }
}

static void take_auth(struct volume *v, const json_t *modes)
{
    size_t i;
    const json_t *one;
    g_autoptr(GString) all = g_string_new(NULL);
    json_array_foreach(modes, i, one)
    {
        g_string_append_printf(all, "%s%s", all->len ? ";" : "", json_string_value(one));
    }
    if (all->len) {
        take_pair(v, "auth_client_required", all->str);
    }
}

/* @whole: the pool, and nothing in it. */
static bool take_options(struct volume *v, const json_t *o, bool whole, GError **error)
{
    static const char *const known[] = {"filename",
                                        "pool",
                                        "namespace",
                                        "image",
                                        "snapshot",
                                        "conf",
                                        "user",
                                        "key",
                                        "password",
                                        "server",
                                        "auth-client-required",
                                        NULL};
    const char *name = json_text(o, "filename"), *key = json_text(o, "key");
    if (!remote_options(o, known, error)) {
        return false;
    }
    v->key = g_strdup(key ? key : json_text(o, "password"));
    if (name) {
        return take_name(v, name, error);
    }
    v->pool = g_strdup(json_text(o, "pool"));
    v->space = g_strdup(json_text(o, "namespace"));
    v->image = g_strdup(json_text(o, "image"));
    v->snapshot = g_strdup(json_text(o, "snapshot"));
    v->conf = g_strdup(json_text(o, "conf"));
    v->user = g_strdup(json_text(o, "user"));
    take_servers(v, json_object_get(o, "server"));
    take_auth(v, json_object_get(o, "auth-client-required"));
    if (!v->pool || (!v->image && !whole)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "rbd: want pool and image");
        return false;
    }
    return true;
}

/* ---- life ---- */

static bool check(int r, GError **error, const char *what, const char *which)
{
    if (r >= 0) {
        return true;
    }
    error_set_errno(error, -r, "%s %s", what, which);
    return false;
}

static bool configure(struct volume *v, GError **error)
{
    g_autofree char *timeout = g_strdup_printf("%d", TIMEOUT_SECONDS);
    rados_conf_set(v->cluster, "client_mount_timeout", timeout);
    rados_conf_set(v->cluster, "rados_mon_op_timeout", timeout);
    int r = rados_conf_read_file(v->cluster, v->conf);
    if (v->conf && !check(r, error, "error reading conf file", v->conf)) {
        return false;
    }
    for (unsigned i = 0; i < v->config->len; i += 2) {
        const char *key = g_ptr_array_index(v->config, i);
        if (!check(rados_conf_set(v->cluster, key, g_ptr_array_index(v->config, i + 1)), error,
                   "invalid conf option", key)) {
            return false;
        }
    }
    return !v->key || check(rados_conf_set(v->cluster, "key", v->key), error, "cannot use", "key");
}

static bool volume_connect(struct volume *v, const json_t *options, bool whole, GError **error)
{
    if (!take_options(v, options, whole, error) ||
        !check(rados_create(&v->cluster, v->user), error, "error initializing", "Ceph") ||
        !configure(v, error) ||
        !check(rados_connect(v->cluster), error, "error connecting to", "the Ceph cluster") ||
        !check(rados_ioctx_create(v->cluster, v->pool, &v->io), error, "error opening pool",
               v->pool)) {
        return false;
    }
    rados_ioctx_set_namespace(v->io, v->space);
    return true;
}

static void volume_free(struct volume *v)
{
    if (v->rbd) {
        rbd_close(v->rbd);
    }
    if (v->io) {
        rados_ioctx_destroy(v->io);
    }
    if (v->cluster) {
        rados_shutdown(v->cluster);
    }
    g_ptr_array_unref(v->config);
    g_free(v->pool);
    g_free(v->space);
    g_free(v->image);
    g_free(v->snapshot);
    g_free(v->conf);
    g_free(v->user);
    g_free(v->key);
    g_free(v);
}

static struct volume *volume_new(void)
{
    struct volume *v = g_new0(struct volume, 1);
    v->config = g_ptr_array_new_with_free_func(g_free);
    return v;
}

static bool volume_open(struct file *f, const json_t *options, unsigned flags, GError **error)
{
    struct volume *v = volume_new();
    bool read_only = flags & OPEN_READ_ONLY;
    f->priv = v;
    if (!volume_connect(v, options, false, error)) {
        return false;
    }
    if (v->snapshot && !read_only) {
        g_set_error(error, LODGE_ERROR, EROFS, "an rbd snapshot is read-only");
        return false;
    }
    int r = read_only ? rbd_open_read_only(v->io, v->image, &v->rbd, v->snapshot)
                      : rbd_open(v->io, v->image, &v->rbd, NULL);
    f->read_only = read_only;
    if (!f->name) {
        f->name = g_strdup_printf("rbd:%s/%s", v->pool, v->image);
    }
    return check(r, error, "error opening image", v->image) &&
           check(rbd_get_size(v->rbd, &f->size), error, "error getting the size of", v->image);
}

static void volume_close(struct file *f)
{
    if (f->priv) {
        volume_free(f->priv);
        f->priv = NULL;
    }
}

static bool volume_create(const json_t *options, uint64_t size, GError **error)
{
    struct volume *v = volume_new();
    int order = 0;
    bool ok = volume_connect(v, options, false, error);
    if (ok && v->snapshot) {
        g_set_error(error, LODGE_ERROR, EINVAL, "an rbd snapshot cannot be made this way");
        ok = false;
    }
    ok = ok &&
         check(rbd_create(v->io, v->image, size, &order), error, "error creating image", v->image);
    volume_free(v);
    return ok;
}

/* ---- data ---- */

static int volume_read(struct file *f, uint64_t at, void *to, size_t n)
{
    struct volume *v = f->priv;
    for (char *p = to; n;) {
        ssize_t got = rbd_read2(v->rbd, at, n, p, 0);
        if (got <= 0) {
            return got ? (int)got : -EIO;
        }
        p += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

/* Ceph's images grow only when they are told to. */
static int grow(struct file *f, uint64_t end)
{
    struct volume *v = f->priv;
    return end > file_size(f) ? rbd_resize(v->rbd, end) : 0;
}

static int volume_write(struct file *f, uint64_t at, const void *from, size_t n)
{
    struct volume *v = f->priv;
    int r = grow(f, at + n);
    ssize_t put = r ? r : rbd_write2(v->rbd, at, n, from, 0);
    return put < 0 ? (int)put : (size_t)put == n ? 0 : -EIO;
}

static int volume_zero(struct file *f, uint64_t at, uint64_t n, bool may_unmap)
{
    struct volume *v = f->priv;
    int flags = may_unmap ? 0 : RBD_WRITE_ZEROES_FLAG_THICK_PROVISION;
    ssize_t put = rbd_write_zeroes(v->rbd, at, n, flags, 0);
    return put < 0 ? (int)put : 0;
}

static int volume_discard(struct file *f, uint64_t at, uint64_t n)
{
    struct volume *v = f->priv;
    int r = rbd_discard(v->rbd, at, n);
    return r < 0 ? r : 0;
}

static int volume_flush(struct file *f)
{
    struct volume *v = f->priv;
    return rbd_flush(v->rbd);
}

static int volume_resize(struct file *f, uint64_t size)
{
    struct volume *v = f->priv;
    return rbd_resize(v->rbd, size);
}

/* The first range that is told: [.at, .at + .n). */
struct diff {
    uint64_t at, n;
    bool found;
};

enum { STOP = -9000 }; /* not an errno value: ends the iteration */

static int on_diff(uint64_t at, size_t n, int exists, void *owner)
{
    struct diff *d = owner;
    if (!exists) {
        return 0;
    }
    if (d->found && at == d->at + d->n) {
        d->n += n;
        return 0;
    }
    if (d->found) {
        return STOP;
    }
    *d = (struct diff){at, n, true};
    return 0;
}

static int volume_extent(struct file *f, uint64_t at, uint64_t n, bool *data, uint64_t *length)
{
    struct volume *v = f->priv;
    struct diff d = {0};
    int r = rbd_diff_iterate2(v->rbd, NULL, at, n, 1, 0, on_diff, &d);
    if (r < 0 && r != STOP) {
        return r;
    }
    *data = d.found && d.at <= at;
    *length = !d.found ? n : *data ? MIN(n, d.at + d.n - at) : MIN(n, d.at - at);
    return 0;
}

/* ---- the whole pool ---- */

static void list_image(struct volume *v, const char *name, json_t *found)
{
    rbd_image_t image;
    uint64_t size;
    if (rbd_open_read_only(v->io, name, &image, NULL) < 0) {
        return; /* removed since, or being made */
    }
    if (rbd_get_size(image, &size) == 0 && size <= INT64_MAX) {
        json_array_append_new(found,
                              json_pack("{s:s, s:I}", "name", name, "size", (json_int_t)size));
    }
    rbd_close(image);
}

static bool pool_list(const json_t *options, json_t *found, GError **error)
{
    struct volume *v = volume_new();
    size_t n = 0;
    bool ok = volume_connect(v, options, true, error);
    int r = ok ? rbd_list2(v->io, NULL, &n) : 0; /* how many there are */
    n = MIN(n + 16, SERVER_LIST_MAX);
    g_autofree rbd_image_spec_t *images = g_new0(rbd_image_spec_t, n);
    r = ok && (r == -ERANGE || r >= 0) ? rbd_list2(v->io, images, &n) : r;
    ok = ok && check(r, error, "cannot list pool", v->pool);
    for (size_t i = 0; ok && i < n; i++) {
        list_image(v, images[i].name, found);
    }
    if (ok) {
        rbd_image_spec_list_cleanup(images, n);
    }
    volume_free(v);
    return ok;
}

static bool image_remove(const json_t *options, GError **error)
{
    struct volume *v = volume_new();
    bool ok = volume_connect(v, options, false, error) &&
              check(rbd_remove(v->io, v->image), error, "cannot remove image", v->image);
    volume_free(v);
    return ok;
}

static bool pool_room(const json_t *options, struct server_room *room, GError **error)
{
    struct volume *v = volume_new();
    struct rados_cluster_stat_t all = {0};
    struct rados_pool_stat_t own = {0};
    bool ok = volume_connect(v, options, true, error) &&
              check(rados_cluster_stat(v->cluster, &all), error, "cannot size", "the cluster") &&
              check(rados_ioctx_pool_stat(v->io, &own), error, "cannot size pool", v->pool);
    *room = (struct server_room){
        .all = all.kb << 10, .taken = own.num_bytes, .free = all.kb_avail << 10};
    volume_free(v);
    return ok;
}

static const struct protocol_server server = {
    .list = pool_list, .remove = image_remove, .room = pool_room};

const struct protocol lodge_protocol = {
    .name = "rbd",
    .open = volume_open,
    .close = volume_close,
    .read = volume_read,
    .write = volume_write,
    .zero = volume_zero,
    .discard = volume_discard,
    .flush = volume_flush,
    .resize = volume_resize,
    .extent = volume_extent,
    .create = volume_create,
    .server = &server,
};
