/* SPDX-License-Identifier: GPL-2.0-or-later */

/* image: drives, and what of an image's life the main loop has to do with. */
#include "host/image/image.h"

#include "host/image/drive.h"

struct image *images;
void (*image_node_moves)(struct node *top);

void node_moves(struct node *top)
{
    if (top && image_node_moves) {
        image_node_moves(top);
    }
}

extern const struct image_format format_overlay;

static gboolean source_prepare(GSource *src, gint *timeout)
{
    (void)src;
    *timeout = -1;
    return requests_over() || io_has_ended();
}

static gboolean source_check(GSource *src)
{
    (void)src;
    return requests_over() || io_has_ended();
}

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
    transfer_init();
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
    img->throttle = &img->own_throttle;
    while (*end) {
        end = &(*end)->next;
    }
    *end = img;
    return img;
}

static bool awaiting; /* see image_await() */

static unsigned flags_of(const struct image_options *opts)
{
    const struct {
        bool on;
        unsigned flag;
    } rows[] = {
        {opts->read_only || opts->snapshot, OPEN_READ_ONLY},
        {opts->direct, OPEN_DIRECT},
        {opts->no_flush, OPEN_NO_FLUSH},
        {opts->writethrough, OPEN_WRITETHROUGH},
        {opts->lock_off, OPEN_NO_LOCK},
        {opts->discard, OPEN_UNMAP},
        {awaiting && !opts->read_only && !opts->snapshot, OPEN_LATER},
    };
    unsigned flags = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        flags |= rows[i].on ? rows[i].flag : 0;
    }
    return flags;
}

static struct node *open_nodes(const struct image_options *opts, GError **error)
{
    g_autoptr(GError) why = NULL;
    struct chain_open how = {opts->file, opts->format, opts->options, flags_of(opts)};
    struct node *top = chain_open(&how, &why), *over = NULL;
    if (!top) {
        bool named = g_str_has_prefix(why->message, "Could not open '");
        g_propagate_error(error, g_steal_pointer(&why));
        if (!named) {
            g_prefix_error(error, "Could not open '%s': ", opts->file ? opts->file : opts->id);
        }
        return NULL;
    }
    if (!opts->snapshot || opts->read_only) {
        return top;
    }
    over = node_overlay(top, error);
    if (!over) {
        chain_close(top);
    }
    return over;
}

static void set_guard(struct image *img)
{
    img->guarded = node_guessed(img->top);
    if (img->guarded) {
        chain_read(img->top, 0, img->head, MIN(sizeof(img->head), img->top->size));
    }
}

/* Those of a group stay as they are if nothing is said. */
static void set_limits(struct image *img, const struct throttle_limits *limits)
{
    static const struct throttle_limits none;
    if (!img->group || memcmp(limits, &none, sizeof(none)) != 0) {
        image_set_limits(img, limits);
    }
}

static bool insert(struct image *img, const struct image_options *opts, GError **error)
{
    struct node *top = open_nodes(opts, error);
    if (!top) {
        return false;
    }
    img->top = top;
    img->file = g_strdup(opts->file ? opts->file : node_name(top));
    img->read_only = top->flags & OPEN_LATER ? !top->format->place : top->read_only;
    img->no_flush = (top->flags & OPEN_NO_FLUSH) || opts->snapshot;
    img->writethrough = opts->writethrough && !opts->snapshot;
    img->discard = top->flags & OPEN_UNMAP;
    img->zeroes = opts->zeroes;
    if (opts->group) {
        image_join_group(img, opts->group);
    }
    set_limits(img, &opts->limits);
    image_set_on_error(img, opts->on_read_error, opts->on_write_error);
    set_guard(img);
    return true;
}

bool image_on_error_parse(const char *word, enum image_on_error *out)
{
    static const char *const words[] = {"auto", "report", "ignore", "stop", "enospc"};
    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
        if (strcmp(words[i], word) == 0) {
            *out = (enum image_on_error)i;
            return true;
        }
    }
    return false;
}

void image_set_on_error(Image *img, enum image_on_error read, enum image_on_error write)
{
    img->on_read_error = read ? read : img->on_read_error;
    img->on_write_error = write ? write : img->on_write_error;
}

bool image_resize(Image *img, uint64_t size, GError **error)
{
    struct node *top = img->top;
    if (!top || img->read_only) {
        g_set_error(error, LODGE_ERROR, top ? EROFS : ENOTSUP, "%s: %s", img->id,
                    top ? "it is read-only" : "no medium");
        return false;
    }
    if (img->job) {
        g_set_error(error, LODGE_ERROR, EBUSY, "%s: a block job runs", img->id);
        return false;
    }
    image_drain(img);
    node_moves(top);
    if (!chain_resize(top, size, PREALLOC_OFF, error)) {
        g_prefix_error(error, "%s: ", img->id);
        return false;
    }
    if (img->changed) {
        img->changed(img->changed_owner);
    }
    return true;
}

