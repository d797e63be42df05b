/* SPDX-License-Identifier: GPL-2.0-or-later */
/* machine_time: how long processors have worked for a machine. */
#include "manage/daemon/machine.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Fields 14 and 15 of a stat of proc(5), with those of children that are no more: 16 and 17. */
static void add_times(const char *path, bool reaped, unsigned long long t[2])
{
    g_autofree char *text = NULL;
    unsigned long long user, kernel, of_user, of_kernel;
    const char *at = g_file_get_contents(path, &text, NULL, NULL) ? strrchr(text, ')') : NULL;
    if (at && sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %llu %llu",
                     &user, &kernel, &of_user, &of_kernel) == 4) {
        t[0] += user + (reaped ? of_user : 0);
        t[1] += kernel + (reaped ? of_kernel : 0);
    }
}

/* lodge-vm's translator runs hot programs of the guest in children of the vCPU's thread. */
static void add_children(const struct machine *m, const char *thread, unsigned long long t[2])
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task/%s/children", m->pid, thread);
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return;
    }
    g_auto(GStrv) pids = g_strsplit(g_strstrip(text), " ", -1);
    for (unsigned i = 0; pids[i]; i++) {
        g_autofree char *stat = g_strdup_printf("/proc/%s/stat", pids[i]);
        add_times(stat, false, t);
    }
}

/* In ns: what the living had when they were looked at last, and what those took along that ended.
 */
struct spent {
    uint64_t living, gone;
};

uint64_t machine_children_time(struct machine *m, pid_t thread)
{
    unsigned long long t[2] = {0};
    g_autofree char *number = g_strdup_printf("%d", thread);
    add_children(m, number, t);
    uint64_t now = (t[0] + t[1]) * (1000000000u / (unsigned)sysconf(_SC_CLK_TCK));
    if (!m->children) {
        m->children = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    }
    struct spent *s = g_hash_table_lookup(m->children, GINT_TO_POINTER(thread));
    if (!s) {
        s = g_new0(struct spent, 1);
        g_hash_table_insert(m->children, GINT_TO_POINTER(thread), s);
    }
    s->gone += now < s->living ? s->living - now : 0;
    s->living = now;
    return s->gone + now;
}

uint64_t machine_cpu_times(const struct machine *m, uint64_t *in_user, uint64_t *in_kernel)
{
    g_autofree char *stat = g_strdup_printf("/proc/%d/stat", m->pid);
    g_autofree char *tasks = g_strdup_printf("/proc/%d/task", m->pid);
    g_autoptr(GDir) dir = g_dir_open(tasks, 0, NULL);
    unsigned long long t[2] = {0};
    const char *thread;
    add_times(stat, true, t);
    while (dir && (thread = g_dir_read_name(dir))) {
        add_children(m, thread, t);
    }
    uint64_t tick = 1000000000u / (unsigned)sysconf(_SC_CLK_TCK);
    *in_user = t[0] * tick;
    *in_kernel = t[1] * tick;
    return (t[0] + t[1]) * tick;
}

uint64_t machine_cpu_time(const struct machine *m)
{
    uint64_t user, kernel;
    return machine_cpu_times(m, &user, &kernel);
}
