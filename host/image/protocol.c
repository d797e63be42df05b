/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * protocol: which provider reaches a file, and the calls that formats make on it.
 */
#include "host/image/protocol.h"

#include "base/json.h"
#include "host/image/options.h"
#include "host/image/secret.h"
#include "host/image/tls.h"

#include <fcntl.h>
#include <gmodule.h>

enum { SCHEME_MAX = 32, ZERO_STEP = 1 << 20 };

/* A driver and the schemes that mean it; the module is loaded when it is first asked for. */
struct row {
    const char *driver;
    const char *schemes; /* between spaces */
    const struct protocol *built_in;
    const char *module;
};

static const struct row rows[] = {
    {"file", " file ", &protocol_file, NULL},
    {"host_device", " host_device ", &protocol_host_device, NULL},
    {"host_cdrom", " host_cdrom ", &protocol_host_device, NULL},
    {"null-co", " null-co ", &protocol_null_co, NULL},
    {"null-aio", " null-aio ", &protocol_null_aio, NULL},
    {"nbd", " nbd nbd+tcp nbd+unix nbds nbds+unix ", NULL, "nbd"},
    {"http", " http ", NULL, "curl"},
    {"https", " https ", NULL, "curl"},
    {"ftp", " ftp ", NULL, "curl"},
    {"ftps", " ftps ", NULL, "curl"},
    {"ssh", " ssh ", NULL, "ssh"},
    {"iscsi", " iscsi ", NULL, "iscsi"},
    {"nfs", " nfs ", NULL, "nfs"},
    {"rbd", " rbd ", NULL, "rbd"},
};

static const struct protocol *loaded[G_N_ELEMENTS(rows)];

/* ---- names ---- */

char *name_scheme(const char *name)
{
    size_t n = strcspn(name, ":/");
    return name[n] == ':' && n && n < SCHEME_MAX ? g_strndup(name, n) : NULL;
}

const char *name_local_path(const char *name)
{
    if (g_str_has_prefix(name, "file://")) {
        return name + 7;
    }
    if (g_str_has_prefix(name, "file:")) {
        return name + 5;
    }
    g_autofree char *scheme = name_scheme(name);
    return scheme ? NULL : name;
}

static const struct row *row_of_driver(const char *driver)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (!strcmp(rows[i].driver, driver)) {
            return &rows[i];
        }
    }
    return NULL;
}

static const struct row *row_of_scheme(const char *scheme)
{
    g_autofree char *word = g_strdup_printf(" %s ", scheme);
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (strstr(rows[i].schemes, word)) {
            return &rows[i];
        }
    }
    return NULL;
}

bool protocol_exists(const char *driver)
{
    return row_of_driver(driver);
}

bool protocol_is_remote(const char *driver)
{
    const struct row *row = row_of_driver(driver);
    return row && row->module;
}

/* ---- modules ---- */

/* Beside the program, or a test, in a build folder, else where `meson install` puts them. */
static GModule *open_module(const char *folder, const char *file, GError **error)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = g_path_get_dirname(self ? self : ".");
    g_autofree char *beside = g_build_filename(dir, folder, file, NULL);
    g_autofree char *above = g_build_filename(dir, "..", folder, file, NULL);
    g_autofree char *tool = g_build_filename(dir, folder, "tool", file, NULL);
    g_autofree char *installed = g_build_filename(dir, "..", LODGE_MODULES, file, NULL);
    const char *const places[] = {beside, above, tool, installed};
    const char *path = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(places) && !path; i++) {
        path = g_file_test(places[i], G_FILE_TEST_EXISTS) ? places[i] : NULL;
    }
    if (!path) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "it was built without %s", file);
        return NULL;
    }
    GModule *m = g_module_open(path, G_MODULE_BIND_LOCAL | G_MODULE_BIND_LAZY);
    if (!m) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "%s", g_module_error());
    }
    return m;
}

const void *module_symbol(const char *name, const char *symbol, GError **error)
{
    g_autofree char *file = g_strdup_printf("image-%s.so", name);
    return module_symbol_of("host/image", file, symbol, error);
}

