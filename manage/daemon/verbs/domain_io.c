/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine's consoles, screen and keyboard. */
#include "manage/daemon/machine.h"

#include "base/util.h"
#include "manage/daemon/files.h"
#include "manage/daemon/relay.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* --- consoles and channels --- */

static struct domain_char *find_char(const GPtrArray *list, const char *name)
{
    for (unsigned i = 0; i < xml_count(list); i++) {
        struct domain_char *c = list->pdata[i];
        if (!name || g_strcmp0(c->alias, name) == 0 || g_strcmp0(c->name, name) == 0) {
            return c;
        }
    }
    return NULL;
}

enum { OPEN_FORCE = 1 };

/* One session at a time: two would each get a part of what the guest says. */
static bool open_char(struct call *call, const Domain *d, const struct domain_char *c,
                      const char *what, unsigned flags, GError **error)
{
    const struct char_source *s = c->sources ? c->sources->pdata[0] : NULL;
    if (!s || !s->path || (c->type != CHAR_PTY && c->type != CHAR_UNIX)) {
        libvirt_error(error, ERR_OPERATION_FAILED, "character device %s is not using a PTY",
                      c->alias);
        return false;
    }
    g_autofree char *session = g_strdup_printf("%d %s", d->id, s->path);
    if (!(flags & OPEN_FORCE) && stream_is_open(session)) {
        libvirt_error(error, ERR_OPERATION_FAILED, "Active %s exists for this domain", what);
        return false;
    }
    int fd = c->type == CHAR_PTY ? open(s->path, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK)
                                 : socket_connect(s->path);
    if (fd < 0) {
        libvirt_error(error, ERR_SYSTEM, "Unable to open '%s': %s", s->path, g_strerror(errno));
        return false;
    }
    stream_cut(session);
    call_stream_fd(call, fd, session);
    return true;
}

bool verb_domain_open_console(struct call *call, const rpc_domain_maybe_flags *args, rpc_none *ret,
                              GError **error)
{
    (void)ret;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    if (!m) {
        return false;
    }
    const char *name = args->text ? *args->text : NULL;
    struct domain_char *c = find_char(m->def->consoles, name);
    c = c ? c : find_char(m->def->serials, name);
    c = c ? c : find_char(m->def->parallels, name);
    if (!c) {
        libvirt_error(error, ERR_INTERNAL, "cannot find character device %s",
                      name ? name : "<null>");
        return false;
    }
    return open_char(call, d, c, "console session", args->flags, error);
}

bool verb_domain_open_channel(struct call *call, const rpc_domain_maybe_flags *args, rpc_none *ret,
                              GError **error)
{
    (void)ret;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    if (!m) {
        return false;
    }
    struct domain_char *c = find_char(m->def->channels, args->text ? *args->text : NULL);
    if (!c) {
        libvirt_error(error, ERR_INTERNAL, "cannot find channel %s",
                      args->text ? *args->text : "<null>");
        return false;
    }
    return open_char(call, d, c, "channel stream", args->flags, error);
}

/* --- the screen --- */

static int connect_vnc(const struct domain_graphics *g)
{
    if (g->socket) {
        return socket_connect(g->socket);
    }
    g_autofree char *port = g_strdup_printf("%ld", (long)g->port);
    const char *host = !g->listen || strcmp(g->listen, "0.0.0.0") == 0 ? "127.0.0.1" : g->listen;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    struct addrinfo *to = NULL;
    if (getaddrinfo(host, port, &hints, &to) != 0) {
        return -1;
    }
    autofd int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool ok = fd >= 0 && (connect(fd, to->ai_addr, to->ai_addrlen) == 0 || errno == EINPROGRESS);
    freeaddrinfo(to);
    return ok ? g_steal_fd(&fd) : -1;
}

enum { SKIP_AUTH = 1 };

/* A connection to the screen that @args name; -1 with an error. */
static int open_screen(const rpc_domain_uint_flags *args, GError **error)
{
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    if (!m) {
        return -1;
    }
    if (args->value >= xml_count(m->def->graphics)) {
        libvirt_error(error, ERR_INTERNAL, "No graphics backend with index %u", args->value);
        return -1;
    }
    const struct domain_graphics *g = m->def->graphics->pdata[args->value];
    if ((args->flags & SKIP_AUTH) && g->passwd) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED,
                      "a screen with a password cannot be opened without it");
        return -1;
    }
    int fd = connect_vnc(g);
    if (fd < 0) {
        libvirt_error(error, ERR_SYSTEM, "the machine's VNC server: %s", g_strerror(errno));
    }
    return fd;
}

