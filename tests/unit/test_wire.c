/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's side of a connection against the client's, over a socket pair: calls, errors,
 * streams both ways with back-pressure, descriptors, events, permission, bad packets.
 * The verbs are defined here, for procedures that the daemon itself has no use for.
 */
#include "base/bytes.h"
#include "base/util.h"
#include "manage/daemon/client.h"
#include "manage/daemon/dispatch.h"
#include "manage/daemon/paths.h"
#include "manage/daemon/verb.h"
#include "manage/rpc/client.h"

#include <fcntl.h>
#include <glib-unix.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>

#include <cmocka.h>

enum { BIG = 40 << 20 };
static const rpc_domain dom = {.name = (char *)"d", .uuid = "0123456789abcde", .id = 7};

/* ---- Verbs. ---- */

static struct {
    size_t at, size;
    atomic_size_t served, written;
    atomic_int frees, finishes;
    int hole_next;
    uint64_t hole_written;
    uint32_t sum;
} source;

static ssize_t give(void *data, void *to, size_t n, GError **error)
{
    (void)data, (void)error;
    size_t k = MIN(n, source.size - source.at);
    for (size_t i = 0; i < k; i++) {
        ((uint8_t *)to)[i] = (uint8_t)((source.at + i) * 7);
    }
    source.at += k;
    atomic_fetch_add(&source.served, k);
    source.hole_next = 1;
    return (ssize_t)k;
}

static ssize_t break_off(void *data, void *to, size_t n, GError **error)
{
    (void)data, (void)to, (void)n;
    libvirt_error(error, ERR_OPERATION_FAILED, "the disk burns");
    return -1;
}

static int64_t hole(void *data, GError **error)
{
    (void)data, (void)error;
    return source.hole_next-- > 0 && source.at == source.size ? 4096 : 0;
}

static bool take(void *data, const void *from, size_t n, GError **error)
{
    (void)data, (void)error;
    for (size_t i = 0; i < n; i++) {
        source.sum = source.sum * 31 + ((const uint8_t *)from)[i];
    }
    atomic_fetch_add(&source.written, n);
    return true;
}

static bool take_hole(void *data, uint64_t n, GError **error)
{
    (void)data, (void)error;
    source.hole_written += n;
    return true;
}

static bool done(void *data, GError **error)
{
    (void)data, (void)error;
    source.finishes++;
    return true;
}

static void freed(void *data)
{
    (void)data;
    source.frees++;
}

static const struct stream_ops download = {.read = give, .finish = done, .free = freed};
static const struct stream_ops sparse = {
    .read = give, .read_hole = hole, .write = take, .write_hole = take_hole, .free = freed};
static const struct stream_ops upload = {.write = take, .finish = done, .free = freed};
static const struct stream_ops broken = {.read = break_off, .free = freed};

bool verb_domain_undefine_flags(struct call *call, const rpc_domain_flags *args, rpc_none *ret,
                                GError **error)
{
    static const struct stream_ops *const kinds[] = {&download, &upload, &broken, &sparse};
    (void)ret;
    if (args->flags >= G_N_ELEMENTS(kinds)) {
        libvirt_error(error, ERR_NO_DOMAIN, "no domain with matching name '%s'", args->dom.name);
        return false;
    }
    call_stream(call, kinds[args->flags], NULL);
    return true;
}

static int far_end = -1; /* of the stream by descriptor */

bool verb_domain_inject_nmi(struct call *call, const rpc_domain_flags *args, rpc_none *ret,
                            GError **error)
{
    int pair[2];
    (void)args, (void)ret, (void)error;
    g_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    far_end = pair[1];
    call_stream_fd(call, pair[0], NULL);
    return true;
}

bool verb_domain_agent_set_response_timeout(struct call *call, const rpc_domain_int_flags *args,
                                            rpc_int *ret, GError **error)
{
    int pair[2];
    (void)error;
    g_assert(pipe2(pair, O_CLOEXEC) == 0);
    g_assert(write(pair[1], "hello", 5) == 5);
    close(pair[1]);
    call_give_fd(call, pair[0]);
    ret->value = args->value + 1;
    return true;
}

bool verb_domain_get_control_info(struct call *call, const rpc_domain_flags *args,
                                  rpc_control_info *ret, GError **error)
{
    (void)call, (void)error;
    event_domain_balloon_change(&(rpc_event_domain_uhyper){.dom = args->dom, .value = 42});
    event_domain_reboot(&(rpc_event_domain){.dom = args->dom});
    ret->state_time = 1ull << 40;
    return true;
}

