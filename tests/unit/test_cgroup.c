/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * manage/daemon: control groups of both versions, on folders that look like the kernel's: which
 * file gets which text, and what is refused where a controller is missing.
 */
#include "manage/daemon/cgroup.h"
#include "manage/error.h"
#include "manage/model/cpuset.h"
#include "tests/unit/test.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

static char *top;
static GError *error;

#define assert_refused(call, words)                                                                \
    do {                                                                                           \
        bool works_ = (call);                                                                      \
        if (works_ || !error || !strstr(error->message, words)) {                                  \
            fail_msg("%s: %s", #call, error ? error->message : "no error");                        \
        }                                                                                          \
        g_clear_error(&error);                                                                     \
    } while (0)

static char *at(const char *path)
{
    return g_build_filename(top, path, NULL);
}

static void put(const char *path, const char *text)
{
    g_autofree char *full = at(path), *folder = g_path_get_dirname(full);
    assert_int_equal(g_mkdir_with_parents(folder, 0755), 0);
    assert_true(g_file_set_contents(full, text, -1, NULL));
}

static void assert_text(const char *path, const char *text)
{
    g_autofree char *full = at(path), *is = NULL;
    assert_true(g_file_get_contents(full, &is, NULL, NULL));
    assert_string_equal(is, text);
}

static void assert_there(const char *path, bool there)
{
    g_autofree char *full = at(path);
    assert_int_equal(g_file_test(full, G_FILE_TEST_EXISTS), there);
}

static int setup(void **state)
{
    (void)state;
    top = g_dir_make_tmp("lodge-cgroup-XXXXXX", NULL);
    return top ? 0 : -1;
}

static void forget(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *below = g_build_filename(path, name, NULL);
        forget(below);
    }
    g_remove(path);
}

static int teardown(void **state)
{
    (void)state;
    forget(top);
    g_free(top);
    return 0;
}

/* A unified hierarchy; lodged itself is in /system/lodged. */
static void unified(const char *partition)
{
    put("v2/cgroup.controllers", "cpuset cpu io memory pids\n");
    put("v2/cgroup.subtree_control", "");
    put("v2/system/lodged/cgroup.subtree_control", "");
    g_autofree char *mounts =
        g_strdup_printf("31 23 0:28 / /sys rw - sysfs sysfs rw\n"
                        "41 31 0:38 / %s/v2 rw,relatime shared:9 - cgroup2 cgroup2 rw\n",
                        top);
    cgroups_find(mounts, "0::/system/lodged\n", partition);
}

static void fill_v2(const char *folder)
{
    static const struct {
        const char *name, *text;
    } files[] = {
        {"cgroup.controllers", "cpuset cpu io memory\n"},
        {"cgroup.procs", ""},
        {"cgroup.subtree_control", ""},
        {"cpu.weight", "100\n"},
        {"cpu.max", "max 100000\n"},
        {"cpu.stat", "usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\n"},
        {"cpuset.cpus", "\n"},
        {"cpuset.mems", "\n"},
        {"memory.max", "max\n"},
        {"memory.high", "max\n"},
        {"memory.swap.max", "max\n"},
        {"io.weight", "default 100\n"},
        {"io.max", ""},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *path = g_build_filename(folder, files[i].name, NULL);
        put(path, files[i].text);
    }
}

