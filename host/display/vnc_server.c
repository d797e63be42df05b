/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vnc_server: RFB clients, by libvncserver, in a thread of its own.
 *
 * libvncserver is opened at first use: with GnuTLS and the rest behind it, it would be the
 * largest part of a machine that has no screen.
 *
 * Spec: RFC 6143, "The Remote Framebuffer Protocol"; the community's rfbproto document,
 * "QEMU Extended Key Event", "QEMU Pointer Motion Change".
 */
#include "host/display/vnc.h"

#include "base/bytes.h"
#include "base/util.h"

#include <dlfcn.h>
#include <glib-unix.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <rfb/rfb.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { LISTENERS_MAX = 8, CLIENTS_MAX = 64, RECTS_MAX = 32, INPUTS_MAX = 256, CHUNK = 64 };
enum { WAIT_MS = 5000, UNSENT_MAX = 64 << 10, PASSWORD_MAX = 8 };
enum { ENC_POINTER_CHANGE = -257, ENC_EXTENDED_KEY = -258, QEMU_MESSAGE = 255 };

/* ---- libvncserver, by name ---- */

#define RFB_FUNCTIONS(F)                                                                           \
    F(rfbLogEnable) F(rfbGetScreen) F(rfbScreenCleanup) F(rfbNewClient) F(rfbProcessEvents)        \
    F(rfbCloseClient) F(rfbMarkRectAsModified) F(rfbNewFramebuffer) F(rfbWriteExact)               \
    F(rfbReadExact) F(rfbRegisterProtocolExtension) F(rfbEncryptBytes) F(rfbShutdownServer)
static struct {
#define F(name) __typeof__(name) *name;
    RFB_FUNCTIONS(F)
#undef F
} lib;

static rfbProtocolExtension extension;

static bool open_library(GError **error)
{
    static const struct {
        const char *name;
        void **slot;
    } rows[] = {
#define F(name) {#name, (void **)(void *)&lib.name},
        RFB_FUNCTIONS(F)
#undef F
    };
    void *so = lib.rfbGetScreen ? NULL : dlopen("libvncserver.so.1", RTLD_NOW | RTLD_LOCAL);
    if (lib.rfbGetScreen) {
        return true;
    }
    for (unsigned i = 0; so && i < G_N_ELEMENTS(rows); i++) {
        *rows[i].slot = dlsym(so, rows[i].name);
        so = *rows[i].slot ? so : NULL;
    }
    if (!so) {
        g_set_error(error, LODGE_ERROR, ENOENT, "VNC needs libvncserver: %s", dlerror());
        memset(&lib, 0, sizeof(lib));
        return false;
    }
    lib.rfbLogEnable(0);
    lib.rfbRegisterProtocolExtension(&extension);
    return true;
}

/* ---- what both threads see ---- */

struct rect {
    unsigned x, y, w, h;
};

static struct {
    struct vnc_config config;
    int listener[LISTENERS_MAX];
    pthread_t thread;
    int wake;   /* eventfd: the server thread has something to do */
    int inputs; /* eventfd: the main loop has */
    guint inputs_source;
    bool running;

    pthread_mutex_t lock; /* the rest */
    bool stop, resized, absolute, mode_changed, password_set;
    char password[PASSWORD_MAX + 1];
    int64_t expires;       /* the password; seconds since 1970 */
    uint32_t *fb;          /* the copy; the newest */
    unsigned w, h;
    struct rect dirty[RECTS_MAX];
    unsigned n_dirty;
    struct vnc_input input[INPUTS_MAX];
    unsigned in_first, in_used;
    struct vnc_end client[CLIENTS_MAX]; /* .family NULL: none */
} srv = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = -1, .inputs = -1};

static void ring(int fd)
{
    uint64_t one = 1;
    (void)!write(fd, &one, sizeof(one));
}

static void answer(int fd)
{
    uint64_t n;
    (void)!read(fd, &n, sizeof(n));
}

/* ---- server thread: input ---- */