bool verb_connect_domain_event_callback_register_any(struct call *call,
                                                     const rpc_domain_register *args, rpc_int *ret,
                                                     GError **error)
{
    struct callback wanted = {.class = CLASS_DOMAIN, .event = args->event, .all = !args->dom};
    (void)error;
    if (args->dom) {
        memcpy(wanted.uuid, args->dom->uuid, 16);
    }
    ret->value = event_register(call_client(call), wanted);
    return true;
}

bool verb_connect_close(struct call *call, const rpc_none *args, rpc_none *ret, GError **error)
{
    (void)call, (void)args, (void)ret, (void)error;
    return true;
}

/* ---- The daemon's main loop in a thread. ---- */

static GMainLoop *loop;

static gpointer run_loop(gpointer unused)
{
    (void)unused;
    g_main_loop_run(loop);
    return NULL;
}

struct newcomer {
    int fd;
    bool read_only;
    atomic_bool taken;
};

static gboolean welcome(gpointer data)
{
    struct newcomer *n = data;
    struct listener from = {.kind = LISTEN_UNIX, .read_only = n->read_only};
    client_new(n->fd, &from);
    atomic_store(&n->taken, true);
    return G_SOURCE_REMOVE;
}

static int raw_connection(bool read_only)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_true(g_unix_set_fd_nonblocking(pair[0], TRUE, NULL));
    struct newcomer n = {pair[0], read_only, false};
    g_idle_add(welcome, &n);
    while (!atomic_load(&n.taken)) {
        g_usleep(100);
    }
    return pair[1];
}

static Rpc *connection(void)
{
    return rpc_new(raw_connection(false));
}

static void open_stream(Rpc *rpc, unsigned kind)
{
    rpc_domain_flags args = {dom, kind};
    rpc_none none;
    source.at = source.size = 0;
    source.served = source.written = 0;
    source.finishes = source.frees = source.hole_next = 0;
    source.sum = 0;
    source.hole_written = 0;
    source.size = kind == 0 ? BIG : 10000;
    assert_true(ask_domain_undefine_flags(rpc, &args, &none, NULL));
}

static void wait_for(atomic_int *value, int wanted)
{
    for (int i = 0; atomic_load(value) != wanted; i++) {
        assert_in_range(i, 0, 600000);
        g_usleep(100);
    }
}

static void test_errors_carry_libvirts_numbers(void **state)
{
    g_autoptr(Rpc) rpc = connection();
    g_autoptr(GError) error = NULL;
    rpc_domain_flags args = {dom, 99};
    rpc_none none;
    (void)state;
    assert_false(ask_domain_undefine_flags(rpc, &args, &none, &error));
    assert_int_equal(error->code, ERR_NO_DOMAIN);
    assert_string_equal(error->message, "Domain not found: no domain with matching name 'd'");
    g_clear_error(&error);
    assert_false(ask_domain_migrate_set_max_speed(rpc, &(rpc_domain_uhyper_flags){dom, 1, 1}, &none,
                                                  &error));
    assert_int_equal(error->code, ERR_NO_SUPPORT);
}

static void test_download(void **state)
{
    g_autoptr(Rpc) rpc = connection();
    static uint8_t bytes[300000];
    size_t at = 0;
    ssize_t n;
    (void)state;
    open_stream(rpc, 0);
    /* Nobody fetches: the daemon does not read the whole source into memory. */
    size_t before, now = 0;
    do {
        before = now;
        g_usleep(50000);
        now = atomic_load(&source.served);
    } while (!now || now != before);
    assert_in_range(now, 1, OUT_HIGH + 4 * STREAM_CHUNK);
    while ((n = rpc_stream_receive(rpc, bytes, sizeof(bytes), NULL, NULL)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            assert_int_equal(bytes[i], (uint8_t)((at + (size_t)i) * 7));
        }
        at += (size_t)n;
    }
    assert_int_equal(at, BIG);
    assert_true(rpc_stream_finish(rpc, NULL));
    assert_int_equal(source.finishes, 1);
    wait_for(&source.frees, 1);
}

static void test_upload(void **state)
{
    g_autoptr(Rpc) rpc = connection();
    g_autofree uint8_t *bytes = g_malloc0(BIG);
    uint32_t sum = 0;
    (void)state;
    open_stream(rpc, 1);
    for (size_t i = 0; i < BIG; i++) {
        bytes[i] = (uint8_t)(i * 13 + (i >> 9));
        sum = sum * 31 + bytes[i];
    }
    assert_true(rpc_stream_send(rpc, bytes, BIG, NULL));
    assert_true(rpc_stream_finish(rpc, NULL));
    assert_int_equal(source.written, BIG);
    assert_int_equal(source.sum, sum);
    wait_for(&source.frees, 1);
}

