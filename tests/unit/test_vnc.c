/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/test.h"

#include "base/bytes.h"
#include "host/display/display.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- a client in miniature; runs in a thread, so it notes and does not assert ---- */

enum { RAW = 0, NEW_SIZE = -223, POINTER_CHANGE = -257, EXTENDED_KEY = -258 };
enum { DONE = 1, TOLD_KEYS = 2, TOLD_POINTER = 4, RESIZED = 8 };
enum { PATIENCE_S = 60 }; /* until something counts as lost: hosts may be busy */

struct client {
    _Atomic int fd;
    gint64 end;
    unsigned w, h, told;
    uint32_t pixel[128 * 128];
    bool failed;
};

static void get(struct client *c, void *to, size_t n)
{
    c->failed = c->failed || recv(c->fd, to, n, MSG_WAITALL) != (ssize_t)n;
}

static void put(struct client *c, const void *from, size_t n)
{
    c->failed |= send(c->fd, from, n, MSG_NOSIGNAL) != (ssize_t)n;
}

/* For loops that ask again until an answer is the wanted one. */
static bool patient(struct client *c)
{
    g_usleep(1000);
    c->failed |= g_get_monotonic_time() > c->end;
    return !c->failed;
}

static uint16_t get16(struct client *c)
{
    uint8_t b[2] = {0};
    get(c, b, 2);
    return be16_at(b);
}

static uint32_t get32(struct client *c)
{
    uint8_t b[4] = {0};
    get(c, b, 4);
    return be32_at(b);
}

static int dial(const char *address)
{
    struct timeval tv = {.tv_sec = PATIENCE_S};
    int fd;
    if (g_str_has_prefix(address, "unix:")) {
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        g_strlcpy(sa.sun_path, address + 5, sizeof(sa.sun_path));
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        (void)!connect(fd, (struct sockaddr *)&sa, sizeof(sa));
    } else {
        struct sockaddr_in sa = {.sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)atoi(strchr(address, ':') + 1)),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        fd = socket(AF_INET, SOCK_STREAM, 0);
        (void)!connect(fd, (struct sockaddr *)&sa, sizeof(sa));
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    return fd;
}

/* Returns the result of the security handshake: 0 is in. */
static uint32_t greet(struct client *c, const char *password)
{
    uint8_t version[12], n = 0, types[16], answer[16];
    get(c, version, 12);
    put(c, "RFB 003.008\n", 12);
    get(c, &n, 1);
    get(c, types, MIN(n, 16));
    c->failed |= n != 1 || types[0] != (password ? 2 : 1);
    put(c, types, 1);
    if (password) {
        void (*encrypt)(unsigned char *, char *) =
            (void (*)(unsigned char *, char *))dlsym(RTLD_DEFAULT, "rfbEncryptBytes");
        void *so = encrypt ? NULL : dlopen("libvncserver.so.1", RTLD_NOW);
        encrypt = so ? (void (*)(unsigned char *, char *))dlsym(so, "rfbEncryptBytes") : encrypt;
        get(c, answer, 16);
        encrypt(answer, (char *)password);
        put(c, answer, 16);
    }
    return get32(c);
}

static void init(struct client *c)
{
    static const uint8_t format[20] = {0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0};
    uint8_t rest[20], name[64];
    put(c, "\1", 1);
    c->w = get16(c);
    c->h = get16(c);
    get(c, rest, 16);
    uint32_t n = get32(c);
    get(c, name, MIN(n, sizeof(name)));
    put(c, format, 20);
    uint8_t encodings[4 + 16] = {2, 0, 0, 4};
    be32_put(encodings + 4, RAW);
    be32_put(encodings + 8, (uint32_t)NEW_SIZE);
    be32_put(encodings + 12, (uint32_t)EXTENDED_KEY);
    be32_put(encodings + 16, (uint32_t)POINTER_CHANGE);
    put(c, encodings, sizeof(encodings));
}

