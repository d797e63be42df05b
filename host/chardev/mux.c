/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/chardev/backend.h"

#include "base/error.h"
#include "base/util.h"

#include <string.h>

/*
 * The multiplexer of `mon:stdio` and mux=on: all ports write, one has the keys.  Each port
 * keeps a few keys that its device has no room for, so that the escape key is seen even
 * while a guest reads nothing.
 */
enum { MUX_PORTS = 4, QUEUE_BYTES = 64 };

struct mux;
struct mux_port {
    struct chardev chr;
    struct mux *mux;
    uint8_t queue[QUEUE_BYTES];
    unsigned queued;
};

struct mux {
    struct chardev chr;
    struct chardev *base;
    struct mux_port *ports[MUX_PORTS];
    unsigned n, focus;
    bool escaped;
};

uint8_t chardev_escape_key = 1; /* Ctrl-A */
void (*chardev_quit)(void);

static void say(struct mux *m, const char *text)
{
    chardev_write(m->base, text, strlen(text));
}

static void drain(struct mux_port *p)
{
    unsigned done = (unsigned)chardev_offer(&p->chr, p->queue, p->queued);
    p->queued -= done;
    memmove(p->queue, p->queue + done, p->queued);
}

static void deliver(struct mux *m, uint8_t c)
{
    struct mux_port *p = m->n ? m->ports[m->focus] : NULL;
    if (p && p->queued < QUEUE_BYTES) {
        p->queue[p->queued++] = c;
        drain(p);
    }
}

static void move_focus(struct mux *m)
{
    if (m->n > 1) {
        chardev_tell(&m->ports[m->focus]->chr, CHARDEV_UNFOCUS);
        m->focus = (m->focus + 1) % m->n;
        chardev_tell(&m->ports[m->focus]->chr, CHARDEV_FOCUS);
    }
}

static void on_help(struct mux *m);

static void on_quit(struct mux *m)
{
    say(m, "\r\nlodge-vm: terminated\r\n");
    if (chardev_quit) {
        chardev_quit();
    }
}

static void on_commit(struct mux *m)
{
    say(m, "\r\nlodge-vm: there is no snapshot to commit: disks are written as they are\r\n");
}

static void on_break(struct mux *m)
{
    if (m->n) {
        chardev_tell(&m->ports[m->focus]->chr, CHARDEV_BREAK);
    }
}

static void on_escape_key(struct mux *m)
{
    deliver(m, chardev_escape_key);
}

static const struct {
    char key;
    void (*run)(struct mux *m);
    const char *about;
} keys[] = {
    {'h', on_help, "print this help"},
    {'?', on_help, NULL},
    {'x', on_quit, "exit emulator"},
    {'s', on_commit, "save disk data back to file (if -snapshot)"},
    {'b', on_break, "send break (magic sysrq)"},
    {'c', move_focus, "switch between console and monitor"},
};

static void key_name(char out[16], uint8_t key)
{
    g_snprintf(out, 16, key < 32 ? "C-%c" : "0x%02x", key < 32 ? key + 'a' - 1 : key);
}

static void on_help(struct mux *m)
{
    char escape[16];
    key_name(escape, chardev_escape_key);
    g_autoptr(GString) text = g_string_new("\r\n");
    for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++) {
        if (keys[i].about) {
            g_string_append_printf(text, "%s %c    %s\r\n", escape, keys[i].key, keys[i].about);
        }
    }
    g_string_append_printf(text, "%s %s  sends %s\r\n", escape, escape, escape);
    say(m, text->str);
}

static void take_key(struct mux *m, uint8_t c)
{
    if (!m->escaped) {
        m->escaped = c == chardev_escape_key;
        if (!m->escaped) {
            deliver(m, c);
        }
        return;
    }
    m->escaped = false;
    if (c == chardev_escape_key) {
        on_escape_key(m);
        return;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++) {
        if (keys[i].key == c) {
            keys[i].run(m);
            return;
        }
    }
}

static void from_base(void *peer, const uint8_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        take_key(peer, data[i]);
    }
}

static size_t base_room(void *peer)
{
    struct mux *m = peer;
    return m->n ? QUEUE_BYTES - m->ports[m->focus]->queued : QUEUE_BYTES;
}

static void base_event(void *peer, enum chardev_event event)
{
    struct mux *m = peer;
    for (unsigned i = 0; i < m->n; i++) {
        m->ports[i]->chr.open = m->base->open;
        chardev_tell(&m->ports[i]->chr, event);
    }
}

static void base_writable(void *peer)
{
    struct mux *m = peer;
    for (unsigned i = 0; i < m->n; i++) {
        if (m->ports[i]->chr.writable) {
            m->ports[i]->chr.writable(m->ports[i]->chr.peer);
        }
    }
}

static size_t port_write(struct chardev *chr, const void *data, size_t n)
{
    return chardev_write(container_of(chr, struct mux_port, chr)->mux->base, data, n);
}

static void port_accept_input(struct chardev *chr)
{
    struct mux_port *p = container_of(chr, struct mux_port, chr);
    drain(p);
    chardev_accept_input(p->mux->base);
}

static size_t mux_write(struct chardev *chr, const void *data, size_t n)
{
    return chardev_write(container_of(chr, struct mux, chr)->base, data, n);
}

static void mux_accept_input(struct chardev *chr)
{
    struct mux *m = container_of(chr, struct mux, chr);
    for (unsigned i = 0; i < m->n; i++) {
        drain(m->ports[i]);
    }
    chardev_accept_input(m->base);
}

static void mux_close(struct chardev *chr)
{
    struct mux *m = container_of(chr, struct mux, chr);
    g_autofree char *id = m->base->id, *about = m->base->about;
    m->base->close(m->base);
    for (unsigned i = 0; i < m->n; i++) {
        g_free(m->ports[i]->chr.id);
        g_free(m->ports[i]);
    }
    g_free(m);
}

bool chardev_is_mux(const struct chardev *chr)
{
    return chr->close == mux_close;
}

struct chardev *chardev_mux_new(struct chardev *base)
{
    struct mux *m = g_new0(struct mux, 1);
    m->chr = (struct chardev){.kind = base->kind,
                              .about = g_strdup_printf("mux:%s", base->about),
                              .write = mux_write,
                              .accept_input = mux_accept_input,
                              .close = mux_close,
                              .open = base->open,
                              .log_fd = -1};
    m->base = base;
    base->peer = m;
    base->receive = from_base;
    base->room = base_room;
    base->event = base_event;
    base->writable = base_writable;
    return &m->chr;
}

struct chardev *chardev_mux_port(struct chardev *mux, const char *id, GError **error)
{
    struct mux *m = container_of(mux, struct mux, chr);
    if (m->n == MUX_PORTS) {
        g_set_error(error, LODGE_ERROR, EBUSY, "chardev %s has %u users already", mux->id, m->n);
        return NULL;
    }
    struct mux_port *p = g_new0(struct mux_port, 1);
    p->chr = (struct chardev){.id = g_strdup(id),
                              .kind = "mux",
                              .about = m->chr.about,
                              .write = port_write,
                              .accept_input = port_accept_input,
                              .open = m->base->open,
                              .log_fd = -1};
    p->mux = m;
    m->ports[m->n++] = p;
    return &p->chr;
}
