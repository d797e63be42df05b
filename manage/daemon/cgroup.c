/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Control groups as files: one table says what each knob is called in version 1 and in version 2.
 *
 * Spec: Linux, "Control Group v2", sections "Threads", "Controllers" and "Interface Files";
 * "Control Groups version 1", "CPUSETS", "Memory Resource Controller", "Block IO Controller".
 */
#include "manage/daemon/cgroup.h"

#include "manage/daemon/daemon.h"
#include "manage/error.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const struct {
    const char *v1, *v2, *missing; /* what libvirt says without it */
} controllers[] = {
    [GROUP_CPU] = {"cpu", "cpu", "cgroup CPU controller is not mounted"},
    [GROUP_CPUACCT] = {"cpuacct", NULL, "cgroup CPUACCT controller is not mounted"},
    [GROUP_CPUSET] = {"cpuset", "cpuset", "cgroup cpuset controller is not mounted"},
    [GROUP_MEMORY] = {"memory", "memory", "cgroup memory controller is not mounted"},
    [GROUP_BLKIO] = {"blkio", "io", "blkio cgroup isn't mounted"},
};

enum form {
    FORM_NUMBER,
    FORM_LIMIT,  /* unlimited is -1 or "max" */
    FORM_QUOTA,  /* version 2: first word of two */
    FORM_PERIOD, /* version 2: second word of two */
    FORM_TEXT,
    FORM_DEVICE, /* "major:minor value" */
    FORM_IO_MAX, /* version 2: "major:minor key=value" */
};
static const struct knob_row {
    enum group_controller controller;
    enum form form;
    const char *v1[2], *v2[2]; /* the first that is there */
    const char *key;
} knobs[] = {
    [KNOB_SHARES] = {GROUP_CPU, FORM_NUMBER, {"cpu.shares"}, {"cpu.weight"}},
    [KNOB_PERIOD] = {GROUP_CPU, FORM_PERIOD, {"cpu.cfs_period_us"}, {"cpu.max"}},
    [KNOB_QUOTA] = {GROUP_CPU, FORM_QUOTA, {"cpu.cfs_quota_us"}, {"cpu.max"}},
    [KNOB_CPUS] = {GROUP_CPUSET, FORM_TEXT, {"cpuset.cpus"}, {"cpuset.cpus"}},
    [KNOB_MEMS] = {GROUP_CPUSET, FORM_TEXT, {"cpuset.mems"}, {"cpuset.mems"}},
    [KNOB_MIGRATE_MEMORY] = {GROUP_CPUSET, FORM_NUMBER, {"cpuset.memory_migrate"}, {NULL}},
    [KNOB_HARD_LIMIT] = {GROUP_MEMORY, FORM_LIMIT, {"memory.limit_in_bytes"}, {"memory.max"}},
    [KNOB_SOFT_LIMIT] = {GROUP_MEMORY, FORM_LIMIT, {"memory.soft_limit_in_bytes"}, {"memory.high"}},
    [KNOB_SWAP_HARD_LIMIT] = {GROUP_MEMORY,
                              FORM_LIMIT,
                              {"memory.memsw.limit_in_bytes"},
                              {"memory.swap.max"}},
    [KNOB_WEIGHT] = {GROUP_BLKIO,
                     FORM_NUMBER,
                     {"blkio.weight", "blkio.bfq.weight"},
                     {"io.bfq.weight", "io.weight"}},
    [KNOB_DEVICE_WEIGHT] = {GROUP_BLKIO,
                            FORM_DEVICE,
                            {"blkio.weight_device", "blkio.bfq.weight_device"},
                            {"io.bfq.weight", "io.weight"}},
    [KNOB_READ_IOPS] =
        {GROUP_BLKIO, FORM_IO_MAX, {"blkio.throttle.read_iops_device"}, {"io.max"}, "riops"},
    [KNOB_WRITE_IOPS] =
        {GROUP_BLKIO, FORM_IO_MAX, {"blkio.throttle.write_iops_device"}, {"io.max"}, "wiops"},
    [KNOB_READ_BYTES] =
        {GROUP_BLKIO, FORM_IO_MAX, {"blkio.throttle.read_bps_device"}, {"io.max"}, "rbps"},
    [KNOB_WRITE_BYTES] =
        {GROUP_BLKIO, FORM_IO_MAX, {"blkio.throttle.write_bps_device"}, {"io.max"}, "wbps"},
};
G_STATIC_ASSERT(G_N_ELEMENTS(knobs) == KNOBS);