static void one_rectangle(struct client *c)
{
    unsigned x = get16(c), y = get16(c), w = get16(c), h = get16(c);
    int32_t encoding = (int32_t)get32(c);
    if (encoding == RAW) {
        for (unsigned row = y; row < y + h && !c->failed; row++) {
            uint32_t line[128];
            get(c, line, MIN(w, 128) * 4);
            memcpy(c->pixel + row % 128 * 128 + x % 128, line, MIN(w, 128 - x % 128) * 4);
        }
        c->told |= DONE;
    } else if (encoding == NEW_SIZE) {
        c->w = w;
        c->h = h;
        c->told |= RESIZED;
    } else if (encoding == EXTENDED_KEY) {
        c->told |= TOLD_KEYS;
    } else if (encoding == POINTER_CHANGE) {
        c->told |= TOLD_POINTER | x << 8;
    } else {
        c->failed = true;
    }
}

/* Asks for updates until all of @what were told. */
static void update(struct client *c, bool incremental, unsigned what)
{
    c->told &= ~what;
    uint8_t ask[10] = {3, incremental};
    be16_put(ask + 6, (uint16_t)c->w);
    be16_put(ask + 8, (uint16_t)c->h);
    put(c, ask, sizeof(ask));
    while ((c->told & what) != what && !c->failed) {
        uint8_t head[2];
        if (c->told & RESIZED) { /* an answer in itself */
            c->told &= ~(unsigned)RESIZED;
            be16_put(ask + 6, (uint16_t)c->w);
            be16_put(ask + 8, (uint16_t)c->h);
            put(c, ask, sizeof(ask));
        }
        get(c, head, 2);
        c->failed |= head[0] != 0;
        for (unsigned n = get16(c); n > 0 && !c->failed; n--) {
            one_rectangle(c);
        }
    }
}

static void send_key(struct client *c, bool down, uint32_t sym)
{
    uint8_t m[8] = {4, down};
    be32_put(m + 4, sym);
    put(c, m, sizeof(m));
}

static void send_scancode(struct client *c, bool down, uint32_t sym, uint32_t code)
{
    uint8_t m[12] = {255, 0, 0, down};
    be32_put(m + 4, sym);
    be32_put(m + 8, code);
    put(c, m, sizeof(m));
}

static void send_pointer(struct client *c, unsigned buttons, unsigned x, unsigned y)
{
    uint8_t m[6] = {5, (uint8_t)buttons};
    be16_put(m + 2, (uint16_t)x);
    be16_put(m + 4, (uint16_t)y);
    put(c, m, sizeof(m));
}

/* ---- the machine's side ---- */

static struct display *display;
static uint32_t screen[128 * 128];
static struct {
    unsigned code;
    bool down;
} keys[16];
static unsigned n_keys, n_moves, last_buttons, refreshed;
static int last_x, last_y, wheel_sum;

static void on_key(void *keyboard, unsigned code, bool down)
{
    (void)keyboard;
    if (n_keys < G_N_ELEMENTS(keys)) {
        keys[n_keys].code = code;
        keys[n_keys++].down = down;
    }
}

static void on_pointer(void *mouse, int x, int y, int wheel, unsigned buttons)
{
    (void)mouse;
    n_moves++;
    last_x = x, last_y = y, last_buttons = buttons;
    wheel_sum += wheel;
}

static void on_refresh(void *adapter)
{
    (void)adapter;
    refreshed++;
}

static GString *address;

static char *scratch(const char *name) /* others may test at the same time */
{
    return g_strdup_printf("%s/lodge-%d-%s", g_get_tmp_dir(), (int)getpid(), name);
}

static void serve(const char *options)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GString) where = g_string_new(NULL);
    assert_works(vnc_start(display, options, NULL, &error), error);
    struct vnc_end end;
    assert_true(vnc_server(&end));
    vnc_end_text(&end, where);
    g_string_assign(address, where->str);
}

