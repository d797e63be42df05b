/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * The NBD server's transmission phase.
 *
 * A client that sends one request after the other is served by one thread, which saves it a
 * hand-over; another thread joins when a request waits while all of them are busy.
 *
 * Spec: "The NBD protocol", "Transmission", "Request types", "Structured reply types".
 */
#include "base/bytes.h"
#include "host/image/dirty.h"
#include "host/image/serve_nbd.h"

#include <errno.h>
#include <string.h>

enum { REQUEST_MAGIC = 0x25609513, SIMPLE_MAGIC = 0x67446698, CHUNK_MAGIC = 0x668e33ef };

enum command {
    CMD_READ = 0,
    CMD_WRITE = 1,
    CMD_DISC = 2,
    CMD_FLUSH = 3,
    CMD_TRIM = 4,
    CMD_CACHE = 5,
    CMD_WRITE_ZEROES = 6,
    CMD_BLOCK_STATUS = 7,
};

enum command_flag { FLAG_FUA = 1, FLAG_NO_HOLE = 2, FLAG_DF = 4, FLAG_REQ_ONE = 8, FLAG_FAST = 16 };
enum chunk_flag { CHUNK_DONE = 1 };
enum chunk {
    CHUNK_NONE = 0,
    CHUNK_DATA = 1,
    CHUNK_HOLE = 2,
    CHUNK_STATUS = 5,
    CHUNK_ERROR = 0x8001,
    CHUNK_ERROR_AT = 0x8002,
};

enum nbd_error {
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_ENOMEM = 12,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_ENOTSUP = 95,
    NBD_ESHUTDOWN = 108,
};

enum {
    SIMPLE_BYTES = 16,
    CHUNK_BYTES = 20,
    HEAD_BYTES = CHUNK_BYTES + 12, /* room for any header before data */
    STATUS_MAX = 4096,             /* extents in one answer */
};

struct request {
    unsigned flags, type;
    uint8_t cookie[8];
    uint64_t offset;
    uint32_t length;
};

/* One thread of a client.  .buf is HEAD_BYTES for headers and then NBD_PIECE for data. */
struct worker {
    struct client *client;
    struct request req;
    uint8_t *buf;
};

static uint32_t nbd_error(int r)
{
    switch (-r) {
    case 0:
        return 0;
    case EPERM:
    case EROFS:
    case EACCES:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NBD_ENOSPC;
    case ENOTSUP:
        return NBD_ENOTSUP;
    default:
        return NBD_EIO;
    }
}

/* ---- answers ---- */

static void transmit(struct client *c, const uint8_t *bytes, size_t n)
{
    g_mutex_lock(&c->sending);
    if (!c->broken && !stream_write(&c->stream, bytes, n)) {
        c->broken = true;
    }
    g_mutex_unlock(&c->sending);
}

static uint8_t *put_simple(const struct worker *w, uint8_t *at, uint32_t error)
{
    be32_put(at, SIMPLE_MAGIC);
    be32_put(at + 4, error);
    memcpy(at + 8, w->req.cookie, sizeof(w->req.cookie));
    return at;
}

static void put_chunk(const struct worker *w, uint8_t *at, bool done, enum chunk type, uint32_t n)
{
    be32_put(at, CHUNK_MAGIC);
    be16_put(at + 4, done ? CHUNK_DONE : 0);
    be16_put(at + 6, (uint16_t)type);
    memcpy(at + 8, w->req.cookie, sizeof(w->req.cookie));
    be32_put(at + 16, n);
}

/* The answer to a request that carries no data back. */
static void answer(const struct worker *w, int r)
{
    uint8_t out[SIMPLE_BYTES];
    transmit(w->client, put_simple(w, out, nbd_error(r)), sizeof(out));
}

