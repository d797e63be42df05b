/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * curl: images on web and FTP servers, read only, by libcurl.
 *
 * What is read in small pieces is fetched ahead into a few windows, each as long as the
 * option readahead says; larger requests go straight to where they are wanted.  Each thread
 * that fetches takes a handle, and with it a connection, of its own.
 *
 * Spec: RFC 9110, "HTTP Semantics", "Range Requests", "If-Range".
 */
#include "host/image/options.h"
#include "host/image/protocol.h"
#include "host/image/remote.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

enum {
    HANDLES = 8, /* connections at once */
    WINDOWS = 8, /* that are fetched ahead */
    READAHEAD = 256 << 10,
    READAHEAD_MAX = 16 << 20,
    TRIES = 4,
    RETRY_MS = 200,
    REDIRECTS = 16,
    TIMEOUT_MAX = 10000,
};

struct window {
    uint64_t at;
    size_t n; /* 0: empty */
    bool filling;
    unsigned readers; /* that copy from it */
    uint64_t used;    /* for the oldest to go first */
    uint8_t *bytes;   /* .readahead of them */
};

struct site {
    char *url, *scheme, *cookie;
    char *user, *password, *proxy_user, *proxy_password;
    uint64_t readahead, timeout; /* bytes, seconds */
    bool sslverify, http;
    uint64_t size;
    char *validator; /* of If-Range: the file must not change while it is read */
    struct curl_slist *headers;
    GMutex lock; /* of the rest */
    GCond moved;
    CURL *idle[HANDLES];
    unsigned n_idle, n_handles;
    struct window windows[WINDOWS];
    uint64_t clock;
};

/* One transfer. */
struct fetch {
    uint8_t *to;
    size_t n, got;  /* wanted, there */
    uint64_t total; /* the file's size in Content-Range; UINT64_MAX: not said */
    uint64_t first; /* of Content-Range */
    long status;    /* of the header lines being read */
    char etag[256];
};

/* ---- names and options ---- */

static char *dup_option(const json_t *o, const char *key)
{
    return g_strdup(json_text(o, key));
}

static bool take_options(struct site *s, const json_t *o, GError **error)
{
    static const char *const known[] = {
        "filename",       "url",      "readahead",   "sslverify",
        "timeout",        "username", "password",    "proxy-username",
        "proxy-password", "cookie",   "force-range", NULL};
    const char *name = json_text(o, "filename");
    bool force;
    s->readahead = READAHEAD;
    s->timeout = 5;
    s->sslverify = true;
    s->url = g_strdup(name ? name : json_text(o, "url"));
    if (!remote_options(o, known, error) || !json_u64(o, "timeout", &s->timeout, error) ||
        !json_bool(o, "sslverify", &s->sslverify, error) ||
        !json_bool(o, "force-range", &force, error) ||
        !json_u64(o, "readahead", &s->readahead, error)) {
        return false;
    }
    if (!s->url) {
        g_set_error(error, LODGE_ERROR, EINVAL, "url is missing");
        return false;
    }
    if (!s->readahead || s->readahead % 512 || s->readahead > READAHEAD_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "readahead=%" PRIu64 ": want a multiple of 512 up to %d", s->readahead,
                    READAHEAD_MAX);
        return false;
    }
    if (!s->timeout || s->timeout > TIMEOUT_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "timeout=%" PRIu64 ": want 1 to %d seconds",
                    s->timeout, TIMEOUT_MAX);
        return false;
    }
    s->cookie = dup_option(o, "cookie");
    s->user = dup_option(o, "username");
    s->password = dup_option(o, "password");
    s->proxy_user = dup_option(o, "proxy-username");
    s->proxy_password = dup_option(o, "proxy-password");
    return true;
}

static bool take_scheme(struct site *s, const char *driver, GError **error)
{
    static const char *const schemes[] = {"http", "https", "ftp", "ftps", NULL};
    s->scheme = g_uri_parse_scheme(s->url);
    if (!s->scheme || !g_strv_contains(schemes, s->scheme)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: want http:, https:, ftp: or ftps:", s->url);
        return false;
    }
    if (driver && g_strv_contains(schemes, driver) && strcmp(driver, s->scheme)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "%s curl driver cannot handle the URL '%s' (does "
                    "not start with '%s://')",
                    driver, s->url, driver);
        return false;
    }
    s->http = s->scheme[0] == 'h';
    return true;
}

/* ---- one transfer ---- */

static size_t on_data(char *data, size_t one, size_t n, void *owner)
{
    struct fetch *f = owner;
    (void)one;
    if (n > f->n - f->got) {
        return 0; /* more than was asked for: the transfer fails */
    }
    memcpy(f->to + f->got, data, n);
    f->got += n;
    return n;
}