/* Waits while the main loop is behind: a client that types faster is held back. */
static void post(const struct vnc_input *in)
{
    pthread_mutex_lock(&srv.lock);
    while (srv.in_used == INPUTS_MAX && !srv.stop) {
        pthread_mutex_unlock(&srv.lock);
        g_usleep(1000);
        pthread_mutex_lock(&srv.lock);
    }
    if (!srv.stop) {
        srv.input[(srv.in_first + srv.in_used++) % INPUTS_MAX] = *in;
    }
    pthread_mutex_unlock(&srv.lock);
    ring(srv.inputs);
}

struct client {
    int slot;                 /* in srv.client */
    bool pointer_change, extended_key;
    bool mode_told;           /* it knows whether the pointer is absolute */
    bool size_told;           /* the size may have changed while it said hello */
    bool ready;               /* it has said hello */
};

static void on_key(rfbBool down, rfbKeySym sym, rfbClientPtr cl)
{
    (void)cl;
    struct vnc_input in = {.what = VNC_KEYSYM, .code = (uint32_t)sym, .down = down};
    post(&in);
}

static void on_pointer(int buttons, int x, int y, rfbClientPtr cl)
{
    struct client *c = cl->clientData;
    pthread_mutex_lock(&srv.lock);
    bool relative = c->pointer_change && !srv.absolute;
    pthread_mutex_unlock(&srv.lock);
    struct vnc_input in = {.what = VNC_POINTER, .x = x, .y = y, .relative = relative,
                           .buttons = (unsigned)buttons};
    if (relative) {
        in.x -= 0x7fff;
        in.y -= 0x7fff;
    }
    post(&in);
}

/* A FramebufferUpdate with one empty rectangle of a pseudo-encoding. */
static void tell(rfbClientPtr cl, int x, int encoding)
{
    uint8_t m[16] = {0};
    be16_put(m + 2, 1);
    be16_put(m + 4, (uint16_t)x);
    be16_put(m + 8, (uint16_t)cl->screen->width);
    be16_put(m + 10, (uint16_t)cl->screen->height);
    be32_put(m + 12, (uint32_t)encoding);
    lib.rfbWriteExact(cl, (const char *)m, sizeof(m));
}

static rfbBool enable_encoding(rfbClientPtr cl, void **data, int encoding)
{
    struct client *c = cl->clientData;
    (void)data;
    if (encoding == ENC_EXTENDED_KEY) {
        c->extended_key = true;
        tell(cl, 0, ENC_EXTENDED_KEY);
    } else if (encoding == ENC_POINTER_CHANGE) {
        c->pointer_change = true;
        c->mode_told = false;
    }
    return encoding == ENC_EXTENDED_KEY || encoding == ENC_POINTER_CHANGE;
}

static rfbBool take_message(rfbClientPtr cl, void *data, const rfbClientToServerMsg *message)
{
    uint8_t rest[11];
    (void)data;
    if (message->type != QEMU_MESSAGE || !((struct client *)cl->clientData)->extended_key) {
        return FALSE;
    }
    if (lib.rfbReadExact(cl, (char *)rest, sizeof(rest)) <= 0 || rest[0] != 0) {
        lib.rfbCloseClient(cl);
        return TRUE;
    }
    struct vnc_input in = {.what = VNC_SCANCODE, .code = be32_at(rest + 7), .down = be16_at(rest + 1)};
    if (in.code == 0) {
        in = (struct vnc_input){.what = VNC_KEYSYM, .code = be32_at(rest + 3), .down = in.down};
    }
    post(&in);
    return TRUE;
}

static rfbBool extension_new(rfbClientPtr cl, void **data)
{
    (void)cl, (void)data;
    return TRUE;
}

static int extension_encodings[] = {ENC_POINTER_CHANGE, ENC_EXTENDED_KEY, 0};
static rfbProtocolExtension extension = {
    .newClient = extension_new,
    .pseudoEncodings = extension_encodings,
    .enablePseudoEncoding = enable_encoding,
    .handleMessage = take_message,
};

/* ---- server thread: clients ---- */

static void post_count(enum vnc_step step, const struct vnc_end *client)
{
    struct vnc_input in = {.what = VNC_COUNT, .step = step, .client = *client};
    pthread_mutex_lock(&srv.lock);
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        in.code += srv.client[i].family != NULL;
    }
    pthread_mutex_unlock(&srv.lock);
    post(&in);
}

