/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/serve.h"

#include "base/inet.h"
#include "base/util.h"
#include "host/image/protocol.h"
#include "host/image/tool/open.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

/* lodge-img serve; also qemu-nbd */

static const struct tool_option options[] = {
    OPTION_HELP,
    {'p', "port", "PORT", "listen on this TCP port (10809)"},
    {'b', "bind", "ADDRESS", "listen on this address (qemu-nbd: all, else the local host's)"},
    {'k', "socket", "PATH", "listen on a UNIX socket"},
    {0, "stdio", NULL, "serve one client over standard input and output"},
    {'e', "shared", "N", "so many clients at once, 0 for any number (qemu-nbd: 1, else 0)"},
    {'t', "persistent", NULL, "stay when the last client has gone"},
    {'v', "verbose", NULL, "tell of clients"},
    {'x', "export-name", "NAME", "name of the export (empty)"},
    {'D', "description", "TEXT", "text that clients may show"},
    {'r', "read-only", NULL, "let nobody write"},
    {'s', "snapshot", NULL, "what clients write goes to a temporary file"},
    {'l', "load-snapshot", "SNAPSHOT", "show an internal snapshot, read-only"},
    {'o', "offset", "OFFSET", "leave out so many bytes at the start"},
    {'A', "allocation-depth", NULL, "offer the context qemu:allocation-depth"},
    {'B', "bitmap", "NAME", "offer a bitmap as context qemu:dirty-bitmap:NAME; repeatable"},
    {'n', "nocache", NULL, "the same as --cache=none"},
    {0, "cache", "MODE", "none, writeback, writethrough, directsync, unsafe"},
    {0, "aio", "MODE", "threads, native, io_uring"},
    {0, "discard", "MODE", "whether clients give space back: ignore, unmap"},
    {0, "detect-zeroes", "MODE", "written zeroes take no space: off, on, unmap"},
    {0, "tls-creds", "ID", "talk TLS with the credentials of --object tls-creds-x509,id=ID,..."},
    {0, "tls-authz", "ID", "only whom --object authz-simple,id=ID,identity=NAME names"},
    {'c', "connect", "DEVICE", "refused: nbd-client connects a kernel device to the server"},
    {'d', "disconnect", "DEVICE", "refused: nbd-client -d"},
    {'L', "list", NULL, "refused: nbdinfo --list"},
    {0, "fork", NULL, "go on in the background once clients can connect"},
    {0, "pid-file", "PATH", "write the process number there"},
    {'f', "format", "FORMAT", "format of FILE; found out by probing without it"},
    OPTION_SHARE,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED,
    {0},
};

enum { BACKLOG = 128, FIRST_PASSED_FD = 3, PASSED_MAX = 8 };

static const struct serve_api *nbd;
static Server *running;

static void on_signal(int number)
{
    (void)number;
    nbd->stop(running);
}

static void tell(const char *line)
{
    fprintf(stderr, "%s: %s\n", tool_name, line);
}

/* ---- what to serve ---- */

static bool one_of(const struct args *args, const char *option, const char *const *words,
                   unsigned *out)
{
    const char *text = args_get(args, option);
    for (unsigned i = 0; text && words[i]; i++) {
        if (!strcmp(words[i], text)) {
            *out = i;
            return true;
        }
    }
    if (text) {
        tool_error("Invalid --%s value '%s'", option, text);
    }
    return !text;
}

/* --discard, --detect-zeroes, --aio and --cache. */
static bool take_modes(const struct args *args, struct serve_export *e, unsigned *flags)
{
    static const char *const discards[] = {"ignore", "off", "unmap", "on", NULL};
    static const char *const zeroes[] = {"off", "on", "unmap", NULL};
    static const char *const aios[] = {"native", "io_uring", "threads", NULL};
    const char *cache = args_has(args, "n") ? "none" : args_get(args, "cache");
    unsigned discard = 0, zero = 0, aio = 0;
    if (!one_of(args, "discard", discards, &discard) ||
        !one_of(args, "detect-zeroes", zeroes, &zero) || !one_of(args, "aio", aios, &aio)) {
        return false;
    }
    if (!cache_flags(cache, flags)) {
        tool_error("Invalid cache mode '%s'", cache);
        return false;
    }
    if (zero == ZEROES_UNMAPPED && discard < 2) {
        tool_error(
            "setting detect-zeroes to unmap is not allowed without setting discard operation "
            "to unmap");
        return false;
    }
    e->unmap = discard >= 2;
    e->zeroes = zero;
    *flags |= e->unmap ? OPEN_UNMAP : 0;
    *flags |= aio == 2 ? OPEN_THREADS : 0;
    return true;
}

