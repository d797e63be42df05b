/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/hmp.h"

#include "base/util.h"
#include "host/chardev/chardev.h"
#include "vmm/options.h"
#include "vmm/vm.h"

#include <string.h>

/* hmp - the human monitor: a line editor on a chardev, and the table of commands */

enum { LINE_MAX_BYTES = 4096, HISTORY_MAX = 64, WORDS_MAX = 32 };

/* ---- words ---- */

/* Splits at blanks; "..." holds blanks together, \ takes the next as it is. */
static bool split(const char *line, GPtrArray *words, GError **error)
{
    const char *s = line;
    while (words->len < WORDS_MAX) {
        while (*s == ' ' || *s == '\t') {
            s++;
        }
        if (!*s) {
            return true;
        }
        GString *word = g_string_new(NULL);
        bool quoted = *s == '"';
        for (s += quoted; *s && (quoted ? *s != '"' : *s != ' ' && *s != '\t'); s++) {
            s += *s == '\\' && quoted && s[1];
            g_string_append_c(word, *s);
        }
        g_ptr_array_add(words, g_string_free(word, FALSE));
        if (quoted && *s != '"') {
            g_set_error(error, LODGE_ERROR, EINVAL, "unterminated string");
            return false;
        }
        s += quoted;
    }
    g_set_error(error, LODGE_ERROR, E2BIG, "too many words");
    return false;
}

static bool names(const struct hmp_command *c, const char *word)
{
    g_auto(GStrv) all = g_strsplit(c->name, "|", -1);
    return g_strv_contains((const char *const *)all, word);
}

const struct hmp_command *hmp_find(const struct hmp_command *table, unsigned n, const char *word)
{
    for (unsigned i = 0; i < n; i++) {
        if (names(&table[i], word)) {
            return &table[i];
        }
    }
    return NULL;
}

void hmp_list(const struct hmp_command *table, unsigned n, GString *out, const char *prefix)
{
    for (unsigned i = 0; i < n; i++) {
        g_string_append_printf(out, "%s%s%s%s -- %s\n", prefix, table[i].name,
                               *table[i].args ? " " : "", table[i].args, table[i].help);
    }
}

static void run(const char *line, GString *out)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free);
    bool ok = split(line, words, &error);
    if (ok && words->len == 0) {
        return;
    }
    char *name = ok ? g_ptr_array_index(words, 0) : NULL;
    g_autofree char *suffix = NULL;
    char *slash = ok ? strchr(name, '/') : NULL; /* "x/4i" and "x /4i" are one */
    if (slash && slash > name) {
        suffix = g_strdup(slash);
        *slash = '\0';
        g_ptr_array_insert(words, 1, g_steal_pointer(&suffix));
    }
    const struct hmp_command *c = ok ? hmp_find(hmp_commands, n_hmp_commands, name) : NULL;
    if (ok && !c) {
        g_string_append_printf(out, "unknown command: '%s'\n", name);
        return;
    }
    g_ptr_array_add(words, NULL);
    struct hmp_args args = {(const char *const *)words->pdata + 1, (unsigned)words->len - 2};
    if (ok && (args.n < c->min || args.n > c->max)) {
        g_string_append_printf(out, "%s: usage: %s %s\n", name, name, c->args);
    } else if (ok && !c->run(&args, out, &error) && !error) {
        g_string_append_printf(out, "%s: failed\n", name);
    }
    if (error) {
        g_string_append_printf(out, "Error: %s\n", error->message);
    }
}

char *monitor_line(const char *line)
{
    GString *out = g_string_new(NULL);
    run(line, out);
    return g_string_free(out, FALSE);
}

/* ---- the line editor ---- */

struct hmp {
    struct outbox out;
    GString *line;
    GPtrArray *history;
    unsigned recalled; /* index in history; its length: the line in hand */
    unsigned escape;   /* characters of an escape sequence seen */
    bool greeted;
    struct hmp *next;
};

static struct hmp *all;
static const char prompt[] = "(qemu) "; /* what scripts wait for */

static void say(struct hmp *h, const char *text)
{
    g_autoptr(GString) crlf = g_string_new(NULL);
    for (; *text; text++) {
        g_string_append(crlf, *text == '\n' ? "\r\n" : (char[]){*text, 0});
    }
    outbox_put(&h->out, crlf->str, crlf->len);
}

static void greet(struct hmp *h)
{
    if (!h->greeted) {
        g_autofree char *hello = g_strdup_printf(
            "lodge-vm %s monitor - type 'help' for more information\n", vm_version);
        say(h, hello);
        h->greeted = true;
    }
    say(h, prompt);
}

