/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files that outlive a power cut: those of several threads are flushed at the same time. */
#include "manage/daemon/daemon.h"

#include <glib/gstdio.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

enum { WRITERS = 8 };

/* In place of the C library's: returns when all writers are at the disk. */
static pthread_barrier_t at_disk;
static bool broken;

int fsync(int fd)
{
    (void)fd;
    errno = EIO;
    if (!broken) {
        pthread_barrier_wait(&at_disk);
    }
    return broken ? -1 : 0;
}

static char *folder;

static char *name_of(unsigned i)
{
    return g_strdup_printf("%s/file%u", folder, i);
}

static gpointer write_one(gpointer number)
{
    unsigned i = GPOINTER_TO_UINT(number);
    g_autofree char *path = name_of(i), *text = g_strdup_printf("text %u", i);
    return GINT_TO_POINTER(daemon_write_file(path, text, -1, 0640, NULL));
}

static void test_together(void **state)
{
    GThread *threads[WRITERS];
    (void)state;
    pthread_barrier_init(&at_disk, NULL, WRITERS);
    for (unsigned i = 0; i < WRITERS; i++) {
        threads[i] = g_thread_new("writer", write_one, GUINT_TO_POINTER(i));
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        g_autofree char *path = name_of(i), *expected = g_strdup_printf("text %u", i), *text = NULL;
        GStatBuf st;
        assert_non_null(g_thread_join(threads[i]));
        assert_true(g_file_get_contents(path, &text, NULL, NULL));
        assert_string_equal(text, expected);
        assert_int_equal(g_stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0640);
    }
}

/* An error is said, and no half-made file stays. */
static void test_failing(void **state)
{
    g_autofree char *path = name_of(0);
    g_autofree char *nowhere = g_build_filename(folder, "none", "file", NULL);
    g_autoptr(GError) error = NULL;
    (void)state;
    broken = true;
    assert_false(daemon_write_file(path, "other", -1, 0600, &error));
    assert_non_null(strstr(error->message, "Input/output error"));
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    unsigned files = 0;
    while (g_dir_read_name(dir)) {
        files++;
    }
    assert_int_equal(files, WRITERS);
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