struct cgroup {
    char *paths[GROUPS]; /* NULL: not there */
};

/* For each controller: where it is mounted, in which version, and the groups of machines. */
static struct {
    unsigned version; /* 0: not mounted */
    char *mount, *base, *partition;
} places[GROUPS];

/* --- files --- */

static char *read_text(const char *folder, const char *file)
{
    g_autofree char *path = g_build_filename(folder, file, NULL), *text = NULL;
    return g_file_get_contents(path, &text, NULL, NULL) ? g_strchomp(g_steal_pointer(&text)) : NULL;
}

/* One write() each: that is what the kernel takes as one change.  Nothing is created. */
static bool write_text(const char *folder, const char *file, const char *text, GError **error)
{
    g_autofree char *path = g_build_filename(folder, file, NULL);
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_TRUNC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) >= 0;
    if (!ok) {
        libvirt_error(error, ERR_SYSTEM, "Unable to write '%s' to '%s': %s", text, path,
                      g_strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

static bool has_word(const char *text, const char *word, const char *separators)
{
    g_auto(GStrv) words = g_strsplit_set(text ? text : "", separators, -1);
    return g_strv_contains((const char *const *)words, word);
}

/* --- where they are --- */

/* The path of our process in the hierarchy of @name ("" is version 2), NULL if it has none. */
static char *path_in(const char *process, const char *name)
{
    g_auto(GStrv) lines = g_strsplit(process, "\n", -1);
    for (unsigned i = 0; lines[i]; i++) { /* number:controllers:path */
        g_auto(GStrv) parts = g_strsplit(lines[i], ":", 3);
        if (g_strv_length(parts) == 3 &&
            (*name ? has_word(parts[1], name, ",") : !strcmp(parts[0], "0") && !*parts[1])) {
            return g_strdup(parts[2]);
        }
    }
    return NULL;
}

static void set_place(enum group_controller c, unsigned version, const char *mount,
                      const char *root, const char *own, const char *partition)
{
    g_autofree char *self = path_in(own, version == 1 ? controllers[c].v1 : "");
    if (places[c].version || !self) {
        return;
    }
    /* A mount may show only a part of the hierarchy, beginning at @root. */
    bool part = g_str_has_prefix(self, root) && strcmp(root, "/") != 0;
    const char *below = part ? self + strlen(root) : self;
    below += strspn(below, "/");
    places[c].version = version;
    places[c].mount = g_strdup(mount);
    places[c].base =
        *partition == '/' || !*below ? g_strdup(mount) : g_build_filename(mount, below, NULL);
    places[c].partition = g_build_filename(places[c].base, partition, NULL);
}

/* One line of mountinfo: id parent device root mount options... - type source super. */
static void take_mount(const char *line, unsigned version, const char *own, const char *partition)
{
    g_auto(GStrv) halves = g_strsplit(line, " - ", 2);
    g_auto(GStrv) left = g_strsplit(halves[0] ? halves[0] : "", " ", -1);
    g_auto(GStrv) right = g_strsplit(halves[0] && halves[1] ? halves[1] : "", " ", -1);
    if (g_strv_length(left) < 5 || g_strv_length(right) < 3 ||
        strcmp(right[0], version == 2 ? "cgroup2" : "cgroup") != 0) {
        return;
    }
    g_autofree char *offered = version == 2 ? read_text(left[4], "cgroup.controllers") : NULL;
    for (unsigned c = 0; c < GROUPS; c++) {
        if (version == 2 ? !controllers[c].v2 || has_word(offered, controllers[c].v2, " ")
                         : has_word(right[2], controllers[c].v1, ",")) {
            set_place(c, version, left[4], left[3], own, partition);
        }
    }
}

void cgroups_find(const char *mountinfo, const char *own, const char *partition)
{
    g_auto(GStrv) lines = g_strsplit(mountinfo, "\n", -1);
    for (unsigned c = 0; c < GROUPS; c++) {
        g_free(places[c].mount);
        g_free(places[c].base);
        g_free(places[c].partition);
    }
    memset(places, 0, sizeof(places));
    /* Where both are mounted, what version 1 has is not in version 2. */
    for (unsigned version = 1; version <= 2; version++) {
        for (unsigned i = 0; lines[i]; i++) {
            take_mount(lines[i], version, own, partition);
        }
    }
}

void cgroups_start(void)
{
    g_autofree char *mounts = NULL, *own = NULL;
    g_autofree char *run = daemon_path(DAEMON_RUN, NULL);
    bool system = !daemon_root() && !daemon_is_session();
    g_autofree char *partition =
        system ? g_strdup("/machine") : g_strdup_printf("machine/lodge-%08x", g_str_hash(run));
    if (g_file_get_contents("/proc/self/mountinfo", &mounts, NULL, NULL) &&
        g_file_get_contents("/proc/self/cgroup", &own, NULL, NULL)) {
        cgroups_find(mounts, own, partition);
    }
}

/* --- groups --- */

/* Version 2 hands controllers down step by step. */
static void hand_down(const char *folder, const char *const *names)
{
    for (; *names; names++) {
        g_autofree char *word = g_strconcat("+", *names, NULL);
        write_text(folder, "cgroup.subtree_control", word, NULL); /* what fails is not there */
    }
}

/* A set of version 1 is empty and takes nobody before it has its parent's. */
static void fill_cpuset(const char *folder)
{
    static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};
    g_autofree char *above = g_path_get_dirname(folder);
    for (unsigned i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *now = read_text(folder, files[i]), *theirs = read_text(above, files[i]);
        if (now && !*now && theirs) {
            write_text(folder, files[i], theirs, NULL);
        }
    }
}

/* @path and what lies between it and @base. */
static bool make_path(enum group_controller c, const char *base, const char *path)
{
    static const char *const all[] = {"cpu", "cpuset", "memory", "io", NULL};
    if (strcmp(base, path) != 0) {
        g_autofree char *above = g_path_get_dirname(path);
        if (strlen(path) <= strlen(base) || !make_path(c, base, above)) {
            return false;
        }
        if (places[c].version == 2) {
            hand_down(above, all);
        }
        if (mkdir(path, 0755) != 0 && errno != EEXIST) {
            return false;
        }
        if (c == GROUP_CPUSET && places[c].version == 1) {
            fill_cpuset(path);
        }
    }
    return true;
}

static bool is_there(enum group_controller c, const char *path)
{
    if (!g_file_test(path, G_FILE_TEST_IS_DIR)) {
        return false;
    }
    if (places[c].version == 1 || !controllers[c].v2) {
        return true;
    }
    g_autofree char *given = read_text(path, "cgroup.controllers");
    return has_word(given, controllers[c].v2, " ");
}

struct cgroup *cgroup_new(const char *name)
{
    struct cgroup *g = g_new0(struct cgroup, 1);
    bool any = false;
    for (unsigned c = 0; c < GROUPS; c++) {
        if (!places[c].version) {
            continue;
        }
        g_autofree char *path = g_build_filename(places[c].partition, name, NULL);
        if (make_path(c, places[c].base, path) && is_there(c, path)) {
            g->paths[c] = g_steal_pointer(&path);
            any = true;
        }
    }
    if (!any) {
        g_clear_pointer(&g, g_free);
    }
    return g;
}

struct cgroup *cgroup_find(const char *process, const char *name)
{
    struct cgroup *g = g_new0(struct cgroup, 1);
    g_autofree char *mark = g_strconcat("/", name, "/", NULL);
    bool any = false;
    for (unsigned c = 0; c < GROUPS; c++) {
        g_autofree char *in =
            places[c].version ? path_in(process, places[c].version == 1 ? controllers[c].v1 : "")
                              : NULL;
        g_autofree char *full = in ? g_strconcat(in, "/", NULL) : NULL; /* also if it ends there */
        char *at = full ? strstr(full, mark) : NULL;
        if (!at) {
            continue;
        }
        at[strlen(mark) - 1] = '\0';
        g_autofree char *path = g_build_filename(places[c].mount, full, NULL);
        if (is_there(c, path)) {
            g->paths[c] = g_steal_pointer(&path);
            any = true;
        }
    }
    if (!any) {
        g_clear_pointer(&g, g_free);
    }
    return g;
}

void cgroup_free(struct cgroup *g)
{
    for (unsigned c = 0; g && c < GROUPS; c++) {
        g_free(g->paths[c]);
    }
    g_free(g);
}

/* A group and its parts, if nobody is in them. */
static void remove_group(const char *group)
{
    g_autoptr(GDir) dir = g_dir_open(group, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(group, name, NULL);
        rmdir(path); /* which does nothing to the files */
    }
    rmdir(group);
}

static bool is_machine(const char *name)
{
    return g_str_has_prefix(name, GROUP_PREFIX) && !name[strspn(name, GROUP_CHARACTERS)];
}

void cgroups_sweep(void)
{
    for (unsigned c = 0; c < GROUPS; c++) {
        g_autoptr(GDir) dir = places[c].partition ? g_dir_open(places[c].partition, 0, NULL) : NULL;
        const char *name;
        while (dir && (name = g_dir_read_name(dir))) {
            g_autofree char *path = g_build_filename(places[c].partition, name, NULL);
            if (is_machine(name)) {
                remove_group(path);
            }
        }
        if (dir) {
            rmdir(places[c].partition);
        }
    }
}

void cgroup_remove(struct cgroup *g)
{
    for (unsigned c = 0; g && c < GROUPS; c++) {
        if (!g->paths[c]) {
            continue;
        }
        remove_group(g->paths[c]);
        /* The last machine takes the folders above with it, as far as they are ours. */
        g_autofree char *above = g_path_get_dirname(g->paths[c]);
        while (rmdir(above) == 0 && places[c].base && strlen(above) > strlen(places[c].base)) {
            char *next = g_path_get_dirname(above);
            g_free(above);
            above = next;
            if (strcmp(above, places[c].base) == 0) {
                break;
            }
        }
    }
    cgroup_free(g);
}

bool cgroup_has(const struct cgroup *g, enum group_controller c)
{
    return g && g->paths[c];
}

unsigned cgroup_version(const struct cgroup *g, enum group_controller c)
{
    return cgroup_has(g, c) ? places[c].version : 0;
}

/* Whether an earlier controller is mounted together with @c, so that its group is the same. */
static bool seen_before(const struct cgroup *g, unsigned c)
{
    for (unsigned i = 0; i < c; i++) {
        if (g_strcmp0(g->paths[i], g->paths[c]) == 0) {
            return true;
        }
    }
    return false;
}

bool cgroup_put_process(struct cgroup *g, pid_t pid, GError **error)
{
    char text[16];
    g_snprintf(text, sizeof(text), "%d", pid);
    for (unsigned c = 0; g && c < GROUPS; c++) {
        if (g->paths[c] && !seen_before(g, c) &&
            !write_text(g->paths[c], "cgroup.procs", text, error)) {
            return false;
        }
    }
    return true;
}

static bool has_parts(enum group_controller c)
{
    return c == GROUP_CPU || c == GROUP_CPUSET || (c == GROUP_CPUACCT && places[c].version == 1);
}

static bool make_part(struct cgroup *g, enum group_controller c, const char *path, GError **error)
{
    static const char *const threaded[] = {"cpu", "cpuset", NULL};
    if (mkdir(path, 0755) != 0) {
        if (errno == EEXIST) {
            return true;
        }
        libvirt_error(error, ERR_SYSTEM, "Failed to create cgroup %s: %s", path, g_strerror(errno));
        return false;
    }
    if (places[c].version == 2) {
        if (!write_text(path, "cgroup.type", "threaded", error)) {
            return false;
        }
        hand_down(g->paths[c], threaded);
    } else if (c == GROUP_CPUSET) {
        fill_cpuset(path);
    }
    return true;
}

bool cgroup_put_thread(struct cgroup *g, const char *part, pid_t thread, GError **error)
{
    char text[16];
    g_snprintf(text, sizeof(text), "%d", thread);
    for (unsigned c = 0; g && c < GROUPS; c++) {
        if (!g->paths[c] || !has_parts(c) || seen_before(g, c)) {
            continue;
        }
        g_autofree char *path = g_build_filename(g->paths[c], part, NULL);
        if (!make_part(g, c, path, error) ||
            !write_text(path, places[c].version == 2 ? "cgroup.threads" : "tasks", text, error)) {
            return false;
        }
    }
    return true;
}

/* --- knobs --- */

/* The folder of a part and the name of its file; NULL with an error. */
static char *locate(struct cgroup *g, const char *part, enum knob k, const char **file,
                    GError **error)
{
    const struct knob_row *row = &knobs[k];
    if (!cgroup_has(g, row->controller)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "%s", controllers[row->controller].missing);
        return NULL;
    }
    bool two = places[row->controller].version == 2;
    g_autofree char *folder = g_build_filename(g->paths[row->controller], part, NULL);
    for (unsigned i = 0; i < 2; i++) {
        const char *name = two ? row->v2[i] : row->v1[i];
        g_autofree char *path = name ? g_build_filename(folder, name, NULL) : NULL;
        if (path && g_file_test(path, G_FILE_TEST_EXISTS)) {
            *file = name;
            return g_steal_pointer(&folder);
        }
    }
    libvirt_error(error, ERR_OPERATION_UNSUPPORTED, "this host's kernel has no cgroup file '%s'",
                  two && row->v2[0] ? row->v2[0] : row->v1[0]);
    return NULL;
}