/* The last chunk of a structured answer that failed. */
static void answer_chunk_error(const struct worker *w, int r, uint64_t at)
{
    uint8_t out[CHUNK_BYTES + 14];
    put_chunk(w, out, true, CHUNK_ERROR_AT, 14);
    be32_put(out + CHUNK_BYTES, nbd_error(r));
    be16_put(out + CHUNK_BYTES + 4, 0);
    be64_put(out + CHUNK_BYTES + 6, at);
    transmit(w->client, out, sizeof(out));
}

static void answer_status_error(const struct worker *w, int r)
{
    uint8_t out[CHUNK_BYTES + 6];
    put_chunk(w, out, true, CHUNK_ERROR, 6);
    be32_put(out + CHUNK_BYTES, nbd_error(r));
    be16_put(out + CHUNK_BYTES + 4, 0);
    transmit(w->client, out, sizeof(out));
}

/* ---- reading ---- */

static int read_image(const struct worker *w, uint64_t offset, void *to, size_t n)
{
    const struct serve_export *e = w->client->export;
    return e->view ? e->view->read(e->owner, e->offset + offset, to, n)
                   : chain_read(e->image, e->offset + offset, to, n);
}

static int status_at(const struct serve_export *e, uint64_t offset, uint64_t n,
                     struct chain_status *out)
{
    return e->view ? e->view->status(e->owner, e->offset + offset, n, out)
                   : chain_status(e->image, NULL, e->offset + offset, n, out);
}

/* Whether the image has zeroes at @offset, and how far that answer goes, at most @left. */
static bool is_hole(const struct worker *w, uint64_t offset, uint32_t left, uint32_t *n)
{
    const struct serve_export *e = w->client->export;
    struct chain_status st;
    uint64_t known = server_known_data(e, offset);
    if (known) {
        *n = (uint32_t)MIN(known, left);
        return false;
    }
    *n = left;
    if (status_at(e, offset, e->size - offset, &st)) {
        return false; /* the error shows when the bytes are read */
    }
    *n = (uint32_t)MIN(st.length, left);
    if (!st.zero) {
        server_learn_data(e, offset, offset + st.length);
    }
    return st.zero;
}

/* One chunk of a structured read; how many bytes it covers or a negative errno value. */
static int64_t read_chunk(struct worker *w, uint64_t offset, uint32_t left)
{
    uint32_t n;
    uint8_t *data = w->buf + HEAD_BYTES, *head = data - CHUNK_BYTES - 8;
    if (is_hole(w, offset, left, &n)) {
        head = w->buf;
        put_chunk(w, head, n == left, CHUNK_HOLE, 12);
        be64_put(head + CHUNK_BYTES, offset);
        be32_put(head + CHUNK_BYTES + 8, n);
        transmit(w->client, head, CHUNK_BYTES + 12);
        return n;
    }
    n = MIN(n, NBD_PIECE);
    int r = read_image(w, offset, data, n);
    if (r) {
        return r;
    }
    put_chunk(w, head, n == left, CHUNK_DATA, 8 + n);
    be64_put(head + CHUNK_BYTES, offset);
    transmit(w->client, head, CHUNK_BYTES + 8 + n);
    return n;
}

/* In one piece, for clients that cannot take or do not want chunks. */
static void read_whole(struct worker *w, bool chunk)
{
    const struct request *q = &w->req;
    size_t head_n = chunk ? CHUNK_BYTES + 8 : SIMPLE_BYTES;
    g_autofree uint8_t *more =
        q->length > NBD_PIECE ? g_try_malloc(HEAD_BYTES + (size_t)q->length) : NULL;
    uint8_t *data = (more ? more : w->buf) + HEAD_BYTES, *head = data - head_n;
    int r = q->length > NBD_PIECE && !more ? -ENOMEM : read_image(w, q->offset, data, q->length);
    if (r && chunk) {
        answer_chunk_error(w, r, q->offset);
    } else if (r) {
        answer(w, r);
    } else if (chunk) {
        put_chunk(w, head, true, CHUNK_DATA, 8 + q->length);
        be64_put(head + CHUNK_BYTES, q->offset);
        transmit(w->client, head, head_n + q->length);
    } else {
        transmit(w->client, put_simple(w, head, 0), head_n + q->length);
    }
}