/* The library forgets this list. */
static void free_extensions(rfbClientPtr cl)
{
    while (cl->extensions) {
        rfbExtensionData *e = cl->extensions;
        cl->extensions = e->next;
        free(e);
    }
}

static void client_gone(rfbClientPtr cl)
{
    struct client *c = cl->clientData;
    free_extensions(cl);
    if (!c) {
        return;
    }
    pthread_mutex_lock(&srv.lock);
    struct vnc_end who = srv.client[c->slot];
    srv.client[c->slot].family = NULL;
    pthread_mutex_unlock(&srv.lock);
    g_free(c);
    cl->clientData = NULL;
    post_count(VNC_DISCONNECTED, &who);
}

bool vnc_end_of(int fd, bool peer, struct vnc_end *out)
{
    struct sockaddr_storage sa;
    socklen_t n = sizeof(sa);
    *out = (struct vnc_end){.family = "unix"};
    if (peer ? getpeername(fd, (void *)&sa, &n) : getsockname(fd, (void *)&sa, &n)) {
        return false;
    }
    if (sa.ss_family == AF_UNIX) {
        const struct sockaddr_un *un = (const void *)&sa;
        g_strlcpy(out->host, n > offsetof(struct sockaddr_un, sun_path) ? un->sun_path : "",
                  sizeof(out->host));
        return true;
    }
    out->family = sa.ss_family == AF_INET6 ? "ipv6" : "ipv4";
    return getnameinfo((void *)&sa, n, out->host, sizeof(out->host), out->service,
                       sizeof(out->service), NI_NUMERICHOST | NI_NUMERICSERV) == 0;
}

static enum rfbNewClientAction client_new(rfbClientPtr cl)
{
    struct vnc_end who;
    int slot = 0;
    cl->clientGoneHook = client_gone;
    if (!vnc_end_of(cl->sock, true, &who)) {
        return RFB_CLIENT_REFUSE; /* gone again */
    }
    who.websocket = cl->wsctx != NULL;
    pthread_mutex_lock(&srv.lock);
    while (slot < CLIENTS_MAX && srv.client[slot].family) {
        slot++;
    }
    if (slot < CLIENTS_MAX) {
        srv.client[slot] = who;
    }
    pthread_mutex_unlock(&srv.lock);
    if (slot == CLIENTS_MAX) {
        return RFB_CLIENT_REFUSE;
    }
    struct client *c = g_new0(struct client, 1);
    c->slot = slot;
    cl->clientData = c;
    post_count(VNC_CONNECTED, &who);
    return RFB_CLIENT_ACCEPT;
}

static void look_if_ready(rfbClientPtr cl, struct client *c)
{
    if (!c->ready && cl->state == RFB_NORMAL) {
        c->ready = true;
        pthread_mutex_lock(&srv.lock);
        struct vnc_end who = srv.client[c->slot];
        pthread_mutex_unlock(&srv.lock);
        post_count(VNC_INITIALIZED, &who);
    }
}

static rfbBool check_password(rfbClientPtr cl, const char *response, int n)
{
    unsigned char want[CHALLENGESIZE];
    char password[PASSWORD_MAX + 1];
    pthread_mutex_lock(&srv.lock);
    bool set = srv.password_set && g_get_real_time() / G_USEC_PER_SEC < srv.expires;
    memcpy(password, srv.password, sizeof(password));
    pthread_mutex_unlock(&srv.lock);
    if (!set || n != CHALLENGESIZE) {
        return FALSE;
    }
    memcpy(want, cl->authChallenge, sizeof(want));
    lib.rfbEncryptBytes(want, password);
    unsigned differs = 0;
    for (unsigned i = 0; i < CHALLENGESIZE; i++) {
        differs |= want[i] ^ (uint8_t)response[i];
    }
    return differs == 0;
}

static void accept_client(rfbScreenInfoPtr screen, int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        return;
    }
    if (fd >= FD_SETSIZE) { /* libvncserver waits with select() */
        close(fd);
        return;
    }
    int room = 1 << 20;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    lib.rfbNewClient(screen, fd);
}

