/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pc_finish: what is known only when all devices are there: tables, memory map, the boot.
 */
#include "base/bytes.h"
#include "guest/device/acpi_cpuhp.h"
#include "guest/device/acpi_pcihp.h"
#include "guest/device/acpi_pm.h"
#include "guest/device/pci.h"
#include "guest/machine/pc.h"

#include <string.h>

#define FOUR_GB (UINT64_C(1) << 32)

enum { LAST_BUS = 255 };
enum { ONE_MB = 0x100000, EBDA_AT = 0x9fc00, BIOS_AREA_AT = 0xf0000, TABLE_SLACK = 0x1000 };

/* ---- tables ---- */

static struct pc_layout layout_of(struct machine *m)
{
    struct board *b = m->board;
    const struct acpi_pm *pm = acpi_pm_of(b);
    struct pc_layout pc = {.q35 = m->q35,
                           .cpus = m->config.cpus,
                           .maxcpus = m->config.maxcpus,
                           .cpus_port = !board_part(b, "cpuhp") ? 0
                                        : m->q35                ? ACPI_CPUHP_Q35
                                                                : ACPI_CPUHP_PC,
                           .panic_port = b->panic_port,
                           .apic_id = m->apic_ids,
                           .dimm_slots = board_part(b, "memhp") ? b->dimm_slots : 0,
                           .dimm_at = b->dimm_at,
                           .dimm_bytes = b->dimm_bytes,
                           .ram_below_4g = m->below_4g,
                           .ram_above_4g = m->above_4g,
                           .numa = m->config.numa,
                           .s3 = pm && !pm->disable_s3,
                           .s4 = pm && !pm->disable_s4};
    pc.hole64_at = MAX(pc_memory_end(m), UINT64_C(32) << 30);
    pc.hole64_bytes = UINT64_C(32) << 30;
    if (m->q35) {
        pc.ecam_at = Q35_ECAM_AT;
        pc.ecam_bytes = Q35_ECAM_BYTES;
    }
    pc.hpet = board_find(b, "hpet");
    pc.keyboard = board_find(b, "i8042");
    pc.fw_cfg = board_part(b, "fw_cfg");
    pc.floppy = board_part(b, "fdc");
    pc.parallel = m->config.parallel[0];
    static struct hot_bus hot[ACPI_PCIHP_BUSES];
    for (unsigned i = 0; i < ACPI_PCIHP_BUSES; i++) {
        pc.n_hot_buses += acpi_pcihp_bus(b, i, &hot[i].parent, &hot[i].devfn, &hot[i].slots);
    }
    pc.hot_buses = hot;
    pc.pcihp_port = m->q35 ? ACPI_PCIHP_Q35 : ACPI_PCIHP_PC;
    for (unsigned i = 0; i < G_N_ELEMENTS(pc.serial); i++) {
        pc.serial[i] = m->config.serial[i];
    }
    return pc;
}

static bool make_acpi(struct machine *m, GError **error)
{
    bool on;
    if (!machine_prop_bool(m, "acpi", !m->config.no_acpi, &on, error)) {
        return false;
    }
    if (!on) {
        return true;
    }
    struct pc_layout pc = layout_of(m);
    g_autoptr(GPtrArray) extra = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
    for (unsigned i = 0; m->config.acpitable && i < m->config.acpitable->len; i++) {
        GBytes *table = acpi_table_from_option(m->config.acpitable->pdata[i], error);
        if (!table) {
            return false;
        }
        g_ptr_array_add(extra, table);
    }
    pc.extra = extra;
    m->acpi = acpi_tables_new(&pc);
    return true;
}

/* "123e4567-e89b-12d3-a456-426614174000" */
static bool parse_uuid(struct machine *m, GError **error)
{
    const char *t = m->config.uuid;
    unsigned n = 0;
    for (; t && *t && n < 32; t++) {
        int digit = g_ascii_xdigit_value(*t);
        if (*t == '-') {
            continue;
        }
        if (digit < 0) {
            break;
        }
        m->uuid[n / 2] = (uint8_t)(m->uuid[n / 2] << 4 | digit);
        n++;
    }
    m->has_uuid = t;
    if (t && (n != 32 || *t)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "-uuid %s is no UUID", m->config.uuid);
        return false;
    }
    return true;
}

static bool make_smbios(struct machine *m, GError **error)
{
    const struct cpu_topology *t = &m->config.topology;
    unsigned cores = MAX(t->cores, 1) * MAX(t->dies, 1), threads = MAX(t->threads, 1);
    if (!parse_uuid(m, error)) {
        return false;
    }
    struct smbios_config c = {
        .product = m->model->about,
        .version = m->config.machine,
        .uuid = m->has_uuid ? m->uuid : NULL,
        .cpu_brand = m->cpu_model->brand,
        .ram_bytes = m->config.ram_bytes,
        .ram_below_4g = m->below_4g,
        .ram_above_4g = m->above_4g,
        .cores_per_socket = cores,
        .threads_per_core = threads,
        .sockets = (m->config.cpus + cores * threads - 1) / (cores * threads),
        .options = m->config.smbios,
    };
    return smbios_new(&c, &m->smbios, &m->smbios_anchor, error);
}