bool cgroup_set_text(struct cgroup *g, const char *part, enum knob k, const char *v, GError **error)
{
    const char *file;
    g_autofree char *folder = locate(g, part, k, &file, error);
    return folder && write_text(folder, file, v, error);
}

char *cgroup_get_text(struct cgroup *g, const char *part, enum knob k)
{
    const char *file;
    g_autofree char *folder = locate(g, part, k, &file, NULL);
    return folder ? read_text(folder, file) : NULL;
}

bool cgroup_set(struct cgroup *g, const char *part, enum knob k, uint64_t v, GError **error)
{
    const char *file;
    g_autofree char *folder = locate(g, part, k, &file, error);
    if (!folder) {
        return false;
    }
    bool two = places[knobs[k].controller].version == 2;
    enum form form = knobs[k].form;
    g_autofree char *text = NULL;
    if (v == KNOB_UNLIMITED && form != FORM_NUMBER) {
        text = g_strdup(two ? "max" : "-1");
    } else if (two && form == FORM_PERIOD) {
        g_autofree char *now = read_text(folder, file);
        text = g_strdup_printf("%.*s %" PRIu64, now ? (int)strcspn(now, " ") : 3, now ? now : "max",
                               v);
    } else {
        text = g_strdup_printf("%" PRIu64, v);
    }
    return write_text(folder, file, text, error);
}

