/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dsdt: the namespace: PCI root bridge with its windows and interrupt routing, devices on the
 * ISA bus, processors, sleep states.
 *
 * Spec: ACPI Specification 6.3, "Device Configuration", "_PRT (PCI Routing Table)", "\_PIC
 * Method", "Processor Container"; PCI Firmware Specification 3.0.
 */
#include "guest/machine/dsdt.h"

#include "guest/machine/aml.h"

#include <stdio.h>

enum { PCIHP_BYTES = 0x14 };
enum { SPACE_IO = 1, SPACE_PCI_CONFIG = 2, STA_PRESENT = 0x0f };

struct routing_link {
    const char *device, *field;
    uint8_t uid;
};

static const struct routing_link links[] = {
    {"LNKA", "PRQA", 0}, {"LNKB", "PRQB", 1}, {"LNKC", "PRQC", 2}, {"LNKD", "PRQD", 3},
    {"LNKE", "PRQE", 4}, {"LNKF", "PRQF", 5}, {"LNKG", "PRQG", 6}, {"LNKH", "PRQH", 7},
};

/* ---- interrupt routing ---- */

/* And(@field, @mask) as an argument. */
static void and_field(struct aml *a, const char *field, unsigned mask)
{
    aml_op(a, AML_AND);
    aml_path(a, field);
    aml_int(a, mask);
    aml_op(a, AML_ZERO);
}

/* CreateDWordField(@buffer, 5, PRRI): the interrupt in an extended interrupt descriptor. */
static void interrupt_field(struct aml *a)
{
    aml_int(a, 5);
    aml_path(a, "PRRI");
}

static void link_current(struct aml *a, const struct routing_link *link)
{
    uint32_t none = 0;
    GByteArray *r = res_new();
    res_interrupts(r, &none, 1);
    aml_method(a, "_CRS", 0, true);
    aml_name_resources(a, "PRR0", r);
    aml_op(a, AML_DWORD_FIELD);
    aml_path(a, "PRR0");
    interrupt_field(a);
    aml_if(a);
    and_field(a, link->field, 0x80);
    aml_op(a, AML_STORE);
    aml_int(a, 0);
    aml_path(a, "PRRI");
    aml_close(a);
    aml_else(a);
    aml_op(a, AML_AND);
    aml_path(a, link->field);
    aml_int(a, 0x0f);
    aml_path(a, "PRRI");
    aml_close(a);
    aml_op(a, AML_RETURN);
    aml_path(a, "PRR0");
    aml_close(a);
}

static void link_status(struct aml *a, const struct routing_link *link)
{
    aml_method(a, "_STA", 0, false);
    aml_if(a);
    and_field(a, link->field, 0x80);
    aml_op(a, AML_RETURN);
    aml_int(a, 0x09);
    aml_close(a);
    aml_op(a, AML_RETURN);
    aml_int(a, 0x0b);
    aml_close(a);
}

static void routing_link(struct aml *a, const struct routing_link *link)
{
    static const uint32_t possible[] = {5, 10, 11};
    GByteArray *r = res_new();
    res_interrupts(r, possible, G_N_ELEMENTS(possible));
    aml_device(a, link->device);
    aml_name_id(a, "_HID", "PNP0C0F");
    aml_name_int(a, "_UID", link->uid);
    aml_name_resources(a, "_PRS", r);
    link_status(a, link);
    aml_method(a, "_DIS", 0, false);
    aml_op(a, AML_OR);
    aml_path(a, link->field);
    aml_int(a, 0x80);
    aml_path(a, link->field);
    aml_close(a);
    link_current(a, link);
    aml_method(a, "_SRS", 1, true);
    aml_op(a, AML_DWORD_FIELD);
    aml_op(a, AML_ARG0);
    interrupt_field(a);
    aml_op(a, AML_STORE);
    aml_path(a, "PRRI");
    aml_path(a, link->field);
    aml_close(a);
    aml_close(a);
}

/* An interrupt of the I/O APIC that cannot be steered, as a link: there the level is high. */
static void fixed_link(struct aml *a, unsigned n)
{
    uint32_t gsi = 16 + n;
    char name[5] = {'G', 'S', 'I', (char)('A' + n), 0};
    GByteArray *possible = res_new(), *current = res_new();
    res_interrupts(possible, &gsi, 1);
    res_interrupts(current, &gsi, 1);
    aml_device(a, name);
    aml_name_id(a, "_HID", "PNP0C0F");
    aml_name_int(a, "_UID", 0x10 + n);
    aml_name_resources(a, "_PRS", possible);
    aml_name_resources(a, "_CRS", current);
    aml_method(a, "_SRS", 1, false);
    aml_close(a);
    aml_close(a);
}

