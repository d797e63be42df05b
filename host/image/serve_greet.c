/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * The NBD server's side of the handshake: options until the client has chosen an export.
 *
 * Spec: "The NBD protocol", "Protocol phases", "Fixed newstyle negotiation", "Option types",
 * "Metadata querying".
 */
#include "base/bytes.h"
#include "host/image/serve_nbd.h"

#include <string.h>

#define NBD_MAGIC          UINT64_C(0x4e42444d41474943)
#define OPTION_MAGIC       UINT64_C(0x49484156454f5054)
#define OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)

enum handshake_flag { FIXED_NEWSTYLE = 1, NO_ZEROES = 2 };

enum option {
    OPT_EXPORT_NAME = 1,
    OPT_ABORT = 2,
    OPT_LIST = 3,
    OPT_STARTTLS = 5,
    OPT_INFO = 6,
    OPT_GO = 7,
    OPT_STRUCTURED_REPLY = 8,
    OPT_LIST_META_CONTEXT = 9,
    OPT_SET_META_CONTEXT = 10,
};

#define REP_ERROR(n) (UINT32_C(1) << 31 | (n))
enum reply {
    REP_ACK = 1,
    REP_SERVER = 2,
    REP_INFO = 3,
    REP_META_CONTEXT = 4,
};
#define REP_ERR_UNSUP    REP_ERROR(1)
#define REP_ERR_POLICY   REP_ERROR(2)
#define REP_ERR_INVALID  REP_ERROR(3)
#define REP_ERR_TLS_REQD REP_ERROR(5)
#define REP_ERR_UNKNOWN  REP_ERROR(6)
#define REP_ERR_TOO_BIG  REP_ERROR(9)

enum info { INFO_EXPORT = 0, INFO_NAME = 1, INFO_DESCRIPTION = 2, INFO_BLOCK_SIZE = 3 };

enum export_flag {
    HAS_FLAGS = 1 << 0,
    READ_ONLY = 1 << 1,
    SEND_FLUSH = 1 << 2,
    SEND_FUA = 1 << 3,
    SEND_TRIM = 1 << 5,
    SEND_WRITE_ZEROES = 1 << 6,
    SEND_DF = 1 << 7,
    CAN_MULTI_CONN = 1 << 8,
    SEND_CACHE = 1 << 10,
    SEND_FAST_ZERO = 1 << 11,
};

/* What an option's handler says about the connection. */
enum verdict { NEXT_OPTION, TRANSMIT, HANG_UP };

struct greeting {
    struct client *client;
    uint32_t option;
    uint8_t *data; /* of the option: .length bytes */
    uint32_t length;
};

uint16_t nbd_export_flags(const struct serve_export *e)
{
    unsigned flags = HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_DF | SEND_CACHE;
    flags |= e->read_only ? READ_ONLY : SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO;
    flags |= e->shared ? CAN_MULTI_CONN : 0;
    return (uint16_t)flags;
}

/* One reply; @head and @tail together are its data. */
static bool reply_two(struct greeting *g, uint32_t type, const void *head, size_t head_n,
                      const void *tail, size_t tail_n)
{
    uint8_t to[20 + 64];
    struct stream *s = &g->client->stream;
    be64_put(to, OPTION_REPLY_MAGIC);
    be32_put(to + 8, g->option);
    be32_put(to + 12, type);
    be32_put(to + 16, (uint32_t)(head_n + tail_n));
    memcpy(to + 20, head, head_n);
    return stream_write(s, to, 20 + head_n) && stream_write(s, tail, tail_n);
}

static enum verdict reply(struct greeting *g, uint32_t type)
{
    return reply_two(g, type, "", 0, "", 0) ? NEXT_OPTION : HANG_UP;
}

/* An error with words for people. */
static enum verdict refuse(struct greeting *g, uint32_t type, const char *why)
{
    return reply_two(g, type, "", 0, why, strlen(why)) ? NEXT_OPTION : HANG_UP;
}

