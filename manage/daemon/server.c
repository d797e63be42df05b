/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/server.h"

#include "base/error.h"
#include "base/util.h"
#include "host/image/protocol.h"
#include "manage/daemon/client.h"
#include "manage/daemon/daemon.h"
#include "manage/daemon/settings.h"
#include "manage/daemon/tls.h"

#include <fcntl.h>
#include <grp.h>
#include <malloc.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { BACKLOG = 4096, AT_ONCE = 64, FIRST_PASSED_FD = 3 };

static struct listener *listeners;
static struct {
    unsigned timeout, idle; /* seconds; 0: never */
    guint timer;
} life;

/* ---- Every second, while somebody is there or we are to leave some time. ---- */

static gboolean tick(gpointer unused)
{
    (void)unused;
    clients_tick();
    for (struct listener *l = listeners; l; l = l->next) {
        poller_set(&l->watch, EPOLLIN);
    }
    life.idle = clients ? 0 : life.idle + 1;
    if (life.idle == 1) {
        malloc_trim(0); /* what the last of them needed goes back to the host */
    }
    if (life.timeout && life.idle >= life.timeout) {
        daemon_log("nobody was here for %u seconds", life.timeout);
        daemon_quit();
    }
    if (!clients && !life.timeout) {
        life.timer = 0;
        return G_SOURCE_REMOVE; /* an idle daemon sleeps */
    }
    return G_SOURCE_CONTINUE;
}

static void tick_on(void)
{
    if (!life.timer) {
        life.timer = g_timeout_add_seconds(1, tick, NULL);
    }
}

/* ---- Listening. ---- */

/* False if nobody else waits. */
static bool accept_one(struct listener *l)
{
    int fd = accept4(l->watch.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), on = 1;
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE) {
            daemon_log("no descriptor for one more client");
            poller_set(&l->watch, 0); /* tick() tries again */
        }
        return false;
    }
    bool crowded =
        l->kind != LISTEN_UNIX && clients_anonymous() >= setting_number("limits", "anonymous");
    if (crowded || clients_count >= setting_number("limits", "clients")) {
        daemon_log("a client was turned away: there are %u already", clients_count);
        close(fd);
        return true;
    }
    if (l->kind != LISTEN_UNIX) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    }
    client_new(fd, l);
    return true;
}

static void accept_some(struct watch *watch, uint32_t events)
{
    struct listener *l = container_of(watch, struct listener, watch);
    (void)events;
    for (int i = 0; i < AT_ONCE && accept_one(l); i++) {
        tick_on();
    }
    tick_on();
}

static void listen_on(int fd, int kind, bool read_only, const char *path)
{
    struct listener *l = g_new0(struct listener, 1);
    l->watch = (struct watch){.fd = fd, .events = EPOLLIN, .ready = accept_some};
    l->kind = kind;
    l->read_only = read_only;
    l->path = g_strdup(path);
    l->next = listeners;
    listeners = l;
    poller_add(&l->watch);
}

/* @path must not be in use by a living daemon; a dead one's is taken over. */
static bool in_use(const struct sockaddr_un *address)
{
    autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0;
}

static bool give_to_group(const char *path, GError **error)
{
    const char *name = setting("socket", "group");
    const struct group *group = *name ? getgrnam(name) : NULL;
    if (*name && (!group || chown(path, (uid_t)-1, group->gr_gid) != 0)) {
        error_set_errno(error, group ? errno : ENOENT, "%s: group \"%s\"", path, name);
        return false;
    }
    return true;
}

static mode_t socket_mode(bool read_only)
{
    const char *key = read_only ? "read_only_mode" : "mode";
    if (!*setting("socket", key)) {
        return polkit_wanted() ? 0666 : 0660;
    }
    return setting_number("socket", key) & 0777;
}

static bool listen_unix(const char *name, bool read_only, GError **error)
{
    g_autofree char *path = g_build_filename(daemon_socket_folder(), name, NULL);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        error_set_errno(error, ENAMETOOLONG, "%s", path);
        return false;
    }
    strcpy(address.sun_path, path);
    if (in_use(&address)) {
        error_set_errno(error, EADDRINUSE, "%s", path);
        return false;
    }
    unlink(path);
    autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t old = umask(0777); /* never open to more than it should be */
    bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    int code = errno;
    umask(old);
    if (!ok) {
        error_set_errno(error, code, "%s", path);
        return false;
    }
    if ((!read_only && !give_to_group(path, error))) {
        return false;
    }
    if (chmod(path, socket_mode(read_only)) != 0 || listen(fd, BACKLOG) != 0) {
        error_set_errno(error, errno, "%s", path);
        return false;
    }
    listen_on(g_steal_fd(&fd), LISTEN_UNIX, read_only, path);
    return true;
}