/* ---- server thread: screen ---- */

static void set_format(rfbScreenInfoPtr screen)
{
    screen->serverFormat.redShift = 16;
    screen->serverFormat.greenShift = 8;
    screen->serverFormat.blueShift = 0;
}

/* @old: the copy that libvncserver has had until now. */
static uint32_t *take_size(rfbScreenInfoPtr screen, uint32_t *old)
{
    pthread_mutex_lock(&srv.lock);
    uint32_t *fb = srv.fb;
    int w = (int)srv.w, h = (int)srv.h;
    srv.resized = false;
    srv.n_dirty = 0;
    pthread_mutex_unlock(&srv.lock);
    if (fb == old) {
        return old;
    }
    lib.rfbNewFramebuffer(screen, (char *)fb, w, h, 8, 3, 4);
    set_format(screen);
    for (rfbClientPtr cl = screen->clientHead; cl; cl = cl->next) {
        screen->setTranslateFunction(cl);
    }
    lib.rfbMarkRectAsModified(screen, 0, 0, w, h);
    g_free(old);
    return fb;
}

static void take_dirty(rfbScreenInfoPtr screen)
{
    struct rect dirty[RECTS_MAX];
    pthread_mutex_lock(&srv.lock);
    unsigned n = srv.resized ? 0 : srv.n_dirty;
    memcpy(dirty, srv.dirty, n * sizeof(dirty[0]));
    srv.n_dirty = 0;
    pthread_mutex_unlock(&srv.lock);
    for (unsigned i = 0; i < n; i++) {
        const struct rect *r = &dirty[i];
        lib.rfbMarkRectAsModified(screen, (int)r->x, (int)r->y, (int)(r->x + r->w),
                                  (int)(r->y + r->h));
    }
}

/* What a client must know before it looks, or anew. */
static void tell_modes(rfbScreenInfoPtr screen)
{
    pthread_mutex_lock(&srv.lock);
    bool absolute = srv.absolute, changed = srv.mode_changed;
    srv.mode_changed = false;
    pthread_mutex_unlock(&srv.lock);
    for (rfbClientPtr cl = screen->clientHead; cl; cl = cl->next) {
        struct client *c = cl->clientData;
        if (c) {
            look_if_ready(cl, c);
        }
        if (c && cl->useNewFBSize && !c->size_told) {
            c->size_told = true;
            cl->newFBSizePending = TRUE;
        }
        if (c && c->pointer_change && (changed || !c->mode_told)) {
            c->mode_told = true;
            tell(cl, absolute, ENC_POINTER_CHANGE);
        }
    }
}

/* A client that has not read its last update gets no further one: nobody waits for it. */
static bool hold_slow(rfbScreenInfoPtr screen)
{
    bool any = false;
    for (rfbClientPtr cl = screen->clientHead; cl; cl = cl->next) {
        int unsent = 0;
        cl->onHold = ioctl(cl->sock, SIOCOUTQ, &unsent) == 0 && unsent > UNSENT_MAX;
        any |= cl->onHold;
    }
    return any;
}

static void wait_for_work(rfbScreenInfoPtr screen, int timeout_ms)
{
    struct pollfd fds[1 + LISTENERS_MAX + CLIENTS_MAX + 1];
    nfds_t n = 0;
    fds[n++] = (struct pollfd){.fd = srv.wake, .events = POLLIN};
    for (unsigned i = 0; i < srv.config.n_listeners; i++) {
        fds[n++] = (struct pollfd){.fd = srv.listener[i], .events = POLLIN};
    }
    for (rfbClientPtr cl = screen->clientHead; cl && n < G_N_ELEMENTS(fds); cl = cl->next) {
        fds[n++] = (struct pollfd){.fd = cl->onHold ? -1 : cl->sock, .events = POLLIN};
    }
    poll(fds, n, timeout_ms);
    if (fds[0].revents) {
        answer(srv.wake);
    }
    for (unsigned i = 0; i < srv.config.n_listeners; i++) {
        if (fds[1 + i].revents) {
            accept_client(screen, srv.listener[i]);
        }
    }
}