/* ---- the old way: no reply, no error ---- */

static enum verdict opt_export_name(struct greeting *g)
{
    struct client *c = g->client;
    uint8_t out[10 + 124] = {0};
    c->export = server_find_export(c->server, (const char *)g->data, g->length);
    if (!c->export) {
        return HANG_UP;
    }
    be64_put(out, c->export->size);
    be16_put(out + 8, nbd_export_flags(c->export));
    return stream_write(&c->stream, out, c->no_zeroes ? 10 : sizeof(out)) ? TRANSMIT : HANG_UP;
}

static enum verdict opt_abort(struct greeting *g)
{
    reply(g, REP_ACK);
    return HANG_UP;
}

static enum verdict opt_list(struct greeting *g)
{
    const struct serve_export *e;
    if (g->length) {
        return refuse(g, REP_ERR_INVALID, "LIST takes no data");
    }
    for (unsigned i = 0; (e = server_export(g->client->server, i)); i++) {
        uint8_t n[4];
        g_autofree char *both = g_strconcat(e->name, e->description, NULL);
        be32_put(n, (uint32_t)strlen(e->name));
        if (!reply_two(g, REP_SERVER, n, sizeof(n), both, strlen(both))) {
            return HANG_UP;
        }
    }
    return reply(g, REP_ACK);
}

static enum verdict opt_starttls(struct greeting *g)
{
    struct client *c = g->client;
    const struct server_tls *tls = server_tls(c->server);
    if (g->length) {
        return refuse(g, REP_ERR_INVALID, "STARTTLS takes no data");
    }
    if (c->stream.tls) {
        return refuse(g, REP_ERR_INVALID, "TLS is on already");
    }
    if (!tls) {
        return refuse(g, REP_ERR_POLICY, "TLS is not configured");
    }
    if (reply(g, REP_ACK) == HANG_UP || !stream_start_tls(&c->stream, tls)) {
        return HANG_UP;
    }
    c->structured = false; /* what was said in the clear does not count */
    c->any_context = false;
    return NEXT_OPTION;
}

static enum verdict opt_structured_reply(struct greeting *g)
{
    if (g->length) {
        return refuse(g, REP_ERR_INVALID, "STRUCTURED_REPLY takes no data");
    }
    g->client->structured = true;
    return reply(g, REP_ACK);
}

/* ---- INFO and GO ---- */

static bool info_text(struct greeting *g, enum info type, const char *text)
{
    uint8_t head[2];
    be16_put(head, type);
    return reply_two(g, REP_INFO, head, sizeof(head), text, strlen(text));
}

static bool info_sizes(struct greeting *g, const struct serve_export *e)
{
    uint8_t block[14], export[12];
    be16_put(block, INFO_BLOCK_SIZE);
    be32_put(block + 2, 1);
    be32_put(block + 6, 4096);
    be32_put(block + 10, NBD_REQUEST_MAX);
    be16_put(export, INFO_EXPORT);
    be64_put(export + 2, e->size);
    be16_put(export + 10, nbd_export_flags(e));
    return reply_two(g, REP_INFO, block, sizeof(block), "", 0) &&
           reply_two(g, REP_INFO, export, sizeof(export), "", 0);
}

