/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/savevm.h"

#include "base/lock.h"
#include "base/util.h"
#include "guest/memory/ram.h"
#include "guest/time/clock.h"
#include "host/image/chain.h"
#include "host/image/image.h"
#include "vmm/state.h"
#include "vmm/vm.h"

#include <fcntl.h>
#include <string.h>

/*
 * savevm - the machine's state inside a disk image
 *
 * The stream of migrate goes through a pipe: a thread makes or takes it, this one moves it to
 * or from the part of the image behind the disk's end, which a snapshot then keeps.
 */
enum { PIECE = 1 << 20 };

/* ---- which disks ---- */

struct disks {
    GPtrArray *all; /* struct node *, the first keeps the state */
    GError *error;
};

static const struct snapshot_tools *tools_of(const struct node *n)
{
    return n->format->tools ? n->format->tools->snapshots : NULL;
}

static void add_disk(Image *img, void *owner)
{
    struct disks *d = owner;
    struct node *top = image_top(img);
    if (!top || image_read_only(img) || d->error) {
        return;
    }
    if (!tools_of(top)) {
        g_set_error(&d->error, LODGE_ERROR, ENOTSUP,
                    "Device '%s' is writable but does not support snapshots", image_id(img));
        return;
    }
    if (image_has_job(img)) {
        g_set_error(&d->error, LODGE_ERROR, EBUSY, "Device '%s' has a block job", image_id(img));
        return;
    }
    g_ptr_array_add(d->all, top);
}

static void add_named(struct disks *d, const char *name)
{
    Image *img = NULL;
    struct node *n = image_find_node(name, &img);
    if (!n || n != image_top(img) || image_read_only(img)) {
        g_set_error(&d->error, LODGE_ERROR, ENODEV, "No block device node '%s' that can be written",
                    name);
    } else if (!g_ptr_array_find(d->all, n, NULL)) {
        add_disk(img, d);
    }
}

static GPtrArray *disks_of(const char *const *nodes, GError **error)
{
    struct disks d = {.all = g_ptr_array_new()};
    for (unsigned i = 0; nodes && nodes[i] && !d.error; i++) {
        add_named(&d, nodes[i]);
    }
    if (!nodes) {
        image_each(add_disk, &d);
    }
    if (!d.error && (!d.all->len || !tools_of(d.all->pdata[0])->state_offset)) {
        g_set_error(&d.error, LODGE_ERROR, ENOTSUP, "No block device can accept snapshots");
    }
    if (d.error) {
        g_propagate_error(error, d.error);
        g_ptr_array_free(d.all, TRUE);
        return NULL;
    }
    return d.all;
}

static const struct image_snapshot *find_in(struct node *n, const char *name)
{
    const struct snapshot_tools *t = tools_of(n);
    for (unsigned i = 0; i < t->count(n); i++) {
        const struct image_snapshot *s = t->get(n, i);
        if (!strcmp(s->name, name)) {
            return s;
        }
    }
    for (unsigned i = 0; i < t->count(n); i++) {
        const struct image_snapshot *s = t->get(n, i);
        if (!strcmp(s->id, name)) {
            return s;
        }
    }
    return NULL;
}

static bool remove_from(GPtrArray *disks, const char *name, GError **error)
{
    for (unsigned i = 0; i < disks->len; i++) {
        struct node *n = disks->pdata[i];
        if (find_in(n, name) && !tools_of(n)->remove(n, name, error)) {
            return false;
        }
        chain_forget(n);
    }
    return true;
}

/* ---- standing still ---- */

static bool hold(GError **error)
{
    vm_hold();
    image_drain_all();
    if (image_holds_failed()) {
        g_set_error(error, LODGE_ERROR, EIO, "a disk request that failed waits to be tried again");
    } else if (image_flush_all(error)) {
        return true;
    }
    vm_release();
    return false;
}

/* ---- the stream ---- */

struct stream {
    int fds[2];
    GThread *thread;
    GByteArray *rest; /* saving: clock, CPUs and devices */
    uint32_t sections;
    bool running;
    GError *error;
};

static bool put_all(struct stream *s, struct state_io *io, GError **error)
{
    if (!state_put_head(io, s->running, error)) {
        return false;
    }
    for (unsigned b = 0; ram_at(b); b++) {
        if (!state_put_pages(io, b, NULL, false, error)) {
            return false;
        }
    }
    return state_put_rest(io, s->rest, s->sections, error);
}

static gpointer writer(gpointer data)
{
    struct stream *s = data;
    struct state_io io;
    state_io_init(&io, s->fds[1]);
    put_all(s, &io, &s->error);
    state_io_clear(&io);
    close(s->fds[1]);
    return NULL;
}

static gpointer reader(gpointer data)
{
    struct stream *s = data;
    struct state_io io;
    state_io_init(&io, s->fds[0]);
    state_load(&io, &s->running, &s->error);
    state_io_clear(&io);
    close(s->fds[0]);
    return NULL;
}

