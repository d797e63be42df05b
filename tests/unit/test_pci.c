/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/test.h"

#include "base/bytes.h"
#include "base/lock.h"
#include "guest/device/acpi_pcihp.h"
#include "guest/device/pci.h"

#include <string.h>

/* A function with all that pci.c offers. */
struct toy {
    struct pci_device pci;
    struct region memory, wide, ports;
};

static uint64_t toy_read(void *owner, uint64_t at, unsigned bytes)
{
    (void)owner, (void)bytes;
    return at;
}

static const struct region_ops toy_ops = {.read = toy_read};

static bool toy_start(struct device *dev, GError **error)
{
    struct toy *t = (struct toy *)dev;
    t->memory = (struct region){.name = "m", .size = 0x1800, .ops = &toy_ops};
    t->wide = (struct region){.name = "w", .size = 0x10000, .ops = &toy_ops};
    t->ports = (struct region){.name = "p", .size = 0x20, .ops = &toy_ops};
    if (!pci_attach(&t->pci, error)) {
        return false;
    }
    pci_set_bar(&t->pci, 0, &t->memory, false, false, false);
    pci_set_bar(&t->pci, 1, &t->ports, true, false, false);
    pci_set_bar(&t->pci, 2, &t->wide, false, true, true);
    return true;
}

static const struct pci_ident toy_ident = {.vendor = 0x1af4,
                                           .device = 0x10ff,
                                           .class = 0xff0000,
                                           .irq_pin = 1,
                                           .msi = 2,
                                           .msix = 3,
                                           .msix_bar = 4,
                                           .express = true};
static const struct reg toy_regs[] = {PCI_STATE(struct toy, pci)};
static const struct prop toy_props[] = {PCI_PROPS(struct toy, pci)};
static const struct device_model toy_model = {.name = "toy",
                                              .size = sizeof(struct toy),
                                              .version = 1,
                                              .bus = BUS_PCI,
                                              .regs = toy_regs,
                                              .nregs = G_N_ELEMENTS(toy_regs),
                                              .props = toy_props,
                                              .nprops = G_N_ELEMENTS(toy_props),
                                              .bus_data = &toy_ident,
                                              .start = toy_start};

static struct board *board;
static struct pci_bus bus;
static unsigned line_devfn, line_pin, lines;
static uint64_t msi_address;
static uint32_t msi_data;
static unsigned msis;

static void set_irq(struct pci_bus *b, unsigned devfn, unsigned pin, bool level)
{
    (void)b;
    line_devfn = devfn;
    line_pin = pin;
    lines += level ? 1u : UINT32_MAX;
}

static void msi(struct board *b, uint64_t address, uint32_t data)
{
    (void)b;
    msi_address = address;
    msi_data = data;
    msis++;
}

static struct toy *toy(const char *addr, const char *on)
{
    g_autoptr(GError) error = NULL;
    struct device *dev = device_new(&toy_model);
    assert_true(device_set(dev, "addr", addr, &error));
    assert_true(!on || device_set(dev, "bus", on, &error));
    assert_works(device_start(dev, board, NULL, &error), error);
    return (struct toy *)dev;
}

static void put(unsigned devfn, unsigned at, uint32_t v, unsigned bytes)
{
    pci_config_write(&bus, 0, devfn, at, v, bytes);
}

static uint32_t get(unsigned devfn, unsigned at, unsigned bytes)
{
    return pci_config_read(&bus, 0, devfn, at, bytes);
}

static void bars_report_their_size(void **state)
{
    (void)state;
    struct toy *t = toy("4", NULL);
    for (unsigned n = 0; n < 4; n++) {
        put(0x20, PCI_BAR0 + 4 * n, UINT32_MAX, 4);
    }
    assert_int_equal(get(0x20, PCI_BAR0, 4), 0xffffe000);
    assert_int_equal(get(0x20, PCI_BAR0 + 4, 4), 0xffffffe1);
    assert_int_equal(get(0x20, PCI_BAR0 + 8, 4), 0xffff000c);
    assert_int_equal(get(0x20, PCI_BAR0 + 12, 4), 0xffffffff);
    put(0x20, PCI_BAR0 + 8, 0, 4);
    put(0x20, PCI_BAR0 + 12, 2, 4);
    put(0x20, PCI_BAR0 + 4, 0xc000, 4);
    put(0x20, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY, 2);
    assert_ptr_equal(space_find(board->memory, UINT64_C(2) << 32).region, &t->wide);
    assert_ptr_equal(space_find(board->ports, 0xc01f).region, &t->ports);
    assert_null(space_find(board->memory, 0xffffe000).region); /* sizing is no address */
    device_reset(&t->pci.dev);
    assert_null(space_find(board->memory, UINT64_C(2) << 32).region);
    device_free(&t->pci.dev);
    assert_int_equal(get(0x20, 0, 4), 0xffffffff);
}