/* "Content-Range: bytes 0-99/1000" */
static void take_range(struct fetch *f, const char *value)
{
    char *end;
    if (g_ascii_strncasecmp(value, "bytes ", 6)) {
        return;
    }
    f->first = g_ascii_strtoull(value + 6, &end, 10);
    const char *slash = strchr(value, '/');
    if (slash && g_ascii_isdigit(slash[1])) {
        f->total = g_ascii_strtoull(slash + 1, NULL, 10);
    }
}

static size_t on_header(char *line, size_t one, size_t n, void *owner)
{
    struct fetch *f = owner;
    g_autofree char *text = g_strndup(line, MIN(n, 1024));
    (void)one;
    g_strchomp(text);
    if (!strncmp(text, "HTTP/", 5)) { /* of this answer or of a redirection before it */
        f->first = f->total = UINT64_MAX;
        f->etag[0] = '\0';
    } else if (!g_ascii_strncasecmp(text, "content-range:", 14)) {
        take_range(f, g_strchug(text + 14));
    } else if (!g_ascii_strncasecmp(text, "etag:", 5)) {
        g_strlcpy(f->etag, g_strchug(text + 5), sizeof(f->etag));
    }
    return n;
}

static void set_limits(const struct site *s, CURL *h)
{
    /* Not from a protected connection to an open one, nor from the web to anything else. */
    const char *redirected = strcmp(s->scheme, "http") ? s->scheme : "http,https";
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, s->scheme);
    curl_easy_setopt(h, CURLOPT_REDIR_PROTOCOLS_STR, redirected);
    curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(h, CURLOPT_MAXREDIRS, (long)REDIRECTS);
    curl_easy_setopt(h, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, (long)s->timeout);
    curl_easy_setopt(h, CURLOPT_LOW_SPEED_LIMIT, 1L); /* bytes a second, for .timeout seconds */
    curl_easy_setopt(h, CURLOPT_LOW_SPEED_TIME, (long)s->timeout);
    curl_easy_setopt(h, CURLOPT_SERVER_RESPONSE_TIMEOUT, (long)s->timeout);
    curl_easy_setopt(h, CURLOPT_BUFFERSIZE, 256L << 10);
    curl_easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
}

static CURL *handle_new(const struct site *s)
{
    CURL *h = curl_easy_init();
    if (!h) {
        return NULL;
    }
    set_limits(s, h);
    curl_easy_setopt(h, CURLOPT_URL, s->url);
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(h, CURLOPT_SSL_VERIFYPEER, s->sslverify ? 1L : 0L);
    curl_easy_setopt(h, CURLOPT_SSL_VERIFYHOST, s->sslverify ? 2L : 0L);
    if (s->cookie) {
        curl_easy_setopt(h, CURLOPT_COOKIE, s->cookie);
    }
    if (s->user) {
        curl_easy_setopt(h, CURLOPT_USERNAME, s->user);
    }
    if (s->password) {
        curl_easy_setopt(h, CURLOPT_PASSWORD, s->password);
    }
    if (s->proxy_user) {
        curl_easy_setopt(h, CURLOPT_PROXYUSERNAME, s->proxy_user);
    }
    if (s->proxy_password) {
        curl_easy_setopt(h, CURLOPT_PROXYPASSWORD, s->proxy_password);
    }
    return h;
}

/* A handle for this thread alone; waits while all are in use.  NULL: no memory. */
static CURL *handle_take(struct site *s)
{
    CURL *h = NULL;
    g_mutex_lock(&s->lock);
    while (!s->n_idle && s->n_handles == HANDLES) {
        g_cond_wait(&s->moved, &s->lock);
    }
    if (s->n_idle) {
        h = s->idle[--s->n_idle];
    } else if ((h = handle_new(s))) {
        s->n_handles++;
    }
    g_mutex_unlock(&s->lock);
    return h;
}

static void handle_give(struct site *s, CURL *h)
{
    g_mutex_lock(&s->lock);
    s->idle[s->n_idle++] = h;
    g_cond_broadcast(&s->moved);
    g_mutex_unlock(&s->lock);
}

/* Fetches [@at, @at + f->n); what it got may be shorter at the end of the file. */
static CURLcode run(const struct site *s, CURL *h, struct fetch *f, uint64_t at)
{
    g_autofree char *range = g_strdup_printf("%" PRIu64 "-%" PRIu64, at, at + f->n - 1);
    f->got = 0;
    f->first = f->total = UINT64_MAX;
    curl_easy_setopt(h, CURLOPT_RANGE, range);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, f);
    curl_easy_setopt(h, CURLOPT_HEADERDATA, f);
    curl_easy_setopt(h, CURLOPT_HTTPHEADER, s->headers);
    CURLcode code = curl_easy_perform(h);
    f->status = 0;
    curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &f->status);
    return code;
}

