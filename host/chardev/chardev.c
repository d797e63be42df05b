/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/chardev/backend.h"

#include "base/error.h"
#include "base/util.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static GPtrArray *all; /* of struct chardev *, in order of creation */

void (*chardev_waiting)(const char *about);

static const struct chardev_backend *backend_find(const char *name)
{
    for (unsigned i = 0; i < n_chardev_backends; i++) {
        if (g_str_equal(chardev_backends[i]->name, name)) {
            return chardev_backends[i];
        }
    }
    return NULL;
}

void chardev_kinds(GString *out)
{
    g_string_append(out, "Available chardev backend types:\n");
    for (unsigned i = 0; i < n_chardev_backends; i++) {
        g_string_append_printf(out, "  %-10s %s\n", chardev_backends[i]->name,
                               chardev_backends[i]->about);
    }
}

static struct chardev *by_id(const char *id)
{
    for (unsigned i = 0; all && i < all->len; i++) {
        struct chardev *chr = g_ptr_array_index(all, i);
        if (g_strcmp0(chr->id, id) == 0) {
            return chr;
        }
    }
    return NULL;
}

struct chardev *chardev_find(const char *id)
{
    struct chardev *chr = by_id(id);
    return chr && chardev_is_mux(chr) ? chardev_mux_port(chr, id, NULL) : chr;
}

static size_t logged_write(struct chardev *chr, const void *data, size_t n)
{
    size_t taken = chr->unlogged_write(chr, data, n);
    ssize_t w = write(chr->log_fd, data, taken);
    (void)w; /* a full log disk does not stop the guest */
    return taken;
}

static bool open_log(struct chardev *chr, const char *path, bool append, GError **error)
{
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (append ? O_APPEND : O_TRUNC);
    chr->log_fd = open(path, flags, 0666);
    if (chr->log_fd < 0) {
        error_set_errno(error, errno, "logfile %s", path);
        return false;
    }
    chr->unlogged_write = chr->write;
    chr->write = logged_write;
    return true;
}

static void destroy(struct chardev *chr)
{
    g_autofree char *id = chr->id, *about = chr->about;
    if (chr->log_fd >= 0) {
        close(chr->log_fd);
    }
    chr->close(chr);
}

/* The keys that every backend has are taken here, the rest by the backend. */
static struct chardev *make(KeyVal *opts, GError **error)
{
    const char *kind = keyval_get(opts, "backend"), *id = keyval_get(opts, "id");
    const char *logfile = keyval_get(opts, "logfile");
    bool mux = false, append = false;
    const struct chardev_backend *backend = kind ? backend_find(kind) : NULL;
    if (!backend) {
        g_set_error(error, LODGE_ERROR, EINVAL, "no chardev backend \"%s\"", kind ? kind : "");
        return NULL;
    }
    if (!id || !*id || by_id(id)) {
        g_set_error(error, LODGE_ERROR, EINVAL, id && *id ? "id \"%s\" is taken" : "it needs an id%s",
                    id && *id ? id : "");
        return NULL;
    }
    if (!keyval_bool(opts, "mux", &mux, error) || !keyval_bool(opts, "logappend", &append, error)) {
        return NULL;
    }
    struct chardev *chr = backend->open(opts, error);
    if (!chr) {
        return NULL;
    }
    chr->id = g_strdup(id);
    if (!keyval_done(opts, error) || (logfile && !open_log(chr, logfile, append, error))) {
        destroy(chr);
        return NULL;
    }
    if (mux) {
        chr = chardev_mux_new(chr);
        chr->id = g_strdup(id);
    }
    return chr;
}

static struct chardev *make_and_list(KeyVal *opts, GError **error)
{
    struct chardev *chr = make(opts, error);
    if (chr) {
        all = all ? all : g_ptr_array_new();
        g_ptr_array_add(all, chr);
    }
    return chr;
}

struct chardev *chardev_new(const char *options, GError **error)
{
    g_autoptr(KeyVal) opts = keyval_parse(options, "backend", error);
    struct chardev *chr = opts ? make_and_list(opts, error) : NULL;
    if (!chr) {
        g_prefix_error(error, "-chardev %s: ", options);
    }
    return chr;
}

/* "host:port@bindhost:bindport", any part may be empty. */
static bool udp_short(KeyVal *opts, const char *text, GError **error)
{
    g_auto(GStrv) halves = g_strsplit(text, "@", 2);
    static const char *const keys[2][2] = {{"host", "port"}, {"localaddr", "localport"}};
    for (unsigned i = 0; i < 2 && halves[i]; i++) {
        char *colon = strrchr(halves[i], ':');
        if (!colon) {
            g_set_error(error, LODGE_ERROR, EINVAL, "want udp:HOST:PORT[@ADDRESS:PORT]");
            return false;
        }
        *colon = '\0';
        keyval_set(opts, keys[i][0], *halves[i] ? halves[i] : i == 0 ? "localhost" : "");
        keyval_set(opts, keys[i][1], colon + 1);
    }
    return true;
}

