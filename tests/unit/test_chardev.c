/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/util.h"
#include "host/chardev/chardev.h"

#include "test.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A device end that keeps what it gets and has as much room as the test says. */
struct end {
    GString *got;
    size_t room;
    unsigned opened, closed, breaks, focus;
};

static void receive(void *peer, const uint8_t *data, size_t n)
{
    struct end *e = peer;
    assert_true(n <= e->room);
    g_string_append_len(e->got, (const char *)data, (gssize)n);
    e->room -= n;
}

static size_t room(void *peer)
{
    return ((struct end *)peer)->room;
}

static void event(void *peer, enum chardev_event what)
{
    struct end *e = peer;
    e->opened += what == CHARDEV_OPENED;
    e->closed += what == CHARDEV_CLOSED;
    e->breaks += what == CHARDEV_BREAK;
    e->focus += what == CHARDEV_FOCUS;
}

static void attach(struct chardev *chr, struct end *e)
{
    *e = (struct end){.got = g_string_new(NULL), .room = 100};
    chr->receive = receive;
    chr->room = room;
    chr->event = event;
    chr->peer = e;
}

static void detach(struct end *e)
{
    g_string_free(e->got, TRUE);
}

static void settle(void)
{
    for (unsigned i = 0; i < 50; i++) {
        g_main_context_iteration(NULL, FALSE);
        if (i % 10 == 0) {
            g_usleep(1000);
        }
    }
}

static int dial(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    g_strlcpy(addr.sun_path, path, sizeof(addr.sun_path));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

static void a_server_takes_one_client_after_the_other(void **state)
{
    (void)state;
    GError *error = NULL;
    struct end e;
    g_autofree char *path = g_strdup_printf("/tmp/test-chardev-%d,x", getpid());
    g_autofree char *spec = g_strdup_printf("unix:/tmp/test-chardev-%d,,x,server,nowait", getpid());
    struct chardev *chr = chardev_new_short("c0", spec, &error);
    assert_works(chr != NULL, error);
    attach(chr, &e);
    for (unsigned round = 1; round <= 2; round++) {
        int fd = dial(path);
        assert_int_equal(write(fd, "hello", 5), 5);
        settle();
        assert_true(chr->open);
        assert_int_equal(e.opened, round);
        assert_string_equal(e.got->str, "hello");
        char back[8] = "";
        assert_int_equal(chardev_write(chr, "there", 5), 5);
        assert_int_equal(read(fd, back, sizeof(back)), 5);
        close(fd);
        settle();
        assert_int_equal(e.closed, round);
        g_string_truncate(e.got, 0);
    }
    assert_int_equal(chardev_write(chr, "gone", 4), 4);
    chardevs_close();
    assert_int_not_equal(access(path, F_OK), 0);
    detach(&e);
}

static void a_full_device_holds_the_writer_back(void **state)
{
    (void)state;
    GError *error = NULL;
    struct end e;
    g_autofree char *path = g_strdup_printf("/tmp/test-chardev-%d", getpid());
    g_autofree char *spec = g_strdup_printf("socket,id=c0,path=%s,server=on,wait=off", path);
    struct chardev *chr = chardev_new(spec, &error);
    assert_works(chr != NULL, error);
    attach(chr, &e);
    e.room = 3;
    int fd = dial(path);
    assert_int_equal(write(fd, "abcdefgh", 8), 8);
    settle();
    assert_string_equal(e.got->str, "abc");
    e.room = 100;
    chardev_accept_input(chr);
    settle();
    assert_string_equal(e.got->str, "abcdefgh");
    close(fd);
    chardevs_close();
    detach(&e);
}

static void the_escape_key_moves_keys_between_ports(void **state)
{
    (void)state;
    GError *error = NULL;
    struct end a, b;
    g_autofree char *path = g_strdup_printf("/tmp/test-chardev-%d", getpid());
    g_autofree char *spec = g_strdup_printf("socket,id=m,path=%s,server,nowait,mux=on", path);
    struct chardev *mux = chardev_new(spec, &error);
    assert_works(mux != NULL, error);
    attach(chardev_find("m"), &a);
    attach(chardev_find("m"), &b);
    int fd = dial(path);
    const char keys[] = "one\001ctwo\001\001\001b\001cthree";
    assert_int_equal(write(fd, keys, sizeof(keys) - 1), sizeof(keys) - 1);
    settle();
    assert_string_equal(a.got->str, "onethree");
    assert_string_equal(b.got->str, "two\001");
    assert_int_equal(b.breaks, 1);
    assert_int_equal(b.focus, 1);
    a.room = 0;
    assert_int_equal(write(fd, "kept\001c!", 7), 7);
    settle();
    assert_string_equal(b.got->str, "two\001!");
    close(fd);
    chardevs_close();
    detach(&a);
    detach(&b);
}

static void a_ring_keeps_the_last_bytes(void **state)
{
    (void)state;
    GError *error = NULL;
    struct chardev *chr = chardev_new("ringbuf,id=r,size=8", &error);
    assert_works(chr != NULL, error);
    chardev_write(chr, "0123456789", 10);
    g_autofree char *first = chardev_ring_take(chr, 3), *rest = chardev_ring_take(chr, 99);
    assert_string_equal(first, "234");
    assert_string_equal(rest, "56789");
    chardevs_close();
}

static void a_logfile_gets_a_copy(void **state)
{
    (void)state;
    GError *error = NULL;
    g_autofree char *path = g_strdup_printf("/tmp/test-chardev-%d.log", getpid());
    g_autofree char *spec = g_strdup_printf("null,id=n,logfile=%s", path);
    struct chardev *chr = chardev_new(spec, &error);
    assert_works(chr != NULL, error);
    chardev_write(chr, "copy", 4);
    chardevs_close();
    g_autofree char *text = NULL;
    assert_true(g_file_get_contents(path, &text, NULL, NULL));
    assert_string_equal(text, "copy");
    g_unlink(path);
}

static void bad_options_are_named(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "nosuch,id=a",           "socket,id=a",          "socket,id=a,path=/x,port=1",
        "null",                  "null,id=a,colour=red", "file,id=a,path=/no/such/dir/file",
        "ringbuf,id=a,size=100", "udp,id=a",             "socket,id=a,path=/no/such/socket",
        "pipe,id=a,path=/no/such"};
    GError *error = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        assert_null(chardev_new(bad[i], &error));
        assert_non_null(strstr(error->message, bad[i]));
        g_clear_error(&error);
    }
    assert_null(chardev_new_short("x", "tcp:nowhere", &error));
    g_clear_error(&error);
    assert_null(chardev_new_short("x", "", &error));
    g_clear_error(&error);
    chardevs_close();
}

