/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * ssh: images on machines that are reached by SSH's file transfer, by libssh.
 *
 * One session, one request at a time; the pieces of a long read are all under way at once,
 * and more is read ahead, because each alone would wait for the network's way there and back.
 *
 * Names: ssh://[USER@]HOST[:PORT]/PATH[?host_key_check=yes|no|md5:HEX|sha1:HEX|sha256:HEX]
 *
 * Spec: RFC 4251 to 4254, draft-ietf-secsh-filexfer-02 "SSH File Transfer Protocol".
 */
#include "host/image/options.h"
#include "host/image/protocol.h"
#include "host/image/remote.h"

#include <fcntl.h>
#include <inttypes.h>
#include <libssh/libssh.h>
#include <libssh/sftp.h>
#include <string.h>
#include <sys/socket.h>

enum {
    CONNECT_SECONDS = 30,
    PIECE = 32 << 10, /* "Reading and Writing": what every server must take */
    PIECES = 64,      /* under way at once */
    WINDOW = PIECE * PIECES,
    HASH_MAX = 128,
};

struct remote {
    char *host, *user, *path;
    unsigned port;
    char *check_mode, *check_type, *check_hash;
    int mode;    /* of open(): O_RDONLY or O_RDWR */
    GMutex lock; /* of the rest */
    ssh_session session;
    sftp_session sftp;
    sftp_file file;
    uint64_t size;
    /* What was read ahead, because reads followed one another. */
    uint8_t *window;
    uint64_t window_at, next; /* .next: where the last read ended */
    size_t window_n;
};

/* ---- names and options ---- */

/* "yes", "no", "sha256:01:23..." as the three fields. */
static bool take_check(struct remote *r, const char *text, GError **error)
{
    static const char *const types[] = {"md5", "sha1", "sha256", NULL};
    if (!strcmp(text, "no") || !strcmp(text, "yes")) {
        r->check_mode = g_strdup(*text == 'n' ? "none" : "known_hosts");
        return true;
    }
    const char *colon = strchr(text, ':');
    g_autofree char *type = colon ? g_strndup(text, (size_t)(colon - text)) : NULL;
    if (!type || !g_strv_contains(types, type)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "unknown host_key_check setting (%s)", text);
        return false;
    }
    r->check_mode = g_strdup("hash");
    r->check_type = g_steal_pointer(&type);
    r->check_hash = g_strdup(colon + 1);
    return true;
}

static bool take_uri(struct remote *r, const char *name, GError **error)
{
    g_autoptr(GUri) uri = remote_uri(name, error);
    g_autoptr(GHashTable) query = uri ? remote_query(uri, error) : NULL;
    if (!query) {
        return false;
    }
    const char *host = g_uri_get_host(uri), *check = g_hash_table_lookup(query, "host_key_check");
    if (!host || !*host || strlen(g_uri_get_path(uri)) < 2 || g_hash_table_size(query) > !!check) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "%s: want ssh://[USER@]HOST[:PORT]/PATH[?host_key_check=...]", name);
        return false;
    }
    r->host = g_strdup(host);
    r->user = g_strdup(g_uri_get_user(uri));
    r->path = g_strdup(g_uri_get_path(uri));
    r->port = g_uri_get_port(uri) > 0 ? (unsigned)g_uri_get_port(uri) : 22;
    return !check || take_check(r, check, error);
}

static bool take_check_object(struct remote *r, const json_t *check, GError **error)
{
    static const char *const known[] = {"mode", "type", "hash", NULL};
    static const char *const modes[] = {"none", "known_hosts", "hash", NULL};
    if (!remote_keys(check, known, error)) {
        return false;
    }
    r->check_mode = g_strdup(json_text(check, "mode"));
    r->check_type = g_strdup(json_text(check, "type"));
    r->check_hash = g_strdup(json_text(check, "hash"));
    if (!r->check_mode || !g_strv_contains(modes, r->check_mode) ||
        (!strcmp(r->check_mode, "hash") && (!r->check_type || !r->check_hash))) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "host-key-check: want mode none, known_hosts, or "
                    "hash with type and hash");
        return false;
    }
    return true;
}