static void do_read(struct worker *w)
{
    const struct request *q = &w->req;
    uint32_t done = 0;
    if (!w->client->structured || (q->flags & FLAG_DF)) {
        read_whole(w, w->client->structured);
        return;
    }
    while (done < q->length && !w->client->broken) {
        int64_t n = read_chunk(w, q->offset + done, q->length - done);
        if (n < 0) {
            answer_chunk_error(w, (int)n, q->offset + done);
            return;
        }
        done += (uint32_t)n;
    }
}

/* ---- changing ---- */

static int flush_if(const struct worker *w, int r)
{
    return !r && (w->req.flags & FLAG_FUA) ? chain_flush(w->client->export->image) : r;
}

static void do_zero(struct worker *w)
{
    const struct request *q = &w->req;
    const struct serve_export *e = w->client->export;
    if (q->flags & FLAG_FAST) {
        answer(w, -ENOTSUP); /* whether it would be fast is not known beforehand */
        return;
    }
    if (!server_may_write(e, q->offset, NULL, q->length)) {
        answer(w, -EPERM);
        return;
    }
    enum zero_kind kind = q->flags & FLAG_NO_HOLE || !e->unmap ? ZERO_KEEP : ZERO_UNMAP;
    answer(w, flush_if(w, chain_zero(e->image, e->offset + q->offset, q->length, kind)));
}

static void do_trim(struct worker *w)
{
    const struct request *q = &w->req;
    const struct serve_export *e = w->client->export;
    bool may = e->unmap && server_may_write(e, q->offset, NULL, q->length);
    int r = may ? chain_zero(e->image, e->offset + q->offset, q->length, ZERO_DISCARD) : 0;
    answer(w, flush_if(w, r == -ENOTSUP ? 0 : r)); /* advice only */
}

static void do_flush(struct worker *w)
{
    answer(w, chain_flush(w->client->export->image));
}

static void do_cache(struct worker *w)
{
    const struct request *q = &w->req;
    int r = 0;
    for (uint32_t done = 0; done < q->length && !r; done += NBD_PIECE) {
        r = read_image(w, q->offset + done, w->buf, MIN(q->length - done, NBD_PIECE));
    }
    answer(w, r);
}

static bool all_zero(const uint8_t *p, size_t n)
{
    return !p[0] && !memcmp(p, p + 1, n - 1);
}

static int write_image(const struct worker *w, uint64_t offset, size_t n)
{
    const struct serve_export *e = w->client->export;
    if (!server_may_write(e, offset, w->buf, n)) {
        return -EPERM;
    }
    if (e->zeroes != ZEROES_AS_DATA && all_zero(w->buf, n)) {
        bool unmap = e->zeroes == ZEROES_UNMAPPED && e->unmap;
        return chain_zero(e->image, e->offset + offset, n, unmap ? ZERO_UNMAP : ZERO_KEEP);
    }
    return chain_write(e->image, e->offset + offset, w->buf, n);
}

/*
 * Takes the data of a write from the peer, which is done while .receiving is held; whatever
 * becomes of the first piece, the rest must be read.  False: the peer has gone.
 */
static bool take_write(struct worker *w, int *result)
{
    const struct request *q = &w->req;
    for (uint32_t done = 0; done < q->length;) {
        uint32_t n = MIN(q->length - done, NBD_PIECE);
        if (!stream_read(&w->client->stream, w->buf, n)) {
            return false;
        }
        if (q->length <= NBD_PIECE) {
            return true; /* written when others may receive again */
        }
        if (!*result) {
            *result = write_image(w, q->offset + done, n);
        }
        done += n;
    }
    return true;
}

static void do_write(struct worker *w, int r)
{
    const struct request *q = &w->req;
    if (!r && q->length <= NBD_PIECE) {
        r = write_image(w, q->offset, q->length);
    }
    answer(w, flush_if(w, r));
}