static int open_display(void **state)
{
    (void)state;
    display = display_new();
    address = g_string_new(NULL);
    static struct display_input input;
    input = (struct display_input){.key = on_key, .pointer = on_pointer};
    display_add_input(display, &input, true);
    display->refresh = on_refresh;
    for (unsigned i = 0; i < 64 * 48; i++) {
        screen[i] = i * 0x10305 & 0xffffff;
    }
    display_resize(display, screen, 64, 48, 64 * 4);
    n_keys = n_moves = 0;
    wheel_sum = 0;
    return 0;
}

static int close_display(void **state)
{
    (void)state;
    vnc_stop();
    g_free(display);
    g_string_free(address, TRUE);
    return 0;
}

/* Runs @body in a thread, and the main loop until the server knows that the client is gone:
 * then all that it did has arrived. */
static void with_client(void *(*body)(void *), struct client *c)
{
    memset(c, 0, sizeof(*c));
    c->end = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;
    GThread *t = g_thread_new("client", body, c);
    while (c->fd >= 0) { /* the body has an end: c->end */
        g_main_context_iteration(NULL, FALSE);
        g_usleep(200);
    }
    g_thread_join(t);
    do {
        g_main_context_iteration(NULL, FALSE);
        g_usleep(200);
    } while (display->timer && g_get_monotonic_time() < c->end);
}

static void hang_up(struct client *c)
{
    int fd = c->fd;
    close(fd);
    c->fd = -1;
}

static void *look(void *arg)
{
    struct client *c = arg;
    c->fd = dial(address->str);
    c->failed |= greet(c, NULL) != 0;
    init(c);
    update(c, false, DONE | TOLD_KEYS);
    /* The first answer may still have the size from before the first refresh. */
    while (c->w != 64 && patient(c)) {
        update(c, false, DONE);
    }
    update(c, false, DONE);
    hang_up(c);
    return NULL;
}

static void a_client_sees_the_screen(void **state)
{
    (void)state;
    static struct client c;
    serve("localhost:60,to=99,ipv6=off");
    with_client(look, &c);
    assert_false(c.failed);
    assert_int_equal(c.w, 64);
    assert_int_equal(c.h, 48);
    for (unsigned i = 0; i < 64 * 48; i++) { /* the second look: the first may come too early */
        assert_int_equal(c.pixel[i / 64 * 128 + i % 64] & 0xffffff, screen[i]);
    }
    assert_true(refreshed > 0);
    assert_int_equal(display->timer, 0); /* gone: nobody looks any more */
}

static void *type(void *arg)
{
    struct client *c = arg;
    c->fd = dial(address->str);
    c->failed |= greet(c, NULL) != 0;
    init(c);
    update(c, false, DONE | TOLD_KEYS | TOLD_POINTER);
    send_key(c, true, 'A');
    send_key(c, false, 'A');
    send_scancode(c, true, 0xff0d, 0x9c);
    send_pointer(c, 1, 0x7fff + 5, 0x7fff - 3);
    send_pointer(c, 8, 0x7fff, 0x7fff);
    send_key(c, true, 0xffe9); /* never let go */
    update(c, false, DONE);
    hang_up(c);
    return NULL;
}

static void keys_and_pointer_reach_the_machine(void **state)
{
    (void)state;
    static struct client c;
    g_autofree char *path = scratch("vnc.sock"), *where = g_strconcat("unix:", path, NULL);
    serve(where);
    with_client(type, &c);
    assert_false(c.failed);
    static const struct {
        unsigned code;
        bool down;
    } want[] = {{0x1e, true}, {0x1e, false}, {0x9c, true}, {0x38, true}, {0x38, false}, {0x9c, false}};
    assert_int_equal(n_keys, G_N_ELEMENTS(want));
    for (unsigned i = 0; i < n_keys; i++) {
        assert_int_equal(keys[i].code, want[i].code);
        assert_int_equal(keys[i].down, want[i].down);
    }
    assert_int_equal(n_moves, 2);
    assert_int_equal(wheel_sum, -1);
    vnc_stop();
    assert_int_not_equal(access(path, F_OK), 0);
}