static void read_only_bits_stay(void **state)
{
    (void)state;
    struct toy *t = toy("4", NULL);
    for (unsigned at = 0; at < 256; at += 4) {
        put(0x20, at, UINT32_MAX, 4);
    }
    assert_int_equal(get(0x20, 0, 4), 0x10ff1af4);
    assert_int_equal(get(0x20, PCI_HEADER, 1), 0);
    assert_int_equal(get(0x20, PCI_IRQ_PIN, 1), 1);
    assert_int_equal(get(0x20, 0x100, 4), 0); /* Express: there is more than 256 bytes */
    device_free(&t->pci.dev);
}

static void msi_follows_mask_and_enable(void **state)
{
    (void)state;
    struct toy *t = toy("5", NULL);
    unsigned cap = t->pci.msi_cap;
    msis = 0;
    assert_false(pci_msi(&t->pci, 0));
    put(0x28, PCI_COMMAND, PCI_COMMAND_MASTER, 2);
    put(0x28, cap + 4, 0xfee00000, 4);
    put(0x28, cap + 12, 0x40, 2);
    put(0x28, cap + 2, 1 | 1 << 4, 2); /* on, two vectors */
    assert_true(pci_msi(&t->pci, 1));
    assert_int_equal(msi_data, 0x41);
    put(0x28, cap + 16, 2, 4);
    assert_true(pci_msi(&t->pci, 1));
    assert_int_equal(msis, 1);
    put(0x28, cap + 16, 0, 4); /* what was held back comes */
    assert_int_equal(msis, 2);
    device_free(&t->pci.dev);
}

static void msix_vectors_are_held_back_by_their_masks(void **state)
{
    (void)state;
    struct toy *t = toy("5", NULL);
    msis = 0;
    put(0x28, PCI_BAR0 + 16, 0xd0000000, 4);
    put(0x28, PCI_COMMAND, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY, 2);
    space_store(board->memory, 0xd0000010, 0xfee01000, 4);
    space_store(board->memory, 0xd0000018, 0x77, 4);
    put(0x28, t->pci.msix_cap + 2u, 0x8000, 2);
    assert_true(pci_msi(&t->pci, 1));
    assert_int_equal(msis, 0); /* masked since reset */
    assert_int_equal(space_load(board->memory, 0xd0000800, 4), 2);
    space_store(board->memory, 0xd000001c, 0, 4);
    assert_int_equal(msis, 1);
    assert_int_equal(msi_address, 0xfee01000);
    assert_int_equal(msi_data, 0x77);
    assert_int_equal(space_load(board->memory, 0xd0000800, 4), 0);
    assert_true(pci_msi(&t->pci, 200)); /* no such vector: nothing */
    assert_int_equal(msis, 1);
    device_free(&t->pci.dev);
}

static void intx_reaches_the_root_once(void **state)
{
    (void)state;
    struct toy *t = toy("6", NULL);
    lines = 0;
    pci_irq(&t->pci, true);
    pci_irq(&t->pci, true);
    assert_int_equal(lines, 1);
    assert_int_equal(line_devfn, 0x30);
    assert_int_equal(line_pin, 0);
    assert_true(get(0x30, PCI_STATUS, 2) & PCI_STATUS_INTX);
    put(0x30, PCI_COMMAND, PCI_COMMAND_NO_INTX, 2);
    assert_int_equal(lines, 0);
    put(0x30, PCI_COMMAND, 0, 2);
    assert_int_equal(lines, 1);
    device_free(&t->pci.dev); /* an absent device drives nothing */
    assert_int_equal(lines, 0);
}