static const char *part_name(const json_t *options)
{
    return json_string_value(json_object_get(options, "node-name"));
}

struct node *image_find_node(const char *name, Image **out)
{
    for (struct image *img = images; img; img = img->next) {
        if (img->top && !g_strcmp0(img->node_name ? img->node_name : img->id, name)) {
            *out = img;
            return img->top;
        }
        for (struct node *n = img->top; n; n = n->backing) {
            const json_t *file = json_object_get(n->options, "file");
            if (!g_strcmp0(part_name(n->options), name) || !g_strcmp0(part_name(file), name)) {
                *out = img;
                return n;
            }
        }
    }
    return NULL;
}

void image_set_top(Image *img, struct node *top)
{
    img->top = top;
    set_guard(img);
    g_free(img->file);
    img->file = g_strdup(node_name(top));
    g_free(img->node_name);
    img->node_name = g_strdup(part_name(top->options));
}

bool image_push(Image *img, struct node *over, GError **error)
{
    struct node *top = img->top;
    if (!top || img->read_only || img->job || over->backing || over->size < top->size) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: %s", img->id,
                    !top             ? "no medium"
                    : img->job       ? "a block job runs"
                    : img->read_only ? "it is read-only"
                    : over->backing  ? "the overlay has a backing file already"
                                     : "the overlay is smaller");
        return false;
    }
    image_drain(img);
    node_moves(top);
    int r = chain_flush(top);
    if (r < 0) {
        error_set_errno(error, -r, "%s: cannot flush", img->id);
        return false;
    }
    if (top->format != &format_overlay && !node_reopen(top, true, error)) {
        return false;
    }
    over->backing = top;
    image_set_top(img, over);
    return true;
}

struct node *image_pop(Image *img)
{
    struct node *over = img->top, *below = over->backing;
    g_autoptr(GError) error = NULL;
    image_drain(img);
    node_moves(over);
    over->backing = NULL;
    if (below->format != &format_overlay && !node_reopen(below, false, &error)) {
        g_warning("%s stays read-only: %s", node_name(below), error->message);
    }
    image_set_top(img, below);
    return over;
}

struct node *image_take(Image *img)
{
    image_drain(img);
    node_moves(img->top);
    g_clear_pointer(&img->file, g_free);
    return g_steal_pointer(&img->top);
}

static void take_out(struct image *img)
{
    job_end(img);
    image_drain(img);
    node_moves(img->top);
    g_clear_pointer(&img->top, chain_close);
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
    throttle_group_leave(img->group);
    g_clear_handle_id(&img->timer, g_source_remove);
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

const char *image_node_name(const Image *img)
{
    return img->node_name;
}

bool image_has_job(const Image *img)
{
    return img->job != NULL;
}

bool image_attached(const Image *img)
{
    return img->changed != NULL;
}

struct node *image_top(const Image *img)
{
    return img->top;
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

void image_await(void)
{
    awaiting = true;
}

static bool hand_all(bool ours, GError **error)
{
    for (struct image *img = images; img; img = img->next) {
        struct node *top = img->top;
        bool writable = top && top->format->place && top->format != &format_overlay &&
                        !top->file->read_only;
        if (!writable || img->read_only || !(top->flags & OPEN_LATER) == ours) {
            continue;
        }
        if (img->job) {
            g_set_error(error, LODGE_ERROR, EBUSY, "%s: a block job runs", img->id);
            return false;
        }
        if (!node_hand(top, ours, error)) {
            g_prefix_error(error, "%s: ", img->id);
            return false;
        }
        set_guard(img);
    }
    return true;
}

bool image_claim(Image *img, GError **error)
{
    struct node *top = img->top;
    if (!(top->flags & OPEN_LATER)) {
        return true;
    }
    if (!node_hand(top, true, error)) {
        g_prefix_error(error, "%s: ", img->id);
        return false;
    }
    set_guard(img);
    return true;
}

bool image_claim_all(GError **error)
{
    awaiting = false;
    return hand_all(true, error);
}

bool image_yield_all(GError **error)
{
    return hand_all(false, error);
}

/* The drives stay, empty: devices hold pointers to them. */
void image_close_all(void)
{
    for (struct image *img = images; img; img = img->next) {
        take_out(img);
    }
}