static rfbScreenInfoPtr make_screen(uint32_t *fb)
{
    static char name[] = "Lodge";
    static char some[] = "password";
    rfbScreenInfoPtr screen = lib.rfbGetScreen(NULL, NULL, (int)srv.w, (int)srv.h, 8, 3, 4);
    if (!screen) {
        return NULL;
    }
    set_format(screen);
    screen->frameBuffer = (char *)fb;
    screen->desktopName = name;
    screen->cursor = NULL;
    screen->autoPort = FALSE;
    screen->port = screen->ipv6port = 0;
    screen->deferUpdateTime = 0;
    screen->maxClientWait = WAIT_MS;
    screen->kbdAddEvent = on_key;
    screen->ptrAddEvent = on_pointer;
    screen->newClientHook = client_new;
    screen->permitFileTransfer = FALSE;
    screen->alwaysShared = srv.config.share != VNC_SHARE_EXCLUSIVE;
    if (srv.config.password) {
        screen->passwordCheck = check_password;
        screen->authPasswdData = some; /* not NULL: ask for one */
    }
    return screen;
}

static bool stopping(void)
{
    pthread_mutex_lock(&srv.lock);
    bool stop = srv.stop;
    pthread_mutex_unlock(&srv.lock);
    return stop;
}

static void *server_thread(void *arg)
{
    rfbScreenInfoPtr screen = arg;
    uint32_t *fb = (uint32_t *)(void *)screen->frameBuffer;
    while (!stopping()) {
        fb = take_size(screen, fb);
        take_dirty(screen);
        bool slow = hold_slow(screen);
        lib.rfbProcessEvents(screen, 0);
        tell_modes(screen);
        wait_for_work(screen, slow ? 50 : -1);
    }
    lib.rfbShutdownServer(screen, TRUE);
    lib.rfbScreenCleanup(screen);
    g_free(fb);
    return NULL;
}

/* ---- main loop ---- */

static gboolean inputs_ready(gint fd, GIOCondition condition, gpointer data)
{
    (void)condition, (void)data;
    answer(fd);
    for (;;) {
        pthread_mutex_lock(&srv.lock);
        struct vnc_input in = srv.input[srv.in_first];
        bool any = srv.in_used;
        if (any) {
            srv.in_first = (srv.in_first + 1) % INPUTS_MAX;
            srv.in_used--;
        }
        pthread_mutex_unlock(&srv.lock);
        if (!any) {
            return G_SOURCE_CONTINUE;
        }
        srv.config.input(&in);
    }
}

/* All signals stay with the threads that expect them; so a broken pipe is only an error. */
static int start_thread(rfbScreenInfoPtr screen)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    int failed = pthread_create(&srv.thread, NULL, server_thread, screen);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return failed;
}

bool vnc_server_start(const struct vnc_config *config, GError **error)
{
    if (!open_library(error)) {
        return false;
    }
    srv.config = *config;
    srv.config.n_listeners = MIN(config->n_listeners, LISTENERS_MAX);
    memcpy(srv.listener, config->listener, srv.config.n_listeners * sizeof(int));
    srv.w = 640;
    srv.h = 480;
    srv.fb = g_new0(uint32_t, srv.w * srv.h);
    srv.stop = srv.resized = srv.password_set = false;
    srv.expires = INT64_MAX;
    srv.in_first = srv.in_used = srv.n_dirty = 0;
    srv.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    srv.inputs = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rfbScreenInfoPtr screen = make_screen(srv.fb);
    int failed = screen ? start_thread(screen) : ENOMEM;
    if (failed) {
        error_set_errno(error, failed, "VNC server");
        return false;
    }
    srv.inputs_source = g_unix_fd_add(srv.inputs, G_IO_IN, inputs_ready, NULL);
    srv.running = true;
    return true;
}

void vnc_server_stop(void)
{
    if (!srv.running) {
        return;
    }
    pthread_mutex_lock(&srv.lock);
    srv.stop = true;
    pthread_mutex_unlock(&srv.lock);
    ring(srv.wake);
    pthread_join(srv.thread, NULL);
    g_source_remove(srv.inputs_source);
    for (unsigned i = 0; i < srv.config.n_listeners; i++) {
        close(srv.listener[i]);
    }
    close(srv.wake);
    close(srv.inputs);
    srv.running = false;
}