static bool take_options(struct remote *r, const json_t *o, GError **error)
{
    static const char *const known[] = {"filename",       "host",           "port",
                                        "path",           "user",           "server",
                                        "host_key_check", "host-key-check", NULL};
    static const char *const of_server[] = {"type", "host", "port", NULL};
    const char *name = json_text(o, "filename"), *old = json_text(o, "host_key_check");
    const json_t *server = json_object_get(o, "server");
    const json_t *check = json_object_get(o, "host-key-check");
    uint64_t port = 22;
    if (!remote_options(o, known, error) || (server && !remote_keys(server, of_server, error)) ||
        !json_u64(server ? server : o, "port", &port, error)) {
        return false;
    }
    if (name) {
        return take_uri(r, name, error);
    }
    r->host = g_strdup(json_text(server ? server : o, "host"));
    r->path = g_strdup(json_text(o, "path"));
    r->user = g_strdup(json_text(o, "user"));
    r->port = (unsigned)port;
    if (!r->host || !r->path || port == 0 || port > 65535) {
        g_set_error(error, LODGE_ERROR, EINVAL, "ssh: want host, path and a port below 65536");
        return false;
    }
    return check ? take_check_object(r, check, error) : !old || take_check(r, old, error);
}

/* ---- whom we talk to ---- */

static bool fail(struct remote *r, const char *what, GError **error)
{
    g_set_error(error, LODGE_ERROR, EIO, "%s: %s", what, ssh_get_error(r->session));
    return false;
}

/* Colons and case do not count in a fingerprint. */
static bool same_hash(const char *text, const uint8_t *hash, size_t n)
{
    for (size_t i = 0; i < 2 * n; i++) {
        unsigned digit = i & 1 ? hash[i / 2] & 15 : hash[i / 2] >> 4;
        while (*text == ':') {
            text++;
        }
        if (g_ascii_xdigit_value(*text++) != (int)digit) {
            return false;
        }
    }
    return !*text;
}

static bool check_hash(struct remote *r, GError **error)
{
    enum ssh_publickey_hash_type type = !strcmp(r->check_type, "md5") ? SSH_PUBLICKEY_HASH_MD5
                                        : !strcmp(r->check_type, "sha1")
                                            ? SSH_PUBLICKEY_HASH_SHA1
                                            : SSH_PUBLICKEY_HASH_SHA256;
    ssh_key key;
    uint8_t *hash = NULL;
    size_t n = 0;
    if (ssh_get_server_publickey(r->session, &key) != SSH_OK) {
        return fail(r, "failed to read remote host key", error);
    }
    int got = ssh_get_publickey_hash(key, type, &hash, &n);
    ssh_key_free(key);
    if (got != 0) {
        return fail(r, "failed reading the hash of the server SSH key", error);
    }
    bool same = same_hash(r->check_hash, hash, n);
    ssh_clean_pubkey_hash(&hash);
    if (!same) {
        g_set_error(error, LODGE_ERROR, EPERM,
                    "remote host key fingerprint does not match "
                    "host_key_check '%s:%s'",
                    r->check_type, r->check_hash);
    }
    return same;
}

static bool check_known_hosts(struct remote *r, GError **error)
{
    const char *why;
    switch (ssh_session_is_known_server(r->session)) {
    case SSH_KNOWN_HOSTS_OK:
        return true;
    case SSH_KNOWN_HOSTS_CHANGED:
        why = "host key does not match the one in known_hosts; this may be an attack";
        break;
    case SSH_KNOWN_HOSTS_OTHER:
        why = "host key is not in known_hosts, but one of another type is";
        break;
    case SSH_KNOWN_HOSTS_UNKNOWN:
    case SSH_KNOWN_HOSTS_NOT_FOUND:
        why = "no host key was found in known_hosts";
        break;
    default:
        return fail(r, "cannot look into known_hosts", error);
    }
    g_set_error(error, LODGE_ERROR, EPERM, "%s", why);
    return false;
}

