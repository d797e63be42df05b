/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dsdt_hotplug: processors and memory modules that come and go, in the namespace.
 *
 * Spec: ACPI Specification 6.3, "Processor Container Device", "_MAT (Multiple APIC Table
 * Entry)", "_STA (Device Status)", "_EJx (Eject)", "_OST (OSPM Status Indication)"; registers:
 * guest/device/acpi_cpuhp.c and acpi_memhp.c.
 */
#include "guest/machine/dsdt.h"

#include "base/bytes.h"
#include "guest/machine/aml.h"
#include "guest/machine/numa.h"

#include <stdio.h>

enum { SPACE_IO = 1, STA_PRESENT = 0x0f };
enum { NOTIFY_CHECK = 1, NOTIFY_EJECT = 3 };
enum { COMMAND_NEXT_EVENT = 0, COMMAND_OST_EVENT = 1, COMMAND_OST_STATUS = 2 };

static void store_int(struct aml *a, uint64_t v, const char *to)
{
    aml_op(a, AML_STORE);
    aml_int(a, v);
    aml_path(a, to);
}

static void store_op(struct aml *a, enum aml_op from, const char *to)
{
    aml_op(a, AML_STORE);
    aml_op(a, from);
    aml_path(a, to);
}

static void load_op(struct aml *a, const char *from, enum aml_op to)
{
    aml_op(a, AML_STORE);
    aml_path(a, from);
    aml_op(a, to);
}

static void set_op(struct aml *a, enum aml_op to, uint64_t v)
{
    aml_op(a, AML_STORE);
    aml_int(a, v);
    aml_op(a, to);
}

/* If (LEqual(@op, @v)) */
static void if_op(struct aml *a, enum aml_op op, uint64_t v)
{
    aml_if(a);
    aml_op(a, AML_LEQUAL);
    aml_op(a, op);
    aml_int(a, v);
}

static void if_field(struct aml *a, const char *field)
{
    aml_if(a);
    aml_op(a, AML_LEQUAL);
    aml_path(a, field);
    aml_int(a, 1);
}

static void return_op(struct aml *a, enum aml_op op)
{
    aml_op(a, AML_RETURN);
    aml_op(a, op);
}

/* Method(@name, @args) that calls @method(@n, Arg0, ...); one without arguments asks for
 * something, the others are told. */
static void forward(struct aml *a, const char *name, unsigned args, const char *method, unsigned n)
{
    aml_method(a, name, args, false);
    if (!args) {
        aml_op(a, AML_RETURN);
    }
    aml_path(a, method);
    aml_int(a, n);
    for (unsigned i = 0; i < args; i++) {
        aml_op(a, AML_ARG0 + i);
    }
    aml_close(a);
}

/* Method(@name, 2): Notify(the device of number Arg0, Arg1) */
static void notify_method(struct aml *a, const char *name, const char *format, unsigned n)
{
    aml_method(a, name, 2, false);
    for (unsigned i = 0; i < n; i++) {
        char device[5];
        snprintf(device, sizeof(device), format, i & 0xfff);
        if_op(a, AML_ARG0, i);
        aml_op(a, AML_NOTIFY);
        aml_path(a, device);
        aml_op(a, AML_ARG0 + 1);
        aml_close(a);
    }
    aml_close(a);
}

/* If the field says so: notify Local1, take the event, and look again. */
static void take_event(struct aml *a, const char *field, const char *notify, unsigned what)
{
    if_field(a, field);
    aml_path(a, notify);
    aml_op(a, AML_LOCAL0 + 1);
    aml_int(a, what);
    store_int(a, 1, field);
    set_op(a, AML_LOCAL0, 1);
    aml_close(a);
}

/* The names of a register block's lock and fields. */
struct block {
    const char *lock, *select, *enabled, *eject;
};
static const struct block cpu_block = {"CPLK", "CSEL", "CPEN", "CEJT"};
static const struct block memory_block = {"MLCK", "MSEL", "MENA", "MEJT"};

/* Method(@name, 1): STA_PRESENT if something is at place Arg0 */
static void status_method(struct aml *a, const char *name, const struct block *b)
{
    aml_method(a, name, 1, true);
    aml_acquire(a, b->lock);
    store_op(a, AML_ARG0, b->select);
    set_op(a, AML_LOCAL0, 0);
    if_field(a, b->enabled);
    set_op(a, AML_LOCAL0, STA_PRESENT);
    aml_close(a);
    aml_release(a, b->lock);
    return_op(a, AML_LOCAL0);
    aml_close(a);
}

/* Method(@name, 2): what is at place Arg0 is given back */
static void eject_method(struct aml *a, const char *name, const struct block *b)
{
    aml_method(a, name, 2, true);
    aml_acquire(a, b->lock);
    store_op(a, AML_ARG0, b->select);
    store_int(a, 1, b->eject);
    aml_release(a, b->lock);
    aml_close(a);
}

/* ---- processors ---- */

