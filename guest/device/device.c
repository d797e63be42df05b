/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/device/device.h"

#include "base/bytes.h"
#include "base/keyval.h"
#include "guest/device/board.h"
#include "guest/device/pci.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const struct device_model *device_model_find(const char *name)
{
    for (unsigned i = 0; i < n_device_models; i++) {
        const struct device_model *m = device_models[i];
        g_auto(GStrv) aliases = g_strsplit(m->alias ? m->alias : "", ",", -1);
        if (g_str_equal(m->name, name) ||
            g_strv_contains((const char *const *)aliases, name)) {
            return m;
        }
    }
    return NULL;
}

/* ---- properties ---- */

static void *slot_of(struct device *dev, uint32_t slot)
{
    return (char *)dev + slot;
}

static unsigned prop_bytes(enum prop_kind kind)
{
    switch (kind) {
    case PROP_BOOL:
        return sizeof(bool);
    case PROP_U8:
        return 1;
    case PROP_U16:
        return 2;
    case PROP_U32:
        return 4;
    case PROP_MAC:
        return 6;
    default:
        return 8; /* numbers of 64 bits and pointers */
    }
}

static bool prop_is_backend(enum prop_kind kind)
{
    return kind >= PROP_DRIVE;
}

static const struct prop *prop_find(const struct device_model *m, const char *name)
{
    for (unsigned i = 0; i < m->nprops; i++) {
        if (g_str_equal(m->props[i].name, name)) {
            return &m->props[i];
        }
    }
    return NULL;
}

/* -global: they were tried when they were noted. */
static struct global {
    const struct device_model *model;
    char *prop, *value;
    struct global *next;
} *globals;

static void apply_globals(struct device *dev)
{
    for (const struct global *g = globals; g; g = g->next) {
        if (g->model == dev->model) {
            device_set(dev, g->prop, g->value, NULL);
        }
    }
}

bool device_global(const struct device_model *model, const char *prop, const char *value,
                   GError **error)
{
    struct device *scratch = device_new(model);
    bool good = device_set(scratch, prop, value, error);
    device_free(scratch);
    struct global **end = &globals;
    while (*end) {
        end = &(*end)->next; /* of two for one property the later counts */
    }
    if (good) {
        *end = g_new0(struct global, 1);
        **end = (struct global){.model = model, .prop = g_strdup(prop), .value = g_strdup(value)};
    }
    return good;
}

struct device *device_new(const struct device_model *model)
{
    struct device *dev = g_malloc0(model->size);
    dev->model = model;
    dev->texts = g_ptr_array_new_with_free_func(g_free);
    dev->wires = g_ptr_array_new();
    dev->links = g_ptr_array_new_with_free_func(g_free);
    for (unsigned i = 0; i < model->nprops; i++) {
        const struct prop *p = &model->props[i];
        if (p->kind <= PROP_U64) {
            memcpy(slot_of(dev, p->slot), &p->value, prop_bytes(p->kind));
        }
    }
    apply_globals(dev);
    return dev;
}

static bool mac_parse(const char *text, uint8_t mac[6])
{
    char after;
    return strlen(text) == 17 &&
           sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%c", &mac[0], &mac[1], &mac[2],
                  &mac[3], &mac[4], &mac[5], &after) == 6;
}

static bool prop_parse(struct device *dev, const struct prop *p, const char *text)
{
    uint64_t v;
    bool yes;
    switch (p->kind) {
    case PROP_BOOL:
        if (!text_bool(text, &yes)) {
            return false;
        }
        memcpy(slot_of(dev, p->slot), &yes, sizeof(yes));
        return true;
    case PROP_U8:
    case PROP_U16:
    case PROP_U32:
        if (!text_u64(text, &v) || v >> (prop_bytes(p->kind) * 8)) {
            return false;
        }
        memcpy(slot_of(dev, p->slot), &v, prop_bytes(p->kind));
        return true;
    case PROP_U64:
        if (!text_u64(text, &v) && !text_size(text, 1, &v)) {
            return false;
        }
        memcpy(slot_of(dev, p->slot), &v, sizeof(v));
        return true;
    case PROP_MAC:
        return mac_parse(text, slot_of(dev, p->slot));
    default: {
        char *copy = g_strdup(text);
        g_ptr_array_add(dev->texts, copy);
        memcpy(slot_of(dev, p->slot), &copy, sizeof(copy));
        return true;
    }
    }
}