void vnc_server_resize(unsigned w, unsigned h)
{
    uint32_t *fb = g_try_new0(uint32_t, (size_t)w * h);
    if (!fb) {
        return; /* clients keep the old picture */
    }
    pthread_mutex_lock(&srv.lock);
    uint32_t *unseen = srv.resized ? srv.fb : NULL; /* the server thread has never had it */
    srv.fb = fb;
    srv.w = w;
    srv.h = h;
    srv.resized = true;
    srv.n_dirty = 0;
    pthread_mutex_unlock(&srv.lock);
    g_free(unseen);
    ring(srv.wake);
}

static void add_dirty(const struct rect *r)
{
    pthread_mutex_lock(&srv.lock);
    if (srv.n_dirty < RECTS_MAX) {
        srv.dirty[srv.n_dirty++] = *r;
    } else { /* one around this and the last */
        struct rect *l = &srv.dirty[RECTS_MAX - 1];
        unsigned right = MAX(l->x + l->w, r->x + r->w), bottom = MAX(l->y + l->h, r->y + r->h);
        l->x = MIN(l->x, r->x);
        l->y = MIN(l->y, r->y);
        l->w = right - l->x;
        l->h = bottom - l->y;
    }
    pthread_mutex_unlock(&srv.lock);
}

/* Copies what differs of one row; widens [*first, *last) by it. */
static void copy_row(uint32_t *to, const uint32_t *from, unsigned x, unsigned end, unsigned *first,
                     unsigned *last)
{
    for (unsigned at = x; at < end; at += CHUNK) {
        unsigned n = MIN(CHUNK, end - at);
        if (memcmp(to + at, from + at, n * sizeof(*to)) != 0) {
            memcpy(to + at, from + at, n * sizeof(*to));
            *first = MIN(*first, at);
            *last = MAX(*last, at + n);
        }
    }
}

void vnc_server_put(const uint32_t *pixels, unsigned stride, unsigned x, unsigned y, unsigned w,
                    unsigned h)
{
    bool any = false;
    unsigned right = MIN(x + w, srv.w), bottom = MIN(y + h, srv.h);
    for (unsigned row = y; row < bottom;) {
        unsigned first = UINT_MAX, last = 0, top = row;
        for (; row < bottom; row++) { /* neighbouring rows make one rectangle */
            unsigned was = last, f = UINT_MAX, l = 0;
            copy_row(srv.fb + (size_t)row * srv.w,
                     (const uint32_t *)(const void *)((const char *)pixels + (size_t)row * stride), x,
                     right, &f, &l);
            if (!l && was) {
                break;
            }
            top = l && !was ? row : top;
            first = MIN(first, f);
            last = MAX(last, l);
        }
        if (last) {
            struct rect r = {first, top, last - first, row - top};
            add_dirty(&r);
            any = true;
        }
    }
    if (any) {
        ring(srv.wake);
    }
}

void vnc_server_password(const char *text)
{
    pthread_mutex_lock(&srv.lock);
    g_strlcpy(srv.password, text, sizeof(srv.password));
    srv.password_set = true;
    pthread_mutex_unlock(&srv.lock);
}

void vnc_server_expire(int64_t at)
{
    pthread_mutex_lock(&srv.lock);
    srv.expires = at;
    pthread_mutex_unlock(&srv.lock);
}

void vnc_server_pointer_mode(bool absolute)
{
    pthread_mutex_lock(&srv.lock);
    srv.mode_changed |= srv.absolute != absolute;
    srv.absolute = absolute;
    bool changed = srv.mode_changed;
    pthread_mutex_unlock(&srv.lock);
    if (changed) {
        ring(srv.wake);
    }
}

unsigned vnc_server_clients(struct vnc_end *out, unsigned most)
{
    unsigned n = 0;
    pthread_mutex_lock(&srv.lock);
    for (unsigned i = 0; i < CLIENTS_MAX && n < most; i++) {
        if (srv.client[i].family) {
            out[n++] = srv.client[i];
        }
    }
    pthread_mutex_unlock(&srv.lock);
    return n;
}
