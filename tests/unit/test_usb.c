/* SPDX-License-Identifier: GPL-2.0-or-later */
/* USB 1 and 2 controllers with schedules that make no sense: each look ends, nothing is harmed. */
#include "tests/unit/rig.h"

#include "base/bytes.h"
#include "guest/device/usb.h"
#include "tests/unit/seed.h"

enum { MMIO = 0xe0000000, PORTS = 0xc000, ROUNDS = 60, LOOKS = 12, MS = 1000000 };

static uint64_t noise(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed * 0x2545f4914f6cdd1d;
}

struct controller {
    struct rig *rig;
    struct pci_device *pci;
    bool is_ehci;
    uint64_t seed;
};

static struct controller plug(const char *model, const char *const *devices)
{
    struct controller c = {.rig = rig_new(), .is_ehci = strstr(model, "ehci") != NULL};
    c.pci = (struct pci_device *)rig_start(c.rig, rig_device(c.rig, model));
    for (; *devices; devices++) {
        rig_start(c.rig, rig_device(c.rig, *devices));
    }
    pci_config_write(&c.rig->bus, 0, c.pci->devfn, PCI_BAR0 + (c.is_ehci ? 0 : 16),
                     c.is_ehci ? MMIO : PORTS, 4);
    pci_config_write(&c.rig->bus, 0, c.pci->devfn, PCI_COMMAND, 7, 2);
    return c;
}

static void out(struct controller *c, unsigned at, uint32_t v, unsigned bytes)
{
    space_store(c->is_ehci ? c->rig->board->memory : c->rig->board->ports,
                (c->is_ehci ? MMIO : PORTS) + at, v, bytes);
}

static uint32_t in(struct controller *c, unsigned at, unsigned bytes)
{
    return (uint32_t)space_load(c->is_ehci ? c->rig->board->memory : c->rig->board->ports,
                                (c->is_ehci ? MMIO : PORTS) + at, bytes);
}

/* Resets and enables every port, so that address 0 answers. */
static void ports_on(struct controller *c)
{
    for (unsigned i = 0; i < 6; i++) {
        unsigned at = c->is_ehci ? 0x64 + 4 * i : 0x10 + 2 * i, bytes = c->is_ehci ? 4 : 2;
        unsigned reset = c->is_ehci ? 0x100 : 0x200;
        if (!c->is_ehci && i > 1) {
            break;
        }
        out(c, at, reset, bytes);
        out(c, at, 0, bytes);
        out(c, at, 4, bytes);
    }
}

static uint32_t link_to(uint64_t v, bool is_ehci)
{
    return ((uint32_t)v & (RIG_RAM - 1) & ~0x1fu) | (v >> 32 & 1 ? 2 : 0) |
           (is_ehci ? 0 : v >> 33 & 4) | (v >> 40 & 15 ? 0 : 1);
}

/* Structures that look right one by one: links lead anywhere, transfers are for address 0. */
static void fill(struct controller *c)
{
    static const uint8_t pids[] = {0x69, 0xe1, 0x2d, 0x69};
    uint8_t *ram = c->rig->ram->host;
    for (unsigned at = 0; at < RIG_RAM; at += 32) {
        uint32_t w[8];
        for (unsigned i = 0; i < G_N_ELEMENTS(w); i++) {
            uint64_t v = noise(&c->seed);
            w[i] = v % 32 ? link_to(v >> 8, c->is_ehci) : (uint32_t)(v >> 16);
        }
        uint64_t v = noise(&c->seed);
        unsigned kind = v & 3, endpoint = v >> 2 & 3,
                 bytes = v >> 4 & 7 ? v >> 8 & 63 : v >> 8 & 0x7fff;
        bytes = kind == 2 ? 8 : bytes;
        if (c->is_ehci) {
            w[1] = (w[1] & ~0xfffu) | endpoint << 8;
            w[2] = 0x80 | (kind == 3 ? 1 : kind) << 8 | bytes << 16 | 1 << 15;
        } else if (v >> 40 & 1) {
            w[1] = 1 << 23 | 3 << 27 | 1 << 24 | (v >> 41 & 1) << 29;
            w[2] = pids[kind] | (endpoint & 1) << 15 | ((bytes - 1) & 0x7ff) << 21;
        }
        for (unsigned i = 0; i < G_N_ELEMENTS(w); i++) {
            le32_put(ram + at + 4 * i, w[i]);
        }
    }
    for (unsigned i = 0; i < RIG_RAM / 64; i += 64) { /* some bytes mean something */
        static const uint8_t setup[8] = {0x00, 9, 1};
        memcpy(ram + i * 64, setup, sizeof(setup));
    }
}