static bool worth_retrying(CURLcode code, const struct fetch *f)
{
    switch (code) {
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
        return true;
    case CURLE_HTTP_RETURNED_ERROR:
        return f->status == 429 || f->status >= 500;
    default:
        return false;
    }
}

/* Exactly [@at, @at + @n), which lies inside the file. */
static int fetch_exactly(struct site *s, uint64_t at, uint8_t *to, size_t n)
{
    struct fetch f = {.to = to, .n = n};
    CURL *h = handle_take(s);
    if (!h) {
        return -ENOMEM;
    }
    CURLcode code = CURLE_OK;
    for (unsigned i = 0; i < TRIES; i++) {
        code = run(s, h, &f, at);
        if (!worth_retrying(code, &f)) {
            break;
        }
        g_usleep(RETRY_MS * 1000UL << i);
    }
    handle_give(s, h);
    /* 200 instead of 206: the file is another one than before, or ranges are not heeded. */
    bool whole = f.got == n && (!s->http || (f.status == 206 && f.first == at &&
                                             (f.total == s->size || f.total == UINT64_MAX)));
    return code == CURLE_OPERATION_TIMEDOUT ? -ETIMEDOUT : code != CURLE_OK || !whole ? -EIO : 0;
}

/* ---- windows ---- */

/* Under s->lock: the window that has, or will have, the byte at @at. */
static struct window *find_window(struct site *s, uint64_t at)
{
    for (unsigned i = 0; i < WINDOWS; i++) {
        struct window *w = &s->windows[i];
        if (w->n && at >= w->at && at - w->at < w->n) {
            return w;
        }
    }
    return NULL;
}

/* Under s->lock: the one that was not used for the longest time; waits for one. */
static struct window *oldest_window(struct site *s)
{
    struct window *oldest = NULL;
    for (unsigned i = 0; i < WINDOWS; i++) {
        struct window *w = &s->windows[i];
        if (!w->filling && !w->readers && (!oldest || w->used < oldest->used)) {
            oldest = w;
        }
    }
    return oldest;
}

/* Under s->lock, which is released meanwhile. */
static int fill_window(struct site *s, struct window *w, uint64_t at)
{
    w->at = at;
    w->n = (size_t)MIN(s->readahead, s->size - at);
    w->filling = true;
    w->bytes = w->bytes ? w->bytes : g_try_malloc(s->readahead);
    g_mutex_unlock(&s->lock);
    int r = w->bytes ? fetch_exactly(s, at, w->bytes, w->n) : -ENOMEM;
    g_mutex_lock(&s->lock);
    w->filling = false;
    w->n = r ? 0 : w->n;
    g_cond_broadcast(&s->moved);
    return r;
}

/* Bytes copied from a window, which is fetched where it is missing, or -errno. */
static int64_t read_window(struct site *s, uint64_t at, uint8_t *to, size_t n)
{
    g_mutex_lock(&s->lock);
    for (;;) {
        struct window *w = find_window(s, at), *spare = w ? NULL : oldest_window(s);
        if (spare) {
            int r = fill_window(s, spare, at);
            if (r) {
                g_mutex_unlock(&s->lock);
                return r;
            }
        } else if (!w || w->filling) {
            g_cond_wait(&s->moved, &s->lock);
        } else {
            w->used = ++s->clock;
            w->readers++;
            n = MIN(n, w->n - (size_t)(at - w->at));
            g_mutex_unlock(&s->lock);
            memcpy(to, w->bytes + (at - w->at), n);
            g_mutex_lock(&s->lock);
            w->readers--;
            g_cond_broadcast(&s->moved);
            g_mutex_unlock(&s->lock);
            return (int64_t)n;
        }
    }
}