/* ---- block status ---- */

/* One extent of context @id: its length and flags. */
static int status_of(const struct worker *w, unsigned id, uint64_t offset, uint64_t n,
                     uint64_t *length, uint32_t *flags)
{
    enum { HOLE = 1, ZERO = 2, DIRTY = 1 };
    const struct serve_export *e = w->client->export;
    struct chain_status st;
    if (id >= CONTEXT_BITMAPS) {
        bool dirty = false;
        struct node *of = e->bitmaps_node ? e->bitmaps_node : e->image;
        int r = dirty_next(of, e->bitmaps[id - CONTEXT_BITMAPS], e->offset + offset, n, &dirty,
                           length);
        *flags = dirty ? DIRTY : 0;
        return r;
    }
    int r = status_at(e, offset, n, &st);
    if (r) {
        return r;
    }
    *length = MIN(st.length, n);
    if (id == CONTEXT_DEPTH) {
        *flags = st.present ? st.depth + 1 : 0;
    } else {
        *flags = (st.data || st.compressed ? 0 : HOLE) | (st.zero ? ZERO : 0);
    }
    return 0;
}

/* The chunk of one context.  Neighbours that are alike are one extent. */
static int status_chunk(struct worker *w, unsigned id, bool last)
{
    const struct request *q = &w->req;
    unsigned most = q->flags & FLAG_REQ_ONE ? 1 : STATUS_MAX, count = 0;
    uint8_t *out = w->buf, *at = out + CHUNK_BYTES + 4;
    uint32_t before = 0;
    for (uint32_t done = 0; done < q->length;) {
        uint64_t n;
        uint32_t flags;
        int r = status_of(w, id, q->offset + done, q->length - done, &n, &flags);
        if (r) {
            return r;
        }
        if (count && flags == before) {
            be32_put(at - 8, be32_at(at - 8) + (uint32_t)n);
        } else if (count == most) {
            break;
        } else {
            be32_put(at, (uint32_t)n);
            be32_put(at + 4, flags);
            at += 8;
            count++;
        }
        before = flags;
        done += (uint32_t)n;
    }
    put_chunk(w, out, last, CHUNK_STATUS, 4 + 8 * count);
    be32_put(out + CHUNK_BYTES, id);
    transmit(w->client, out, (size_t)(at - out));
    return 0;
}

static void do_status(struct worker *w)
{
    const struct client *c = w->client;
    unsigned last = CONTEXTS_MAX - 1;
    while (!c->contexts[last]) {
        last--; /* there is one: c->any_context */
    }
    for (unsigned id = 0; id <= last; id++) {
        int r = c->contexts[id] ? status_chunk(w, id, id == last) : 0;
        if (r) {
            answer_status_error(w, r);
            return;
        }
    }
}

/* ---- requests ---- */

enum need { NEED_RANGE = 1, NEED_WRITABLE = 2, NEED_CONTEXT = 4, NEED_BOUNDED = 8 };

static const struct {
    void (*run)(struct worker *w);
    unsigned need, flags;
} commands[] = {
    [CMD_READ] = {do_read, NEED_RANGE | NEED_BOUNDED, FLAG_DF | FLAG_FUA},
    [CMD_WRITE] = {NULL, NEED_RANGE | NEED_WRITABLE | NEED_BOUNDED, FLAG_FUA},
    [CMD_FLUSH] = {do_flush, 0, FLAG_FUA},
    [CMD_TRIM] = {do_trim, NEED_RANGE | NEED_WRITABLE, FLAG_FUA},
    [CMD_CACHE] = {do_cache, NEED_RANGE | NEED_BOUNDED, FLAG_FUA},
    [CMD_WRITE_ZEROES] = {do_zero, NEED_RANGE | NEED_WRITABLE, FLAG_FUA | FLAG_NO_HOLE | FLAG_FAST},
    [CMD_BLOCK_STATUS] = {do_status, NEED_RANGE | NEED_CONTEXT, FLAG_REQ_ONE | FLAG_FUA},
};