bool cgroup_get(struct cgroup *g, const char *part, enum knob k, uint64_t *v, GError **error)
{
    const char *file;
    g_autofree char *folder = locate(g, part, k, &file, error);
    g_autofree char *text = folder ? read_text(folder, file) : NULL;
    if (!text) {
        if (folder) {
            libvirt_error(error, ERR_SYSTEM, "Unable to read '%s/%s'", folder, file);
        }
        return false;
    }
    bool two = places[knobs[k].controller].version == 2;
    const char *at = text;
    if (g_str_has_prefix(at, "default ")) {
        at += strlen("default ");
    }
    if (two && knobs[k].form == FORM_PERIOD) {
        at += strcspn(at, " ");
    }
    at += strspn(at, " ");
    *v =
        g_str_has_prefix(at, "max") || *at == '-' ? KNOB_UNLIMITED : g_ascii_strtoull(at, NULL, 10);
    /* Version 1 writes "unlimited" as the largest number of whole pages. */
    if (knobs[k].form == FORM_LIMIT && *v >= (UINT64_C(1) << 62)) {
        *v = KNOB_UNLIMITED;
    }
    return true;
}

bool cgroup_set_device(struct cgroup *g, enum knob k, dev_t device, uint64_t v, GError **error)
{
    const char *file;
    g_autofree char *folder = locate(g, NULL, k, &file, error);
    if (!folder) {
        return false;
    }
    bool two = places[knobs[k].controller].version == 2;
    g_autoptr(GString) text = g_string_new(NULL);
    g_string_append_printf(text, "%u:%u ", major(device), minor(device));
    if (two && knobs[k].form == FORM_IO_MAX) {
        g_string_append_printf(text, "%s=", knobs[k].key);
    }
    if (two && !v) {
        g_string_append(text, knobs[k].form == FORM_IO_MAX ? "max" : "default");
    } else {
        g_string_append_printf(text, "%" PRIu64, v);
    }
    return write_text(folder, file, text->str, error);
}