static bool check_host(struct remote *r, GError **error)
{
    if (!r->check_mode || !strcmp(r->check_mode, "known_hosts")) {
        return check_known_hosts(r, error);
    }
    return !strcmp(r->check_mode, "none") || check_hash(r, error);
}

static bool authenticate(struct remote *r, GError **error)
{
    int got = ssh_userauth_none(r->session, NULL);
    if (got == SSH_AUTH_SUCCESS) {
        return true;
    }
    if (got == SSH_AUTH_ERROR) {
        return fail(r, "failed to authenticate", error);
    }
    if (!(ssh_userauth_list(r->session, NULL) & SSH_AUTH_METHOD_PUBLICKEY)) {
        g_set_error(error, LODGE_ERROR, EPERM, "the server takes no public keys");
        return false;
    }
    if (ssh_userauth_publickey_auto(r->session, NULL, NULL) != SSH_AUTH_SUCCESS) {
        g_set_error(error, LODGE_ERROR, EPERM,
                    "failed to authenticate using publickey authentication");
        return false;
    }
    return true;
}

static void disconnect(struct remote *r)
{
    if (r->file) {
        sftp_close(r->file);
    }
    if (r->sftp) {
        sftp_free(r->sftp);
    }
    if (r->session) {
        ssh_disconnect(r->session);
        ssh_free(r->session);
    }
    r->file = NULL;
    r->sftp = NULL;
    r->session = NULL;
}

static bool set_options(struct remote *r, GError **error)
{
    long seconds = CONNECT_SECONDS;
    unsigned port = r->port;
    int on = 1;
    if (ssh_options_set(r->session, SSH_OPTIONS_HOST, r->host) < 0 ||
        (r->user && ssh_options_set(r->session, SSH_OPTIONS_USER, r->user) < 0) ||
        ssh_options_parse_config(r->session, NULL) < 0 ||
        ssh_options_set(r->session, SSH_OPTIONS_PORT, &port) < 0 ||
        ssh_options_set(r->session, SSH_OPTIONS_NODELAY, &on) < 0 ||
        ssh_options_set(r->session, SSH_OPTIONS_TIMEOUT, &seconds) < 0) {
        return fail(r, "failed to set options", error);
    }
    return true;
}