const void *module_symbol_of(const char *folder, const char *file, const char *symbol,
                             GError **error)
{
    gpointer found = NULL;
    GModule *m = open_module(folder, file, error);
    if (!m) {
        return NULL;
    }
    if (!g_module_symbol(m, symbol, &found)) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "%s", g_module_error());
        return NULL;
    }
    g_module_make_resident(m);
    return found;
}

static const struct protocol *provider(const struct row *row, GError **error)
{
    const struct protocol **slot = &loaded[row - rows];
    if (row->built_in) {
        return row->built_in;
    }
    if (!*slot) {
        *slot = module_symbol(row->module, "lodge_protocol", error);
    }
    if (!*slot) {
        g_prefix_error(error, "protocol \"%s\": ", row->driver);
    }
    return *slot;
}

const struct protocol *protocol_find(const char *driver, GError **error)
{
    const struct row *row = row_of_driver(driver);
    if (!row) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Unknown driver '%s'", driver);
        return NULL;
    }
    return provider(row, error);
}

/* Of what comes from elsewhere nobody here can say what its names should mean. */
static bool is_network(const struct protocol *p)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (loaded[i] == p) {
            return true;
        }
    }
    return false;
}

/* @options of a name, or those given; a new reference. */
static json_t *file_options(const char *name, const json_t *options, GError **error)
{
    if (options && json_text(options, "driver")) {
        return json_incref((json_t *)options);
    }
    const char *named = options ? json_text(options, "filename") : name;
    if (!named) {
        g_set_error(error, LODGE_ERROR, EINVAL, "a file needs \"filename\"");
        return NULL;
    }
    const char *path = name_local_path(named);
    g_autofree char *scheme = path ? NULL : name_scheme(named);
    const struct row *row = scheme ? row_of_scheme(scheme) : &rows[0];
    if (row && row->built_in == &protocol_host_device) {
        path = named + strlen(scheme) + 1;
    }
    if (!row) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Unknown protocol '%s'", scheme);
        return NULL;
    }
    json_t *all = options ? json_copy((json_t *)options) : json_object();
    json_object_set_new(all, "driver", json_string(row->driver));
    g_autofree char *inner = path && path != named ? name_scheme(path) : NULL;
    g_autofree char *plain = g_strconcat(inner ? "./" : "", path ? path : named, NULL);
    json_object_set_new(all, "filename", json_string(plain)); /* file:a:b is ./a:b to everybody */
    return all;
}

/* A password as JSON text, which is all that our libraries take. */
static json_t *secret_text(const char *id, GError **error)
{
    size_t n = 0;
    uint8_t *secret = secret_get(id, &n, error);
    json_t *text = secret ? json_stringn((const char *)secret, n) : NULL;
    if (secret && (!text || memchr(secret, '\0', n))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "secret \"%s\" is not text", id);
        json_decref(text);
        text = NULL;
    }
    secret_free(secret, n);
    return text;
}

/*
 * What options name by id is put in its place, since modules do not see our tables:
 * "password-secret": ID becomes "password": TEXT, "tls-creds": ID the credentials' properties.
 */
static bool resolve(json_t *all, const json_t *said, GError **error)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)said, key, value)
    {
        const char *id = json_string_value(value);
        if (id && g_str_has_suffix(key, "-secret")) {
            g_autofree char *plain = g_strndup(key, strlen(key) - strlen("-secret"));
            json_t *text = secret_text(id, error);
            if (!text) {
                return false;
            }
            json_object_set_new(all, plain, text);
            json_object_del(all, key);
        } else if (id && !strcmp(key, "tls-creds")) {
            const struct tls_creds *creds = tls_creds_find(id);
            if (!creds || creds->server) {
                g_set_error(error, LODGE_ERROR, ENOENT,
                            creds ? "TLS credentials '%s' are a server's: endpoint=client is wanted"
                                  : "No TLS credentials with id '%s'",
                            id);
                return false;
            }
            json_object_set_new(all, key, tls_creds_describe(creds));
        }
    }
    return true;
}