/* --- what was used --- */

/* The number after "@name " in a file of such lines. */
static uint64_t line_of(const char *text, const char *name)
{
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", -1);
    size_t n = strlen(name);
    for (unsigned i = 0; lines[i]; i++) {
        if (strncmp(lines[i], name, n) == 0 && lines[i][n] == ' ') {
            return g_ascii_strtoull(lines[i] + n, NULL, 10);
        }
    }
    return 0;
}

bool cgroup_cpu_time(struct cgroup *g, uint64_t *total, uint64_t *user, uint64_t *kernel)
{
    if (!cgroup_has(g, GROUP_CPUACCT)) {
        return false;
    }
    const char *folder = g->paths[GROUP_CPUACCT];
    if (places[GROUP_CPUACCT].version == 2) {
        g_autofree char *text = read_text(folder, "cpu.stat");
        *total = line_of(text, "usage_usec") * 1000;
        *user = line_of(text, "user_usec") * 1000;
        *kernel = line_of(text, "system_usec") * 1000;
        return text != NULL;
    }
    g_autofree char *usage = read_text(folder, "cpuacct.usage");
    g_autofree char *stat = read_text(folder, "cpuacct.stat");
    uint64_t tick = 1000000000u / (unsigned)sysconf(_SC_CLK_TCK);
    *total = usage ? g_ascii_strtoull(usage, NULL, 10) : 0;
    *user = line_of(stat, "user") * tick;
    *kernel = line_of(stat, "system") * tick;
    return usage && stat;
}

uint64_t *cgroup_cpu_times(struct cgroup *g, const char *part, unsigned *count)
{
    if (cgroup_version(g, GROUP_CPUACCT) != 1) {
        return NULL;
    }
    g_autofree char *folder = g_build_filename(g->paths[GROUP_CPUACCT], part, NULL);
    g_autofree char *text = read_text(folder, "cpuacct.usage_percpu");
    g_auto(GStrv) words = text ? g_strsplit(text, " ", -1) : NULL;
    if (!words) {
        return NULL;
    }
    *count = g_strv_length(words);
    uint64_t *times = g_new0(uint64_t, *count + 1);
    for (unsigned i = 0; i < *count; i++) {
        times[i] = g_ascii_strtoull(words[i], NULL, 10);
    }
    return times;
}