/* Whoever opens it gets what is said next, though it is looked at only once a second. */
static void a_terminal_is_heard_at_once(void **state)
{
    (void)state;
    GError *error = NULL;
    struct end e;
    char got[16];
    struct chardev *chr = chardev_new("pty,id=p", &error);
    assert_non_null(chr);
    attach(chr, &e);
    settle();
    assert_int_equal(chardev_write(chr, "lost", 4), 4); /* nobody is there */
    autofd int fd = open(strchr(chr->about, '/'), O_RDWR | O_NOCTTY | O_NONBLOCK);
    assert_true(fd >= 0);
    assert_int_equal(chardev_write(chr, "heard", 5), 5);
    assert_int_equal(read(fd, got, sizeof(got)), 5);
    assert_memory_equal(got, "heard", 5);
    assert_int_equal(write(fd, "answer", 6), 6);
    settle();
    assert_int_equal(e.opened, 1);
    assert_string_equal(e.got->str, "answer");
    chardevs_close();
    detach(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_takes_one_client_after_the_other),
        cmocka_unit_test(a_full_device_holds_the_writer_back),
        cmocka_unit_test(the_escape_key_moves_keys_between_ports),
        cmocka_unit_test(a_ring_keeps_the_last_bytes),
        cmocka_unit_test(a_logfile_gets_a_copy),
        cmocka_unit_test(a_terminal_is_heard_at_once),
        cmocka_unit_test(bad_options_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