static bool take_bitmaps(const struct args *args, struct serve_export *e)
{
    const struct format_tools *tools = e->image->format->tools;
    const struct bitmap_tools *bitmaps = tools ? tools->bitmaps : NULL;
    for (unsigned i = 0; i < args->n_given; i++) {
        const char *name = args->given[i].value;
        bool dirty;
        uint64_t run;
        if (args->given[i].option->letter != 'B') {
            continue;
        }
        if (e->n_bitmaps == SERVE_BITMAPS_MAX) {
            tool_error("more than %d bitmaps", SERVE_BITMAPS_MAX);
            return false;
        }
        int r =
            bitmaps && bitmaps->next ? bitmaps->next(e->image, name, 0, 1, &dirty, &run) : -ENOENT;
        if (r) {
            tool_error("Bitmap '%s' is not found: %s", name, g_strerror(-r));
            return false;
        }
        e->bitmaps[e->n_bitmaps++] = name;
    }
    return true;
}

/* The image with what the options put over it; NULL after a message. */
static struct node *open_image(const struct args *args, const char *file, unsigned flags)
{
    struct tool_common common;
    g_autoptr(GError) error = NULL;
    const char *snapshot = args_get(args, "l");
    bool overlay = args_has(args, "s");
    if (overlay || snapshot || args_has(args, "r")) {
        flags |= OPEN_READ_ONLY;
    }
    if (!tool_common(args, &common)) {
        return NULL;
    }
    g_autoptr(Node) node = tool_open(&common, file, args_get(args, "f"), flags);
    if (!node) {
        return NULL;
    }
    if (snapshot) {
        const char *id = g_str_has_prefix(snapshot, "snapshot.id=")     ? snapshot + 12
                         : g_str_has_prefix(snapshot, "snapshot.name=") ? snapshot + 14
                                                                        : snapshot;
        if (!tool_load_snapshot(node, id, &error)) {
            tool_report(g_steal_pointer(&error), "Failed to load snapshot");
            return NULL;
        }
    }
    if (overlay) {
        struct node *over = node_overlay(node, &error);
        if (!over) {
            tool_report(g_steal_pointer(&error), "Could not open '%s'", file);
            return NULL;
        }
        node = over;
    }
    return g_steal_pointer(&node);
}

static bool make_export(const struct args *args, struct serve_export *e)
{
    const char *name = args_get(args, "x"), *offset = args_get(args, "o");
    if (offset && !tool_number("offset", offset, 0, INT64_MAX, &e->offset)) {
        return false;
    }
    if (e->offset > e->image->size) {
        tool_error("Offset (%" PRIu64 ") has to be smaller than the image size (%" PRIu64 ")",
                   e->offset, e->image->size);
        return false;
    }
    e->name = name ? name : "";
    e->description = args_get(args, "D");
    e->size = e->image->size - e->offset;
    e->read_only = e->image->read_only || args_has(args, "l");
    e->depth = args_has(args, "A");
    return take_bitmaps(args, e);
}

/* ---- where ---- */

static int fail_listen(const char *where)
{
    tool_error("Failed to listen on '%s': %s", where, g_strerror(errno));
    return -1;
}

static int listen_unix(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(a.sun_path)) {
        tool_error("UNIX socket path '%s' is too long: at most %zu bytes", path,
                   sizeof(a.sun_path) - 1);
        return -1;
    }
    g_strlcpy(a.sun_path, path, sizeof(a.sun_path));
    autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    autofd int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct stat st;
    bool stale = !lstat(path, &st) && S_ISSOCK(st.st_mode) &&
                 connect(probe, (struct sockaddr *)&a, sizeof(a)) && errno == ECONNREFUSED;
    if (stale) {
        unlink(path); /* of a server that was killed */
    }
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, BACKLOG)) {
        return fail_listen(path);
    }
    return g_steal_fd(&fd);
}

static int listen_at(const struct addrinfo *a)
{
    int on = 1;
    autofd int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
        bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, BACKLOG)) {
        return -1;
    }
    return g_steal_fd(&fd);
}

static int listen_tcp(const char *host, const char *port)
{
    struct addrinfo want = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
    g_autofree char *where = g_strdup_printf("%s:%s", host, port);
    g_autoptr(GError) error = NULL;
    if (!inet_look_up(host, port, &want, &found, &error)) {
        tool_error("address resolution failed for %s", error->message);
        return -1;
    }
    int fd = -1;
    for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = listen_at(a);
    }
    int why = errno;
    freeaddrinfo(found);
    errno = why;
    return fd < 0 ? fail_listen(where) : fd;
}

