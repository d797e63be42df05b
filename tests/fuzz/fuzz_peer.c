/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/core.h"
#include "host/image/protocol.h"
#include "host/image/serve.h"
#include "host/image/tool/ovf.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * What peers send whole: a session of an NBD client, or an OVF descriptor (FUZZ_FORMAT=nbd, ovf).
 */
extern const struct serve_api lodge_serve;

enum { DISK_BYTES = 1 << 20 };

static struct node *disk(void)
{
    static struct node *node;
    if (!node) {
        struct file *file = file_temporary(DISK_BYTES, NULL);
        json_t *options = json_object();
        json_object_set_new(options, "driver", json_string("raw"));
        node = file ? node_open_file(file, "disk", options, OPEN_UNMAP, NULL) : NULL;
        json_decref(options);
    }
    return node;
}

/* Who does not read its answers would keep the server from ending. */
static gpointer drain(gpointer data)
{
    char waste[65536];
    int fd = GPOINTER_TO_INT(data);
    while (read(fd, waste, sizeof(waste)) > 0) {
    }
    return NULL;
}

static unsigned threads(void)
{
    struct stat st;
    return stat("/proc/self/task", &st) == 0 ? (unsigned)st.st_nlink : 0;
}

/* A client's threads may still be on their way out when the server has ended: what GLib frees then
 * is no leak. */
static void wait_for_threads(unsigned before)
{
    for (unsigned ms = 0; ms < 1000 && threads() > before; ms++) {
        g_usleep(1000);
    }
}

static void session(const uint8_t *data, size_t n)
{
    unsigned before = threads();
    int fds[2];
    struct serve_options options = {.clients = 1};
    struct serve_export export = {
        .name = "", .image = disk(), .size = DISK_BYTES, .unmap = true, .depth = true};
    if (!export.image || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds)) {
        abort();
    }
    Server *s = lodge_serve.new(&options, NULL);
    if (!s || !lodge_serve.add_export(s, &export, NULL) ||
        !lodge_serve.client(s, fds[0], fds[0], NULL)) {
        abort();
    }
    GThread *reader = g_thread_new("drain", drain, GINT_TO_POINTER(fds[1]));
    ssize_t put = send(fds[1], data, n, MSG_NOSIGNAL);
    (void)put;
    shutdown(fds[1], SHUT_WR);
    lodge_serve.run(s);
    lodge_serve.free(s);
    g_thread_join(reader);
    close(fds[1]);
    wait_for_threads(before);
}

static void descriptor(const uint8_t *data, size_t n)
{
    g_autoptr(GError) error = NULL;
    struct ovf *o = ovf_parse((const char *)data, n, &error);
    if (!o != !!error) {
        abort();
    }
    for (unsigned i = 0; o && i < o->n_disks; i++) {
        if (o->disks[i].file && !ovf_plain_name(o->disks[i].file)) {
            abort();
        }
    }
    ovf_free(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (!g_strcmp0(getenv("FUZZ_FORMAT"), "ovf")) {
        descriptor(data, n);
    } else {
        session(data, n);
    }
    return 0;
}