bool verb_domain_open_graphics_fd(struct call *call, const rpc_domain_uint_flags *args,
                                  rpc_none *ret, GError **error)
{
    int fd = open_screen(args, error);
    (void)ret;
    if (fd >= 0) {
        fcntl(fd, F_SETFL, 0); /* as its new owner expects it */
        call_give_fd(call, fd);
    }
    return fd >= 0;
}

/* The older way: the client brings the socket. */
bool verb_domain_open_graphics(struct call *call, const rpc_domain_uint_flags *args, rpc_none *ret,
                               GError **error)
{
    autofd int theirs = call_take_fd(call, 0);
    struct stat st;
    (void)ret;
    if (theirs < 0 || fstat(theirs, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        libvirt_error(error, ERR_INVALID_ARG, "a socket must come with the call");
        return false;
    }
    int screen = open_screen(args, error);
    if (screen >= 0) {
        relay_start(g_steal_fd(&theirs), screen);
    }
    return screen >= 0;
}

/* A file that is read once. */
static ssize_t shot_read(void *data, void *to, size_t n, GError **error)
{
    ssize_t got = read(GPOINTER_TO_INT(data), to, n);
    if (got < 0) {
        libvirt_error(error, ERR_SYSTEM, "screenshot: %s", g_strerror(errno));
    }
    return got;
}

static void shot_free(void *data)
{
    close(GPOINTER_TO_INT(data));
}

bool verb_domain_screenshot(struct call *call, const rpc_domain_uint_flags *args,
                            rpc_maybe_text *ret, GError **error)
{
    static const struct stream_ops ops = {.read = shot_read, .free = shot_free};
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    if (!m) {
        return false;
    }
    if (args->value != 0) {
        libvirt_error(error, ERR_INVALID_ARG, "screen %u: there is one only", args->value);
        return false;
    }
    g_autofree char *path = g_build_filename(m->folder, "own", "screen", NULL);
    if (!qmp_do(m->qmp, error, "screendump", "{s:s}", "filename", path)) {
        return false;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    unlink(path);
    if (fd < 0) {
        libvirt_error(error, ERR_OPERATION_FAILED, "unable to open screenshot: %s",
                      g_strerror(errno));
        return false;
    }
    call_stream(call, &ops, GINT_TO_POINTER(fd));
    ret->text = g_new(char *, 1);
    *ret->text = g_strdup("image/x-portable-pixmap");
    return true;
}

/* --- the keyboard --- */

enum { CODESET_LINUX = 0, CODESET_XT = 1, CODESET_RFB = 8, CODESET_QNUM = 8 };

/*
 * Linux key codes as numbers on the keyboard's wire (set 1; 0x80 | code after an e0): the plain
 * keys are the same, these are not.
 */
static const struct {
    uint8_t linux_code, number;
} extended[] = {
    {96, 0x9c},  {97, 0x9d},  {98, 0xb5},  {99, 0x54},  {100, 0xb8}, {102, 0xc7}, {103, 0xc8},
    {104, 0xc9}, {105, 0xcb}, {106, 0xcd}, {107, 0xcf}, {108, 0xd0}, {109, 0xd1}, {110, 0xd2},
    {111, 0xd3}, {113, 0xa0}, {114, 0xae}, {115, 0xb0}, {116, 0xde}, {119, 0xc6}, {125, 0xdb},
    {126, 0xdc}, {127, 0xdd}, {140, 0xa1}, {142, 0xdf}, {143, 0xe3},
};

static int key_number(unsigned codeset, unsigned key)
{
    if (codeset == CODESET_XT || codeset == CODESET_QNUM) {
        return key < 256 ? (int)key : -1;
    }
    if (codeset != CODESET_LINUX || !key || key > 255) {
        return -1;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(extended); i++) {
        if (extended[i].linux_code == key) {
            return extended[i].number;
        }
    }
    return key < 96 ? (int)key : -1;
}

bool verb_domain_send_key(struct call *call, const rpc_send_key_args *args, rpc_none *ret,
                          GError **error)
{
    (void)call, (void)ret;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    if (!m) {
        return false;
    }
    json_t *keys = json_array();
    for (unsigned i = 0; i < args->keys.keys_len; i++) {
        int number = key_number(args->codeset, args->keys.keys_val[i]);
        if (number < 0) {
            json_decref(keys);
            libvirt_error(error, ERR_INTERNAL, "cannot translate keycode %u of codeset %u",
                          args->keys.keys_val[i], args->codeset);
            return false;
        }
        json_array_append_new(keys, json_pack("{s:s, s:i}", "type", "number", "data", number));
    }
    json_t *words = json_pack("{s:o}", "keys", keys);
    if (args->hold_ms) {
        json_object_set_new(words, "hold-time", json_integer(args->hold_ms));
    }
    g_autoptr(json_t) got = qmp_run(m->qmp, "send-key", words, QMP_TIMEOUT_MS, error);
    return got != NULL;
}