bool device_set(struct device *dev, const char *name, const char *value, GError **error)
{
    if (g_str_equal(name, "id")) {
        g_free(dev->id);
        dev->id = g_strdup(value);
        return true;
    }
    const struct prop *p = prop_find(dev->model, name);
    if (!p) {
        g_set_error(error, LODGE_ERROR, EINVAL, "device \"%s\" has no property \"%s\"",
                    dev->model->name, name);
        return false;
    }
    if (prop_is_backend(p->kind)) { /* a board is needed to find it */
        g_ptr_array_add(dev->links, g_strdup(name));
        g_ptr_array_add(dev->links, g_strdup(value));
        return true;
    }
    if (!prop_parse(dev, p, value)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "device \"%s\": property \"%s\" does not take the value \"%s\"",
                    dev->model->name, name, value);
        return false;
    }
    return true;
}

bool device_give(struct device *dev, const char *name, void *backend, GError **error)
{
    const struct prop *p = prop_find(dev->model, name);
    if (!p || !prop_is_backend(p->kind)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "device \"%s\" takes no backend as \"%s\"",
                    dev->model->name, name);
        return false;
    }
    memcpy(slot_of(dev, p->slot), &backend, sizeof(backend));
    return true;
}

static void *backend_find(const struct backends *b, enum prop_kind kind, const char *id)
{
    switch (kind) {
    case PROP_DRIVE:
        return b->drive ? b->drive(id) : NULL;
    case PROP_NETDEV:
        return b->netdev ? b->netdev(id) : NULL;
    case PROP_CHARDEV:
        return b->chardev ? b->chardev(id) : NULL;
    case PROP_AUDIO:
        return b->audio ? b->audio(id) : NULL;
    default:
        return b->rng ? b->rng(id) : NULL;
    }
}

static bool links_resolve(struct device *dev, GError **error)
{
    for (unsigned i = 0; i + 1 < dev->links->len; i += 2) {
        const char *name = dev->links->pdata[i], *id = dev->links->pdata[i + 1];
        const struct prop *p = prop_find(dev->model, name);
        void *backend = backend_find(&dev->board->backends, p->kind, id);
        if (!backend) {
            g_set_error(error, LODGE_ERROR, ENOENT, "%s \"%s\" does not exist", name, id);
            return false;
        }
        memcpy(slot_of(dev, p->slot), &backend, sizeof(backend));
    }
    return true;
}

/* Another device of the board that has @drive. */
static const struct device *drive_user(struct device *dev, const void *drive)
{
    for (struct device *d = dev->board->devices; d; d = d->next) {
        for (unsigned i = 0; d != dev && i < d->model->nprops; i++) {
            const struct prop *p = &d->model->props[i];
            if (p->kind == PROP_DRIVE && *(void **)slot_of(d, p->slot) == drive) {
                return d;
            }
        }
    }
    return NULL;
}

/* Two devices would write to one disk without knowing of each other. */
static bool drives_are_free(struct device *dev, GError **error)
{
    for (unsigned i = 0; i < dev->model->nprops; i++) {
        const struct prop *p = &dev->model->props[i];
        void *drive = p->kind == PROP_DRIVE ? *(void **)slot_of(dev, p->slot) : NULL;
        const struct device *user = drive ? drive_user(dev, drive) : NULL;
        if (user) {
            g_set_error(error, LODGE_ERROR, EBUSY, "the drive is in use by device \"%s\"",
                        user->path);
            return false;
        }
    }
    return true;
}

