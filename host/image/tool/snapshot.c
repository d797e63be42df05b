/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/open.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* lodge-img snapshot */

static const struct tool_option options[] = {
    OPTION_HELP,
    OPTION_FORMAT,
    {'l', NULL, NULL, "list the snapshots"},
    {'a', NULL, "SNAPSHOT", "make the disk what it was"},
    {'c', NULL, "NAME", "make a snapshot"},
    {'d', NULL, "SNAPSHOT", "remove a snapshot"},
    OPTION_QUIET,
    OPTION_SHARE,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED,
    {0},
};

static void print_row(const struct image_snapshot *s)
{
    g_autofree char *size = size_text(s->vm_state_size);
    char date[32], clock[32], icount[24] = "";
    time_t when = (time_t)s->date_sec;
    struct tm tm;
    uint64_t ms = s->vm_clock_ns / 1000000;
    localtime_r(&when, &tm);
    strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
    snprintf(clock, sizeof(clock), "%02" PRIu64 ":%02u:%02u.%03u", ms / 3600000,
             (unsigned)(ms / 60000 % 60), (unsigned)(ms / 1000 % 60), (unsigned)(ms % 1000));
    if (s->icount != UINT64_MAX) {
        snprintf(icount, sizeof(icount), "%" PRIu64, s->icount);
    }
    printf("%-9s %-16s %8s%20s%13s%11s\n", s->id, s->name, size, date, clock, icount);
}

void print_snapshots(struct node *node, const struct snapshot_tools *tools)
{
    unsigned n = tools ? tools->count(node) : 0;
    if (n) {
        printf("Snapshot list:\n%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE",
               "VM CLOCK", "ICOUNT");
    }
    for (unsigned i = 0; i < n; i++) {
        print_row(tools->get(node, i));
    }
}

static const struct image_snapshot *find(struct node *node, const struct snapshot_tools *tools,
                                         const char *word)
{
    for (unsigned i = 0; i < tools->count(node); i++) {
        const struct image_snapshot *s = tools->get(node, i);
        if (!strcmp(s->id, word) || !strcmp(s->name, word)) {
            return s;
        }
    }
    return NULL;
}

static bool make(struct node *node, const struct snapshot_tools *tools, const char *name)
{
    g_autoptr(GError) error = NULL;
    int64_t now = g_get_real_time();
    struct image_snapshot snap = {
        .name = (char *)name,
        .disk_size = node->size,
        .date_sec = (uint32_t)(now / G_USEC_PER_SEC),
        .date_nsec = (uint32_t)(now % G_USEC_PER_SEC * 1000),
        .icount = 0, /* as qemu-img 7.2 */
    };
    if (!tools) {
        tool_error("Could not create snapshot '%s': %d (%s)", name, -ENOTSUP, g_strerror(ENOTSUP));
        return false;
    }
    if (!tools->create(node, &snap, &error)) {
        tool_error("Could not create snapshot '%s': %d (%s)", name, -error_errno(error),
                   error->message);
        return false;
    }
    return true;
}

static bool apply(struct node *node, const struct snapshot_tools *tools, const char *word)
{
    GError *error = NULL;
    if (!tools) {
        tool_error("Could not apply snapshot '%s': Block driver does not support snapshots", word);
        return false;
    }
    if (!tools->apply(node, word, &error)) {
        tool_report(error, "Could not apply snapshot '%s': ", word);
        return false;
    }
    return true;
}

static bool drop(struct node *node, const struct snapshot_tools *tools, const char *word)
{
    GError *error = NULL;
    if (!tools || !find(node, tools, word)) {
        tool_error("Could not delete snapshot '%s': snapshot not found", word);
        return false;
    }
    if (!tools->remove(node, word, &error)) {
        tool_report(error, "Could not delete snapshot '%s': ", word);
        return false;
    }
    return true;
}

static bool act(struct node *node, char action, const char *word)
{
    const struct format_tools *all = node->format->tools;
    const struct snapshot_tools *tools = all ? all->snapshots : NULL;
    switch (action) {
    case 'a':
        return apply(node, tools, word);
    case 'c':
        return make(node, tools, word);
    case 'd':
        return drop(node, tools, word);
    default:
        print_snapshots(node, tools);
        return true;
    }
}

static int run(struct args *args)
{
    struct tool_common common;
    char action = 0;
    const char *word = NULL;
    for (unsigned i = 0; i < args->n_given; i++) {
        char letter = args->given[i].option->letter;
        if (letter && strchr("lacd", letter)) {
            if (action) {
                return tool_usage("Cannot mix '-l', '-a', '-c', '-d'");
            }
            action = letter;
            word = args->given[i].value;
        }
    }
    if (!tool_common(args, &common)) {
        return 1;
    }
    const char *file = tool_one_file(args);
    if (!file) {
        return 1;
    }
    unsigned flags = action == 'l' ? OPEN_READ_ONLY : OPEN_UNMAP;
    struct node *node = tool_open(&common, file, args_get(args, "f"), flags | OPEN_NO_BACKING);
    bool ok = node && act(node, action, word) && tool_flush(node, file);
    tool_close(node);
    return ok ? 0 : 1;
}

const struct verb verb_snapshot = {"snapshot", "list, make, apply or remove snapshots in an image",
                                   "FILE", options, run};