static void *point(void *arg)
{
    struct client *c = arg;
    c->fd = dial(address->str);
    c->failed |= greet(c, NULL) != 0;
    init(c);
    update(c, false, DONE | TOLD_POINTER);
    while (!(c->told & 1 << 8) && patient(c)) {
        update(c, false, DONE);
    }
    send_pointer(c, 4, 63, 47);
    update(c, false, DONE);
    hang_up(c);
    return NULL;
}

static void an_absolute_pointer_is_told_and_scaled(void **state)
{
    (void)state;
    static struct client c;
    display->pointer_absolute = true;
    serve("127.0.0.1:60,to=99");
    with_client(point, &c);
    assert_false(c.failed);
    assert_int_equal(last_x, 32767);
    assert_int_equal(last_y, 32767);
    assert_int_equal(last_buttons, 4);
}

static bool resize_now;

static gboolean resize_later(gpointer data)
{
    (void)data;
    if (!resize_now) {
        return G_SOURCE_CONTINUE;
    }
    for (unsigned i = 0; i < 100 * 80; i++) {
        screen[i] = 0x123456 + i;
    }
    display_resize(display, screen, 100, 80, 400);
    return G_SOURCE_REMOVE;
}

static void *watch_resize(void *arg)
{
    struct client *c = arg;
    c->fd = dial(address->str);
    c->failed |= greet(c, NULL) != 0;
    init(c);
    update(c, false, DONE);
    while (c->w != 64 && patient(c)) {
        update(c, false, DONE);
    }
    resize_now = true;
    update(c, true, RESIZED);
    /* It may be told before the new picture is there. */
    while (!c->pixel[79 * 128 + 99] && patient(c)) {
        memset(c->pixel, 0, sizeof(c->pixel));
        update(c, false, DONE);
    }
    hang_up(c);
    return NULL;
}

static void a_new_size_is_told(void **state)
{
    (void)state;
    static struct client c;
    resize_now = false;
    serve("127.0.0.1:60,to=99");
    g_timeout_add(5, resize_later, NULL);
    with_client(watch_resize, &c);
    assert_false(c.failed);
    assert_int_equal(c.w, 100);
    assert_int_equal(c.h, 80);
    assert_int_equal(c.pixel[79 * 128 + 99] & 0xffffff, screen[79 * 100 + 99]);
}

static const char *try_password;
static uint32_t verdict;

static void *log_in(void *arg)
{
    struct client *c = arg;
    c->fd = dial(address->str);
    verdict = greet(c, try_password);
    hang_up(c);
    return NULL;
}

static void the_password_is_asked_for(void **state)
{
    (void)state;
    static struct client c;
    g_autoptr(GError) error = NULL;
    assert_fails(vnc_set_password("x", &error), error, EINVAL);
    serve("127.0.0.1:60,to=99,password=on");
    try_password = "";
    with_client(log_in, &c); /* none set: nobody gets in, not even with an empty one */
    assert_int_equal(verdict, 1);
    assert_works(vnc_set_password("secret", &error), error);
    try_password = "secreT";
    with_client(log_in, &c);
    assert_int_equal(verdict, 1);
    try_password = "secret";
    with_client(log_in, &c);
    assert_int_equal(verdict, 0);
    assert_works(vnc_expire_password(g_get_real_time() / G_USEC_PER_SEC, &error), error);
    with_client(log_in, &c);
    assert_int_equal(verdict, 1);
    assert_works(vnc_expire_password(g_get_real_time() / G_USEC_PER_SEC + 1000, &error), error);
    with_client(log_in, &c);
    assert_int_equal(verdict, 0);
}