/* ---- memory map ---- */

static void map_for_firmware(struct machine *m)
{
    e820_add(m, 0, m->below_4g, E820_RAM);
    e820_add(m, FOUR_GB, m->above_4g, E820_RAM);
}

/* As firmware would report it; the tables lie at the end of low RAM. */
static void map_for_kernel(struct machine *m)
{
    uint64_t acpi = m->acpi ? m->acpi->tables->len + TABLE_SLACK : 0;
    uint64_t smbios = m->smbios ? m->smbios->len + TABLE_SLACK : 0;
    uint64_t top = m->below_4g;
    m->tables_at = (top - acpi) & PAGE_MASK;
    m->smbios_at = (m->tables_at - smbios) & PAGE_MASK;
    e820_add(m, 0, EBDA_AT, E820_RAM);
    e820_add(m, EBDA_AT, 0xa0000 - EBDA_AT, E820_RESERVED);
    e820_add(m, BIOS_AREA_AT, ONE_MB - BIOS_AREA_AT, E820_RESERVED);
    e820_add(m, ONE_MB, m->smbios_at - ONE_MB, E820_RAM);
    e820_add(m, m->smbios_at, top - m->smbios_at, E820_RESERVED);
    if (m->q35) {
        e820_add(m, Q35_ECAM_AT, Q35_ECAM_BYTES, E820_RESERVED);
    }
    e820_add(m, 0xfeffc000, 0x4000, E820_RESERVED);
    e820_add(m, 0xfffc0000, 0x40000, E820_RESERVED);
    e820_add(m, FOUR_GB, m->above_4g, E820_RAM);
}

bool pc_finish(struct board *board, GError **error)
{
    struct machine *m = board->machine;
    if (!make_acpi(m, error) || !make_smbios(m, error)) {
        return false;
    }
    if (!m->direct_wanted) {
        map_for_firmware(m);
        return (!m->config.kernel || linuxboot_add(m, error)) && firmware_prepare(m, error);
    }
    map_for_kernel(m);
    struct boot_request r = {.kernel = m->config.kernel,
                             .initrd = m->config.initrd,
                             .append = m->config.append,
                             .ram_top = m->smbios_at};
    m->direct = direct_boot_parse(&r, error);
    if (!m->direct || !firmware_prepare(m, error)) {
        return false;
    }
    if (m->acpi) {
        acpi_install(m->acpi, m->tables_at, 0);
    }
    smbios_install(m->smbios_anchor, m->smbios_at);
    return true;
}

/* ---- what firmware does to the chipset ---- */

static void config(struct machine *m, unsigned devfn, unsigned at, uint32_t value, unsigned bytes)
{
    pci_config_write(m->board->pci, 0, devfn, at, value, bytes);
}

static void steer(struct machine *m, unsigned devfn, unsigned at)
{
    static const uint8_t irqs[] = {10, 10, 11, 11};
    for (unsigned i = 0; i < 4; i++) {
        config(m, devfn, at + i, irqs[i], 1);
    }
}

static void chipset_ready(struct machine *m)
{
    unsigned pam = m->q35 ? 0x90 : 0x59;
    for (unsigned i = 0; i < 7; i++) {
        config(m, 0, pam + i, i ? 0x33 : 0x30, 1);
    }
    if (m->q35) {
        config(m, 0, 0x64, 0, 4);
        config(m, 0, 0x60, Q35_ECAM_AT | 1, 4);
        config(m, 0xf8, 0x40, PM_BASE | 1, 4);
        config(m, 0xf8, 0x44, 0x80, 1);
        steer(m, 0xf8, 0x60);
        steer(m, 0xf8, 0x68);
    } else {
        steer(m, 0x08, 0x60);
        config(m, 0x0b, 0x40, PM_BASE | 1, 4);
        config(m, 0x0b, 0x80, 1, 1);
        config(m, 0x0b, 0x90, SMB_BASE | 1, 4);
        config(m, 0x0b, 0xd2, 9, 1);
    }
    space_store(m->board->ports, 0x4d1, 0x0c, 1); /* interrupts 10 and 11 are level-triggered */
}

/* ---- PCI resources ---- */

struct allocator {
    uint64_t memory, memory_end, ports, ports_end;
    unsigned last_bus;
};

static bool take(uint64_t *next, uint64_t end, uint64_t size, uint64_t *at)
{
    *at = (*next + size - 1) & ~(size - 1);
    if (*at + size > end || *at < *next) {
        return false;
    }
    *next = *at + size;
    return true;
}

static unsigned number_of(const struct pci_bus *bus)
{
    return bus->bridge ? bus->bridge->config[PCI_SECONDARY] : bus->number;
}

static void put(const struct pci_device *pci, unsigned at, uint32_t value, unsigned bytes)
{
    pci_config_write(pci->dev.board->pci, number_of(pci->bus), pci->devfn, at, value, bytes);
}

