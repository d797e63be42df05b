/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/test.h"

#include "base/bytes.h"
#include "base/lock.h"
#include "guest/cpu/engine.h"
#include "guest/device/mc146818.h"
#include "guest/device/pci.h"
#include "guest/machine/machine.h"

#include <string.h>

/* An engine that never runs: the tests look at the board from outside. */
static const struct cpu_engine engine = {.name = "interp"};

static struct board *board; /* one machine a process */

static uint32_t pci_read(unsigned devfn, unsigned at, unsigned bytes)
{
    space_store(board->ports, 0xcf8, 0x80000000u | devfn << 8 | (at & 0xfc), 4);
    return (uint32_t)space_load(board->ports, 0xcfc + (at & 3), bytes);
}

static void pci_write(unsigned devfn, unsigned at, uint32_t v, unsigned bytes)
{
    space_store(board->ports, 0xcf8, 0x80000000u | devfn << 8 | (at & 0xfc), 4);
    space_store(board->ports, 0xcfc + (at & 3), v, bytes);
}

static void the_chipset_is_found_by_its_ids(void **state)
{
    (void)state;
    assert_int_equal(pci_read(0x00, 0, 4), 0x12378086);
    assert_int_equal(pci_read(0x08, 0, 4), 0x70008086);
    assert_int_equal(pci_read(0x0b, 0, 4), 0x71138086);
    assert_int_equal(pci_read(0xf8, 0, 4), 0xffffffff);
    assert_int_equal(pci_read(0x08, PCI_HEADER, 1), 0x80);
    assert_int_equal(pci_read(0x10, PCI_VENDOR, 2), 0x1234);
}

static void cmos_holds_the_sizes_of_memory(void **state)
{
    (void)state;
    struct device *rtc = board_part(board, "rtc");
    assert_int_equal(mc146818_get(rtc, 0x34) | mc146818_get(rtc, 0x35) << 8, 0x700);
    assert_int_equal(mc146818_get(rtc, 0x5f), 1);
    assert_int_equal(mc146818_get(rtc, 0x3d), 0x13);
}