/* Which of the eight lines pin @pin of slot @slot drives: see ich9_lpc.c and piix3.c. */
static unsigned line_of(const struct pc_layout *pc, unsigned slot, unsigned pin)
{
    if (!pc->q35) {
        return (slot + pin - 1) & 3;
    }
    if (slot < 25) {
        return 4 + ((slot + pin) & 3);
    }
    return slot == 30 ? 4 + pin : pin;
}

/* @prefix: "LNK" or "GSI". */
static void routing_table(struct aml *a, const struct pc_layout *pc, const char *prefix)
{
    aml_package(a, 32 * 4);
    for (unsigned slot = 0; slot < 32; slot++) {
        for (unsigned pin = 0; pin < 4; pin++) {
            char name[5] = {0};
            snprintf(name, sizeof(name), "%s%c", prefix, (char)('A' + line_of(pc, slot, pin)));
            aml_package(a, 4);
            aml_int(a, slot << 16 | 0xffff);
            aml_int(a, pin);
            aml_path(a, name);
            aml_int(a, 0);
            aml_close(a);
        }
    }
    aml_close(a);
}

/* PIIX3 steers the same lines in both modes; ICH9 has eight inputs of the I/O APIC besides. */
static void routing(struct aml *a, const struct pc_layout *pc)
{
    if (!pc->q35) {
        aml_name(a, "_PRT");
        routing_table(a, pc, "LNK");
        return;
    }
    aml_name(a, "PRTP");
    routing_table(a, pc, "LNK");
    aml_name(a, "PRTA");
    routing_table(a, pc, "GSI");
    aml_method(a, "_PRT", 0, false);
    aml_if(a);
    aml_path(a, "\\PICF");
    aml_op(a, AML_RETURN);
    aml_path(a, "PRTA");
    aml_close(a);
    aml_op(a, AML_RETURN);
    aml_path(a, "PRTP");
    aml_close(a);
}

/* ---- devices on the ISA bus ---- */

static void isa_device(struct aml *a, const char *name, const char *id, unsigned uid,
                       GByteArray *resources)
{
    aml_device(a, name);
    aml_name_id(a, "_HID", id);
    aml_name_int(a, "_UID", uid);
    aml_name_int(a, "_STA", STA_PRESENT);
    aml_name_resources(a, "_CRS", resources);
    aml_close(a);
}

static void isa_ports(struct aml *a, const struct pc_layout *pc)
{
    static const struct {
        const char *name;
        uint16_t at;
        uint8_t irq;
    } com[] = {{"COM1", 0x3f8, 4}, {"COM2", 0x2f8, 3}, {"COM3", 0x3e8, 4}, {"COM4", 0x2e8, 3}};
    for (unsigned i = 0; i < G_N_ELEMENTS(com); i++) {
        if (pc->serial[i]) {
            GByteArray *r = res_new();
            res_io(r, com[i].at, 8);
            res_irq(r, com[i].irq);
            isa_device(a, com[i].name, "PNP0501", i + 1, r);
        }
    }
    if (pc->parallel) {
        GByteArray *r = res_new();
        res_io(r, 0x378, 8);
        res_irq(r, 7);
        isa_device(a, "LPT1", "PNP0400", 1, r);
    }
    if (pc->floppy) {
        GByteArray *r = res_new();
        res_io(r, 0x3f2, 4);
        res_io(r, 0x3f7, 1);
        res_irq(r, 6);
        res_dma(r, 2);
        isa_device(a, "FDC0", "PNP0700", 0, r);
    }
}

/* The port and two methods, of which a driver may use either. */
static void panic_port(struct aml *a, const struct pc_layout *pc)
{
    GByteArray *r = res_new();
    res_io(r, pc->panic_port, 1);
    aml_device(a, "PEVT");
    aml_name(a, "_HID");
    aml_string(a, "QEMU0001");
    aml_name_int(a, "_STA", STA_PRESENT);
    aml_name_resources(a, "_CRS", r);
    aml_region(a, "PEOR", SPACE_IO, pc->panic_port, 1);
    aml_field(a, "PEOR");
    aml_field_unit(a, "PEPT", 8);
    aml_close(a);
    aml_method(a, "RDPT", 0, false);
    aml_op(a, AML_RETURN);
    aml_path(a, "PEPT");
    aml_close(a);
    aml_method(a, "WRPT", 1, false);
    aml_op(a, AML_STORE);
    aml_op(a, AML_ARG0);
    aml_path(a, "PEPT");
    aml_close(a);
    aml_close(a);
}