static void run(struct controller *c)
{
    if (c->is_ehci) {
        out(c, 0x34, 0x1000, 4);
        out(c, 0x38, (uint32_t)noise(&c->seed) & (RIG_RAM - 1) & ~0x1fu, 4);
        out(c, 0x28, 0x3f, 4);
        out(c, 0x20, 0x080031 | (noise(&c->seed) & 0x40), 4);
    } else {
        out(c, 0x08, 0x1000, 4);
        out(c, 0x04, 0x0f, 2);
        out(c, 0x00, 0x81, 2);
    }
    for (unsigned i = 0; i < LOOKS; i++) {
        clock_advance(MS);
        rig_drain();
        in(c, c->is_ehci ? 0x24 : 0x02, 2);
    }
}

static void nonsense(const char *model, const char *const *devices)
{
    struct controller c = plug(model, devices);
    c.seed = test_seed(model);
    for (unsigned round = 0; round < ROUNDS; round++) {
        fill(&c);
        ports_on(&c);
        run(&c);
        if (round % 8 == 7) {
            device_reset(&c.pci->dev);
            pci_config_write(&c.rig->bus, 0, c.pci->devfn, PCI_BAR0 + (c.is_ehci ? 0 : 16),
                             c.is_ehci ? MMIO : PORTS, 4);
            pci_config_write(&c.rig->bus, 0, c.pci->devfn, PCI_COMMAND, 7, 2);
        }
    }
    rig_free(c.rig);
}

static void ehci_bears_nonsense(void **unused)
{
    (void)unused;
    nonsense("usb-ehci", (const char *const[]){"usb-storage", "usb-tablet", "usb-kbd", NULL});
}

static void uhci_bears_nonsense(void **unused)
{
    (void)unused;
    nonsense("piix3-usb-uhci", (const char *const[]){"usb-tablet", "usb-kbd", NULL});
}

/* A disk speaks high speed only, and says what would serve. */
static void a_disk_wants_more_than_uhci(void **unused)
{
    g_autoptr(GError) error = NULL;
    struct controller c = plug("piix4-usb-uhci", (const char *const[]){NULL});
    (void)unused;
    assert_false(device_start(rig_device(c.rig, "usb-storage"), c.rig->board, NULL, &error));
    assert_non_null(strstr(error->message, "USB 1"));
    rig_free(c.rig);
}

/* A control transfer by hand: the device descriptor through three TDs, the last of which asks. */
static void uhci_moves_packets(void **unused)
{
    static const uint8_t setup[8] = {0x80, 6, 0, 1, 0, 0, 18, 0};
    struct controller c = plug("piix3-usb-uhci", (const char *const[]){"usb-tablet", NULL});
    uint8_t *ram = c.rig->ram->host;
    static const uint32_t tokens[3] = {7u << 21 | 0x2d, 17u << 21 | 1 << 19 | 0x69,
                                       0x7ffu << 21 | 1 << 19 | 0xe1};
    (void)unused;
    memset(ram, 1, RIG_RAM); /* every link ends */
    memcpy(ram + 0x3000, setup, sizeof(setup));
    for (unsigned i = 0; i < 3; i++) {
        uint8_t *td = ram + 0x2000 + 0x20 * i;
        le32_put(td, i == 2 ? 1 : (0x2000 + 0x20 * (i + 1)) | 4);
        le32_put(td + 4, 1 << 23 | 3 << 27 | (i == 2 ? 1 << 24 : 0));
        le32_put(td + 8, tokens[i]);
        le32_put(td + 12, 0x3000 + 0x100 * i);
    }
    le32_put(ram + 0x2100, 1); /* a queue with these */
    le32_put(ram + 0x2104, 0x2000);
    le32_put(ram + 0x1000, 0x2102);
    ports_on(&c);
    out(&c, 0x08, 0x1000, 4);
    out(&c, 0x04, 0x04, 2);
    out(&c, 0x00, 0x81, 2);
    clock_advance(2 * MS);
    assert_int_equal(in(&c, 0x02, 2) & 0x1f, 1);
    assert_true(c.rig->intx);
    assert_int_equal(le32_at(ram + 0x2024) & 0x7ff, 17);
    assert_int_equal(ram[0x3100], 18);
    assert_int_equal(le16_at(ram + 0x3108), 0x0627);
    assert_int_equal(le32_at(ram + 0x2104), 1);
    out(&c, 0x02, 1, 2);
    assert_false(c.rig->intx);
    rig_free(c.rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uhci_moves_packets),
        cmocka_unit_test(a_disk_wants_more_than_uhci),
        cmocka_unit_test(uhci_bears_nonsense),
        cmocka_unit_test(ehci_bears_nonsense),
    };
    rig_disk_fill();
    machine_lock();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
