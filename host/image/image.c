/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * image: drives and their requests.
 *
 * A request is cut along the extents that the format names into transfers (struct io);
 * when the last of them has ended it joins the finished ones, and the event source below
 * calls .done from the main loop.  Nothing completes inside image_submit().
 */
#include "host/image/image.h"

#include "base/lock.h"
#include "base/util.h"
#include "host/image/format.h"
#include "host/image/io.h"

#include <sys/mman.h>

enum { IO_POOL_STEP = 64, IO_POOL_MAX = 8192, ZERO_BYTES = 1 << 20, IOV_MOST = 1024 };

struct image {
    char *id, *node_name, *file;
    struct node *top; /* NULL: no medium */
    bool read_only, no_flush, writethrough, discard;
    bool guarded; /* raw by probing: the guest may not make it look like something else */
    uint8_t head[PROBE_BYTES];
    unsigned running; /* requests under way */
    enum image_on_error on_read_error, on_write_error;
    struct image_request *held; /* failed, for image_retry_held() */
    struct image_stats stats;
    void (*changed)(void *owner);
    void *changed_owner;
    struct image *next;
};

static struct image *images;
static struct io *free_ios;
static unsigned n_ios;
static const uint8_t *zeroes; /* ZERO_BYTES of them */

static struct {
    struct image_request *first, **end;
} finished = {.end = &finished.first};

void (*image_failed)(Image *img, bool write, int error, enum image_on_error action);

/* ---- nodes ---- */

static void node_close(struct node *n)
{
    while (n) {
        struct node *backing = n->backing;
        if (n->format) {
            n->format->close(n);
        }
        file_close(n->file);
        g_free(n);
        n = backing;
    }
}

static const struct image_format *format_find(const char *name, GError **error)
{
    for (unsigned i = 0; i < n_image_formats; i++) {
        if (!strcmp(image_formats[i]->name, name) && image_formats[i]->probe(NULL, 0)) {
            return image_formats[i];
        }
    }
    g_set_error(error, LODGE_ERROR, ENOTSUP, "image format \"%s\" is not supported by this build",
                name);
    return NULL;
}

static bool choose_format(struct node *n, const struct image_options *opts, bool *guessed,
                          GError **error)
{
    uint8_t head[PROBE_BYTES] = {0};
    size_t have = (size_t)MIN(file_size(n->file), sizeof(head));
    int r = file_read(n->file, 0, head, have);
    if (r < 0) {
        error_set_errno(error, -r, "cannot read");
        return false;
    }
    const char *known = image_probe_name(head, have);
    *guessed = !opts->format && !known;
    n->format = format_find(opts->format ? opts->format : known ? known : "raw", error);
    return n->format;
}

static struct node *node_open(const struct image_options *opts, bool read_only, bool *guessed,
                              GError **error)
{
    struct node *n = g_new0(struct node, 1);
    n->granule = 1;
    n->file = file_open(opts->file, opts, read_only, error);
    if (!n->file || !choose_format(n, opts, guessed, error) || !n->format->open(n, error)) {
        g_prefix_error(error, "Could not open '%s': ", opts->file);
        node_close(n);
        return NULL;
    }
    return n;
}

extern const struct image_format format_overlay;

/* Puts a temporary overlay over @base, which is the new node's on success. */
static struct node *node_overlay(struct node *base, GError **error)
{
    struct node *n = g_new0(struct node, 1);
    n->format = &format_overlay;
    n->backing = base;
    n->file = file_temporary(base->size, error);
    if (!n->file || !n->format->open(n, error)) {
        n->backing = NULL;
        node_close(n);
        return NULL;
    }
    return n;
}

/* ---- drives ---- */

static gboolean source_prepare(GSource *src, gint *timeout)
{
    (void)src;
    *timeout = -1;
    return finished.first != NULL || io_has_ended();
}

static gboolean source_check(GSource *src)
{
    (void)src;
    return finished.first != NULL || io_has_ended();
}

static void run_finished(void);

static gboolean source_dispatch(GSource *src, GSourceFunc unused, gpointer data)
{
    (void)src, (void)unused, (void)data;
    io_plug();
    io_reap(false);
    run_finished();
    io_unplug();
    return G_SOURCE_CONTINUE;
}