static void isa_devices(struct aml *a, const struct pc_layout *pc)
{
    GByteArray *r = res_new();
    res_io(r, 0x70, 8);
    res_irq(r, 8);
    isa_device(a, "RTC_", "PNP0B00", 0, r);
    if (pc->keyboard) {
        r = res_new();
        res_io(r, 0x60, 1);
        res_io(r, 0x64, 1);
        res_irq(r, 1);
        isa_device(a, "KBD_", "PNP0303", 0, r);
        r = res_new();
        res_irq(r, 12);
        isa_device(a, "MOU_", "PNP0F13", 0, r);
    }
    isa_ports(a, pc);
    if (pc->panic_port) {
        panic_port(a, pc);
    }
}

/* The bridge, with the steering registers as fields of its configuration space. */
static void isa_bridge(struct aml *a, const struct pc_layout *pc)
{
    aml_device(a, "ISA_");
    aml_name_int(a, "_ADR", pc->q35 ? 0x1f0000 : 0x10000);
    aml_region(a, "PIRQ", SPACE_PCI_CONFIG, 0x60, 0x0c);
    isa_devices(a, pc);
    aml_close(a);
}

static void steering_fields(struct aml *a, const struct pc_layout *pc)
{
    aml_field(a, "PCI0.ISA_.PIRQ");
    for (unsigned i = 0; i < (pc->q35 ? 8u : 4u); i++) {
        if (i == 4) {
            aml_field_unit(a, NULL, 32);
        }
        aml_field_unit(a, links[i].field, 8);
    }
    aml_close(a);
}

/* ---- PCI ---- */

/* RAM may end anywhere; windows begin at the next megabyte. */
static GByteArray *root_windows(const struct pc_layout *pc)
{
    GByteArray *r = res_new();
    uint64_t from = (pc->ram_below_4g + 0xfffff) & ~UINT64_C(0xfffff), to = 0xfebfffff;
    res_bus(r, 0, 0xff);
    res_io(r, 0xcf8, 8);
    res_io_window(r, 0, 0xcf7);
    res_io_window(r, 0xd00, 0xffff);
    res_memory_window(r, 0xa0000, 0xbffff);
    if (pc->ecam_bytes) {
        uint64_t ecam_end = (uint64_t)pc->ecam_at + pc->ecam_bytes;
        if (from < pc->ecam_at) {
            res_memory_window(r, from, pc->ecam_at - 1u);
        }
        from = MAX(from, ecam_end);
    }
    res_memory_window(r, from, to);
    if (pc->hole64_bytes) {
        res_memory_window(r, pc->hole64_at, pc->hole64_at + pc->hole64_bytes - 1);
    }
    return r;
}

/*
 * Spec: PCI Firmware Specification 3.0, "_OSC Interface for PCI Host Bridge Devices": the
 * guest gets what it asks for of the capability structure, and native hot-plug where ACPI does not
 * do it, but no power events and no error reporting.
 */
static void express_control(struct aml *a, const struct pc_layout *pc)
{
    aml_method(a, "_OSC", 4, true);
    aml_op(a, AML_DWORD_FIELD);
    aml_op(a, AML_ARG0 + 3);
    aml_int(a, 8);
    aml_path(a, "CTRL");
    aml_op(a, AML_AND);
    aml_path(a, "CTRL");
    aml_int(a, pc->n_hot_buses ? 1 << 4 : 1 << 4 | 1 << 0);
    aml_path(a, "CTRL");
    aml_op(a, AML_RETURN);
    aml_op(a, AML_ARG0 + 3);
    aml_close(a);
}

/* ---- hot-plug on PCI buses: guest/device/acpi_pcihp.c ---- */

static void slot_name(char name[5], unsigned slot)
{
    snprintf(name, 5, "S%02X_", slot & 31);
}

static void hot_slot(struct aml *a, unsigned number, unsigned slot)
{
    char name[5];
    slot_name(name, slot);
    aml_device(a, name);
    aml_name_int(a, "_SUN", slot);
    aml_name_int(a, "_ADR", slot << 16);
    aml_method(a, "_EJ0", 1, true);
    aml_acquire(a, "BLCK");
    aml_op(a, AML_STORE);
    aml_int(a, number);
    aml_path(a, "BNUM");
    aml_op(a, AML_STORE);
    aml_int(a, UINT32_C(1) << slot);
    aml_path(a, "B0EJ");
    aml_release(a, "BLCK");
    aml_close(a);
    aml_close(a);
}

enum { NOTIFY_CHECK = 1, NOTIFY_EJECT = 3 };