/* A driver that is a module gets its own, complete copy. */
static json_t *resolved_options(const char *name, const json_t *options, GError **error)
{
    g_autoptr(json_t) all = file_options(name, options, error);
    const struct row *row = all ? row_of_driver(json_text(all, "driver")) : NULL;
    if (!row || !row->module) {
        return g_steal_pointer(&all);
    }
    g_autoptr(json_t) own = json_deep_copy(all);
    return resolve(own, all, error) ? g_steal_pointer(&own) : NULL;
}

/* ---- files ---- */

struct file *file_open(const char *name, const json_t *options, unsigned flags, GError **error)
{
    g_autoptr(json_t) all = resolved_options(name, options, error);
    const struct protocol *p = all ? protocol_find(json_text(all, "driver"), error) : NULL;
    if (!p) {
        return NULL;
    }
    struct file *f = g_new0(struct file, 1);
    *f = (struct file){.protocol = p,
                       .name = g_strdup(json_text(all, "filename")),
                       .align = 1,
                       .flags = is_network(p) ? flags | OPEN_UNTRUSTED : flags,
                       .read_only = flags & OPEN_READ_ONLY,
                       .fd = -1,
                       .cached_fd = -1};
    if (!p->open(f, all, flags, error)) {
        file_close(f);
        return NULL;
    }
    f->name = f->name ? f->name : g_strdup(p->name);
    return f;
}

bool file_make(const char *name, const json_t *options, uint64_t size, GError **error)
{
    g_autoptr(json_t) all = resolved_options(name, options, error);
    const struct protocol *p = all ? protocol_find(json_text(all, "driver"), error) : NULL;
    if (p && !p->create) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "Protocol driver '%s' does not support image creation", p->name);
        return false;
    }
    return p && p->create(all, size, error);
}

struct file *file_create(const char *name, GError **error)
{
    return file_make(name, NULL, 0, error) ? file_open(name, NULL, 0, error) : NULL;
}

void file_close(struct file *f)
{
    if (f) {
        f->protocol->close(f);
        g_free(f->name);
        g_free(f);
    }
}

bool file_reopen(struct file *f, bool read_only, GError **error)
{
    if (f->read_only == read_only) {
        return true;
    }
    if (!f->protocol->reopen) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "%s: protocol \"%s\" cannot change its mode",
                    f->name, f->protocol->name);
        return false;
    }
    return f->protocol->reopen(f, read_only, error);
}

bool file_hold(struct file *f, bool on, GError **error)
{
    f->flags = on ? f->flags & ~(unsigned)OPEN_LATER : f->flags | OPEN_LATER;
    int r = !on && f->protocol->flush ? f->protocol->flush(f) : 0;
    if (r < 0) {
        error_set_errno(error, -r, "%s: cannot flush", f->name);
        return false;
    }
    return !f->protocol->hold || f->protocol->hold(f, on, error);
}

uint64_t file_size(const struct file *f)
{
    return __atomic_load_n(&f->size, __ATOMIC_ACQUIRE);
}

uint64_t file_allocated(const struct file *f)
{
    return f->protocol->allocated ? f->protocol->allocated((struct file *)f) : file_size(f);
}

const char *file_name(const struct file *f)
{
    return f->name;
}

void file_grown(struct file *f, uint64_t end)
{
    uint64_t now = file_size(f);
    while (now < end && !__atomic_compare_exchange_n(&f->size, &now, end, false, __ATOMIC_ACQ_REL,
                                                     __ATOMIC_ACQUIRE)) {
    }
}

void (*file_passed)(struct file *f, uint64_t threshold, uint64_t excess);

void file_writes_to(struct file *f, uint64_t end)
{
    uint64_t limit = __atomic_load_n(&f->threshold, __ATOMIC_RELAXED);
    if (limit && end > limit && file_passed &&
        __atomic_compare_exchange_n(&f->threshold, &limit, 0, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE)) {
        file_passed(f, limit, end - limit);
    }
}