/* Data: name length, name, number of requests, requests of 2 bytes each. */
static enum verdict opt_info_or_go(struct greeting *g)
{
    struct client *c = g->client;
    uint32_t name_n = g->length >= 6 ? be32_at(g->data) : UINT32_MAX;
    if (name_n > g->length - 6 || name_n > NBD_NAME_MAX ||
        g->length - 6 - name_n != 2u * be16_at(g->data + 4 + name_n)) {
        return refuse(g, REP_ERR_INVALID, "lengths do not match");
    }
    const char *name = (const char *)g->data + 4;
    const uint8_t *wanted = g->data + 6 + name_n;
    const struct serve_export *e = server_find_export(c->server, name, name_n);
    if (!e) {
        return refuse(g, REP_ERR_UNKNOWN, "no such export");
    }
    for (unsigned i = 0; i < be16_at(g->data + 4 + name_n); i++) {
        unsigned what = be16_at(wanted + 2 * i);
        if ((what == INFO_NAME && !info_text(g, INFO_NAME, e->name)) ||
            (what == INFO_DESCRIPTION && e->description &&
             !info_text(g, INFO_DESCRIPTION, e->description))) {
            return HANG_UP;
        }
    }
    if (!info_sizes(g, e) || reply(g, REP_ACK) == HANG_UP) {
        return HANG_UP;
    }
    if (g->option == OPT_INFO) {
        return NEXT_OPTION;
    }
    if (c->export != e) {
        c->any_context = false; /* they were asked for another one */
    }
    c->export = e;
    return TRANSMIT;
}

/* ---- metadata contexts ---- */

/* The name of context @id of @e, or NULL if it has none. */
static char *context_name(const struct serve_export *e, unsigned id)
{
    if (id == CONTEXT_ALLOCATION) {
        return g_strdup("base:allocation");
    }
    if (id == CONTEXT_DEPTH) {
        return e->depth ? g_strdup("qemu:allocation-depth") : NULL;
    }
    return id - CONTEXT_BITMAPS < e->n_bitmaps
               ? g_strconcat("qemu:dirty-bitmap:", e->bitmaps[id - CONTEXT_BITMAPS], NULL)
               : NULL;
}

/* "base:" and "qemu:" stand for all of theirs when listing, "qemu:dirty-bitmap:" too. */
static bool query_matches(const struct greeting *g, const char *query, size_t n, const char *name)
{
    bool all = g->option == OPT_LIST_META_CONTEXT && n > 0 && query[n - 1] == ':';
    return all ? !strncmp(name, query, n) : strlen(name) == n && !memcmp(name, query, n);
}

/* Marks what the queries at @at match; false if they do not fit their @left bytes. */
static bool read_queries(const struct greeting *g, const struct serve_export *e, const uint8_t *at,
                         size_t left, uint32_t queries, bool wanted[CONTEXTS_MAX])
{
    for (; queries; queries--) {
        uint32_t n = left >= 4 ? be32_at(at) : UINT32_MAX;
        if (n > left - 4 || n > NBD_NAME_MAX) {
            return false;
        }
        for (unsigned id = 0; id < CONTEXTS_MAX; id++) {
            g_autofree char *name = context_name(e, id);
            wanted[id] |= name && query_matches(g, (const char *)at + 4, n, name);
        }
        at += 4 + n;
        left -= 4 + n;
    }
    return left == 0;
}

static bool list_context(struct greeting *g, const struct serve_export *e, unsigned id)
{
    uint8_t head[4];
    g_autofree char *name = context_name(e, id);
    be32_put(head, g->option == OPT_SET_META_CONTEXT ? id : 0);
    return reply_two(g, REP_META_CONTEXT, head, sizeof(head), name, strlen(name));
}