static void test_sparse(void **state)
{
    g_autoptr(Rpc) rpc = connection();
    uint8_t bytes[20000];
    uint64_t n = 0;
    (void)state;
    open_stream(rpc, 3);
    size_t at = 0;
    while (at < source.size) {
        at += (size_t)rpc_stream_receive(rpc, bytes, sizeof(bytes), &n, NULL);
    }
    assert_int_equal(rpc_stream_receive(rpc, bytes, sizeof(bytes), &n, NULL), 0);
    assert_int_equal(n, 4096);
    assert_true(rpc_stream_send_hole(rpc, 1ull << 33, NULL));
    assert_true(rpc_stream_finish(rpc, NULL));
    assert_int_equal(source.hole_written, 1ull << 33);
}

static void test_streams_break(void **state)
{
    g_autoptr(GError) error = NULL;
    uint8_t byte;
    (void)state;
    Rpc *rpc = connection();
    open_stream(rpc, 2);
    assert_int_equal(rpc_stream_receive(rpc, &byte, 1, NULL, &error), -1);
    assert_string_equal(error->message, "operation failed: the disk burns");
    wait_for(&source.frees, 1);
    open_stream(rpc, 0); /* the connection is as good as before */
    assert_true(rpc_stream_abort(rpc, NULL));
    wait_for(&source.frees, 1);
    assert_int_equal(source.finishes, 0);
    open_stream(rpc, 0);
    assert_int_equal(rpc_stream_receive(rpc, &byte, 1, NULL, NULL), 1);
    rpc_free(rpc); /* the client vanishes */
    wait_for(&source.frees, 1);
    assert_int_equal(source.finishes, 0);
}

static void test_console(void **state)
{
    g_autoptr(Rpc) rpc = connection();
    rpc_domain_flags args = {dom, 0};
    rpc_none none;
    char text[16] = "";
    (void)state;
    assert_true(ask_domain_inject_nmi(rpc, &args, &none, NULL));
    assert_true(rpc_stream_send(rpc, "ls\n", 3, NULL));
    struct pollfd p = {.fd = far_end, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 60000), 1);
    assert_int_equal(read(far_end, text, sizeof(text)), 3);
    assert_memory_equal(text, "ls\n", 3);
    assert_int_equal(write(far_end, "file", 4), 4);
    assert_int_equal(rpc_stream_receive(rpc, text, sizeof(text), NULL, NULL), 4);
    assert_memory_equal(text, "file", 4);
    close(far_end);
    assert_int_equal(rpc_stream_receive(rpc, text, sizeof(text), NULL, NULL), 0);
    assert_true(rpc_stream_finish(rpc, NULL));
}

static void test_descriptors(void **state)
{
    g_autoptr(Rpc) rpc = connection();
    (void)state;
    for (int i = 0; i < 50; i++) {
        rpc_domain_int_flags args = {dom, i, 0};
        rpc_int ret;
        char text[8] = "";
        assert_true(ask_domain_agent_set_response_timeout(rpc, &args, &ret, NULL));
        assert_int_equal(ret.value, i + 1);
        autofd int fd = rpc_take_fd(rpc, 0);
        assert_int_equal(read(fd, text, sizeof(text)), 5);
        assert_string_equal(text, "hello");
    }
}

static int events, last_callback;

static void on_event(uint32_t program, int procedure, const uint8_t *body, size_t n, void *data)
{
    rpc_event_domain_uhyper m;
    (void)data;
    events++;
    assert_int_equal(program, PROGRAM_REMOTE);
    assert_int_equal(procedure, EVENT_domain_balloon_change);
    assert_true(packet_decode(body, n, (xdrproc_t)xdr_rpc_event_domain_uhyper, &m, sizeof(m)));
    assert_int_equal(m.value, 42);
    assert_string_equal(m.dom.name, "d");
    last_callback = m.callback;
    xdr_free((xdrproc_t)xdr_rpc_event_domain_uhyper, (char *)&m);
}

static void test_events(void **state)
{
    g_autoptr(Rpc) rpc = connection(), other = connection();
    rpc_domain stranger = {.name = (char *)"s", .uuid = "not this one   "}, same = dom;
    rpc_domain_register all = {13, NULL}, one = {13, &same}, none = {13, &stranger};
    rpc_int first, second, third;
    rpc_control_info info;
    rpc_domain_flags args = {dom, 0};
    (void)state;
    rpc_on_event(rpc, on_event, NULL);
    assert_true(ask_connect_domain_event_callback_register_any(rpc, &all, &first, NULL));
    assert_true(ask_connect_domain_event_callback_register_any(rpc, &none, &second, NULL));
    assert_true(ask_domain_get_control_info(other, &args, &info, NULL));
    while (events < 1) {
        assert_true(rpc_wait(rpc, 60000, NULL));
    }
    assert_int_equal(last_callback, first.value);
    assert_true(ask_connect_domain_event_callback_register_any(rpc, &one, &third, NULL));
    assert_int_not_equal(third.value, first.value);
    assert_true(ask_domain_get_control_info(rpc, &args, &info, NULL));
    assert_int_equal(info.state_time, 1ull << 40);
    while (events < 3) {
        assert_true(rpc_wait(rpc, 60000, NULL));
    }
}