static void cpu_registers(struct aml *a, const struct pc_layout *pc)
{
    aml_region(a, "PRST", SPACE_IO, pc->cpus_port, 0x0c);
    aml_field_events(a, "PRST");
    aml_field_unit(a, NULL, 32);
    aml_field_unit(a, "CPEN", 1);
    aml_field_unit(a, "CINS", 1);
    aml_field_unit(a, "CRMV", 1);
    aml_field_unit(a, "CEJT", 1);
    aml_field_unit(a, NULL, 4);
    aml_field_unit(a, "CCMD", 8);
    aml_close(a);
    aml_field_dwords(a, "PRST");
    aml_field_unit(a, "CSEL", 32);
    aml_field_unit(a, NULL, 32);
    aml_field_unit(a, "CDAT", 32);
    aml_close(a);
    aml_mutex(a, "CPLK");
}

static void cpu_methods(struct aml *a)
{
    status_method(a, "CSTA", &cpu_block);
    eject_method(a, "CEJM", &cpu_block);

    aml_method(a, "COST", 4, true);
    aml_acquire(a, "CPLK");
    store_op(a, AML_ARG0, "CSEL");
    store_int(a, COMMAND_OST_EVENT, "CCMD");
    store_op(a, AML_ARG0 + 1, "CDAT");
    store_int(a, COMMAND_OST_STATUS, "CCMD");
    store_op(a, AML_ARG0 + 2, "CDAT");
    aml_release(a, "CPLK");
    aml_close(a);
}

/* One event after another until none is left. */
static void cpu_scan(struct aml *a)
{
    aml_method(a, "CSCN", 0, true);
    aml_acquire(a, "CPLK");
    store_int(a, 0, "CSEL");
    set_op(a, AML_LOCAL0, 1);
    aml_while(a);
    aml_op(a, AML_LOCAL0);
    set_op(a, AML_LOCAL0, 0);
    store_int(a, COMMAND_NEXT_EVENT, "CCMD");
    load_op(a, "CDAT", AML_LOCAL0 + 1);
    take_event(a, "CINS", "CTFY", NOTIFY_CHECK);
    take_event(a, "CRMV", "CTFY", NOTIFY_EJECT);
    aml_close(a);
    aml_release(a, "CPLK");
    aml_close(a);
}

/* The MADT's entry of a processor that is there. */
static GByteArray *madt_entry(unsigned uid, uint32_t apic_id)
{
    bool wide = apic_id >= 255;
    GByteArray *b = g_byte_array_new();
    put_le(b, wide ? 9 : 0, 1);
    put_le(b, wide ? 16 : 8, 1);
    if (wide) {
        put_le(b, 0, 2);
        put_le(b, apic_id, 4);
        put_le(b, 1, 4);
        put_le(b, uid, 4);
    } else {
        put_le(b, uid, 1);
        put_le(b, apic_id, 1);
        put_le(b, 1, 4);
    }
    return b;
}

static void cpu_device(struct aml *a, const struct pc_layout *pc, unsigned i)
{
    char name[5];
    snprintf(name, sizeof(name), "C%03X", i & 0xfff);
    aml_device(a, name);
    aml_name(a, "_HID");
    aml_string(a, "ACPI0007");
    aml_name_int(a, "_UID", i);
    forward(a, "_STA", 0, "CSTA", i);
    aml_name(a, "_MAT");
    aml_buffer(a, madt_entry(i, pc->apic_id[i]));
    if (i) { /* the boot processor stays */
        forward(a, "_EJ0", 1, "CEJM", i);
    }
    forward(a, "_OST", 3, "COST", i);
    if (pc->numa) {
        aml_name_int(a, "_PXM", pc->numa->cpu_node[i]);
    }
    aml_close(a);
}

void dsdt_cpus(struct aml *a, const struct pc_layout *pc)
{
    aml_device(a, "CPUS");
    aml_name(a, "_HID");
    aml_string(a, "ACPI0010");
    aml_name_id(a, "_CID", "PNP0A05");
    cpu_registers(a, pc);
    cpu_methods(a);
    for (unsigned i = 0; i < pc->maxcpus; i++) {
        cpu_device(a, pc, i);
    }
    notify_method(a, "CTFY", "C%03X", pc->maxcpus);
    cpu_scan(a);
    aml_close(a);
}

/* ---- memory modules ---- */

static void memory_registers(struct aml *a)
{
    aml_region(a, "HPMR", SPACE_IO, 0x0a00, 0x18);
    aml_field_dwords(a, "HPMR"); /* as they read */
    aml_field_unit(a, "MRBA", 64);
    aml_field_unit(a, "MRLE", 64);
    aml_field_unit(a, "MRPX", 32);
    aml_close(a);
    aml_field_dwords(a, "HPMR"); /* as they are written */
    aml_field_unit(a, "MSEL", 32);
    aml_field_unit(a, "MOEV", 32);
    aml_field_unit(a, "MOSC", 32);
    aml_close(a);
    aml_field_events(a, "HPMR");
    aml_field_unit(a, NULL, 0x14 * 8);
    aml_field_unit(a, "MENA", 1);
    aml_field_unit(a, "MINS", 1);
    aml_field_unit(a, "MRMV", 1);
    aml_field_unit(a, "MEJT", 1);
    aml_close(a);
    aml_mutex(a, "MLCK");
}