static bool stream_open(struct stream *s, GError **error)
{
    if (pipe2(s->fds, O_CLOEXEC)) {
        error_set_errno(error, errno, "pipe");
        return false;
    }
    (void)fcntl(s->fds[1], F_SETPIPE_SZ, PIECE);
    return true;
}

static ssize_t read_piece(int fd, uint8_t *buf)
{
    size_t n = 0;
    while (n < PIECE) {
        ssize_t r = read(fd, buf + n, PIECE - n);
        if (r < 0 && errno == EINTR) {
            continue;
        }
        if (r <= 0) {
            return r ? -errno : (ssize_t)n;
        }
        n += (size_t)r;
    }
    return (ssize_t)n;
}

static int write_piece(int fd, const uint8_t *buf, size_t n)
{
    while (n) {
        ssize_t r = write(fd, buf, n);
        if (r < 0 && errno != EINTR) {
            return -errno;
        }
        buf += MAX(r, 0);
        n -= (size_t)MAX(r, 0);
    }
    return 0;
}

/* The disk ends at .size for the core, so for the state it is made to look larger. */
static uint64_t lift_end(struct node *n)
{
    uint64_t size = n->size;
    n->size = (uint64_t)INT64_MAX & ~(uint64_t)(n->granule - 1);
    return size;
}

/* Bytes that were written, or -errno. */
static int64_t copy_out(struct node *n, uint64_t at, int fd)
{
    g_autofree uint8_t *buf = g_malloc(PIECE);
    uint64_t start = at, size = lift_end(n);
    int r = 0;
    ssize_t got;
    while (r == 0 && (got = read_piece(fd, buf)) != 0) {
        r = got < 0 ? (int)got : chain_write(n, at, buf, (uint64_t)got);
        at += (uint64_t)MAX(got, 0);
    }
    n->size = size;
    return r ? r : (int64_t)(at - start);
}

static int copy_in(struct node *n, uint64_t at, uint64_t bytes, int fd)
{
    g_autofree uint8_t *buf = g_malloc(PIECE);
    uint64_t size = lift_end(n);
    int r = 0;
    while (r == 0 && bytes) {
        uint64_t step = MIN(bytes, PIECE);
        r = chain_read(n, at, buf, step);
        r = r ? r : write_piece(fd, buf, step);
        at += step;
        bytes -= step;
    }
    n->size = size;
    return r == -EPIPE ? 0 : r; /* whoever took it has all, or says what is wrong */
}

/* The snapshot keeps its own: what the disk still has of the state is given back. */
static void drop_state(struct node *n, uint64_t at, uint64_t bytes)
{
    uint64_t mask = n->granule - UINT64_C(1), size = lift_end(n);
    (void)chain_zero(n, at, (bytes + mask) & ~mask, ZERO_DISCARD);
    n->size = size;
    chain_forget(n);
}

/* ---- saving ---- */

static int64_t write_state(struct node *n, uint64_t at, bool running, GError **error)
{
    struct stream s = {.running = running};
    int64_t bytes;
    if (!stream_open(&s, error)) {
        return -1;
    }
    s.rest = state_collect(&s.sections);
    s.thread = g_thread_new("savevm", writer, &s);
    bytes = copy_out(n, at, s.fds[0]);
    close(s.fds[0]);
    g_thread_join(s.thread);
    g_byte_array_unref(s.rest);
    if (s.error && bytes >= 0) {
        g_propagate_error(error, s.error);
        return -1;
    }
    g_clear_error(&s.error);
    if (bytes < 0) {
        error_set_errno(error, (int)-bytes, "Error while writing VM state");
    }
    return bytes;
}

static bool snapshot_all(GPtrArray *disks, const char *name, uint64_t state_bytes, GError **error)
{
    int64_t wall = g_get_real_time();
    for (unsigned i = 0; i < disks->len; i++) {
        struct node *n = disks->pdata[i];
        struct image_snapshot snap = {.name = (char *)(uintptr_t)name,
                                      .vm_state_size = i ? 0 : state_bytes,
                                      .vm_clock_ns = (uint64_t)clock_now(),
                                      .disk_size = n->size,
                                      .date_sec = (uint32_t)(wall / G_USEC_PER_SEC),
                                      .date_nsec = (uint32_t)(wall % G_USEC_PER_SEC * 1000),
                                      .icount = UINT64_MAX};
        if (!tools_of(n)->create(n, &snap, error)) {
            return false;
        }
        chain_forget(n);
    }
    return true;
}

static bool save_held(GPtrArray *disks, const char *name, bool running, GError **error)
{
    struct node *first = disks->pdata[0];
    uint64_t at = tools_of(first)->state_offset(first);
    if (!remove_from(disks, name, error)) {
        return false;
    }
    int64_t bytes = write_state(first, at, running, error);
    bool saved = bytes >= 0 && snapshot_all(disks, name, (uint64_t)bytes, error);
    drop_state(first, at, (uint64_t)MAX(bytes, 0));
    return saved && image_flush_all(error);
}