/* Data: name length, name, number of queries, each a length and a text. */
static enum verdict opt_meta_context(struct greeting *g)
{
    struct client *c = g->client;
    bool set = g->option == OPT_SET_META_CONTEXT, wanted[CONTEXTS_MAX] = {0};
    uint32_t name_n = g->length >= 8 ? be32_at(g->data) : UINT32_MAX;
    if (set) {
        c->any_context = false;
        memset(c->contexts, 0, sizeof(c->contexts));
    }
    if (!c->structured) {
        return refuse(g, REP_ERR_INVALID, "structured replies come first");
    }
    if (name_n > g->length - 8 || name_n > NBD_NAME_MAX) {
        return refuse(g, REP_ERR_INVALID, "lengths do not match");
    }
    const struct serve_export *e = server_find_export(c->server, (const char *)g->data + 4, name_n);
    if (!e) {
        return refuse(g, REP_ERR_UNKNOWN, "no such export");
    }
    uint32_t queries = be32_at(g->data + 4 + name_n);
    if (!read_queries(g, e, g->data + 8 + name_n, g->length - 8 - name_n, queries, wanted)) {
        return refuse(g, REP_ERR_INVALID, "queries do not match their lengths");
    }
    for (unsigned id = 0; id < CONTEXTS_MAX; id++) {
        g_autofree char *name = context_name(e, id);
        bool here = name && (wanted[id] || (!set && !queries));
        if (here && !list_context(g, e, id)) {
            return HANG_UP;
        }
        if (here && set) {
            c->contexts[id] = c->any_context = true;
            c->export = e;
        }
    }
    return reply(g, REP_ACK);
}

static const struct {
    uint32_t option;
    enum verdict (*run)(struct greeting *g);
} options[] = {
    {OPT_EXPORT_NAME, opt_export_name},
    {OPT_ABORT, opt_abort},
    {OPT_LIST, opt_list},
    {OPT_STARTTLS, opt_starttls},
    {OPT_INFO, opt_info_or_go},
    {OPT_GO, opt_info_or_go},
    {OPT_STRUCTURED_REPLY, opt_structured_reply},
    {OPT_LIST_META_CONTEXT, opt_meta_context},
    {OPT_SET_META_CONTEXT, opt_meta_context},
};

static enum verdict run_option(struct greeting *g)
{
    struct client *c = g->client;
    bool plain_ok = g->option == OPT_STARTTLS || g->option == OPT_ABORT;
    if (server_tls(c->server) && !c->stream.tls && !plain_ok) {
        return g->option == OPT_EXPORT_NAME ? HANG_UP
                                            : refuse(g, REP_ERR_TLS_REQD, "TLS comes first");
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
        if (options[i].option == g->option) {
            return options[i].run(g);
        }
    }
    return refuse(g, REP_ERR_UNSUP, "unknown option");
}

/* Reads one option whole, whatever it is, and answers it. */
static enum verdict next_option(struct greeting *g)
{
    uint8_t head[16];
    struct stream *s = &g->client->stream;
    if (!stream_read(s, head, sizeof(head)) || be64_at(head) != OPTION_MAGIC) {
        return HANG_UP;
    }
    g->option = be32_at(head + 8);
    g->length = be32_at(head + 12);
    if (g->length > NBD_OPTION_MAX) {
        if (g->length > NBD_REQUEST_MAX || g->option == OPT_EXPORT_NAME ||
            !stream_skip(s, g->length)) {
            return HANG_UP;
        }
        return refuse(g, REP_ERR_TOO_BIG, "too much data");
    }
    return stream_read(s, g->data, g->length) ? run_option(g) : HANG_UP;
}

bool nbd_greet(struct client *c)
{
    uint8_t hello[18], flags[4];
    be64_put(hello, NBD_MAGIC);
    be64_put(hello + 8, OPTION_MAGIC);
    be16_put(hello + 16, FIXED_NEWSTYLE | NO_ZEROES);
    if (!stream_write(&c->stream, hello, sizeof(hello)) ||
        !stream_read(&c->stream, flags, sizeof(flags)) ||
        (be32_at(flags) & ~(uint32_t)(FIXED_NEWSTYLE | NO_ZEROES))) {
        return false;
    }
    c->no_zeroes = be32_at(flags) & NO_ZEROES;
    g_autofree uint8_t *data = g_malloc(NBD_OPTION_MAX + 1);
    struct greeting g = {.client = c, .data = data};
    enum verdict v = NEXT_OPTION;
    for (unsigned i = 0; v == NEXT_OPTION && i < NBD_OPTIONS_MAX; i++) {
        v = next_option(&g);
    }
    return v == TRANSMIT;
}