/* "host:port", "[v6]:port" and ":port" as the keys host and port. */
static bool host_port(KeyVal *opts, const char *text, GError **error)
{
    const char *colon = strrchr(text, ':');
    if (!colon) {
        g_set_error(error, LODGE_ERROR, EINVAL, "want HOST:PORT");
        return false;
    }
    bool brackets = *text == '[' && colon > text && colon[-1] == ']';
    g_autofree char *host =
        brackets ? g_strndup(text + 1, (size_t)(colon - text - 2)) : g_strndup(text, (size_t)(colon - text));
    keyval_set(opts, "host", host);
    keyval_set(opts, "port", colon + 1);
    return true;
}

/* The short forms: a word, or a prefix with the value that the long form calls .key. */
static const struct {
    const char *prefix;
    const char *backend;
    const char *key;   /* of what follows the prefix; NULL: nothing may follow */
    const char *extra; /* key that is set to on */
} shorts[] = {
    {"stdio", "stdio", NULL, NULL},         {"null", "null", NULL, NULL},
    {"pty", "pty", NULL, NULL},             {"vc", "vc", NULL, NULL},
    {"ringbuf", "ringbuf", NULL, NULL},     {"vc:", "vc", "size", NULL},
    {"file:", "file", "path", NULL},        {"pipe:", "pipe", "path", NULL},
    {"unix:", "socket", "path", NULL},      {"tcp:", "socket", "host:port", NULL},
    {"telnet:", "socket", "host:port", "telnet"}, {"udp:", "udp", "udp", NULL},
    {"/dev/", "serial", "/dev/", NULL},
};

static bool add_short_value(KeyVal *opts, const char *key, const char *value, GError **error)
{
    if (g_str_equal(key, "host:port")) {
        return host_port(opts, value, error);
    }
    if (g_str_equal(key, "udp")) {
        return udp_short(opts, value, error);
    }
    if (g_str_equal(key, "/dev/")) {
        g_autofree char *path = g_strconcat("/dev/", value, NULL);
        keyval_set(opts, "path", path);
        return true;
    }
    if (g_str_equal(key, "size")) {
        return true; /* a text console's geometry: our vc keeps text, it does not draw it */
    }
    keyval_set(opts, key, value);
    return true;
}

/* @first is all up to the first comma. */
static bool expand(KeyVal *opts, const char *first, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(shorts); i++) {
        const char *prefix = shorts[i].prefix, *key = shorts[i].key;
        if (key ? g_str_has_prefix(first, prefix) : g_str_equal(first, prefix)) {
            keyval_set(opts, "backend", shorts[i].backend);
            if (shorts[i].extra) {
                keyval_set(opts, shorts[i].extra, "on");
            }
            return !key || add_short_value(opts, key, first + strlen(prefix), error);
        }
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "no such character device");
    return false;
}

struct chardev *chardev_new_short(const char *id, const char *spec, GError **error)
{
    g_autoptr(KeyVal) given = keyval_parse(spec, "first", error);
    g_autoptr(KeyVal) opts = keyval_new();
    struct chardev *chr = NULL;
    const char *first = given ? keyval_get(given, "first") : NULL;
    /* A path may hold "=", which would make "unix:/a=b" a key. */
    g_autofree char *rejoined = NULL;
    if (given && !first && keyval_count(given)) {
        rejoined = g_strconcat(keyval_key(given, 0), "=", keyval_value(given, 0), NULL);
        keyval_get(given, keyval_key(given, 0));
        first = rejoined;
    }
    keyval_set(opts, "id", id);
    if (given && expand(opts, first ? first : "", error)) {
        for (unsigned i = 1; i < keyval_count(given); i++) {
            keyval_set(opts, keyval_key(given, i), keyval_value(given, i));
        }
        chr = make_and_list(opts, error);
    }
    if (!chr) {
        g_prefix_error(error, "%s: ", spec);
    }
    return chr;
}

void chardev_each(void (*each)(struct chardev *chr, void *owner), void *owner)
{
    for (unsigned i = 0; all && i < all->len; i++) {
        each(g_ptr_array_index(all, i), owner);
    }
}

static void start_one(struct chardev *chr, void *owner)
{
    (void)owner;
    chardev_accept_input(chr);
}

void chardevs_start(void)
{
    chardev_each(start_one, NULL);
}

void chardev_remove(struct chardev *chr)
{
    if (g_ptr_array_remove(all, chr)) {
        destroy(chr);
    }
}

void chardevs_close(void)
{
    while (all && all->len) {
        destroy(g_ptr_array_steal_index(all, all->len - 1));
    }
    g_clear_pointer(&all, g_ptr_array_unref);
}