bool savevm_save(const char *name, const char *const *nodes, GError **error)
{
    bool running = vm_running();
    g_autoptr(GPtrArray) disks = disks_of(nodes, error);
    if (!disks || !hold(error)) {
        return false;
    }
    bool saved = save_held(disks, name, running, error);
    vm_release();
    return saved;
}

/* ---- loading ---- */

static bool read_state(struct node *n, uint64_t at, uint64_t bytes, GError **error)
{
    struct stream s = {0};
    if (!stream_open(&s, error)) {
        return false;
    }
    s.thread = g_thread_new("loadvm", reader, &s);
    machine_unlock(); /* the thread needs it */
    int r = copy_in(n, at, bytes, s.fds[1]);
    close(s.fds[1]);
    g_thread_join(s.thread);
    machine_lock();
    if (r < 0) {
        g_clear_error(&s.error);
        error_set_errno(error, -r, "Error while reading VM state");
    } else if (s.error) {
        g_propagate_error(error, s.error);
    }
    return r == 0 && !s.error;
}

static bool load_held(GPtrArray *disks, const char *name, uint64_t bytes, GError **error)
{
    struct node *first = disks->pdata[0];
    for (unsigned i = 0; i < disks->len; i++) {
        struct node *n = disks->pdata[i];
        if (!tools_of(n)->apply(n, name, error)) {
            return false;
        }
        chain_forget(n);
    }
    uint64_t at = tools_of(first)->state_offset(first);
    bool loaded = read_state(first, at, bytes, error);
    drop_state(first, at, bytes);
    return loaded;
}

static bool all_have(GPtrArray *disks, const char *name, GError **error)
{
    for (unsigned i = 0; i < disks->len; i++) {
        const struct image_snapshot *s = find_in(disks->pdata[i], name);
        if (!s || (i == 0 && !s->vm_state_size)) {
            g_set_error(error, LODGE_ERROR, ENOENT,
                        s ? "Snapshot '%s' is a disk-only snapshot. Revert to it offline using qemu-img"
                          : "Snapshot '%s' does not exist in one or more devices", name);
            return false;
        }
    }
    return true;
}

bool savevm_load(const char *name, const char *const *nodes, GError **error)
{
    bool running = vm_running();
    g_autoptr(GPtrArray) disks = disks_of(nodes, error);
    if (!disks || !all_have(disks, name, error)) {
        return false;
    }
    if (running) {
        vm_stop(VM_PAUSED);
    }
    if (!hold(error)) {
        return false;
    }
    bool loaded = load_held(disks, name, find_in(disks->pdata[0], name)->vm_state_size, error);
    vm_release();
    if (!loaded) {
        vm_set_state(VM_INTERNAL_ERROR); /* a part of it is of another time */
        return false;
    }
    vm_set_state(VM_PAUSED);
    return !running || vm_cont(error);
}

/* ---- the rest ---- */

bool savevm_remove(const char *name, const char *const *nodes, GError **error)
{
    g_autoptr(GPtrArray) disks = disks_of(nodes, error);
    bool found = false;
    for (unsigned i = 0; disks && i < disks->len; i++) {
        found |= find_in(disks->pdata[i], name) != NULL;
    }
    if (disks && !found) {
        g_set_error(error, LODGE_ERROR, ENOENT, "Snapshot '%s' does not exist", name);
    }
    if (!found || !hold(error)) {
        return false;
    }
    bool removed = remove_from(disks, name, error);
    vm_release();
    return removed;
}

void savevm_list(GString *out)
{
    g_autoptr(GPtrArray) disks = disks_of(NULL, NULL);
    if (!disks) {
        g_string_append(out, "No available block device supports snapshots\n");
        return;
    }
    struct node *first = disks->pdata[0];
    const struct snapshot_tools *t = tools_of(first);
    if (!t->count(first)) {
        g_string_append(out, "There is no snapshot available.\n");
        return;
    }
    g_string_append(out, "ID        TAG               VM SIZE                DATE     VM CLOCK\n");
    for (unsigned i = 0; i < t->count(first); i++) {
        const struct image_snapshot *s = t->get(first, i);
        g_autofree char *size = g_format_size_full(s->vm_state_size, G_FORMAT_SIZE_IEC_UNITS);
        g_autoptr(GDateTime) date = g_date_time_new_from_unix_local(s->date_sec);
        g_autofree char *when = g_date_time_format(date, "%Y-%m-%d %H:%M:%S");
        uint64_t ms = s->vm_clock_ns / 1000000;
        g_string_append_printf(out, "%-9s %-14s %10s %19s %02u:%02u:%02u.%03u\n", s->id, s->name, size,
                               when, (unsigned)(ms / 3600000), (unsigned)(ms / 60000 % 60),
                               (unsigned)(ms / 1000 % 60), (unsigned)(ms % 1000));
    }
}