static bool connect_session(struct remote *r, GError **error)
{
    int on = 1;
    r->session = ssh_new();
    if (!r->session) {
        g_set_error(error, LODGE_ERROR, ENOMEM, "failed to initialize libssh session");
        return false;
    }
    if (!set_options(r, error)) {
        return false;
    }
    if (ssh_connect(r->session) != SSH_OK) {
        return fail(r, "failed to establish SSH session", error);
    }
    setsockopt(ssh_get_fd(r->session), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    if (!check_host(r, error) || !authenticate(r, error)) {
        return false;
    }
    r->sftp = sftp_new(r->session);
    if (!r->sftp || sftp_init(r->sftp) < 0) {
        return fail(r, "failed to initialize sftp handle", error);
    }
    return true;
}

static int sftp_errno(const struct remote *r)
{
    switch (r->sftp ? sftp_get_error(r->sftp) : SSH_FX_CONNECTION_LOST) {
    case SSH_FX_OK:
        return EIO; /* libssh itself failed */
    case SSH_FX_NO_SUCH_FILE:
    case SSH_FX_NO_SUCH_PATH:
        return ENOENT;
    case SSH_FX_PERMISSION_DENIED:
        return EACCES;
    case SSH_FX_FILE_ALREADY_EXISTS:
        return EEXIST;
    case SSH_FX_WRITE_PROTECT:
        return EROFS;
    case SSH_FX_OP_UNSUPPORTED:
        return ENOTSUP;
    default:
        return EIO;
    }
}

static bool open_file(struct remote *r, int mode, GError **error)
{
    r->file = sftp_open(r->sftp, r->path, mode, 0644);
    sftp_attributes a = r->file ? sftp_fstat(r->file) : NULL;
    if (!a || !(a->flags & SSH_FILEXFER_ATTR_SIZE)) {
        error_set_errno(error, sftp_errno(r), "failed to open remote file '%s'", r->path);
        sftp_attributes_free(a);
        return false;
    }
    r->size = a->size;
    sftp_attributes_free(a);
    return true;
}

/* ---- data; all under r->lock ---- */

/* The rest of a piece that came short. */
static int read_on(struct remote *r, uint64_t at, uint8_t *to, size_t n)
{
    while (n) {
        sftp_seek64(r->file, at);
        ssize_t got = sftp_read(r->file, to, n);
        if (got <= 0) {
            return -EIO;
        }
        to += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

/* Up to PIECES pieces, asked for at once. */
static int read_pieces(struct remote *r, uint64_t at, uint8_t *to, size_t n)
{
    int ids[PIECES], result = 0;
    int got[PIECES];
    unsigned count = 0;
    sftp_seek64(r->file, at);
    for (size_t asked = 0; asked < n && !result; asked += PIECE) {
        ids[count] = sftp_async_read_begin(r->file, (uint32_t)MIN(PIECE, n - asked));
        result = ids[count] < 0 ? -EIO : 0;
        count += !result;
    }
    for (unsigned i = 0; i < count; i++) { /* also after an error: each holds memory */
        size_t want = MIN(PIECE, n - (size_t)i * PIECE);
        do {
            got[i] =
                sftp_async_read(r->file, to + (size_t)i * PIECE, (uint32_t)want, (uint32_t)ids[i]);
        } while (got[i] == SSH_AGAIN);
        result = got[i] < 0 ? -EIO : result;
    }
    for (unsigned i = 0; i < count && !result; i++) {
        size_t want = MIN(PIECE, n - (size_t)i * PIECE), begun = (size_t)i * PIECE + (size_t)got[i];
        result = read_on(r, at + begun, to + begun, want - (size_t)got[i]);
    }
    return result;
}

static int read_once(struct remote *r, uint64_t at, void *to, const void *from, size_t n)
{
    (void)from;
    for (uint8_t *p = to; n;) {
        size_t now = MIN(n, (size_t)WINDOW);
        int result = read_pieces(r, at, p, now);
        if (result) {
            return result;
        }
        p += now;
        at += now;
        n -= now;
    }
    return 0;
}

static int write_once(struct remote *r, uint64_t at, void *to, const void *from, size_t n)
{
    (void)to;
    r->window_n = 0;
    r->size = MAX(r->size, at + n);
    sftp_seek64(r->file, at);
    for (const uint8_t *p = from; n;) {
        ssize_t put = sftp_write(r->file, p, MIN(n, PIECE));
        if (put <= 0) {
            return -sftp_errno(r);
        }
        p += put;
        n -= (size_t)put;
    }
    return 0;
}

/* Flushing has one chance: what a lost connection had not written is not known. */
static int flush_once(struct remote *r)
{
    if (!sftp_extension_supported(r->sftp, "fsync@openssh.com", "1")) {
        return 0; /* the protocol has no other way */
    }
    return sftp_fsync(r->file) < 0 ? -EIO : 0;
}

/* Once again over a new connection if the old one has gone. */
static int retry(struct remote *r, uint64_t at, void *to, const void *from, size_t n,
                 int (*once)(struct remote *, uint64_t, void *, const void *, size_t))
{
    g_mutex_lock(&r->lock);
    int result = r->file ? once(r, at, to, from, n) : -EIO;
    if (result && (!r->session || !ssh_is_connected(r->session))) {
        disconnect(r);
        if (connect_session(r, NULL) && open_file(r, r->mode, NULL)) {
            result = once(r, at, to, from, n);
        } else {
            disconnect(r);
        }
    }
    g_mutex_unlock(&r->lock);
    return result;
}

/* From the window, which is filled first where reads follow one another. */
static int read_ahead(struct remote *r, uint64_t at, void *to, const void *from, size_t n)
{
    bool inside = at >= r->window_at && at + n <= r->window_at + r->window_n;
    uint64_t far = at > r->next ? at - r->next : r->next - at; /* threads come out of order */
    bool follows = n >= PIECE && n < WINDOW && far < WINDOW && at + n <= r->size;
    r->next = at + n;
    if (!inside && follows) {
        r->window = r->window ? r->window : g_try_malloc(WINDOW);
        size_t most = (size_t)MIN(WINDOW, r->size - at);
        r->window_n = 0;
        int result = r->window ? read_once(r, at, r->window, from, most) : -ENOMEM;
        if (result) {
            return result;
        }
        r->window_at = at;
        r->window_n = most;
        inside = true;
    }
    if (!inside) {
        return read_once(r, at, to, from, n);
    }
    memcpy(to, r->window + (at - r->window_at), n);
    return 0;
}

static int remote_read(struct file *f, uint64_t at, void *to, size_t n)
{
    return retry(f->priv, at, to, NULL, n, read_ahead);
}

static int remote_write(struct file *f, uint64_t at, const void *from, size_t n)
{
    return retry(f->priv, at, NULL, from, n, write_once);
}

static int remote_flush(struct file *f)
{
    struct remote *r = f->priv;
    g_mutex_lock(&r->lock);
    int result = r->file ? flush_once(r) : -EIO;
    g_mutex_unlock(&r->lock);
    return result;
}

static int set_size(struct remote *r, uint64_t size)
{
    r->window_n = 0;
    r->size = size;
    struct sftp_attributes_struct a = {.flags = SSH_FILEXFER_ATTR_SIZE, .size = size};
    return sftp_setstat(r->sftp, r->path, &a) < 0 ? -sftp_errno(r) : 0;
}

static int remote_resize(struct file *f, uint64_t size)
{
    struct remote *r = f->priv;
    g_mutex_lock(&r->lock);
    int result = r->file ? set_size(r, size) : -EIO;
    g_mutex_unlock(&r->lock);
    return result;
}

/* ---- life ---- */

static void remote_free(struct remote *r)
{
    disconnect(r);
    g_free(r->window);
    g_mutex_clear(&r->lock);
    g_free(r->host);
    g_free(r->user);
    g_free(r->path);
    g_free(r->check_mode);
    g_free(r->check_type);
    g_free(r->check_hash);
    g_free(r);
}

static struct remote *remote_new(const json_t *options, int mode, GError **error)
{
    struct remote *r = g_new0(struct remote, 1);
    g_mutex_init(&r->lock);
    r->mode = mode & ~(O_CREAT | O_TRUNC);
    if (!take_options(r, options, error) || !connect_session(r, error) ||
        !open_file(r, mode, error)) {
        remote_free(r);
        return NULL;
    }
    return r;
}

static bool remote_open(struct file *f, const json_t *options, unsigned flags, GError **error)
{
    struct remote *r = remote_new(options, flags & OPEN_READ_ONLY ? O_RDONLY : O_RDWR, error);
    if (!r) {
        return false;
    }
    f->priv = r;
    f->size = r->size;
    if (!f->name) {
        f->name = g_strdup_printf("ssh://%s:%u%s", r->host, r->port, r->path);
    }
    return true;
}

static void remote_close(struct file *f)
{
    if (f->priv) {
        remote_free(f->priv);
        f->priv = NULL;
    }
}

static bool remote_create(const json_t *options, uint64_t size, GError **error)
{
    struct remote *r = remote_new(options, O_RDWR | O_CREAT | O_TRUNC, error);
    int result = r && size ? set_size(r, size) : 0;
    if (result) {
        error_set_errno(error, -result, "cannot make '%s' %" PRIu64 " bytes long", r->path, size);
    }
    if (r) {
        remote_free(r);
    }
    return r && !result;
}

static bool remote_reopen(struct file *f, bool read_only, GError **error)
{
    struct remote *r = f->priv;
    int mode = read_only ? O_RDONLY : O_RDWR;
    sftp_file old = r->file;
    if (!r->sftp || !open_file(r, mode, error)) {
        r->file = old;
        return false;
    }
    sftp_close(old);
    r->mode = mode;
    f->read_only = read_only;
    return true;
}

const struct protocol lodge_protocol = {
    .name = "ssh",
    .open = remote_open,
    .close = remote_close,
    .read = remote_read,
    .write = remote_write,
    .flush = remote_flush,
    .resize = remote_resize,
    .create = remote_create,
    .reopen = remote_reopen,
};