int file_read(struct file *f, uint64_t at, void *to, size_t n)
{
    uint64_t size = file_size(f);
    if (at > size || n > size - at) {
        return -EIO;
    }
    return n ? f->protocol->read(f, at, to, n) : 0;
}

static int may_write(const struct file *f, uint64_t at, uint64_t n)
{
    if (f->read_only) {
        return -EROFS;
    }
    return at > INT64_MAX || n > INT64_MAX - at ? -EFBIG : 0;
}

int file_write(struct file *f, uint64_t at, const void *from, size_t n)
{
    int r = may_write(f, at, n);
    if (r == 0 && n) {
        file_writes_to(f, at + n);
        r = f->protocol->write ? f->protocol->write(f, at, from, n) : -EROFS;
    }
    if (r == 0) {
        file_grown(f, at + n);
    }
    return r;
}

static int write_zeroes(struct file *f, uint64_t at, uint64_t n)
{
    static const uint8_t zeroes[64 << 10];
    int r = 0;
    while (r == 0 && n) {
        size_t step = (size_t)MIN(n, sizeof(zeroes));
        r = file_write(f, at, zeroes, step);
        at += step;
        n -= step;
    }
    return r;
}

int file_zero(struct file *f, uint64_t at, uint64_t n, bool may_unmap)
{
    int r = may_write(f, at, n);
    uint64_t size = file_size(f);
    if (r < 0 || !n) {
        return r;
    }
    file_writes_to(f, at + n);
    if (at >= size && !f->block_device) {
        /* Not by truncation: somebody else may be writing behind us. */
        return write_zeroes(f, at + n - 1, 1);
    }
    r = f->protocol->zero ? f->protocol->zero(f, at, n, may_unmap) : -ENOTSUP;
    if (r == -ENOTSUP) {
        return write_zeroes(f, at, n);
    }
    if (r == 0 && at + n > size) {
        r = write_zeroes(f, at + n - 1, 1); /* the part that was beyond the end */
    }
    return r;
}

int file_discard(struct file *f, uint64_t at, uint64_t n)
{
    uint64_t size = file_size(f);
    if (f->read_only || at >= size) {
        return f->read_only ? -EROFS : 0;
    }
    return f->protocol->discard ? f->protocol->discard(f, at, MIN(n, size - at)) : 0;
}

int file_flush(struct file *f)
{
    return f->protocol->flush && !f->read_only && !(f->flags & OPEN_NO_FLUSH)
               ? f->protocol->flush(f)
               : 0;
}

int file_resize(struct file *f, uint64_t size)
{
    int r = may_write(f, 0, size);
    if (r == 0) {
        r = f->protocol->resize ? f->protocol->resize(f, size) : -ENOTSUP;
    }
    if (r == 0) {
        __atomic_store_n(&f->size, size, __ATOMIC_RELEASE);
    }
    return r;
}

int file_extent(struct file *f, uint64_t at, uint64_t n, bool *data, uint64_t *length)
{
    uint64_t size = file_size(f);
    *data = at < size;
    *length = *data ? MIN(n, size - at) : n;
    return *data && f->protocol->extent ? f->protocol->extent(f, at, *length, data, length) : 0;
}

bool file_preallocate(struct file *f, uint64_t from, uint64_t to, enum preallocation how,
                      GError **error)
{
    uint64_t before = file_size(f);
    int r = 0;
    if (f->block_device && to > before) {
        g_set_error(error, LODGE_ERROR, ENOSPC, "Cannot grow device files");
        return false;
    }
    if (how == PREALLOC_FALLOC && f->cached_fd >= 0 && to > from) {
        r = -posix_fallocate(f->cached_fd, (off_t)from, (off_t)(to - from));
        file_grown(f, r ? 0 : to);
    } else if (how == PREALLOC_FULL) {
        r = to > from ? write_zeroes(f, from, to - from) : 0;
        r = r ? r : file_flush(f);
    } else if (to > file_size(f)) {
        r = file_resize(f, to);
    }
    if (r < 0) {
        file_resize(f, before); /* what could be taken of it goes back */
        error_set_errno(error, -r, "Could not preallocate data");
    }
    return r == 0;
}