/* CreateQWordField(MR64, @at, @name) */
static void resource_field(struct aml *a, unsigned at, const char *name)
{
    aml_op(a, AML_QWORD_FIELD);
    aml_path(a, "MR64");
    aml_int(a, at);
    aml_path(a, name);
}

static void store_field(struct aml *a, const char *from, const char *to)
{
    aml_op(a, AML_STORE);
    aml_path(a, from);
    aml_path(a, to);
}

enum { QWORD_FIRST = 14, QWORD_LAST = 22, QWORD_LENGTH = 38 }; /* of its descriptor */

static void memory_resources(struct aml *a)
{
    GByteArray *r = res_new();
    res_memory_window(r, 0, UINT64_MAX - 1);
    aml_method(a, "MCRS", 1, true);
    aml_acquire(a, "MLCK");
    store_op(a, AML_ARG0, "MSEL");
    aml_name_resources(a, "MR64", r);
    resource_field(a, QWORD_FIRST, "MINM");
    resource_field(a, QWORD_LAST, "MAXM");
    resource_field(a, QWORD_LENGTH, "LENM");
    store_field(a, "MRBA", "MINM");
    store_field(a, "MRLE", "LENM");
    aml_op(a, AML_ADD);
    aml_path(a, "MINM");
    aml_path(a, "LENM");
    aml_op(a, AML_LOCAL0);
    aml_op(a, AML_SUBTRACT);
    aml_op(a, AML_LOCAL0);
    aml_int(a, 1);
    aml_path(a, "MAXM");
    aml_release(a, "MLCK");
    aml_op(a, AML_RETURN);
    aml_path(a, "MR64");
    aml_close(a);
}

static void memory_methods(struct aml *a)
{
    status_method(a, "MSTA", &memory_block);
    eject_method(a, "MEJM", &memory_block);

    aml_method(a, "MPXM", 1, true);
    aml_acquire(a, "MLCK");
    store_op(a, AML_ARG0, "MSEL");
    load_op(a, "MRPX", AML_LOCAL0);
    aml_release(a, "MLCK");
    return_op(a, AML_LOCAL0);
    aml_close(a);

    aml_method(a, "MOST", 4, true);
    aml_acquire(a, "MLCK");
    store_op(a, AML_ARG0, "MSEL");
    store_op(a, AML_ARG0 + 1, "MOEV");
    store_op(a, AML_ARG0 + 2, "MOSC");
    aml_release(a, "MLCK");
    aml_close(a);
}

static void memory_scan(struct aml *a, unsigned slots)
{
    aml_method(a, "MSCN", 0, true);
    aml_acquire(a, "MLCK");
    set_op(a, AML_LOCAL0 + 1, 0);
    aml_while(a);
    aml_op(a, AML_LLESS);
    aml_op(a, AML_LOCAL0 + 1);
    aml_int(a, slots);
    store_op(a, AML_LOCAL0 + 1, "MSEL");
    take_event(a, "MINS", "MTFY", NOTIFY_CHECK);
    take_event(a, "MRMV", "MTFY", NOTIFY_EJECT);
    aml_op(a, AML_ADD);
    aml_op(a, AML_LOCAL0 + 1);
    aml_int(a, 1);
    aml_op(a, AML_LOCAL0 + 1);
    aml_close(a);
    aml_release(a, "MLCK");
    aml_close(a);
}

static void memory_device(struct aml *a, const struct pc_layout *pc, unsigned slot)
{
    char name[5];
    snprintf(name, sizeof(name), "M%03X", slot & 0xfff);
    aml_device(a, name);
    aml_name_id(a, "_HID", "PNP0C80");
    aml_name_int(a, "_UID", slot);
    forward(a, "_STA", 0, "MSTA", slot);
    forward(a, "_CRS", 0, "MCRS", slot);
    if (pc->numa) {
        forward(a, "_PXM", 0, "MPXM", slot);
    }
    forward(a, "_EJ0", 1, "MEJM", slot);
    forward(a, "_OST", 3, "MOST", slot);
    aml_close(a);
}

void dsdt_memory(struct aml *a, const struct pc_layout *pc)
{
    aml_device(a, "MHPC");
    aml_name_id(a, "_HID", "PNP0A06");
    aml_name(a, "_UID");
    aml_string(a, "DIMM devices");
    memory_registers(a);
    memory_methods(a);
    memory_resources(a);
    for (unsigned i = 0; i < pc->dimm_slots; i++) {
        memory_device(a, pc, i);
    }
    notify_method(a, "MTFY", "M%03X", pc->dimm_slots);
    memory_scan(a, pc->dimm_slots);
    aml_close(a);
}
