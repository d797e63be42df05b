/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/test.h"

#include "base/bytes.h"
#include "guest/machine/load.h"

#include <glib/gstdio.h>
#include <string.h>

enum { MB = 1 << 20 };

static char *dir;

static char *file_of(const char *name, const void *data, size_t n)
{
    char *path = g_build_filename(dir, name, NULL);
    assert_true(g_file_set_contents(path, data, (gssize)n, NULL));
    return path;
}

/* A kernel of protocol 2.12 with one sector of code. */
static void linux_header(uint8_t *k, unsigned sectors)
{
    memset(k, 0, 4096);
    k[0x1f1] = 1;
    le32_put(k + 0x1f4, sectors * 32);
    le16_put(k + 0x1fe, 0xaa55);
    k[0x201] = 0x66;
    memcpy(k + 0x202, "HdrS", 4);
    le16_put(k + 0x206, 0x20c);
    k[0x211] = 1;
    le32_put(k + 0x22c, 0x37ffffff);
    le32_put(k + 0x238, 255);
    le64_put(k + 0x258, 16 * MB);
    le32_put(k + 0x260, 8 * MB);
}

static struct direct_boot *try_boot(const char *kernel, const char *initrd, const char *append,
                                    uint64_t top, GError **error)
{
    struct boot_request r = {.kernel = kernel, .initrd = initrd, .append = append, .ram_top = top};
    return direct_boot_parse(&r, error);
}

static void a_good_kernel_is_taken(void **state)
{
    (void)state;
    uint8_t k[4096];
    g_autoptr(GError) error = NULL;
    linux_header(k, 1);
    g_autofree char *kernel = file_of("good", k, 2048);
    g_autofree char *initrd = file_of("initrd", k, 4000);
    struct direct_boot *d = try_boot(kernel, initrd, "console=ttyS0", 64 * MB, &error);
    assert_works(d != NULL, error);
    assert_int_equal(d->kind, BOOT_LINUX);
    assert_int_equal(d->memory_end, 24 * MB);
    assert_int_equal(d->load_bytes, 1024);
    assert_int_equal(d->initrd_at, 64 * MB - 4096);
    direct_boot_free(d);
}

static void bad_kernels_are_refused(void **state)
{
    (void)state;
    uint8_t k[4096], elf[128] = "\177ELF\1";
    g_autoptr(GError) error = NULL;
    linux_header(k, 8);
    g_autofree char *cut = file_of("cut", k, 2048);
    assert_fails(try_boot(cut, NULL, NULL, 64 * MB, &error) != NULL, error, EINVAL);
    linux_header(k, 1);
    g_autofree char *small = file_of("small", k, 0x210);
    assert_fails(try_boot(small, NULL, NULL, 64 * MB, &error) != NULL, error, EINVAL);
    g_autofree char *good = file_of("good", k, 2048);
    assert_fails(try_boot(good, NULL, NULL, 16 * MB, &error) != NULL, error, ENOMEM);
    assert_fails(try_boot("/no/such", NULL, NULL, 16 * MB, &error) != NULL, error, ENOENT);
    g_autofree char *text = g_strnfill(300, 'x');
    assert_fails(try_boot(good, NULL, text, 64 * MB, &error) != NULL, error, E2BIG);
    g_autofree char *empty = file_of("empty", k, 0);
    assert_fails(try_boot(empty, NULL, NULL, 64 * MB, &error) != NULL, error, EINVAL);
    le32_put(elf + 28, 0x40);
    le16_put(elf + 42, 32);
    le16_put(elf + 44, 9); /* segments beyond the end */
    g_autofree char *bad_elf = file_of("elf", elf, sizeof(elf));
    assert_fails(try_boot(bad_elf, NULL, NULL, 64 * MB, &error) != NULL, error, EINVAL);
}

static void an_initrd_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    uint8_t k[4096];
    g_autoptr(GError) error = NULL;
    linux_header(k, 1);
    g_autofree char *kernel = file_of("good", k, 2048);
    g_autofree uint8_t *big = g_malloc0(9 * MB);
    g_autofree char *initrd = file_of("initrd", big, 9 * MB);
    assert_fails(try_boot(kernel, initrd, NULL, 32 * MB, &error) != NULL, error, ENOMEM);
    assert_fails(try_boot(kernel, "/no/such", NULL, 32 * MB, &error) != NULL, error, ENOENT);
}

static uint8_t *multiboot(uint8_t *k, uint32_t load, uint32_t load_end, uint32_t bss)
{
    uint32_t words[] = {0x1badb002, 1 << 16, 0, load + 64, load, load_end, bss, load + 100};
    memset(k, 0, 4096);
    words[2] = 0u - words[0] - words[1];
    memcpy(k + 64, words, sizeof(words));
    return k;
}

static void multiboot_headers_are_checked(void **state)
{
    (void)state;
    uint8_t k[4096];
    g_autoptr(GError) error = NULL;
    g_autofree char *good = file_of("mb", multiboot(k, MB, MB + 4096, 2 * MB), 4096);
    g_autofree char *modules = g_strdup_printf("%s one,%s two", good, good);
    struct direct_boot *d = try_boot(good, modules, "x", 8 * MB, &error);
    assert_works(d != NULL, error);
    assert_int_equal(d->kind, BOOT_MULTIBOOT);
    assert_int_equal(d->entry, MB + 100);
    assert_int_equal(d->memory_end, 2 * MB);
    assert_int_equal(d->n_modules, 2);
    assert_int_equal(d->module[1].at, 2 * MB + 4096);
    direct_boot_free(d);
    g_autofree char *cut = file_of("cut", multiboot(k, MB, 2 * MB, 2 * MB), 4096);
    assert_fails(try_boot(cut, NULL, NULL, 8 * MB, &error) != NULL, error, EINVAL);
    g_autofree char *low = file_of("low", multiboot(k, 4096, 8192, 0), 4096);
    assert_fails(try_boot(low, NULL, NULL, 8 * MB, &error) != NULL, error, EINVAL);
    g_autofree char *huge = file_of("huge", multiboot(k, MB, 0, 0xffffffff), 4096);
    assert_fails(try_boot(huge, NULL, NULL, 8 * MB, &error) != NULL, error, ENOMEM);
}

static int remove_files(void **state)
{
    (void)state;
    GDir *d = g_dir_open(dir, 0, NULL);
    for (const char *name; (name = g_dir_read_name(d));) {
        g_autofree char *path = g_build_filename(dir, name, NULL);
        g_remove(path);
    }
    g_dir_close(d);
    g_rmdir(dir);
    g_free(dir);
    return 0;
}

static int make_files(void **state)
{
    (void)state;
    dir = g_dir_make_tmp("lodge-load-XXXXXX", NULL);
    return dir ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_kernel_is_taken),
        cmocka_unit_test(bad_kernels_are_refused),
        cmocka_unit_test(an_initrd_that_does_not_fit_is_refused),
        cmocka_unit_test(multiboot_headers_are_checked),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