/* Sockets that a service manager listens on for us; how many. */
static unsigned passed_sockets(void)
{
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
    uint64_t who, n;
    if (!pid || !fds || !text_u64(pid, &who) || who != (uint64_t)getpid() || !text_u64(fds, &n)) {
        return 0;
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    return (unsigned)MIN(n, PASSED_MAX);
}

/* Whether there is something to listen on, or one client to serve. */
static bool listen_all(const struct args *args, Server *s, unsigned passed, GError **error)
{
    const char *path = args_get(args, "k"), *port = args_get(args, "p"),
               *host = args_get(args, "b");
    bool drop_in = !strcmp(args->verb->name, "qemu-nbd");
    if (passed && (path || port || host)) {
        tool_error("Specifying socket, bind or port is not allowed with socket activation");
        return false;
    }
    if (args_has(args, "stdio")) {
        int in = fcntl(0, F_DUPFD_CLOEXEC, 3), out = fcntl(1, F_DUPFD_CLOEXEC, 3);
        return nbd->client(s, in, out, error);
    }
    for (unsigned i = 0; i < passed; i++) {
        nbd->listen(s, FIRST_PASSED_FD + (int)i);
    }
    if (passed) {
        return true;
    }
    int fd = path ? listen_unix(path)
                  : listen_tcp(host      ? host
                               : drop_in ? "0.0.0.0"
                                         : "localhost",
                               port ? port : "10809");
    if (fd >= 0) {
        nbd->listen(s, fd);
    }
    return fd >= 0;
}

/* ---- the process ---- */

/* Leaves a child that goes on; our own exit code is whether it came to listen. */
static bool go_to_background(int *ready)
{
    int fds[2], status;
    char byte;
    if (pipe2(fds, O_CLOEXEC)) {
        tool_error("cannot make a pipe: %s", g_strerror(errno));
        return false;
    }
    pid_t child = fork();
    if (child < 0) {
        tool_error("cannot fork: %s", g_strerror(errno));
        return false;
    }
    if (child) {
        close(fds[1]);
        bool listens = read(fds[0], &byte, 1) == 1;
        if (!listens) {
            waitpid(child, &status, 0);
        }
        _exit(listens ? 0 : 1);
    }
    close(fds[0]);
    setsid();
    *ready = fds[1];
    return true;
}

/* From here on nobody reads what we say. */
static void tell_ready(int ready)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    ssize_t n = write(ready, "", 1);
    (void)n;
    close(ready);
    for (int fd = 0; fd < 3; fd++) {
        dup2(null, fd);
    }
}

static bool write_pid(const char *path)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = g_strdup_printf("%d\n", (int)getpid());
    if (path && !g_file_set_contents(path, text, -1, &error)) {
        tool_error("cannot write the pid file: %s", error->message);
        return false;
    }
    return true;
}

static void catch_signals(Server *s)
{
    struct sigaction stop = {.sa_handler = on_signal};
    running = s;
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGHUP, &stop, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static bool take_options(const struct args *args, struct serve_options *o)
{
    const char *shared = args_get(args, "e"), *creds = args_get(args, "tls-creds");
    const char *authz = args_get(args, "tls-authz");
    uint64_t n = strcmp(args->verb->name, "qemu-nbd") ? 0 : 1;
    if (shared && !tool_number("shared device number", shared, 0, INT32_MAX, &n)) {
        return false;
    }
    o->clients = (unsigned)n;
    o->persistent = args_has(args, "t");
    o->tell = args_has(args, "v") ? tell : NULL;
    o->tls = creds ? tls_creds_find(creds) : NULL;
    o->identity = authz ? tls_authz_identity(authz) : NULL;
    if (creds && !o->tls) {
        tool_error("No TLS credentials with id '%s'", creds);
        return false;
    }
    if (authz && (!o->identity || !creds)) {
        tool_error(creds ? "No authorization object with id '%s'"
                         : "TLS authorization '%s' is useless without TLS credentials",
                   authz);
        return false;
    }
    return true;
}

/* With the image open: sockets, signals, the server's life. */
static bool serve(const struct args *args, struct serve_export *e, unsigned passed, int ready)
{
    g_autoptr(GError) error = NULL;
    struct serve_options o = {0};
    if (!take_options(args, &o) || !make_export(args, e)) {
        return false;
    }
    nbd = module_symbol("serve", "lodge_serve", &error);
    if (!nbd) {
        tool_error("%s", error->message);
        return false;
    }
    e->shared = o.clients != 1;
    Server *s = nbd->new (&o, &error);
    if (s) {
        catch_signals(s);
    }
    bool ok = s && nbd->add_export(s, e, &error) && listen_all(args, s, passed, &error);
    if (error) {
        tool_error("%s", error->message);
    }
    if (ok && write_pid(args_get(args, "pid-file"))) {
        if (ready >= 0) {
            tell_ready(ready);
        }
        nbd->run(s);
        if (args_get(args, "k")) {
            unlink(args_get(args, "k"));
        }
        ok = e->image->read_only || tool_flush(e->image, args->operands[0]);
    }
    nbd->free(s);
    return ok;
}

static int run(struct args *args)
{
    struct serve_export e = {0};
    unsigned flags = 0, passed = passed_sockets();
    int ready = -1;
    for (unsigned i = 0; i < args->n_given; i++) {
        const struct tool_option *o = args->given[i].option;
        if (g_str_has_prefix(o->help, "refused: ")) {
            tool_error("--%s is not supported: %s", o->name, o->help + strlen("refused: "));
            return 1;
        }
    }
    const char *file = tool_one_file(args);
    if (!file || !take_modes(args, &e, &flags) ||
        (args_has(args, "fork") && !go_to_background(&ready))) {
        return 1;
    }
    g_autoptr(Node) node = open_image(args, file, flags);
    e.image = node;
    return node && serve(args, &e, passed, ready) ? 0 : 1;
}

const struct verb verb_serve = {"serve", "export an image over NBD", "FILE", options, run};
/* The same under the name of the program that it stands in for, with its defaults. */
const struct verb verb_qemu_nbd = {"qemu-nbd", "export an image over NBD", "FILE", options, run};