static bool required_are_set(struct device *dev, GError **error)
{
    static const char nothing[8];
    for (unsigned i = 0; i < dev->model->nprops; i++) {
        const struct prop *p = &dev->model->props[i];
        if (p->required && memcmp(slot_of(dev, p->slot), nothing, prop_bytes(p->kind)) == 0) {
            g_set_error(error, LODGE_ERROR, EINVAL, "property \"%s\" is needed", p->name);
            return false;
        }
    }
    return true;
}

/* ---- wires ---- */

struct irq *device_irq(struct device *dev, struct irq *line)
{
    struct irq *end = irq_join(line);
    if (end) {
        g_ptr_array_add(dev->wires, end);
    }
    return end;
}

bool device_connect(struct device *dev, const char *wire, enum wire_kind kind, void *end,
                    GError **error)
{
    for (unsigned i = 0; i < dev->model->nwires; i++) {
        const struct wire *w = &dev->model->wires[i];
        if (w->kind == kind && g_str_equal(w->name, wire)) {
            struct irq *own = device_irq(dev, end);
            memcpy(slot_of(dev, w->slot), &own, sizeof(own));
            return true;
        }
    }
    g_set_error(error, LODGE_ERROR, ENOENT, "device \"%s\" has no connection \"%s\"",
                dev->model->name, wire);
    return false;
}

/* ---- life ---- */

static bool path_taken(const struct board *board, const char *path)
{
    for (struct device *d = board->devices; d; d = d->next) {
        if (g_str_equal(d->path, path)) {
            return true;
        }
    }
    return false;
}

static char *path_make(const struct board *board, const char *wanted)
{
    char *path = g_strdup(wanted);
    for (unsigned n = 1; path_taken(board, path); n++) {
        g_free(path);
        path = g_strdup_printf("%s.%u", wanted, n);
    }
    return path;
}

static void board_append(struct board *board, struct device *dev)
{
    struct device **at = &board->devices;
    while (*at) {
        at = &(*at)->next;
    }
    *at = dev;
}

static void board_drop(struct board *board, struct device *dev)
{
    struct device **at = &board->devices;
    while (*at && *at != dev) {
        at = &(*at)->next;
    }
    if (*at) {
        *at = dev->next;
    }
    GHashTableIter i;
    void *part;
    g_hash_table_iter_init(&i, board->parts);
    while (g_hash_table_iter_next(&i, NULL, &part)) {
        if (part == dev) {
            g_hash_table_iter_remove(&i);
        }
    }
}

bool device_start(struct device *dev, struct board *board, const char *path, GError **error)
{
    const struct device_model *m = dev->model;
    dev->board = board;
    if (dev->id && board_find(board, dev->id)) {
        g_set_error(error, LODGE_ERROR, EEXIST, "device id \"%s\" is used twice", dev->id);
        device_free(dev);
        return false;
    }
    dev->path = path_make(board, path ? path : dev->id ? dev->id : m->name);
    board_append(board, dev);
    if (!links_resolve(dev, error) || !required_are_set(dev, error) ||
        !drives_are_free(dev, error) ||
        (m->start && !m->start(dev, error))) {
        g_prefix_error(error, "device \"%s\": ", m->name);
        device_free(dev);
        return false;
    }
    dev->started = true;
    device_reset(dev);
    return true;
}

static void timers_disarm(struct device *dev)
{
    for (unsigned i = 0; i < dev->model->nregs; i++) {
        const struct reg *r = &dev->model->regs[i];
        for (unsigned n = 0; r->kind == REG_TIMER && n < MAX(r->count, 1); n++) {
            timer_disarm((struct timer *)slot_of(dev, r->slot) + n);
        }
    }
}