/* What each of these gets is the end of its connection, and nobody else notices. */
static void test_rubbish(void **state)
{
    static const struct {
        uint32_t words[9];
        unsigned n;
    } bad[] = {
        {{0, 0, 0}, 3},                                                      /* too short */
        {{0x7fffffff}, 1},                                                   /* too long */
        {{PACKET_MAX + 4}, 1},                                               /* a little too long */
        {{28, PROGRAM_REMOTE, 1, PROC_domain_get_control_info, 0, 0, 0}, 7}, /* no arguments */
        {{36, PROGRAM_REMOTE, 1, PROC_connect_close, 0, 0, 0, 1, 2}, 9},     /* too many */
        {{28, PROGRAM_REMOTE, 2, PROC_connect_close, 0, 0, 0}, 7},           /* version */
        {{28, PROGRAM_REMOTE, 1, PROC_connect_close, 1, 0, 0}, 7},           /* a reply */
        {{28, PROGRAM_REMOTE, 1, PROC_connect_close, 77, 0, 0}, 7},
        {{28, PROGRAM_REMOTE, 1, PROC_connect_close, 0, 0, 1}, 7},
        {{32, PROGRAM_REMOTE, 1, PROC_connect_close, PACKET_CALL_FDS, 0, 0, 33}, 8}, /* FDs */
        {{28, PROGRAM_REMOTE, 1, PROC_connect_close, PACKET_CALL_FDS, 0, 0}, 7},
        {{32, PROGRAM_REMOTE, 1, PROC_domain_undefine_flags, 0, 0, 0, 0xffffffff}, 8},
        {{36, PROGRAM_KEEPALIVE, 1, KEEPALIVE_PING, 2, 0, 0, 0, 0}, 9},
    };
    g_autoptr(Rpc) good = connection();
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        autofd int fd = raw_connection(false);
        uint8_t bytes[sizeof(bad[i].words)], answer[64];
        for (unsigned w = 0; w < bad[i].n; w++) {
            be32_put(bytes + 4 * w, bad[i].words[w]);
        }
        assert_int_equal(send(fd, bytes, 4 * bad[i].n, MSG_NOSIGNAL), 4 * bad[i].n);
        assert_int_equal(recv(fd, answer, sizeof(answer), 0), 0);
        rpc_domain_int_flags args = {dom, 1, 0};
        rpc_int ret;
        assert_true(ask_domain_agent_set_response_timeout(good, &args, &ret, NULL));
        int given = rpc_take_fd(good, 0);
        close(given);
    }
}

static void test_byte_by_byte(void **state)
{
    autofd int fd = raw_connection(false);
    uint8_t ping[28];
    (void)state;
    struct packet_header h = {PROGRAM_KEEPALIVE, 1, KEEPALIVE_PING, PACKET_EVENT, 0, 0};
    packet_header_write(ping, &h, sizeof(ping));
    for (int round = 0; round < 3; round++) {
        for (unsigned i = 0; i < sizeof(ping); i++) {
            assert_int_equal(send(fd, ping + i, 1, 0), 1);
        }
    }
    uint8_t pong[28 * 3];
    assert_int_equal(recv(fd, pong, sizeof(pong), MSG_WAITALL), sizeof(pong));
    assert_int_equal(be32_at(pong + 12), KEEPALIVE_PONG);
}

static void test_read_only(void **state)
{
    g_autoptr(Rpc) rpc = rpc_new(raw_connection(true));
    g_autoptr(GError) error = NULL;
    rpc_domain_flags args = {dom, 0};
    rpc_none none;
    rpc_control_info info;
    (void)state;
    assert_true(ask_domain_get_control_info(rpc, &args, &info, NULL));
    assert_false(ask_domain_undefine_flags(rpc, &args, &none, &error));
    assert_int_equal(error->code, ERR_OPERATION_DENIED);
    assert_string_equal(error->message,
                        "operation domain_undefine_flags forbidden for read only access");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_carry_libvirts_numbers),
        cmocka_unit_test(test_download),
        cmocka_unit_test(test_upload),
        cmocka_unit_test(test_sparse),
        cmocka_unit_test(test_streams_break),
        cmocka_unit_test(test_console),
        cmocka_unit_test(test_descriptors),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_rubbish),
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_read_only),
    };
    loop = g_main_loop_new(NULL, FALSE);
    dispatch_start();
    g_thread_unref(g_thread_new("loop", run_loop, NULL));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