static int bind_inet(const struct addrinfo *a)
{
    int on = 1;
    autofd int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (a->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        return -1;
    }
    return g_steal_fd(&fd);
}

/* "ADDRESS:PORT", "[::1]:16509", ":16509" for every address. */
static bool listen_inet(const char *where, int kind, GError **error)
{
    const char *colon = strrchr(where, ':');
    g_autofree char *host = g_strndup(where, colon ? (size_t)(colon - where) : 0);
    size_t n = strlen(host);
    if (n >= 2 && host[0] == '[' && host[n - 1] == ']') {
        memmove(host, host + 1, n);
        host[n - 2] = '\0';
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list = NULL;
    int code = colon ? getaddrinfo(*host ? host : NULL, colon + 1, &hints, &list) : EAI_NONAME;
    if (code != 0) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: %s", where, gai_strerror(code));
        return false;
    }
    bool ok = true;
    for (const struct addrinfo *a = list; a && ok; a = a->ai_next) {
        int fd = bind_inet(a);
        if (fd >= 0) {
            listen_on(fd, kind, false, NULL);
        } else {
            error_set_errno(error, errno, "%s", where);
            ok = false;
        }
    }
    freeaddrinfo(list);
    return ok;
}

static bool listen_tls(const char *where, GError **error)
{
    tls = module_symbol_of("manage", "manage-tls.so", "lodge_tls", error);
    return tls && tls->start(error) && listen_inet(where, LISTEN_TLS, error);
}

/* ---- Sockets that systemd made: which is which says their path. ---- */

static unsigned take_passed(void)
{
    const char *pid = g_getenv("LISTEN_PID"), *count = g_getenv("LISTEN_FDS");
    unsigned taken = 0;
    if (!pid || !count || atoi(pid) != getpid()) {
        return 0;
    }
    for (int fd = FIRST_PASSED_FD; fd < FIRST_PASSED_FD + atoi(count); fd++) {
        struct sockaddr_un address = {0};
        socklen_t n = sizeof(address);
        if (getsockname(fd, (struct sockaddr *)&address, &n) != 0 ||
            address.sun_family != AF_UNIX) {
            daemon_log("descriptor %d from systemd is no UNIX socket", fd);
            continue;
        }
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        fcntl(fd, F_SETFL, O_NONBLOCK);
        bool read_only = g_str_has_suffix(address.sun_path, "-ro");
        g_autoptr(GError) error = NULL;
        if ((!read_only && !give_to_group(address.sun_path, &error)) ||
            chmod(address.sun_path, socket_mode(read_only)) != 0) {
            daemon_log("%s", error ? error->message : g_strerror(errno));
        }
        listen_on(fd, LISTEN_UNIX, read_only, NULL);
        taken++;
    }
    g_unsetenv("LISTEN_PID");
    g_unsetenv("LISTEN_FDS");
    return taken;
}

static void tell_systemd(void)
{
    const char *path = g_getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || strlen(path) >= sizeof(address.sun_path)) {
        return;
    }
    strcpy(address.sun_path, path);
    if (path[0] == '@') {
        address.sun_path[0] = '\0';
    }
    autofd int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&address, n) < 0) {
        daemon_log("systemd: %s", g_strerror(errno));
    }
}

static bool listen_own(const struct server_options *options, GError **error)
{
    if (g_mkdir_with_parents(daemon_socket_folder(), 0755) != 0) {
        error_set_errno(error, errno, "%s", daemon_socket_folder());
        return false;
    }
    if (!listen_unix("virtlodged-sock", false, error) ||
        !listen_unix("virtlodged-sock-ro", true, error)) {
        return false;
    }
    return !options->libvirt_sockets || (listen_unix("libvirt-sock", false, error) &&
                                         listen_unix("libvirt-sock-ro", true, error));
}

bool server_start(const struct server_options *options, GError **error)
{
    const char *tcp = setting("tcp", "listen"), *secure = setting("tls", "listen");
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) { /* a descriptor a client and a machine */
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    life.timeout = options->timeout;
    if ((!take_passed() && !listen_own(options, error)) ||
        (*tcp && !listen_inet(tcp, LISTEN_TCP, error)) || (*secure && !listen_tls(secure, error))) {
        return false;
    }
    if (life.timeout) {
        tick_on();
    }
    tell_systemd();
    return true;
}

void server_stop(void)
{
    while (listeners) {
        struct listener *l = listeners;
        listeners = l->next;
        poller_remove(&l->watch);
        close(l->watch.fd);
        if (l->path) {
            unlink(l->path);
        }
        g_free(l->path);
        g_free(l);
    }
    client_drop_all();
    if (tls) {
        tls->stop();
    }
}