/* If (And(@local, 1 << @slot)) { Notify(slot, @what) } */
static void notify_slot(struct aml *a, enum aml_op local, unsigned slot, unsigned what)
{
    char name[5];
    slot_name(name, slot);
    aml_if(a);
    aml_op(a, AML_AND);
    aml_op(a, local);
    aml_int(a, UINT32_C(1) << slot);
    aml_op(a, AML_ZERO);
    aml_op(a, AML_NOTIFY);
    aml_path(a, name);
    aml_int(a, what);
    aml_close(a);
}

static void take_register(struct aml *a, const char *field, enum aml_op local)
{
    aml_op(a, AML_STORE);
    aml_path(a, field);
    aml_op(a, local);
}

static void bridge_name(char name[5], const struct hot_bus *bus)
{
    snprintf(name, 5, "B%02X_", bus->devfn);
}

/* A path of more than one name is not looked for in the scopes above. */
static void bus_path(GString *path, const struct pc_layout *pc, unsigned number)
{
    const struct hot_bus *bus = &pc->hot_buses[number];
    char name[5];
    if (bus->parent >= 0) {
        bus_path(path, pc, (unsigned)bus->parent);
        bridge_name(name, bus);
        g_string_append_printf(path, ".%s", name);
    }
}

/* PCNT: what is new on bus @number, and behind its bridges. */
static void look_at_bus(struct aml *a, const struct pc_layout *pc, unsigned number)
{
    uint32_t slots = pc->hot_buses[number].slots;
    aml_method(a, "PCNT", 0, true);
    aml_acquire(a, "BLCK");
    aml_op(a, AML_STORE);
    aml_int(a, number);
    aml_path(a, "BNUM");
    take_register(a, "PCIU", AML_LOCAL0);
    take_register(a, "PCID", AML_LOCAL0 + 1);
    aml_release(a, "BLCK");
    for (unsigned slot = 0; slot < 32; slot++) {
        if (slots >> slot & 1) {
            notify_slot(a, AML_LOCAL0, slot, NOTIFY_CHECK);
            notify_slot(a, AML_LOCAL0 + 1, slot, NOTIFY_EJECT);
        }
    }
    for (unsigned i = 0; i < pc->n_hot_buses; i++) {
        if (pc->hot_buses[i].parent == (int)number) {
            g_autoptr(GString) path = g_string_new("\\_SB_.PCI0");
            bus_path(path, pc, i);
            g_string_append(path, ".PCNT");
            aml_path(a, path->str);
        }
    }
    aml_close(a);
}

static void hot_bus(struct aml *a, const struct pc_layout *pc, unsigned number)
{
    for (unsigned slot = 0; slot < 32; slot++) {
        if (pc->hot_buses[number].slots >> slot & 1) {
            hot_slot(a, number, slot);
        }
    }
    for (unsigned i = 0; i < pc->n_hot_buses; i++) { /* a bridge comes before what is behind it */
        const struct hot_bus *bus = &pc->hot_buses[i];
        if (bus->parent == (int)number) {
            char name[5];
            bridge_name(name, bus);
            aml_device(a, name);
            aml_name_int(a, "_ADR", (unsigned)(bus->devfn >> 3) << 16 | (bus->devfn & 7));
            hot_bus(a, pc, i);
            aml_close(a);
        }
    }
    look_at_bus(a, pc, number);
}

static void hot_plug(struct aml *a, const struct pc_layout *pc)
{
    static const char *const fields[] = {"PCIU", "PCID", "B0EJ", "B0RM", "BNUM"};
    aml_region(a, "PCST", SPACE_IO, pc->pcihp_port, PCIHP_BYTES);
    aml_field_dwords(a, "PCST");
    for (unsigned i = 0; i < G_N_ELEMENTS(fields); i++) {
        aml_field_unit(a, fields[i], 32);
    }
    aml_close(a);
    aml_mutex(a, "BLCK"); /* the registers speak of one bus at a time */
    hot_bus(a, pc, 0);
}

static void on_event(struct aml *a, const char *event, const char *method)
{
    aml_method(a, event, 0, false);
    aml_path(a, method);
    aml_close(a);
}

static void hot_plug_events(struct aml *a, const struct pc_layout *pc)
{
    aml_scope(a, "\\_GPE");
    if (pc->n_hot_buses) {
        on_event(a, "_E01", "\\_SB_.PCI0.PCNT");
    }
    if (pc->cpus_port) {
        on_event(a, "_E02", "\\_SB_.CPUS.CSCN");
    }
    if (pc->dimm_slots) {
        on_event(a, "_E03", "\\_SB_.MHPC.MSCN");
    }
    aml_close(a);
}