void device_free(struct device *dev)
{
    if (dev->started && dev->model->stop) {
        dev->model->stop(dev);
    }
    if (dev->model->bus == BUS_PCI) {
        pci_detach((struct pci_device *)dev);
    }
    timers_disarm(dev);
    for (struct device_window *w = dev->windows; w; w = w->next) {
        space_remove(w->placing);
    }
    if (dev->board) {
        board_drop(dev->board, dev);
    }
    for (unsigned i = 0; i < dev->wires->len; i++) {
        irq_leave(dev->wires->pdata[i]);
    }
    g_ptr_array_unref(dev->wires);
    g_ptr_array_unref(dev->texts);
    g_ptr_array_unref(dev->links);
    g_free(dev->id);
    g_free(dev->path);
    g_free(dev);
}

/* ---- accesses ---- */

static uint64_t ones(unsigned bytes)
{
    return bytes >= 8 ? UINT64_MAX : (UINT64_C(1) << bytes * 8) - 1;
}

static uint64_t slot_get(const struct device *dev, const struct reg *r)
{
    uint64_t v = 0;
    memcpy(&v, (const char *)dev + r->slot, r->size); /* the host is little-endian x86-64 */
    return v;
}

static void slot_set(struct device *dev, const struct reg *r, uint64_t v)
{
    memcpy((char *)dev + r->slot, &v, r->size);
}

static unsigned width_of(const struct reg *r)
{
    return r->width ? r->width : r->size ? r->size : 1;
}

/* The row that covers @port, or NULL. */
static const struct reg *decode(const struct device *dev, unsigned window, uint64_t port,
                                enum reg_dir dir)
{
    const struct device_model *m = dev->model;
    unsigned bank = m->bank ? m->bank(dev) : 0;
    for (unsigned i = 0; i < m->nregs; i++) {
        const struct reg *r = &m->regs[i];
        if ((r->dir & dir) && r->port >= 0 && r->window == window &&
            port - (uint64_t)r->port < width_of(r) && (r->bank == BANK_ANY || r->bank == bank)) {
            return r;
        }
    }
    return NULL;
}

void device_settle(struct device *dev)
{
    if (dev->model->settle) {
        dev->model->settle(dev);
    }
}

static uint64_t row_read(struct device *dev, const struct reg *r)
{
    uint64_t v = slot_get(dev, r);
    if (r->on_read) {
        v = r->on_read(dev, v);
    }
    if (r->rclr) {
        slot_set(dev, r, slot_get(dev, r) & ~r->rclr);
    }
    device_settle(dev);
    return v;
}

/* @lanes: which bits the access drives; the others keep what is stored. */
static void row_write(struct device *dev, const struct reg *r, uint64_t value, uint64_t lanes)
{
    uint64_t old = slot_get(dev, r), now = value & lanes;
    if (r->size) {
        uint64_t writable = r->writable & lanes;
        now = ((old & ~writable) | (value & writable)) & ~(value & lanes & r->w1c);
        slot_set(dev, r, now);
    }
    if (r->on_write) {
        r->on_write(dev, old, now);
    }
    device_settle(dev);
}

uint64_t device_read(struct device *dev, unsigned window, uint64_t port)
{
    const struct reg *r = decode(dev, window, port, REG_R);
    if (!r) {
        return UINT64_MAX; /* an undriven bus floats high */
    }
    return row_read(dev, r) >> (port - (uint64_t)r->port) * 8;
}

void device_write(struct device *dev, unsigned window, uint64_t port, uint64_t value)
{
    const struct reg *r = decode(dev, window, port, REG_W);
    if (r) {
        unsigned shift = (unsigned)(port - (uint64_t)r->port) * 8;
        row_write(dev, r, value << shift, ones(width_of(r)) << shift);
    }
}

/* How many bytes of an access of @left bytes at @port row @r takes. */
static unsigned row_takes(const struct reg *r, uint64_t port, unsigned left)
{
    unsigned rest = r ? width_of(r) - (unsigned)(port - (uint64_t)r->port) : 1;
    return MIN(rest, left);
}