enum { STALL_S = 4 };

/* Half a message, then silence: the machine does not notice. */
static void *stall(void *arg)
{
    struct client *c = arg;
    c->fd = dial(address->str);
    c->failed |= greet(c, NULL) != 0;
    init(c);
    put(c, "\4\1", 2);
    g_usleep(STALL_S * G_USEC_PER_SEC);
    hang_up(c);
    return NULL;
}

static gint64 longest, last_tick;

static gboolean tick(gpointer data)
{
    gint64 now = g_get_monotonic_time();
    (void)data;
    longest = last_tick ? MAX(longest, now - last_tick) : 0;
    last_tick = now;
    return G_SOURCE_CONTINUE;
}

static void a_stalled_client_does_not_stop_the_machine(void **state)
{
    (void)state;
    static struct client c;
    longest = last_tick = 0;
    serve("127.0.0.1:60,to=99");
    guint id = g_timeout_add(5, tick, NULL);
    with_client(stall, &c);
    g_source_remove(id);
    assert_true(longest < (STALL_S - 1) * G_USEC_PER_SEC); /* libvncserver waits for longer */
}

static void wrong_options_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *options, *keymap, *says;
    } rows[] = {
        {"nonsense", NULL, "nonsense"},
        {":99999", NULL, ":99999"},
        {":1,lossy=on", NULL, "lossy"},
        {":1,tls-creds=t", NULL, "tls-creds"},
        {":1,share=maybe", NULL, "share=maybe"},
        {":1,nosuch=1", NULL, "such"},
        {":1,websocket=x", NULL, "websocket=x"},
        {":1", "xx", "\"xx\""},
        {"unix:/no/such/folder/s", NULL, "/no/such/folder/s"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GError) error = NULL;
        if (vnc_start(display, rows[i].options, rows[i].keymap, &error) ||
            !strstr(error->message, rows[i].says)) {
            fail_msg("%s: %s", rows[i].options, error ? error->message : "works");
        }
    }
    g_autoptr(GError) error = NULL;
    assert_works(vnc_start(display, "none", "en-us", &error), error);
}

static void the_screen_is_dumped_as_a_file(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL, *path = scratch("dump");
    gsize n;
    assert_works(display_dump(display, path, NULL, &error), error);
    assert_true(g_file_get_contents(path, &text, &n, NULL));
    assert_int_equal(n, 13 + 64 * 48 * 3);
    assert_memory_equal(text, "P6\n64 48\n255\n", 13);
    assert_int_equal((uint8_t)text[13 + 3], 0x01);
    assert_int_equal((uint8_t)text[13 + 5], 0x05);
    g_clear_pointer(&text, g_free);
    assert_works(display_dump(display, path, "png", &error), error);
    assert_true(g_file_get_contents(path, &text, &n, NULL));
    assert_memory_equal(text + 1, "PNG", 3);
    assert_fails(display_dump(display, path, "gif", &error), error, EINVAL);
    assert_fails(display_dump(display, "/no/such/x", "ppm", &error), error, ENOENT);
    unlink(path);
}

static void key_names_are_qemus(void **state)
{
    (void)state;
    assert_int_equal(display_scancode("ret"), 0x1c);
    assert_int_equal(display_scancode("ctrl_r"), 0x9d);
    assert_int_equal(display_scancode("nonsense"), 0);
    assert_string_equal(display_key_name(0xd3), "delete");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, open_display, close_display)
    const struct CMUnitTest tests[] = {
        T(a_client_sees_the_screen),
        T(keys_and_pointer_reach_the_machine),
        T(an_absolute_pointer_is_told_and_scaled),
        T(a_new_size_is_told),
        T(the_password_is_asked_for),
        T(a_stalled_client_does_not_stop_the_machine),
        T(wrong_options_are_refused_by_name),
        T(the_screen_is_dumped_as_a_file),
        T(key_names_are_qemus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