static void bars_are_sized_and_placed(void **state)
{
    (void)state;
    pci_write(0x10, PCI_BAR0, 0xffffffff, 4);
    assert_int_equal(pci_read(0x10, PCI_BAR0, 4), 0xff000008);
    pci_write(0x10, PCI_BAR0, 0xe0000000, 4);
    assert_null(space_find(board->memory, 0xe0001000).region);
    pci_write(0x10, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    assert_non_null(space_find(board->memory, 0xe0001000).host);
    pci_write(0x10, PCI_BAR0, 0xd0000000, 4);
    assert_null(space_find(board->memory, 0xe0001000).region);
    assert_non_null(space_find(board->memory, 0xd0001000).host);
    machine_reset(board);
    assert_null(space_find(board->memory, 0xd0001000).region);
    assert_int_equal(pci_read(0x10, PCI_COMMAND, 2), 0);
}

static void shadow_ram_follows_the_pam_registers(void **state)
{
    (void)state;
    uint64_t rom = space_load(board->memory, 0xffff0, 8);
    assert_int_equal(space_load(board->memory, 0xfffffff0, 8), rom);
    space_store(board->memory, 0xffff0, 0, 8);
    assert_int_equal(space_load(board->memory, 0xffff0, 8), rom);
    pci_write(0, 0x59, 0x20, 1); /* reads from ROM, writes to RAM */
    space_store(board->memory, 0xffff0, 0x1122334455667788, 8);
    assert_int_equal(space_load(board->memory, 0xffff0, 8), rom);
    pci_write(0, 0x59, 0x10, 1);
    assert_int_equal(space_load(board->memory, 0xffff0, 8), 0x1122334455667788);
    space_store(board->memory, 0xffff0, 0, 8);
    assert_int_equal(space_load(board->memory, 0xffff0, 8), 0x1122334455667788);
    pci_write(0, 0x59, 0x30, 1);
    space_store(board->memory, 0xffff0, 0, 8);
    assert_int_equal(space_load(board->memory, 0xffff0, 8), 0);
    machine_reset(board);
    assert_int_equal(space_load(board->memory, 0xffff0, 8), rom);
}

static void smram_shows_in_smm_only(void **state)
{
    (void)state;
    pci_write(0, 0x72, 0x4a, 1); /* open */
    space_store(board->memory, 0xa8000, 0xabcd, 2);
    pci_write(0, 0x72, 0x0a, 1);
    assert_int_equal(space_load(board->memory_smm, 0xa8000, 2), 0xabcd);
    assert_int_not_equal(space_load(board->memory, 0xa8000, 2), 0xabcd);
    pci_write(0, 0x72, 0x1a, 1); /* locked: cannot be opened again */
    pci_write(0, 0x72, 0x4a, 1);
    assert_int_not_equal(space_load(board->memory, 0xa8000, 2), 0xabcd);
    machine_reset(board);
}

static enum board_event asked;
static unsigned times;

static void request(struct board *b, enum board_event event, int code)
{
    (void)b, (void)code;
    asked = event;
    times++;
}

static void the_guest_resets_and_sleeps(void **state)
{
    (void)state;
    times = 0;
    space_store(board->ports, 0xcf9, 0x02, 1);
    assert_int_equal(times, 0);
    space_store(board->ports, 0xcf9, 0x06, 1);
    assert_int_equal(times, 1);
    assert_int_equal(asked, BOARD_RESET);
    pci_write(0x0b, 0x40, 0x601, 4);
    pci_write(0x0b, 0x80, 1, 1);
    space_store(board->ports, 0xb2, 0xf1, 1);
    assert_int_equal(space_load(board->ports, 0x604, 2), 1);
    space_store(board->ports, 0x604, 0x2001 | 1 << 10, 2);
    assert_int_equal(asked, BOARD_SUSPEND);
    space_store(board->ports, 0x604, 0x2001, 2);
    assert_int_equal(asked, BOARD_SHUTDOWN);
    space_store(board->ports, 0x602, 0x100, 2);
    board->power_button(board);
    assert_int_equal(space_load(board->ports, 0x600, 2) & 0x100, 0x100);
    space_store(board->ports, 0x600, 0x100, 2);
    assert_int_equal(space_load(board->ports, 0x600, 2) & 0x100, 0);
    machine_reset(board);
}

static void waking_keeps_shadow_ram_and_says_so(void **state)
{
    (void)state;
    pci_write(0, 0x59, 0x30, 1);
    pci_write(0, 0x5f, 0x13, 1);
    space_store(board->memory, 0xf0000, 0x1234, 2);
    machine_wake(board);
    assert_int_equal(pci_read(0, 0x5f, 1), 0x13);
    assert_int_equal(space_load(board->memory, 0xf0000, 2), 0x1234);
    assert_int_equal(mc146818_get(board_part(board, "rtc"), 0x0f), 0xfe);
    pci_write(0x0b, 0x40, 0x601, 4);
    pci_write(0x0b, 0x80, 1, 1);
    assert_int_equal(space_load(board->ports, 0x600, 2) & 0x8000, 0x8000);
    machine_reset(board);
}

static int build(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    struct machine_config c = {.machine = "pc",
                               .cpus = 2,
                               .maxcpus = 4,
                               .topology = {4, 1, 1, 1},
                               .ram_bytes = 128 << 20,
                               .cpu = "qemu64",
                               .engine = &engine,
                               .vga = "std",
                               .boot_order = "dac",
                               .request = request};
    machine_lock();
    board = machine_new(&c, &error);
    if (!board || !machine_build(board, &error) || !machine_finish(board, &error)) {
        print_error("%s\n", error->message);
        return -1;
    }
    machine_reset(board);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_chipset_is_found_by_its_ids),
        cmocka_unit_test(cmos_holds_the_sizes_of_memory),
        cmocka_unit_test(bars_are_sized_and_placed),
        cmocka_unit_test(shadow_ram_follows_the_pam_registers),
        cmocka_unit_test(smram_shows_in_smm_only),
        cmocka_unit_test(the_guest_resets_and_sleeps),
        cmocka_unit_test(waking_keeps_shadow_ram_and_says_so),
    };
    if (g_file_test("/usr/share/seabios/bios-256k.bin", G_FILE_TEST_EXISTS)) {
        return cmocka_run_group_tests(tests, build, NULL);
    }
    return 77; /* meson: skipped */
}