static void test_v2_limits(void **state)
{
    uint64_t v, user, kernel;
    (void)state;
    unified("/machine");
    fill_v2("v2/machine/qemu-1-a");
    struct cgroup *g = cgroup_new("qemu-1-a");
    assert_non_null(g);
    assert_text("v2/cgroup.subtree_control", "+io"); /* the last that was handed down */
    for (unsigned c = 0; c < GROUPS; c++) {
        assert_true(cgroup_has(g, c));
        assert_int_equal(cgroup_version(g, c), 2);
    }
    static const struct {
        enum knob k;
        uint64_t v;
        const char *file, *text;
    } rows[] = {
        {KNOB_SHARES, 300, "cpu.weight", "300"},
        {KNOB_PERIOD, 50000, "cpu.max", "max 50000"},
        {KNOB_QUOTA, KNOB_UNLIMITED, "cpu.max", "max"},
        {KNOB_QUOTA, 25000, "cpu.max", "25000"},
        {KNOB_HARD_LIMIT, 1 << 20, "memory.max", "1048576"},
        {KNOB_SOFT_LIMIT, KNOB_UNLIMITED, "memory.high", "max"},
        {KNOB_SWAP_HARD_LIMIT, 4096, "memory.swap.max", "4096"},
        {KNOB_WEIGHT, 250, "io.weight", "250"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *path = g_build_filename("v2/machine/qemu-1-a", rows[i].file, NULL);
        assert_works(cgroup_set(g, NULL, rows[i].k, rows[i].v, &error), error);
        assert_text(path, rows[i].text);
    }
    put("v2/machine/qemu-1-a/cpu.max", "25000 50000\n"); /* as the kernel shows it */
    assert_works(cgroup_get(g, NULL, KNOB_QUOTA, &v, &error), error);
    assert_int_equal(v, 25000);
    assert_works(cgroup_get(g, NULL, KNOB_PERIOD, &v, &error), error);
    assert_int_equal(v, 50000);
    assert_works(cgroup_set(g, NULL, KNOB_PERIOD, 60000, &error), error);
    assert_text("v2/machine/qemu-1-a/cpu.max", "25000 60000");
    put("v2/machine/qemu-1-a/io.weight", "default 70\n8:0 20\n");
    assert_works(cgroup_get(g, NULL, KNOB_WEIGHT, &v, &error), error);
    assert_int_equal(v, 70);
    assert_works(cgroup_set_device(g, KNOB_DEVICE_WEIGHT, makedev(8, 16), 400, &error), error);
    assert_text("v2/machine/qemu-1-a/io.weight", "8:16 400");
    assert_works(cgroup_set_device(g, KNOB_WRITE_IOPS, makedev(8, 16), 77, &error), error);
    assert_text("v2/machine/qemu-1-a/io.max", "8:16 wiops=77");
    assert_works(cgroup_set_device(g, KNOB_READ_BYTES, makedev(8, 16), 0, &error), error);
    assert_text("v2/machine/qemu-1-a/io.max", "8:16 rbps=max");
    assert_true(cgroup_cpu_time(g, &v, &user, &kernel));
    assert_int_equal(v, 3000000);
    assert_int_equal(user, 2000000);
    assert_int_equal(kernel, 1000000);
    cgroup_free(g);
}

static void test_v2_places(void **state)
{
    (void)state;
    unified("machine/x");
    fill_v2("v2/system/lodged/machine/x/qemu-1-a");
    struct cgroup *g = cgroup_new("qemu-1-a");
    assert_works(cgroup_put_process(g, 4711, &error), error);
    assert_text("v2/system/lodged/machine/x/qemu-1-a/cgroup.procs", "4711");
    put("v2/system/lodged/machine/x/qemu-1-a/vcpu0/cgroup.threads", "");
    assert_works(cgroup_put_thread(g, "vcpu0", 4712, &error), error);
    assert_text("v2/system/lodged/machine/x/qemu-1-a/vcpu0/cgroup.threads", "4712");
    cgroup_free(g);
    g = cgroup_find("0::/system/lodged/machine/x/qemu-1-a/vcpu0\n", "qemu-1-a");
    assert_true(cgroup_has(g, GROUP_MEMORY));
    cgroup_free(g);
    assert_null(cgroup_find("0::/system/lodged\n", "qemu-1-a"));
    /* A controller that is not handed down is not there. */
    put("v2/system/lodged/machine/x/qemu-1-a/cgroup.controllers", "cpu\n");
    g = cgroup_new("qemu-1-a");
    assert_true(cgroup_has(g, GROUP_CPU));
    assert_false(cgroup_has(g, GROUP_MEMORY));
    assert_refused(cgroup_set(g, NULL, KNOB_HARD_LIMIT, 1, &error),
                   "cgroup memory controller is not mounted");
    assert_refused(cgroup_set(g, NULL, KNOB_WEIGHT, 100, &error), "blkio cgroup isn't mounted");
    cgroup_free(g);
}

/* Version 1, each controller in a hierarchy of its own, lodged in another place of each. */
static void test_v1(void **state)
{
    uint64_t v;
    (void)state;
    put("v1/cpu/machine/y/qemu-2-b/cpu.shares", "1024\n");
    put("v1/cpu/machine/y/qemu-2-b/cpu.cfs_quota_us", "-1\n");
    put("v1/cpu/machine/y/qemu-2-b/vcpu0/cpu.cfs_quota_us", "-1\n");
    put("v1/cpu/machine/y/qemu-2-b/vcpu0/tasks", "");
    put("v1/memory/own/machine/y/qemu-2-b/memory.limit_in_bytes", "9223372036854771712\n");
    put("v1/memory/own/machine/y/qemu-2-b/cgroup.procs", "");
    put("v1/cpu/machine/y/qemu-2-b/cgroup.procs", "");
    put("v1/cpuset/cpuset.cpus", "0-3\n");
    put("v1/cpuset/cpuset.mems", "0\n");
    put("v1/cpuset/machine/cpuset.cpus", "\n");
    put("v1/cpuset/machine/cpuset.mems", "\n");
    put("v1/blkio/machine/y/qemu-2-b/blkio.bfq.weight", "100\n");
    put("v1/blkio/machine/y/qemu-2-b/blkio.throttle.read_bps_device", "");
    g_autofree char *mounts =
        g_strdup_printf("32 31 0:29 / %s/v1/cpu rw - cgroup cgroup rw,cpu\n"
                        "34 31 0:31 / %s/v1/cpuset rw - cgroup cgroup rw,cpuset\n"
                        "35 31 0:32 / %s/v1/memory rw - cgroup cgroup rw,memory\n"
                        "38 31 0:35 / %s/v1/blkio rw - cgroup cgroup rw,blkio\n"
                        "41 31 0:38 / %s/v1/unified rw - cgroup2 cgroup2 rw\n",
                        top, top, top, top, top);
    cgroups_find(mounts, "4:memory:/own\n3:cpuset:/\n1:cpu:/\n7:blkio:/\n0::/\n", "machine/y");
    struct cgroup *g = cgroup_new("qemu-2-b");
    assert_non_null(g);
    assert_int_equal(cgroup_version(g, GROUP_MEMORY), 1);
    assert_int_equal(cgroup_version(g, GROUP_CPUACCT), 0);
    assert_text("v1/cpuset/machine/cpuset.cpus", "0-3");
    assert_text("v1/cpuset/machine/cpuset.mems", "0");
    assert_works(cgroup_set(g, NULL, KNOB_SHARES, 300, &error), error);
    assert_text("v1/cpu/machine/y/qemu-2-b/cpu.shares", "300");
    assert_works(cgroup_set(g, "vcpu0", KNOB_QUOTA, 5000, &error), error);
    assert_text("v1/cpu/machine/y/qemu-2-b/vcpu0/cpu.cfs_quota_us", "5000");
    assert_works(cgroup_set(g, "vcpu0", KNOB_QUOTA, KNOB_UNLIMITED, &error), error);
    assert_text("v1/cpu/machine/y/qemu-2-b/vcpu0/cpu.cfs_quota_us", "-1");
    assert_works(cgroup_get(g, NULL, KNOB_QUOTA, &v, &error), error);
    assert_true(v == KNOB_UNLIMITED);
    assert_works(cgroup_get(g, NULL, KNOB_HARD_LIMIT, &v, &error), error);
    assert_true(v == KNOB_UNLIMITED);
    assert_works(cgroup_set(g, NULL, KNOB_WEIGHT, 50, &error), error);
    assert_text("v1/blkio/machine/y/qemu-2-b/blkio.bfq.weight", "50");
    assert_works(cgroup_set_device(g, KNOB_READ_BYTES, makedev(8, 0), 0, &error), error);
    assert_text("v1/blkio/machine/y/qemu-2-b/blkio.throttle.read_bps_device", "8:0 0");
    assert_refused(cgroup_set(g, NULL, KNOB_SWAP_HARD_LIMIT, 1, &error),
                   "memory.memsw.limit_in_bytes");
    cgroup_free(g);
}

static void test_nothing(void **state)
{
    uint64_t v;
    (void)state;
    cgroups_find("", "", "machine");
    struct cgroup *g = cgroup_new("qemu-3-c");
    assert_null(g);
    assert_false(cgroup_has(g, GROUP_CPU));
    assert_works(cgroup_put_process(g, 1, &error), error);
    assert_refused(cgroup_get(g, NULL, KNOB_SHARES, &v, &error),
                   "cgroup CPU controller is not mounted");
    cgroup_remove(g);
}

/* Machines that ended while no daemon was there: their groups are empty but for the kernel's files.
 */
static void test_sweep(void **state)
{
    static const char *const folders[] = {
        "v2/machine/a/qemu-1-gone/vcpu0", "v2/machine/a/qemu-3-too",
        "v2/machine/a/qemu-4-x.libvirt-qemu", "v2/machine/a/other"};
    (void)state;
    unified("/machine/a");
    put("v2/machine/a/qemu-2-runs/process", "1");
    for (unsigned i = 0; i < G_N_ELEMENTS(folders); i++) {
        g_autofree char *path = at(folders[i]);
        assert_int_equal(g_mkdir_with_parents(path, 0755), 0);
    }
    cgroups_sweep();
    assert_there("v2/machine/a/qemu-1-gone", false);
    assert_there("v2/machine/a/qemu-3-too", false);
    assert_there("v2/machine/a/qemu-2-runs", true);
    assert_there("v2/machine/a/qemu-4-x.libvirt-qemu", true); /* of others */
    assert_there("v2/machine/a/other", true);
}

static void test_sets(void **state)
{
    static const struct {
        const char *text, *back; /* NULL: refused */
    } rows[] = {
        {"0", "0"},         {"0-3", "0-3"},          {"0-3,^2", "0-1,3"}, {"8,1,2", "1-2,8"},
        {" 1 , 2 ", "1-2"}, {"8191", "8191"},        {"8192", NULL},      {"", NULL},
        {"^1", NULL},       {"3-1", NULL},           {"1,", NULL},        {"a", NULL},
        {"1-", NULL},       {"99999999999999", NULL}};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct cpuset set;
        bool ok = cpuset_parse(rows[i].text, &set, NULL);
        assert_int_equal(ok, rows[i].back != NULL);
        if (ok) {
            g_autofree char *text = cpuset_format(&set);
            assert_string_equal(text, rows[i].back);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_v2_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_v2_places, setup, teardown),
        cmocka_unit_test_setup_teardown(test_v1, setup, teardown),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test_setup_teardown(test_sweep, setup, teardown),
        cmocka_unit_test(test_sets),
    };
    return cmocka_run_group_tests_name("cgroup", tests, NULL, NULL);
}
