/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files that outlive a power cut: several at a time share the flush of their folder. */
#include "manage/daemon/daemon.h"

#include <glib/gstdio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

enum { WRITERS = 8 };

/* In place of the C library's: counts, and holds up the first until it is told. */
static atomic_int folder_flushes, file_flushes, held;
static atomic_bool hold, broken;

int fsync(int fd)
{
    (void)fd;
    folder_flushes++;
    while (hold) {
        held = 1;
        g_usleep(1000);
    }
    return 0;
}

int fdatasync(int fd)
{
    (void)fd;
    file_flushes++;
    errno = EIO;
    return broken ? -1 : 0;
}

static char *folder;

static char *name_of(unsigned i)
{
    return g_strdup_printf("%s/file%u", folder, i);
}

struct writer {
    unsigned number;
    atomic_int tid;
    bool ok;
};

static gpointer write_one(gpointer data)
{
    struct writer *w = data;
    g_autofree char *path = name_of(w->number), *text = g_strdup_printf("text %u", w->number);
    w->tid = (int)syscall(SYS_gettid);
    w->ok = daemon_write_file(path, text, -1, 0640, NULL);
    return NULL;
}

/* It waits for the one at the disk: nothing else makes such a thread sleep. */
static bool asleep(const struct writer *w)
{
    g_autofree char *path = g_strdup_printf("/proc/self/task/%d/stat", w->tid), *stat = NULL;
    const char *at =
        w->tid && g_file_get_contents(path, &stat, NULL, NULL) ? strrchr(stat, ')') : NULL;
    return at && at[2] == 'S';
}

static void test_together(void **state)
{
    struct writer w[WRITERS] = {0};
    GThread *threads[WRITERS];
    (void)state;
    hold = true;
    for (unsigned i = 0; i < WRITERS; i++) {
        w[i].number = i;
        threads[i] = g_thread_new("writer", write_one, &w[i]);
        while (i == 0 && !held) {
            g_usleep(1000);
        }
        while (i > 0 && !asleep(&w[i])) {
            g_usleep(1000);
        }
    }
    hold = false;
    for (unsigned i = 0; i < WRITERS; i++) {
        g_autofree char *path = name_of(i), *expected = g_strdup_printf("text %u", i), *text = NULL;
        GStatBuf st;
        g_thread_join(threads[i]);
        assert_true(w[i].ok);
        assert_true(g_file_get_contents(path, &text, NULL, NULL));
        assert_string_equal(text, expected);
        assert_int_equal(g_stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0640);
    }
    assert_int_equal(file_flushes, WRITERS);
    assert_int_equal(folder_flushes, 2); /* the first one's own, and one for all that waited */
}

/* What was there stays, and no half-made file. */
static void test_failing(void **state)
{
    g_autofree char *path = name_of(0), *text = NULL;
    g_autoptr(GError) error = NULL;
    (void)state;
    broken = true;
    assert_false(daemon_write_file(path, "other", -1, 0600, &error));
    broken = false;
    assert_non_null(strstr(error->message, "Input/output error"));
    assert_true(g_file_get_contents(path, &text, NULL, NULL));
    assert_string_equal(text, "text 0");
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    unsigned files = 0;
    while (g_dir_read_name(dir)) {
        files++;
    }
    assert_int_equal(files, WRITERS);
    g_autofree char *nowhere = g_build_filename(folder, "none", "file", NULL);
    assert_false(daemon_write_file(nowhere, "", -1, 0600, NULL));
}

int main(void)
{
    folder = g_dir_make_tmp("lodge-write-XXXXXX", NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_failing),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (unsigned i = 0; i < WRITERS; i++) {
        g_autofree char *path = name_of(i);
        g_unlink(path);
    }
    g_rmdir(folder);
    g_free(folder);
    return failed;
}