static int site_read(struct file *f, uint64_t at, void *to, size_t n)
{
    struct site *s = f->priv;
    if (n >= s->readahead) {
        return fetch_exactly(s, at, to, n);
    }
    for (uint8_t *p = to; n;) {
        int64_t got = read_window(s, at, p, n);
        if (got < 0) {
            return (int)got;
        }
        p += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

/* ---- opening ---- */

static bool set_error(const struct site *s, CURLcode code, const struct fetch *f, GError **error)
{
    int value = f->status == 404 ? ENOENT : f->status == 401 || f->status == 403 ? EACCES : EIO;
    if (code == CURLE_HTTP_RETURNED_ERROR) {
        g_set_error(error, LODGE_ERROR, value,
                    "CURL: Error opening file: The requested URL "
                    "returned error: %ld (%s)",
                    f->status, s->url);
    } else {
        g_set_error(error, LODGE_ERROR, EIO, "CURL: Error opening file: %s (%s)",
                    curl_easy_strerror(code), s->url);
    }
    return false;
}

/* The first window tells the size, that ranges are heeded, and what the file is known by. */
static bool first_http(struct site *s, CURL *h, GError **error)
{
    struct window *w = &s->windows[0];
    w->bytes = g_malloc(s->readahead);
    struct fetch f = {.to = w->bytes, .n = s->readahead};
    CURLcode code = run(s, h, &f, 0);
    if (f.status == 416 && (f.total == 0 || f.total == UINT64_MAX)) {
        s->size = 0;
        return true;
    }
    curl_off_t whole = -1;
    curl_easy_getinfo(h, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &whole);
    if (f.status == 200 && code == CURLE_OK && whole == 0) {
        return true; /* no range of an empty file can be asked for */
    }
    if (f.status == 200) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "Server does not support 'range' (byte ranges): %s", s->url);
        return false;
    }
    if (code != CURLE_OK) {
        return set_error(s, code, &f, error);
    }
    if (f.status != 206 || f.first || f.total == UINT64_MAX ||
        f.got != MIN(s->readahead, f.total)) {
        g_set_error(error, LODGE_ERROR, EIO, "Server didn't report file size: %s", s->url);
        return false;
    }
    w->n = f.got;
    s->size = f.total;
    if (f.etag[0] == '"') { /* a weak one would not do */
        g_autofree char *line = g_strconcat("If-Range: ", f.etag, NULL);
        s->headers = curl_slist_append(NULL, line);
    }
    return true;
}

static bool first_ftp(struct site *s, CURL *h, GError **error)
{
    uint8_t heads[1024]; /* curl makes some up and hands them out as data */
    struct fetch f = {.to = heads, .n = sizeof(heads)};
    curl_off_t n = -1;
    curl_easy_setopt(h, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(h, CURLOPT_HEADERDATA, &f);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, &f);
    CURLcode code = curl_easy_perform(h);
    curl_easy_getinfo(h, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &n);
    curl_easy_setopt(h, CURLOPT_NOBODY, 0L);
    curl_easy_setopt(h, CURLOPT_HTTPGET, 1L);
    if (code != CURLE_OK) {
        return set_error(s, code, &f, error);
    }
    if (n < 0) {
        g_set_error(error, LODGE_ERROR, EIO, "Server didn't report file size: %s", s->url);
        return false;
    }
    s->size = (uint64_t)n;
    return true;
}

static bool site_open(struct file *f, const json_t *options, unsigned flags, GError **error)
{
    static gsize initialized;
    struct site *s = g_new0(struct site, 1);
    f->priv = s;
    g_mutex_init(&s->lock);
    g_cond_init(&s->moved);
    if (g_once_init_enter(&initialized)) {
        curl_global_init(CURL_GLOBAL_DEFAULT);
        g_once_init_leave(&initialized, 1);
    }
    if (!(flags & OPEN_READ_ONLY)) {
        g_set_error(error, LODGE_ERROR, EROFS, "curl block device does not support writes");
        return false;
    }
    if (!take_options(s, options, error) || !take_scheme(s, json_text(options, "driver"), error)) {
        return false;
    }
    CURL *h = handle_take(s);
    if (!h) {
        g_set_error(error, LODGE_ERROR, ENOMEM, "CURL: cannot make a handle");
        return false;
    }
    bool ok = s->http ? first_http(s, h, error) : first_ftp(s, h, error);
    handle_give(s, h);
    f->size = s->size;
    f->read_only = true;
    return ok;
}

static void site_close(struct file *f)
{
    struct site *s = f->priv;
    if (!s) {
        return;
    }
    for (unsigned i = 0; i < s->n_idle; i++) {
        curl_easy_cleanup(s->idle[i]);
    }
    for (unsigned i = 0; i < WINDOWS; i++) {
        g_free(s->windows[i].bytes);
    }
    curl_slist_free_all(s->headers);
    g_mutex_clear(&s->lock);
    g_cond_clear(&s->moved);
    g_free(s->url);
    g_free(s->scheme);
    g_free(s->cookie);
    g_free(s->user);
    g_free(s->password);
    g_free(s->proxy_user);
    g_free(s->proxy_password);
    g_free(s);
    f->priv = NULL;
}

const struct protocol lodge_protocol = {
    .name = "curl",
    .open = site_open,
    .close = site_close,
    .read = site_read,
};