static void replace_line(struct hmp *h, const char *text)
{
    say(h, "\r\033[K");
    say(h, prompt);
    say(h, text);
    g_string_assign(h->line, text);
}

static void recall(struct hmp *h, int step)
{
    unsigned to = h->recalled + (unsigned)step;
    if (to > h->history->len) {
        return;
    }
    h->recalled = to;
    replace_line(h, to == h->history->len ? "" : g_ptr_array_index(h->history, to));
}

static void enter(struct hmp *h)
{
    g_autofree char *line = g_strdup(h->line->str);
    g_string_truncate(h->line, 0);
    say(h, "\n");
    if (*line) {
        if (h->history->len == HISTORY_MAX) {
            g_ptr_array_remove_index(h->history, 0);
        }
        g_ptr_array_add(h->history, g_strdup(line));
    }
    h->recalled = h->history->len;
    g_autofree char *text = monitor_line(line);
    say(h, text);
    say(h, prompt);
}

/* One candidate is written out, several are listed. */
static void complete(struct hmp *h)
{
    g_autoptr(GString) found = g_string_new(NULL);
    unsigned n = 0;
    const char *one = NULL;
    for (unsigned i = 0; i < n_hmp_commands && !strchr(h->line->str, ' '); i++) {
        if (g_str_has_prefix(hmp_commands[i].name, h->line->str)) {
            g_string_append_printf(found, "%s%s", n++ ? "  " : "", hmp_commands[i].name);
            one = hmp_commands[i].name;
        }
    }
    if (n == 1) {
        g_autofree char *word = g_strndup(one, strcspn(one, "|"));
        replace_line(h, word);
    } else if (n > 1) {
        say(h, "\n");
        say(h, found->str);
        say(h, "\n");
        replace_line(h, h->line->str);
    }
}

/* ESC [ A and ESC [ B are the arrow keys up and down. */
static bool in_escape(struct hmp *h, uint8_t c)
{
    if (c == 27) {
        h->escape = 1;
    } else if (h->escape == 1) {
        h->escape = c == '[' || c == 'O' ? 2 : 0;
    } else if (h->escape == 2) {
        h->escape = 0;
        if (c == 'A' || c == 'B') {
            recall(h, c == 'A' ? -1 : 1);
        }
    } else {
        return false;
    }
    return true;
}

static void take(struct hmp *h, uint8_t c)
{
    if (in_escape(h, c)) {
        return;
    }
    switch (c) {
    case '\r':
    case '\n':
        enter(h);
        break;
    case 8:
    case 127:
        if (h->line->len) {
            g_string_truncate(h->line, h->line->len - 1);
            say(h, "\b \b");
        }
        break;
    case 'U' - '@':
    case 'C' - '@':
        replace_line(h, "");
        break;
    case 'P' - '@':
        recall(h, -1);
        break;
    case 'N' - '@':
        recall(h, 1);
        break;
    case '\t':
        complete(h);
        break;
    default:
        if (c >= 32 && h->line->len < LINE_MAX_BYTES) {
            g_string_append_c(h->line, (char)c);
            outbox_put(&h->out, (const char *)&c, 1);
        }
    }
}

static void receive(void *peer, const uint8_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        take(peer, data[i]);
    }
}

static void event(void *peer, enum chardev_event what)
{
    struct hmp *h = peer;
    if (what == CHARDEV_OPENED || what == CHARDEV_FOCUS) {
        h->greeted &= what == CHARDEV_FOCUS;
        g_string_truncate(h->line, 0);
        greet(h);
    } else if (what == CHARDEV_UNFOCUS) {
        say(h, "\n");
    } else if (what == CHARDEV_CLOSED) {
        g_string_truncate(h->out.text, 0);
    }
}

static void writable(void *peer)
{
    outbox_flush(&((struct hmp *)peer)->out);
}

bool hmp_new(struct chardev *chr, GError **error)
{
    (void)error;
    struct hmp *h = g_new0(struct hmp, 1);
    outbox_init(&h->out, chr);
    h->line = g_string_new(NULL);
    h->history = g_ptr_array_new_with_free_func(g_free);
    h->next = all;
    all = h;
    chr->peer = h;
    chr->receive = receive;
    chr->event = event;
    chr->writable = writable;
    if (chr->open && !g_str_equal(chr->kind, "mux")) {
        greet(h);
    }
    return true;
}

void hmp_close(void)
{
    for (struct hmp *h = all, *next; h; h = next) {
        next = h->next;
        h->out.chr->receive = NULL;
        h->out.chr->event = NULL;
        h->out.chr->writable = NULL;
        outbox_clear(&h->out);
        g_string_free(h->line, TRUE);
        g_ptr_array_unref(h->history);
        g_free(h);
    }
    all = NULL;
}