static uint64_t window_read(void *owner, uint64_t at, unsigned bytes)
{
    struct device_window *w = owner;
    uint64_t v = 0;
    for (unsigned done = 0, n; done < bytes; done += n) {
        const struct reg *r = decode(w->dev, w->window, at + done, REG_R);
        uint64_t part = UINT64_MAX;
        n = row_takes(r, at + done, bytes - done);
        if (r) {
            part = row_read(w->dev, r) >> (at + done - (uint64_t)r->port) * 8;
        }
        v |= (part & ones(n)) << done * 8;
    }
    return v;
}

static void window_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct device_window *w = owner;
    for (unsigned done = 0, n; done < bytes; done += n) {
        const struct reg *r = decode(w->dev, w->window, at + done, REG_W);
        n = row_takes(r, at + done, bytes - done);
        if (r) {
            unsigned shift = (unsigned)(at + done - (uint64_t)r->port) * 8;
            row_write(w->dev, r, value >> done * 8 << shift, ones(n) << shift);
        }
    }
}

void device_window_init(struct device_window *w, struct device *dev, unsigned window,
                        const char *name, uint64_t size)
{
    static const struct region_ops ops = {
        .read = window_read, .write = window_write, .unaligned = true};
    *w = (struct device_window){.dev = dev, .window = window, .next = dev->windows};
    w->region = (struct region){.name = name, .size = size, .ops = &ops, .owner = w};
    dev->windows = w;
}

void device_place(struct device_window *w, struct space *s, uint64_t at, int priority)
{
    w->placing = space_place(s, &w->region, at, priority);
}

/* ---- state ---- */

static unsigned elements(const struct reg *r)
{
    return r->count ? r->count : 1;
}

static uint64_t element_get(const struct device *dev, const struct reg *r, unsigned n)
{
    uint64_t v = 0;
    if (r->kind == REG_TIMER) {
        const struct timer *t = (const struct timer *)((const char *)dev + r->slot) + n;
        return (uint64_t)(timer_armed(t) ? t->due : TIMER_OFF);
    }
    memcpy(&v, (const char *)dev + r->slot + (size_t)n * r->size, r->size);
    return v;
}

static void element_set(struct device *dev, const struct reg *r, unsigned n, uint64_t v)
{
    if (r->kind == REG_TIMER) {
        struct timer *t = (struct timer *)slot_of(dev, r->slot) + n;
        timer_disarm(t);
        timer_arm(t, (int64_t)v);
    } else {
        memcpy((char *)dev + r->slot + (size_t)n * r->size, &v, r->size);
    }
}

void device_reset(struct device *dev)
{
    for (unsigned i = 0; i < dev->model->nregs; i++) {
        const struct reg *r = &dev->model->regs[i];
        for (unsigned n = 0; !r->keep && r->size && n < elements(r); n++) {
            element_set(dev, r, n, r->kind == REG_TIMER ? (uint64_t)TIMER_OFF : r->reset);
        }
    }
    if (dev->model->bus == BUS_PCI) {
        pci_reset((struct pci_device *)dev);
    }
    if (dev->model->reset) {
        dev->model->reset(dev);
    }
    device_settle(dev);
}

GBytes *device_save(struct device *dev)
{
    const struct device_model *m = dev->model;
    if (m->saving) {
        m->saving(dev);
    }
    g_autoptr(GByteArray) out = g_byte_array_new();
    put_le(out, m->version, 2);
    for (unsigned i = 0; i < m->nregs; i++) {
        const struct reg *r = &m->regs[i];
        if (!r->size) {
            continue;
        }
        put_text(out, r->name);
        put_le(out, (uint64_t)r->size * elements(r), 4);
        if (r->size == 1) {
            g_byte_array_append(out, (const uint8_t *)dev + r->slot, elements(r));
            continue;
        }
        for (unsigned n = 0; n < elements(r); n++) {
            put_le(out, element_get(dev, r, n), r->size);
        }
    }
    return g_byte_array_free_to_bytes(g_steal_pointer(&out));
}