static void a_bridge_passes_what_its_windows_hold(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    struct device *port = device_new(device_model_find("pcie-root-port"));
    assert_true(device_set(port, "addr", "7", &error));
    assert_true(device_set(port, "id", "rp", &error));
    assert_works(device_start(port, board, NULL, &error), error);
    struct toy *t = toy("0", "rp");
    put(0x38, PCI_SECONDARY, 3, 1);
    put(0x38, PCI_SUBORDINATE, 3, 1);
    assert_int_equal(pci_config_read(&bus, 3, 0, 0, 4), 0x10ff1af4);
    pci_config_write(&bus, 3, 0, PCI_BAR0, 0xe0100000, 4);
    pci_config_write(&bus, 3, 0, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    put(0x38, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    put(0x38, PCI_MEM_BASE, 0xe000e000, 4); /* 0xe0000000 to 0xe00fffff */
    assert_null(space_find(board->memory, 0xe0100000).region);
    put(0x38, PCI_MEM_BASE, 0xe010e000, 4);
    assert_ptr_equal(space_find(board->memory, 0xe0100000).region, &t->memory);
    lines = 0;
    pci_irq(&t->pci, true);
    assert_int_equal(line_devfn, 0x38);
    put(0x38, PCI_BRIDGE_CONTROL, 1 << 6, 2); /* reset of the bus below */
    assert_int_equal(lines, 0);
    assert_null(space_find(board->memory, 0xe0100000).region);
    device_free(&t->pci.dev);
    device_free(port);
}

enum { CAME = 0, GOES = 4, EJECT = 8, REMOVABLE = 12, SELECT = 16 }; /* of acpi_pcihp */
enum {
    SLOT_CAPABILITIES = 20,
    SLOT_CONTROL = 24,
    SLOT_STATUS = 26
}; /* of the Express capability */

static uint32_t hot(unsigned at)
{
    return (uint32_t)space_load(board->ports, ACPI_PCIHP_Q35 + at, 4);
}

static unsigned ejected;

static void eject(struct board *b, struct device *dev)
{
    (void)b, (void)dev;
    ejected++;
}

static struct device *port_new(const char *addr, const char *id)
{
    g_autoptr(GError) error = NULL;
    struct device *port = device_new(device_model_find("pcie-root-port"));
    assert_true(device_set(port, "addr", addr, &error));
    assert_true(device_set(port, "id", id, &error));
    assert_works(device_start(port, board, NULL, &error), error);
    return port;
}

/* ACPI tells of a port's slot, unless the guest has taken the slot's own interrupts. */
static void a_port_is_emptied_as_its_guest_wants(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    struct device *hp = device_new(device_model_find("acpi-pcihp"));
    g_autofree char *at = g_strdup_printf("%d", ACPI_PCIHP_Q35);
    assert_true(device_set(hp, "port", at, &error) && device_set(hp, "root", "off", &error));
    assert_works(device_start(hp, board, "pcihp", &error), error);
    struct device *port = port_new("9", "rp");
    struct pci_bus *below = pci_bus_find(board, "rp");
    int parent;
    uint8_t devfn;
    uint32_t slots;
    assert_true(acpi_pcihp_bus(board, 0, &parent, &devfn, &slots));
    assert_int_equal(slots, 0);
    assert_true(acpi_pcihp_bus(board, 1, &parent, &devfn, &slots));
    assert_int_equal(parent, 0);
    assert_int_equal(devfn, 0x48);
    assert_int_equal(slots, 1);
    assert_false(acpi_pcihp_bus(board, 2, &parent, &devfn, &slots));

    unsigned cap = ((struct pci_device *)port)->express_cap;
    struct toy *t = toy("0", "rp");
    board->eject = eject;
    below->plugged(below, &t->pci);
    assert_int_equal(get(0x48, cap + SLOT_STATUS, 2), 1 << 6);       /* there, and no event */
    assert_int_equal(get(0x48, cap + SLOT_CONTROL, 2) & 1 << 10, 0); /* powered */
    space_store(board->ports, ACPI_PCIHP_Q35 + SELECT, 1, 4);
    assert_int_equal(hot(CAME), 1);
    assert_int_equal(hot(CAME), 0);
    assert_int_equal(hot(REMOVABLE), 1);
    assert_true(below->unplug(below, &t->pci, &error));
    assert_int_equal(hot(GOES), 1);
    space_store(board->ports, ACPI_PCIHP_Q35 + EJECT, 1, 4);
    assert_int_equal(ejected, 1);
    assert_int_equal(hot(GOES), 0);
    assert_int_equal(get(0x48, cap + SLOT_STATUS, 2), 0);
    device_free(&t->pci.dev);

    put(0x48, cap + SLOT_CONTROL, 0x07c0 | 1 << 5, 2); /* off, with interrupts */
    t = toy("0", "rp");
    below->plugged(below, &t->pci);
    assert_int_equal(hot(CAME), 0);
    assert_int_equal(get(0x48, cap + SLOT_STATUS, 2), 1 << 8 | 1 << 6 | 1 << 3);
    put(0x48, cap + SLOT_CONTROL, 0x01c0 | 1 << 5, 2);
    put(0x48, cap + SLOT_CONTROL, 0x07c0 | 1 << 5, 2); /* who was not asked keeps it */
    assert_int_equal(ejected, 1);
    put(0x48, cap + SLOT_CONTROL, 0x01c0 | 1 << 5, 2);
    assert_true(below->unplug(below, &t->pci, &error));
    assert_int_equal(hot(GOES), 0);
    put(0x48, cap + SLOT_CONTROL, 0x02c0 | 1 << 5, 2); /* the light blinks */
    assert_false(below->unplug(below, &t->pci, &error));
    assert_true(g_error_matches(error, LODGE_ERROR, EBUSY));
    put(0x48, cap + SLOT_CONTROL, 0x07c0 | 1 << 5, 2);
    assert_int_equal(ejected, 2);
    device_free(&t->pci.dev);
    device_free(port);
    device_free(hp);
}

static void a_port_without_hot_plug_says_so(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    struct device *hp = device_new(device_model_find("acpi-pcihp"));
    g_autofree char *at = g_strdup_printf("%d", ACPI_PCIHP_Q35);
    assert_true(device_set(hp, "port", at, &error) && device_set(hp, "root", "off", &error));
    assert_works(device_start(hp, board, "pcihp", &error), error);
    struct device *port = device_new(device_model_find("pcie-root-port"));
    assert_true(device_set(port, "addr", "9", &error) && device_set(port, "id", "rp", &error));
    assert_true(device_set(port, "hotplug", "off", &error));
    assert_works(device_start(port, board, NULL, &error), error);
    assert_null(pci_bus_find(board, "rp")->plugged);
    unsigned cap = ((struct pci_device *)port)->express_cap;
    assert_int_equal(get(0x48, cap + SLOT_CAPABILITIES, 4) & 0x7f, 0);
    struct toy *t = toy("0", "rp");
    device_reset(port);
    assert_int_equal(get(0x48, cap + SLOT_STATUS, 2), 1 << 6);
    assert_int_equal(get(0x48, cap + SLOT_CONTROL, 2), 0);
    int parent;
    uint8_t devfn;
    uint32_t slots;
    assert_true(acpi_pcihp_bus(board, 1, &parent, &devfn, &slots));
    assert_int_equal(slots, 0);
    device_free(&t->pci.dev);
    device_free(port);
    device_free(hp);
}

static void slots_are_taken_once(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    struct toy *t = toy("8", NULL);
    static const char *const bad[] = {"8", "20", "1.8", "x", ""};
    static const int codes[] = {EBUSY, EINVAL, EINVAL, EINVAL, EINVAL};
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        struct device *dev = device_new(&toy_model);
        assert_true(device_set(dev, "addr", bad[i], &error));
        assert_fails(device_start(dev, board, NULL, &error), error, codes[i]);
    }
    device_free(&t->pci.dev);
}

static int make(void **state)
{
    (void)state;
    machine_lock();
    board = board_new();
    board->msi = msi;
    bus.set_irq = set_irq;
    pci_bus_init(&bus, board, "pcie.0", true);
    board->pci = &bus;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bars_report_their_size),
        cmocka_unit_test(read_only_bits_stay),
        cmocka_unit_test(msi_follows_mask_and_enable),
        cmocka_unit_test(msix_vectors_are_held_back_by_their_masks),
        cmocka_unit_test(intx_reaches_the_root_once),
        cmocka_unit_test(a_bridge_passes_what_its_windows_hold),
        cmocka_unit_test(a_port_without_hot_plug_says_so),
        cmocka_unit_test(slots_are_taken_once),
        cmocka_unit_test(a_port_is_emptied_as_its_guest_wants),
    };
    return cmocka_run_group_tests(tests, make, NULL);
}
