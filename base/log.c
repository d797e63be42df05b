/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/log.h"

#include "base/error.h"

#include <stdio.h>

_Atomic unsigned log_topics;
static FILE *out;

static const struct {
    const char *name;
    unsigned topics;
    const char *about;
} names[] = {
    {"guest_errors", LOG_GUEST_ERRORS, "the guest did what a data sheet forbids"},
    {"unimp", LOG_UNIMP, "the guest asked for what a model does not have"},
    {"int", LOG_INT, "interrupts and exceptions as they are delivered"},
    {"in_asm", LOG_IN_ASM, "guest code as it is translated"},
    {"out_asm", LOG_OUT_ASM, "host code that was made of it"},
    {"cpu_reset", LOG_CPU_RESET, "registers before a CPU reset"},
    {"mmu", LOG_MMU, "page faults"},
    {"jit-stats", LOG_JIT_STATS, "counters of the translator, at the end"},
    {"all", 0xff, "all of the above"},
};

void log_line(enum log_topic topic, const char *fmt, ...)
{
    if (!log_on(topic)) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    unsigned i = 0;
    while (!(names[i].topics & topic)) {
        i++;
    }
    fprintf(out ? out : stderr, "%s: %s\n", names[i].name, text);
    fflush(out ? out : stderr);
}

static unsigned topics_of(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        if (g_str_equal(names[i].name, name)) {
            return names[i].topics;
        }
    }
    return 0;
}

bool log_enable(const char *items, GError **error)
{
    if (g_str_equal(items, "help") || g_str_equal(items, "?")) {
        g_autoptr(GString) text = g_string_new("Log items (comma separated):\n");
        for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
            g_string_append_printf(text, "%-15s %s\n", names[i].name, names[i].about);
        }
        g_set_error_literal(error, LODGE_ERROR, ECANCELED, text->str);
        return false;
    }
    g_auto(GStrv) parts = g_strsplit(items, ",", -1);
    for (char **p = parts; *p; p++) {
        unsigned topics = topics_of(*p);
        if (!topics) {
            g_set_error(error, LODGE_ERROR, EINVAL, "no log item \"%s\"; -d help lists them", *p);
            return false;
        }
        atomic_fetch_or(&log_topics, topics);
    }
    return true;
}

bool log_to_file(const char *path, GError **error)
{
    FILE *f = fopen(path, "we");
    if (!f) {
        error_set_errno(error, errno, "log file %s", path);
        return false;
    }
    out = f;
    return true;
}