static void start_once(void)
{
    static bool started;
    static GSourceFuncs funcs = {source_prepare, source_check, source_dispatch, NULL, NULL, NULL};
    if (started) {
        return;
    }
    started = true;
    zeroes = mmap(NULL, ZERO_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    io_init();
    int fds[2];
    unsigned n = io_fds(fds);
    GSource *src = g_source_new(&funcs, sizeof(*src));
    g_source_set_static_name(src, "image");
    while (n-- > 0) {
        g_source_add_unix_fd(src, fds[n], G_IO_IN);
    }
    g_source_attach(src, NULL);
    g_source_unref(src);
}

static Image *image_new(const char *id)
{
    start_once();
    struct image *img = g_new0(struct image, 1), **end = &images;
    img->id = g_strdup(id ? id : "");
    while (*end) {
        end = &(*end)->next;
    }
    *end = img;
    return img;
}

static bool insert(struct image *img, const struct image_options *opts, GError **error)
{
    bool guessed = false, read_only = opts->read_only || opts->snapshot;
    struct node *top = node_open(opts, read_only, &guessed, error);
    if (top && opts->snapshot && !opts->read_only) {
        struct node *over = node_overlay(top, error);
        if (!over) {
            node_close(top);
            return false;
        }
        top = over;
    }
    if (!top) {
        return false;
    }
    img->top = top;
    img->file = g_strdup(opts->file);
    img->read_only = opts->read_only || !top->format->allocate;
    img->no_flush = opts->no_flush || opts->snapshot;
    img->writethrough = opts->writethrough && !opts->snapshot;
    img->discard = opts->discard;
    img->on_read_error = opts->on_read_error;
    img->on_write_error = opts->on_write_error;
    img->guarded = guessed && !opts->snapshot;
    if (img->guarded) {
        image_read(img, 0, img->head, MIN(sizeof(img->head), top->size));
    }
    return true;
}

static void take_out(struct image *img)
{
    image_drain(img);
    g_clear_pointer(&img->top, node_close);
    g_clear_pointer(&img->file, g_free);
}

Image *image_open(const struct image_options *opts, GError **error)
{
    struct image *img = image_new(opts->id);
    img->node_name = g_strdup(opts->node_name);
    if (!insert(img, opts, error)) {
        image_close(img);
        return NULL;
    }
    return img;
}

Image *image_new_empty(const char *id)
{
    return image_new(id);
}

void image_close(Image *img)
{
    if (!img) {
        return;
    }
    take_out(img);
    struct image **at = &images;
    while (*at != img) {
        at = &(*at)->next;
    }
    *at = img->next;
    g_free(img->id);
    g_free(img->node_name);
    g_free(img);
}

bool image_change(Image *img, const struct image_options *opts, GError **error)
{
    image_eject(img);
    if (!insert(img, opts, error)) {
        return false;
    }
    if (img->changed) {
        img->changed(img->changed_owner);
    }
    return true;
}

void image_eject(Image *img)
{
    bool had = img->top;
    take_out(img);
    if (had && img->changed) {
        img->changed(img->changed_owner);
    }
}

void image_on_change(Image *img, void (*changed)(void *owner), void *owner)
{
    img->changed = changed;
    img->changed_owner = owner;
}

uint64_t image_size(const Image *img)
{
    return img->top ? img->top->size : 0;
}

bool image_read_only(const Image *img)
{
    return img->read_only;
}

bool image_guarded(const Image *img)
{
    return img->guarded;
}

const char *image_id(const Image *img)
{
    return img->id;
}

const char *image_file(const Image *img)
{
    return img->file;
}

/* The overlay of snapshot=on is ours, not the user's. */
const char *image_format_name(const Image *img)
{
    const struct node *n = img->top;
    while (n && n->format == &format_overlay) {
        n = n->backing;
    }
    return n ? n->format->name : NULL;
}

bool image_inserted(const Image *img)
{
    return img->top != NULL;
}

Image *image_find(const char *id)
{
    for (struct image *img = images; img; img = img->next) {
        if (!strcmp(img->id, id) || !g_strcmp0(img->node_name, id)) {
            return img;
        }
    }
    return NULL;
}

void image_each(void (*each)(Image *img, void *owner), void *owner)
{
    for (struct image *img = images, *next; img; img = next) {
        next = img->next;
        each(img, owner);
    }
}

struct image_stats image_stats(const Image *img)
{
    return img->stats;
}

/* ---- where the bytes are ---- */

/* Descends to the node that answers for @offset; *@file is where EXTENT_DATA lies. */
static int resolve(struct node *n, uint64_t offset, uint64_t length, struct extent *out,
                   struct file **file)
{
    for (; n && offset < n->size; n = n->backing) {
        int r = n->format->map(n, offset, MIN(length, n->size - offset), out);
        if (r < 0 || out->kind != EXTENT_ABSENT) {
            *file = n->file;
            return r;
        }
        length = out->length;
    }
    *out = (struct extent){.kind = EXTENT_ZERO, .length = length};
    return 0;
}

static void iov_zero(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t bytes)
{
    for (unsigned i = 0; i < n && bytes; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t step = (size_t)MIN(iov[i].iov_len - skip, bytes);
        memset((uint8_t *)iov[i].iov_base + skip, 0, step);
        bytes -= step;
        skip = 0;
    }
}

/* ---- transfers ---- */

static struct io *io_new(void)
{
    if (!free_ios && n_ios < IO_POOL_MAX) {
        struct io *more = g_try_new0(struct io, IO_POOL_STEP);
        for (unsigned i = 0; more && i < IO_POOL_STEP; i++) {
            more[i].next = free_ios;
            free_ios = &more[i];
        }
        n_ios += more ? IO_POOL_STEP : 0;
    }
    struct io *io = free_ios;
    if (io) {
        free_ios = io->next;
    }
    return io;
}

static void io_free(struct io *io)
{
    io->next = free_ios;
    free_ios = io;
}

/* Fills .part with the next pieces of what is left. */
static void cut_parts(struct io *io)
{
    uint64_t left = io->left;
    size_t skip = io->skip;
    unsigned n = 0;
    for (unsigned i = 0; n < IO_PARTS && left && (io->zeroes || i < io->niov); i++) {
        struct iovec v = {(void *)(uintptr_t)zeroes, ZERO_BYTES};
        if (!io->zeroes) {
            v = io->iov[i];
        }
        if (!io->zeroes && skip >= v.iov_len) {
            skip -= v.iov_len;
            continue;
        }
        if (!io->zeroes) {
            v.iov_base = (uint8_t *)v.iov_base + skip;
            v.iov_len -= skip;
            skip = 0;
        }
        v.iov_len = (size_t)MIN(v.iov_len, left);
        left -= v.iov_len;
        io->part[n++] = v;
    }
    io->now_iov = io->part;
    io->now_niov = n;
}

static bool aligned(const struct io *io)
{
    uint64_t bits = io->at;
    for (unsigned i = 0; i < io->now_niov; i++) {
        bits |= (uintptr_t)io->now_iov[i].iov_base | io->now_iov[i].iov_len;
    }
    return !(bits & (io->file->align - 1));
}

static void io_step(struct io *io)
{
    bool moves = io->kind == IO_READ || io->kind == IO_WRITE;
    bool whole = !io->zeroes && !io->skip && io->left == io->req->bytes && io->niov <= IOV_MOST;
    if (moves && whole) {
        io->now_iov = io->iov;
        io->now_niov = io->niov;
    } else if (moves) {
        cut_parts(io);
    }
    io->fd = io->file->direct && moves && !aligned(io) ? io->file->cached_fd : io->file->fd;
    io_start(io);
}

static void finish(struct image_request *req)
{
    if (!finished.first) {
        finished.end = &finished.first;
        g_main_context_wakeup(NULL);
    }
    req->next = NULL;
    *finished.end = req;
    finished.end = &req->next;
}

static void put_request(struct image_request *req, int result)
{
    if (result < 0 && !req->result) {
        req->result = result;
    }
    if (!--req->pending) {
        finish(req);
    }
}

static void start_io(struct image_request *req, struct file *file, enum io_kind kind, uint64_t at,
                     uint64_t bytes, size_t skip)
{
    struct io *io = io_new();
    req->pending++;
    if (!io) {
        put_request(req, -ENOMEM);
        return;
    }
    *io = (struct io){.req = req, .file = file, .kind = kind, .at = at, .left = bytes,
                      .dsync = req->image->writethrough && kind == IO_WRITE,
                      .zeroes = req->op == IMAGE_ZERO, .iov = req->iov, .niov = req->niov,
                      .skip = skip};
    io_step(io);
}

/* What an error of a transfer means: to go on in another way (0), or the end of it. */
static int io_recover(struct io *io, int error)
{
    if (error == -EINTR || error == -EAGAIN) {
        return 0;
    }
    if (error == -EINVAL && io->file->direct && io->fd == io->file->fd) {
        io->file->align = UINT32_C(1) << 31; /* its real rules are stricter than we know */
        return 0;
    }
    if (io->kind == IO_ZERO && (error == -EOPNOTSUPP || error == -EINVAL || error == -ENODEV)) {
        io->kind = IO_WRITE;
        return 0;
    }
    return error;
}

/* Advisory: a file system that cannot give space back is none the worse for it. */
static bool is_harmless(const struct io *io, int error)
{
    return io->kind == IO_PUNCH && (error == -EOPNOTSUPP || error == -ENODEV);
}

void io_ended(struct io *io)
{
    struct image_request *req = io->req;
    int error = io->result < 0 ? (int)io->result : 0;
    if (error && !is_harmless(io, error)) {
        error = io_recover(io, error);
        if (!error) {
            io_step(io);
            return;
        }
    } else if (io->kind == IO_READ || io->kind == IO_WRITE) {
        uint64_t n = (uint64_t)io->result;
        io->at += n;
        io->left -= n;
        io->skip += n;
        if (n && io->left) {
            io_step(io);
            return;
        }
        if (io->left && io->kind == IO_READ) {
            iov_zero(io->iov, io->niov, io->skip, io->left); /* beyond the end of the file */
        } else if (io->left) {
            error = -ENOSPC;
        }
    } else {
        error = 0;
    }
    io_free(io);
    put_request(req, error);
}

/* ---- requests ---- */

static void submit_read(struct image *img, struct image_request *req)
{
    for (uint64_t done = 0; done < req->bytes;) {
        struct extent e;
        struct file *file = NULL;
        int r = resolve(img->top, req->offset + done, req->bytes - done, &e, &file);
        if (r < 0) {
            req->result = r;
            return;
        }
        if (e.kind == EXTENT_DATA) {
            start_io(req, file, IO_READ, e.at, e.length, (size_t)done);
        } else {
            iov_zero(req->iov, req->niov, done, e.length);
        }
        done += e.length;
    }
}

static enum io_kind write_kind(const struct image *img, const struct image_request *req)
{
    if (req->op == IMAGE_WRITE) {
        return IO_WRITE;
    }
    if (req->op == IMAGE_DISCARD || (req->may_unmap && img->discard)) {
        return IO_PUNCH;
    }
    return IO_ZERO;
}

static void submit_write(struct image *img, struct image_request *req)
{
    struct node *top = img->top;
    int r = top->format->allocate(top, req->offset, req->bytes);
    enum io_kind kind = write_kind(img, req);
    for (uint64_t done = 0; r == 0 && done < req->bytes;) {
        struct extent e;
        r = top->format->map(top, req->offset + done, req->bytes - done, &e);
        if (r == 0) {
            start_io(req, top->file, kind, e.at, e.length, (size_t)done);
            done += e.length;
        }
    }
    if (r < 0) {
        req->result = r;
    }
}

static void submit_flush(struct image *img, struct image_request *req)
{
    if (img->no_flush) {
        return;
    }
    struct node *top = img->top;
    int r = top->format->flush ? top->format->flush(top) : 0;
    if (r < 0) {
        req->result = r;
    } else if (!top->file->read_only) {
        start_io(req, top->file, IO_SYNC, 0, 0, 0);
    }
}

/* Would these bytes at the start make a guessed raw image look like another format? */
static bool guard_allows(struct image *img, uint64_t offset, const struct iovec *iov, unsigned n,
                         uint64_t bytes)
{
    uint8_t head[PROBE_BYTES];
    if (!img->guarded || offset >= sizeof(head)) {
        return true;
    }
    memcpy(head, img->head, sizeof(head));
    uint64_t at = offset, end = MIN(offset + bytes, sizeof(head));
    if (!iov) {
        memset(head + at, 0, end - at);
    }
    for (unsigned i = 0; i < n && at < end; i++) {
        size_t step = (size_t)MIN(iov[i].iov_len, end - at);
        memcpy(head + at, iov[i].iov_base, step);
        at += step;
    }
    if (image_probe_name(head, sizeof(head))) {
        return false;
    }
    memcpy(img->head, head, sizeof(head));
    return true;
}

static int check(struct image *img, const struct image_request *req)
{
    bool writes = req->op != IMAGE_READ && req->op != IMAGE_FLUSH;
    if (!img->top) {
        return -ENOMEDIUM;
    }
    if (req->op == IMAGE_FLUSH) {
        return 0;
    }
    if (req->offset > img->top->size || req->bytes > img->top->size - req->offset) {
        return -EIO;
    }
    if (!writes) {
        return 0;
    }
    if (img->read_only) {
        return -EROFS;
    }
    if ((req->offset | req->bytes) & (img->top->granule - 1)) {
        return -EINVAL;
    }
    bool data = req->op == IMAGE_WRITE;
    return req->op == IMAGE_DISCARD || guard_allows(img, req->offset, data ? req->iov : NULL,
                                                    data ? req->niov : 0, req->bytes)
               ? 0
               : -EPERM;
}

static void count(struct image *img, const struct image_request *req)
{
    struct image_stats *s = &img->stats;
    s->rd_ops += req->op == IMAGE_READ;
    s->rd_bytes += req->op == IMAGE_READ ? req->bytes : 0;
    s->wr_ops += req->op == IMAGE_WRITE;
    s->wr_bytes += req->op == IMAGE_WRITE ? req->bytes : 0;
    s->flush_ops += req->op == IMAGE_FLUSH;
}

static void route(struct image *img, struct image_request *req)
{
    switch (req->op) {
    case IMAGE_READ:
        submit_read(img, req);
        break;
    case IMAGE_FLUSH:
        submit_flush(img, req);
        break;
    case IMAGE_DISCARD:
        if (!img->discard || !img->top->format->flat) {
            break; /* the guest may ask, nobody has to do it */
        }
        /* fall through */
    case IMAGE_WRITE:
    case IMAGE_ZERO:
        submit_write(img, req);
        break;
    }
}

void image_submit(Image *img, struct image_request *req)
{
    req->image = img;
    req->pending = 1;
    img->running++;
    req->result = check(img, req);
    if (!req->result) {
        count(img, req);
        route(img, req);
    }
    put_request(req, req->result);
}

static enum image_on_error action_for(const struct image *img, const struct image_request *req)
{
    bool read = req->op == IMAGE_READ;
    enum image_on_error a = read ? img->on_read_error : img->on_write_error;
    if (a == IMAGE_ON_ERROR_DEFAULT) {
        a = read ? IMAGE_ON_ERROR_REPORT : IMAGE_ON_ERROR_ENOSPC;
    }
    if (a == IMAGE_ON_ERROR_ENOSPC) {
        a = req->result == -ENOSPC ? IMAGE_ON_ERROR_STOP : IMAGE_ON_ERROR_REPORT;
    }
    return a == IMAGE_ON_ERROR_STOP && !image_failed ? IMAGE_ON_ERROR_REPORT : a;
}

/* True if the request is not over: it waits for the machine to go on. */
static bool held_by_error(struct image *img, struct image_request *req)
{
    int r = req->result;
    if (r >= 0 || r == -ENOMEDIUM || r == -EROFS || r == -EINVAL || r == -EPERM) {
        return false; /* no failure of the host */
    }
    enum image_on_error action = action_for(img, req);
    if (image_failed) {
        image_failed(img, req->op != IMAGE_READ, -r, action);
    }
    if (action == IMAGE_ON_ERROR_IGNORE) {
        req->result = 0;
    }
    if (action == IMAGE_ON_ERROR_STOP) {
        req->next = img->held;
        img->held = req;
    }
    return action == IMAGE_ON_ERROR_STOP;
}

static void run_finished(void)
{
    while (finished.first) {
        struct image_request *req = finished.first;
        finished.first = req->next;
        req->image->running--;
        if (!held_by_error(req->image, req)) {
            req->done(req, req->result);
        }
    }
}

void image_retry_held(void)
{
    for (struct image *img = images; img; img = img->next) {
        struct image_request *req = g_steal_pointer(&img->held);
        while (req) {
            struct image_request *next = req->next;
            image_submit(img, req);
            req = next;
        }
    }
}

bool image_holds_failed(void)
{
    for (struct image *img = images; img; img = img->next) {
        if (img->held) {
            return true;
        }
    }
    return false;
}

void image_plug(void)
{
    io_plug();
}

void image_unplug(void)
{
    io_unplug();
}

static void wait_for(const struct image *img)
{
    while (img->running) {
        run_finished();
        if (img->running) {
            io_reap(true);
        }
    }
}

void image_drain(Image *img)
{
    while (img->running || img->held) {
        wait_for(img);
        struct image_request *req = img->held;
        if (req) {
            img->held = req->next;
            req->done(req, req->result);
        }
    }
}

void image_drain_all(void)
{
    for (struct image *img = images; img;) {
        bool busy = img->running;
        wait_for(img);
        img = busy ? images : img->next; /* its .done may have started something elsewhere */
    }
}

/* ---- blocking forms ---- */

int image_read(Image *img, uint64_t offset, void *to, uint64_t bytes)
{
    uint8_t *p = to;
    if (!img->top || offset > img->top->size || bytes > img->top->size - offset) {
        return img->top ? -EIO : -ENOMEDIUM;
    }
    while (bytes) {
        struct extent e;
        struct file *file = NULL;
        int r = resolve(img->top, offset, bytes, &e, &file);
        if (r < 0) {
            return r;
        }
        uint64_t there = e.kind == EXTENT_DATA && e.at < file->size
                             ? MIN(e.length, file->size - e.at) : 0;
        r = there ? file_read(file, e.at, p, there) : 0;
        if (r < 0) {
            return r;
        }
        memset(p + there, 0, e.length - there);
        p += e.length;
        offset += e.length;
        bytes -= e.length;
    }
    return 0;
}

static int write_granules(struct node *top, uint64_t offset, const uint8_t *p, uint64_t bytes)
{
    int r = top->format->allocate(top, offset, bytes);
    while (r == 0 && bytes) {
        struct extent e;
        r = top->format->map(top, offset, bytes, &e);
        if (r == 0) {
            r = file_write(top->file, e.at, p, e.length);
            p += e.length;
            offset += e.length;
            bytes -= e.length;
        }
    }
    return r;
}

/* A piece of one granule: read, change, write. */
static int write_inside(Image *img, uint64_t offset, const void *from, uint64_t bytes)
{
    uint8_t buf[4096];
    uint32_t granule = img->top->granule;
    uint64_t start = offset & ~(uint64_t)(granule - 1);
    if (granule > sizeof(buf)) {
        return -EINVAL;
    }
    int r = image_read(img, start, buf, granule);
    if (r < 0) {
        return r;
    }
    memcpy(buf + (offset - start), from, bytes);
    return write_granules(img->top, start, buf, granule);
}

int image_write(Image *img, uint64_t offset, const void *from, uint64_t bytes)
{
    const uint8_t *p = from;
    struct iovec iov = {(void *)(uintptr_t)from, bytes};
    if (!img->top || img->read_only) {
        return img->top ? -EROFS : -ENOMEDIUM;
    }
    if (offset > img->top->size || bytes > img->top->size - offset) {
        return -EIO;
    }
    if (!guard_allows(img, offset, &iov, 1, bytes)) {
        return -EPERM;
    }
    while (bytes) {
        uint64_t mask = img->top->granule - 1, in = offset & mask;
        bool part = in || bytes <= mask;
        uint64_t n = part ? MIN(bytes, mask + 1 - in) : bytes & ~mask;
        int r = part ? write_inside(img, offset, p, n) : write_granules(img->top, offset, p, n);
        if (r < 0) {
            return r;
        }
        p += n;
        offset += n;
        bytes -= n;
    }
    return 0;
}

int image_flush(Image *img)
{
    struct node *top = img->top;
    if (!top || img->no_flush || img->read_only) {
        return 0;
    }
    int r = top->format->flush ? top->format->flush(top) : 0;
    return r < 0 ? r : fdatasync(top->file->cached_fd) ? -errno : 0;
}

bool image_flush_all(GError **error)
{
    for (struct image *img = images; img; img = img->next) {
        int r = image_flush(img);
        if (r < 0) {
            error_set_errno(error, -r, "%s: cannot flush", img->file);
            return false;
        }
    }
    return true;
}