/* 0, or why the request cannot be carried out. */
static int check(const struct client *c, const struct request *q)
{
    const struct serve_export *e = c->export;
    if (q->type >= G_N_ELEMENTS(commands) || (!commands[q->type].run && q->type != CMD_WRITE)) {
        return -EINVAL;
    }
    unsigned need = commands[q->type].need;
    if (q->flags & ~commands[q->type].flags) {
        return -EINVAL;
    }
    if ((need & NEED_WRITABLE) && e->read_only) {
        return -EPERM;
    }
    bool beyond = q->offset > e->size || q->length > e->size - q->offset;
    if ((need & NEED_RANGE) && (beyond || !q->length)) {
        return beyond && (need & NEED_WRITABLE) ? -ENOSPC : -EINVAL;
    }
    if ((need & NEED_BOUNDED) && q->length > NBD_REQUEST_MAX) {
        return -EINVAL;
    }
    return (need & NEED_CONTEXT) && !c->any_context ? -EINVAL : 0;
}

/* Under .receiving.  False: the connection ends.  @result: what check() and writing said. */
static bool receive(struct worker *w, int *result)
{
    uint8_t in[28];
    struct request *q = &w->req;
    struct client *c = w->client;
    if (!stream_read(&c->stream, in, sizeof(in)) || be32_at(in) != REQUEST_MAGIC) {
        return false;
    }
    q->flags = be16_at(in + 4);
    q->type = be16_at(in + 6);
    memcpy(q->cookie, in + 8, sizeof(q->cookie));
    q->offset = be64_at(in + 16);
    q->length = be32_at(in + 24);
    if (q->type == CMD_DISC) {
        return false;
    }
    *result = check(c, q);
    if (q->type != CMD_WRITE) {
        return true;
    }
    if (*result) { /* the data is on its way all the same, unless it is not to be believed */
        return q->length <= NBD_REQUEST_MAX && stream_skip(&c->stream, q->length);
    }
    return take_write(w, result);
}

static void run(struct worker *w, int r)
{
    bool chunks = w->client->structured;
    if (w->req.type == CMD_WRITE) {
        do_write(w, r);
    } else if (!r) {
        commands[w->req.type].run(w);
    } else if (chunks && (w->req.type == CMD_READ || w->req.type == CMD_BLOCK_STATUS)) {
        answer_status_error(w, r);
    } else {
        answer(w, r);
    }
}

static void work(struct client *c);

/* All are busy and more has come. */
static void maybe_help(struct client *c)
{
    unsigned busy = atomic_load(&c->busy), workers = atomic_load(&c->workers);
    if (busy >= workers && workers < CLIENT_WORKERS && stream_pending(&c->stream)) {
        atomic_fetch_add(&c->workers, 1);
        if (!client_spawn(c, work)) {
            atomic_fetch_sub(&c->workers, 1);
        }
    }
}

static void work(struct client *c)
{
    struct worker w = {.client = c, .buf = g_try_malloc(HEAD_BYTES + NBD_PIECE)};
    while (w.buf) {
        int r = 0;
        g_mutex_lock(&c->receiving);
        c->gone = c->gone || c->broken || server_stopping(c->server) || !receive(&w, &r);
        if (c->gone) {
            g_mutex_unlock(&c->receiving);
            break;
        }
        atomic_fetch_add(&c->busy, 1);
        maybe_help(c);
        g_mutex_unlock(&c->receiving);
        run(&w, r);
        atomic_fetch_sub(&c->busy, 1);
    }
    g_free(w.buf);
    if (atomic_fetch_sub(&c->workers, 1) == 1) {
        client_end(c);
    }
}

void nbd_transmit(struct client *c)
{
    atomic_store(&c->workers, 1);
    work(c);
}