static const struct reg *by_name(const struct device_model *m, const char *name, uint64_t version)
{
    for (unsigned i = 0; i < m->nregs; i++) {
        const struct reg *r = &m->regs[i];
        if (r->size && r->since <= version && g_str_equal(r->name, name)) {
            return r;
        }
    }
    return NULL;
}

static bool load_value(struct device *dev, const struct reg *r, struct reader *in, GError **error)
{
    uint64_t bytes, v;
    if (!read_le(in, &bytes, 4) || bytes != (uint64_t)r->size * elements(r) ||
        bytes > (size_t)(in->end - in->at)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the value of %s has a wrong length", r->name);
        return false;
    }
    for (unsigned n = 0; n < elements(r); n++) {
        read_le(in, &v, r->size);
        if (r->boolean && v > 1) {
            g_set_error(error, LODGE_ERROR, EINVAL, "%s is neither true nor false", r->name);
            return false;
        }
        element_set(dev, r, n, v);
    }
    return true;
}

/* Takes one row from @in; NULL with an error if there is none that fits. */
static const struct reg *load_row(struct device *dev, struct reader *in, uint64_t version,
                                  GError **error)
{
    char name[256];
    if (!read_text(in, name)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the state ends inside a name");
        return NULL;
    }
    const struct reg *r = by_name(dev->model, name, version);
    if (!r) {
        g_autofree char *shown = g_strescape(name, NULL); /* a peer wrote it */
        g_set_error(error, LODGE_ERROR, EINVAL, "no register \"%s\"", shown);
        return NULL;
    }
    return load_value(dev, r, in, error) ? r : NULL;
}

static bool load_rows(struct device *dev, struct reader *in, uint64_t version, GError **error)
{
    const struct device_model *m = dev->model;
    g_autofree bool *seen = g_new0(bool, m->nregs + 1);
    while (in->at < in->end) {
        const struct reg *r = load_row(dev, in, version, error);
        if (!r) {
            return false;
        }
        seen[r - m->regs] = true;
    }
    for (unsigned i = 0; i < m->nregs; i++) {
        const struct reg *r = &m->regs[i];
        if (r->size && r->since <= version && !seen[i]) {
            g_set_error(error, LODGE_ERROR, EINVAL, "the state lacks %s", r->name);
            return false;
        }
    }
    if (m->bus == BUS_PCI) {
        pci_restore((struct pci_device *)dev);
    }
    return !m->loaded || m->loaded(dev, error);
}

bool device_load(struct device *dev, GBytes *state, GError **error)
{
    const struct device_model *m = dev->model;
    struct reader in = reader_of(state);
    uint64_t version;
    if (!read_le(&in, &version, 2) || version > m->version) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: no version up to %u", m->name, m->version);
        return false;
    }
    device_reset(dev); /* rows that the state is too old to carry keep their reset value */
    if (!load_rows(dev, &in, version, error)) {
        g_prefix_error(error, "%s: ", dev->path ? dev->path : m->name);
        return false;
    }
    device_settle(dev);
    return true;
}

void device_describe(const struct device *dev, GString *out)
{
    g_string_append_printf(out, "%s (%s)\n", dev->path ? dev->path : "", dev->model->name);
    for (unsigned i = 0; i < dev->model->nregs; i++) {
        const struct reg *r = &dev->model->regs[i];
        for (unsigned n = 0; r->size && n < MIN(elements(r), 64); n++) {
            g_autofree char *index = r->count ? g_strdup_printf("[%u]", n) : g_strdup("");
            g_string_append_printf(out, "  %s%s = 0x%" PRIx64 "%s%s\n", r->name, index,
                                   element_get(dev, r, n), r->help ? "  " : "",
                                   r->help ? r->help : "");
        }
    }
}