static void enable(const struct pci_device *pci, uint16_t bits)
{
    put(pci, PCI_COMMAND, le16_at(pci->config + PCI_COMMAND) | bits, 2);
}

/* A BAR that finds no room stays without an address; the guest may know better. */
static void assign(struct allocator *a, const struct pci_device *pci)
{
    for (unsigned n = 0; n < PCI_BARS; n++) {
        const struct pci_bar *bar = &pci->bar[n];
        uint64_t at;
        if (bar->region &&
            take(bar->io ? &a->ports : &a->memory, bar->io ? a->ports_end : a->memory_end,
                 bar->io ? bar->size : MAX(bar->size, PAGE_SIZE), &at)) {
            put(pci, PCI_BAR0 + 4 * n, (uint32_t)at, 4);
        }
    }
    unsigned slot = pci->devfn >> 3, pin = pci->config[PCI_IRQ_PIN];
    for (const struct pci_device *up = pci->bus->bridge; up && pin; up = up->bus->bridge) {
        pin = (slot + pin - 1) % 4 + 1; /* a bridge turns the pins of its slots */
        slot = up->devfn >> 3;
    }
    if (pin) {
        unsigned line = (slot + pin - 2) & 3;
        put(pci, PCI_IRQ_LINE, line < 2 ? 10 : 11, 1);
    }
    enable(pci, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
}

static void assign_bus(struct allocator *a, const struct pci_bus *bus);

/*
 * The bus behind it, with windows for what is there and for cards that come: those that come before
 * Linux has made windows would get none.  Ports are few; a card of Express seldom needs any.
 */
static void assign_bridge(struct allocator *a, const struct pci_device *pci, struct pci_bus *below)
{
    const uint64_t port_unit = 0x1000;
    uint64_t memory = a->memory = (a->memory + ONE_MB - 1) & ~(uint64_t)(ONE_MB - 1);
    uint64_t ports = a->ports = (a->ports + port_unit - 1) & ~(port_unit - 1);
    put(pci, PCI_PRIMARY, number_of(pci->bus), 1);
    put(pci, PCI_SECONDARY, ++a->last_bus, 1);
    put(pci, PCI_SUBORDINATE, 0xff, 1);
    assign_bus(a, below);
    put(pci, PCI_SUBORDINATE, a->last_bus, 1);
    uint64_t end = (a->memory + 2 * ONE_MB - 1) & ~(uint64_t)(ONE_MB - 1);
    uint64_t ports_end = (a->ports + 2 * port_unit - 1) & ~(port_unit - 1);
    if (end <= a->memory_end) {
        put(pci, PCI_MEM_BASE, (uint32_t)(memory >> 16 | ((end - 1) & 0xfff00000)), 4);
        a->memory = end;
    }
    if (ports_end <= a->ports_end && (a->ports > ports || !below->express)) {
        put(pci, PCI_IO_BASE, (uint32_t)(ports >> 8 | ((ports_end - 1) & 0xf000)), 2);
        a->ports = ports_end;
    }
    put(pci, PCI_PREFETCH_BASE, 0x0000fff0, 4); /* none: the other serves for that, too */
    enable(pci, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void assign_bus(struct allocator *a, const struct pci_bus *bus)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(bus->function); i++) {
        const struct pci_device *pci = bus->function[i];
        struct pci_bus *below = bus->child;
        if (pci && !(pci->config[PCI_HEADER] & 0x7f)) {
            assign(a, pci);
            continue;
        }
        while (pci && below && below->bridge != pci) {
            below = below->sibling;
        }
        if (pci && below && a->last_bus < LAST_BUS) {
            assign_bridge(a, pci, below);
        }
    }
}

static void assign_resources(struct machine *m)
{
    struct allocator a = {.ports = 0xc000, .ports_end = 0x10000, .memory_end = 0xfec00000};
    a.memory = MAX(m->below_4g, UINT64_C(0xc0000000));
    space_begin(m->board->memory);
    space_begin(m->board->ports);
    assign_bus(&a, m->board->pci);
    space_commit(m->board->ports);
    space_commit(m->board->memory);
}

void pc_direct_boot(struct machine *m)
{
    chipset_ready(m);
    assign_resources(m);
    m->direct->text_mode = vga_text_mode(m);
    direct_boot_go(m);
}

/* Spec: ACPI 6.3, "Firmware ACPI Control Structure (FACS)": a real-mode address. */
enum { FACS_VECTOR = 12 };

void pc_direct_wake(struct machine *m)
{
    struct vcpu *cpu = vcpu_at(0);
    uint32_t vector = m->acpi ? le32_at(m->ram->host + m->tables_at + FACS_VECTOR) : 0;
    chipset_ready(m);
    assign_resources(m);
    cpu->r.seg[SEG_CS].selector = (uint16_t)(vector >> 4 & 0xffff);
    cpu->r.seg[SEG_CS].base = vector & 0xffff0;
    cpu->r.rip = vector & 15;
    vcpu_loaded(cpu);
}