static void root_bridge(struct aml *a, const struct pc_layout *pc)
{
    aml_device(a, "PCI0");
    aml_name_id(a, "_HID", pc->q35 ? "PNP0A08" : "PNP0A03");
    if (pc->q35) {
        aml_name_id(a, "_CID", "PNP0A03");
        express_control(a, pc);
    }
    aml_name_int(a, "_ADR", 0);
    aml_name_int(a, "_UID", 0);
    aml_name_int(a, "_BBN", 0);
    aml_name_resources(a, "_CRS", root_windows(pc));
    routing(a, pc);
    isa_bridge(a, pc);
    if (pc->n_hot_buses) {
        hot_plug(a, pc);
    }
    aml_close(a);
}

/* ---- the rest of \_SB ---- */

static void processors(struct aml *a, const struct pc_layout *pc)
{
    for (unsigned i = 0; i < pc->maxcpus; i++) {
        char name[5];
        snprintf(name, sizeof(name), "C%03X", i & 0xfff);
        aml_device(a, name);
        aml_name(a, "_HID");
        aml_string(a, "ACPI0007");
        aml_name_int(a, "_UID", i);
        aml_name_int(a, "_STA", i < pc->cpus ? STA_PRESENT : 0);
        aml_close(a);
    }
}

static void board_devices(struct aml *a, const struct pc_layout *pc)
{
    if (pc->hpet) {
        GByteArray *r = res_new();
        res_memory(r, 0xfed00000, 0x400);
        aml_device(a, "HPET");
        aml_name_id(a, "_HID", "PNP0103");
        aml_name_int(a, "_UID", 0);
        aml_name_int(a, "_STA", STA_PRESENT);
        aml_name_resources(a, "_CRS", r);
        aml_close(a);
    }
    if (pc->fw_cfg) {
        GByteArray *r = res_new();
        res_io(r, 0x510, 0x0c);
        aml_device(a, "FWCF");
        aml_name(a, "_HID");
        aml_string(a, "QEMU0002");
        aml_name_int(a, "_STA", 0x0b);
        aml_name_resources(a, "_CRS", r);
        aml_close(a);
    }
    /* Ports that no PCI device may be given. */
    GByteArray *r = res_new();
    res_io(r, PM_BASE, 0x80);
    res_io(r, SMB_BASE, 0x40);
    if (pc->cpus_port) {
        res_io(r, pc->cpus_port, 0x0c);
    }
    if (pc->dimm_slots) {
        res_io(r, 0x0a00, 0x18);
    }
    if (pc->n_hot_buses) {
        res_io(r, pc->pcihp_port, PCIHP_BYTES);
    }
    if (!pc->q35) {
        res_io(r, 0xafe0, 4);
    } else {
        res_memory(r, pc->ecam_at, pc->ecam_bytes);
    }
    aml_device(a, "MRES");
    aml_name_id(a, "_HID", "PNP0C02");
    aml_name_int(a, "_UID", 1);
    aml_name_resources(a, "_CRS", r);
    aml_close(a);
}

/* ---- sleep ---- */

static void sleep_state(struct aml *a, const char *name, unsigned type)
{
    aml_name(a, name);
    aml_package(a, 4);
    aml_int(a, type);
    aml_int(a, type);
    aml_int(a, 0);
    aml_int(a, 0);
    aml_close(a);
}

void dsdt_write(GByteArray *out, const struct pc_layout *pc)
{
    struct aml a = {.out = out};
    aml_name_int(&a, "\\PICF", 0);
    aml_method(&a, "\\_PIC", 1, false);
    aml_op(&a, AML_STORE);
    aml_op(&a, AML_ARG0);
    aml_path(&a, "\\PICF");
    aml_close(&a);
    aml_scope(&a, "\\_SB_");
    root_bridge(&a, pc);
    steering_fields(&a, pc);
    for (unsigned i = 0; i < (pc->q35 ? 8u : 4u); i++) {
        routing_link(&a, &links[i]);
    }
    for (unsigned i = 0; pc->q35 && i < 8; i++) {
        fixed_link(&a, i);
    }
    board_devices(&a, pc);
    if (pc->cpus_port) {
        dsdt_cpus(&a, pc);
    } else {
        processors(&a, pc);
    }
    if (pc->dimm_slots) {
        dsdt_memory(&a, pc);
    }
    aml_close(&a);
    hot_plug_events(&a, pc);
    if (pc->s3) {
        sleep_state(&a, "_S3_", 1);
    }
    if (pc->s4) {
        sleep_state(&a, "_S4_", 2);
    }
    sleep_state(&a, "_S5_", 0);
}
