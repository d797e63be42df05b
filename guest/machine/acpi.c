/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * acpi: the tables that tell the guest what the machine is made of.
 *
 * Spec: Advanced Configuration and Power Interface Specification 6.3, "ACPI Software
 * Programming Model"; IA-PC HPET Specification 1.0a, "ACPI Description Table"; PCI Firmware
 * Specification 3.0, "MCFG Table"; QEMU, "QEMU Firmware Configuration (fw_cfg) Device" and the
 * format of "etc/table-loader".
 */
#include "guest/machine/tables.h"

#include "base/bytes.h"
#include "guest/machine/dsdt.h"
#include "guest/machine/numa.h"

#include <string.h>

#define FOUR_GB (UINT64_C(1) << 32)

enum { HEADER_BYTES = 36, CHECKSUM_AT = 9, LENGTH_AT = 4 };
enum { FILE_NAME_BYTES = 56, STEP_BYTES = 128 };
enum { HPET_AT = 0xfed00000u, IOAPIC_AT = 0xfec00000u, LAPIC_AT = 0xfee00000u };
enum { LOW_RAM_END = 0xa0000, ONE_MB = 0x100000 };
enum { ACPI_ON_PIIX4 = 0xf1, ACPI_OFF_PIIX4 = 0xf0, ACPI_ON_ICH9 = 2, ACPI_OFF_ICH9 = 3 };

/* ---- links ---- */

static void link_add(struct acpi_tables *t, struct link_step step)
{
    g_array_append_val(t->links, step);
}

static void link_pointer(struct acpi_tables *t, const char *file, unsigned at, unsigned bytes)
{
    link_add(t, (struct link_step){.op = LINK_POINTER,
                                   .file = file,
                                   .from = ACPI_TABLES_FILE,
                                   .at = at,
                                   .bytes = (uint8_t)bytes});
}

static void link_checksum(struct acpi_tables *t, const char *file, unsigned at, unsigned start,
                          unsigned length)
{
    link_add(t, (struct link_step){
                    .op = LINK_CHECKSUM, .file = file, .at = at, .start = start, .length = length});
}

/* ---- frames ---- */

static unsigned table_begin(struct acpi_tables *t, const char *signature, unsigned revision)
{
    GByteArray *b = t->tables;
    unsigned at = b->len;
    g_byte_array_append(b, (const uint8_t *)signature, 4);
    put_le(b, 0, 4);
    put_le(b, revision, 1);
    put_le(b, 0, 1);
    g_byte_array_append(b, (const uint8_t *)"LODGE ", 6);
    g_byte_array_append(b, (const uint8_t *)"LODGEPC ", 8);
    put_le(b, 1, 4);
    g_byte_array_append(b, (const uint8_t *)"LODG", 4);
    put_le(b, 1, 4);
    return at;
}

static void table_end(struct acpi_tables *t, unsigned at)
{
    unsigned length = t->tables->len - at;
    le32_put(t->tables->data + at + LENGTH_AT, length);
    link_checksum(t, ACPI_TABLES_FILE, at + CHECKSUM_AT, at, length);
}

/* A pointer to byte @target of the tables; the loader adds the address of the file. */
static void put_pointer(struct acpi_tables *t, unsigned target, unsigned bytes)
{
    link_pointer(t, ACPI_TABLES_FILE, t->tables->len, bytes);
    put_le(t->tables, target, bytes);
}

static void put_io_address(GByteArray *b, unsigned port, unsigned bytes)
{
    put_le(b, port ? 1 : 0, 1); /* system I/O */
    put_le(b, bytes * 8, 1);
    put_le(b, 0, 1);
    put_le(b, 0, 1);
    put_le(b, port, 8);
}

/* ---- tables ---- */

static unsigned facs(struct acpi_tables *t)
{
    unsigned at = t->tables->len; /* the first: aligned to 64 bytes as the whole file is */
    g_byte_array_append(t->tables, (const uint8_t *)"FACS", 4);
    put_le(t->tables, 64, 4);
    for (unsigned i = 0; i < 7; i++) {
        put_le(t->tables, 0, 8);
    }
    return at;
}

static unsigned dsdt(struct acpi_tables *t, const struct pc_layout *pc)
{
    unsigned at = table_begin(t, "DSDT", 2);
    dsdt_write(t->tables, pc);
    table_end(t, at);
    return at;
}

static void fadt_blocks(GByteArray *b, const struct pc_layout *pc)
{
    static const uint8_t lengths_piix4[] = {4, 2, 0, 4, 4, 0, 0, 0};
    static const uint8_t lengths_ich9[] = {4, 2, 0, 4, 16, 0, 0, 0};
    put_le(b, PM_BASE, 4); /* PM1a event, PM1b, PM1a control, PM1b, PM2, timer, GPE0, GPE1 */
    put_le(b, 0, 4);
    put_le(b, PM_BASE + 4, 4);
    put_le(b, 0, 8);
    put_le(b, PM_BASE + 8, 4);
    put_le(b, pc->q35 ? PM_BASE + 0x20 : 0xafe0, 4);
    put_le(b, 0, 4);
    g_byte_array_append(b, pc->q35 ? lengths_ich9 : lengths_piix4, 8);
}

static void fadt_extended_blocks(GByteArray *b, const struct pc_layout *pc)
{
    put_io_address(b, PM_BASE, 4);
    put_io_address(b, 0, 0);
    put_io_address(b, PM_BASE + 4, 2);
    put_io_address(b, 0, 0);
    put_io_address(b, 0, 0);
    put_io_address(b, PM_BASE + 8, 4);
    put_io_address(b, pc->q35 ? PM_BASE + 0x20 : 0xafe0, pc->q35 ? 16 : 4);
    put_io_address(b, 0, 0);
}

static unsigned fadt(struct acpi_tables *t, const struct pc_layout *pc, unsigned facs_at,
                     unsigned dsdt_at)
{
    GByteArray *b = t->tables;
    unsigned at = table_begin(t, "FACP", 3);
    put_pointer(t, facs_at, 4);
    put_pointer(t, dsdt_at, 4);
    put_le(b, 1, 1); /* interrupt model: APIC; reserved since ACPI 2.0 */
    put_le(b, 0, 1);
    put_le(b, SCI_IRQ, 2);
    put_le(b, 0xb2, 4);
    put_le(b, pc->q35 ? ACPI_ON_ICH9 : ACPI_ON_PIIX4, 1);
    put_le(b, pc->q35 ? ACPI_OFF_ICH9 : ACPI_OFF_PIIX4, 1);
    put_le(b, 0, 2);
    fadt_blocks(b, pc);
    put_le(b, 0xfff, 2); /* no C2 */
    put_le(b, 0xfff, 2); /* no C3 */
    put_le(b, 0, 4);
    put_le(b, 0, 4);
    put_le(b, 0x32, 1);  /* century byte in CMOS */
    put_le(b, 1 | 2, 2); /* legacy devices, 8042 */
    put_le(b, 0, 1);
    /* WBINVD, C1, no fixed sleep button, RTC wakes S4, reset register, platform clock. */
    put_le(b, 1 << 0 | 1 << 2 | 1 << 5 | 1 << 7 | 1 << 10 | 1 << 15, 4);
    put_io_address(b, 0xcf9, 1);
    put_le(b, 0x0f, 1);
    put_le(b, 0, 3);
    put_le(b, 0, 8); /* the 32-bit pointer counts */
    put_pointer(t, dsdt_at, 8);
    fadt_extended_blocks(b, pc);
    table_end(t, at);
    return at;
}

enum { MADT_CPU_ENABLED = 1, MADT_CPU_CAPABLE = 2, MADT_X2APIC = 9 };

static void madt_cpu(GByteArray *b, unsigned uid, uint32_t apic_id, bool present)
{
    unsigned flags = present ? MADT_CPU_ENABLED : MADT_CPU_CAPABLE;
    if (apic_id < 255) {
        put_le(b, 0, 1);
        put_le(b, 8, 1);
        put_le(b, uid, 1);
        put_le(b, apic_id, 1);
        put_le(b, flags, 4);
    } else {
        put_le(b, MADT_X2APIC, 1);
        put_le(b, 16, 1);
        put_le(b, 0, 2);
        put_le(b, apic_id, 4);
        put_le(b, flags, 4);
        put_le(b, uid, 4);
    }
}

/* @flags: 5 edge and active high, 0xd level and active high, 0 as the bus has it. */
static void madt_override(GByteArray *b, unsigned isa, unsigned gsi, unsigned flags)
{
    put_le(b, 2, 1);
    put_le(b, 10, 1);
    put_le(b, 0, 1);
    put_le(b, isa, 1);
    put_le(b, gsi, 4);
    put_le(b, flags, 2);
}

static unsigned madt(struct acpi_tables *t, const struct pc_layout *pc)
{
    static const uint8_t pci_irqs[] = {5, 9, 10, 11};
    GByteArray *b = t->tables;
    unsigned at = table_begin(t, "APIC", 5);
    put_le(b, LAPIC_AT, 4);
    put_le(b, 1, 4); /* there are 8259s */
    t->madt_at = at;
    t->madt_cpus_at = b->len;
    t->maxcpus = pc->maxcpus;
    for (unsigned i = 0; i < pc->maxcpus; i++) {
        madt_cpu(b, i, pc->apic_id[i], i < pc->cpus);
    }
    put_le(b, 1, 1); /* I/O APIC 0 at interrupt 0 */
    put_le(b, 12, 1);
    put_le(b, 0, 2);
    put_le(b, IOAPIC_AT, 4);
    put_le(b, 0, 4);
    madt_override(b, 0, 2, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(pci_irqs); i++) {
        madt_override(b, pci_irqs[i], pci_irqs[i], 0xd);
    }
    put_le(b, 4, 1); /* LINT1 of all processors is NMI */
    put_le(b, 6, 1);
    put_le(b, 0xff, 1);
    put_le(b, 0, 2);
    put_le(b, 1, 1);
    table_end(t, at);
    return at;
}

void acpi_tables_cpus(const struct acpi_tables *t, uint8_t *bytes, const bool present[])
{
    uint8_t *p = bytes + t->madt_cpus_at, *checksum = bytes + t->madt_at + CHECKSUM_AT;
    bool summed = t->installed && bytes == t->tables->data;
    for (unsigned i = 0; i < t->maxcpus; i++, p += p[1]) {
        uint8_t *flags = p + (*p == MADT_X2APIC ? 8 : 4);
        uint8_t now = present[i] ? MADT_CPU_ENABLED : MADT_CPU_CAPABLE;
        if (summed) { /* right before, right after */
            *checksum = (uint8_t)(*checksum + *flags - now);
        }
        *flags = now;
    }
}

static unsigned hpet(struct acpi_tables *t)
{
    GByteArray *b = t->tables;
    unsigned at = table_begin(t, "HPET", 1);
    put_le(b, 0x8086a201, 4); /* its capability register, lower half */
    put_le(b, 0, 1);          /* memory */
    put_le(b, 0, 3);
    put_le(b, HPET_AT, 8);
    put_le(b, 0, 1);
    put_le(b, 0, 2);
    put_le(b, 0, 1);
    table_end(t, at);
    return at;
}

static unsigned mcfg(struct acpi_tables *t, const struct pc_layout *pc)
{
    GByteArray *b = t->tables;
    unsigned at = table_begin(t, "MCFG", 1);
    put_le(b, 0, 8);
    put_le(b, pc->ecam_at, 8);
    put_le(b, 0, 2);
    put_le(b, 0, 1);
    put_le(b, (pc->ecam_bytes >> 20) - 1, 1);
    put_le(b, 0, 4);
    table_end(t, at);
    return at;
}

static void srat_cpu(GByteArray *b, uint32_t apic_id, unsigned node)
{
    bool x2apic = apic_id >= 255;
    put_le(b, x2apic ? 2 : 0, 1);
    put_le(b, x2apic ? 24 : 16, 1);
    put_le(b, x2apic ? 0 : node, 2); /* and the local APIC's number, in the upper byte */
    if (x2apic) {
        put_le(b, node, 4);
        put_le(b, apic_id, 4);
        put_le(b, 1, 4); /* enabled */
        put_le(b, 0, 8); /* clock domain */
        return;
    }
    b->data[b->len - 1] = (uint8_t)apic_id;
    put_le(b, 1, 4);
    put_le(b, 0, 8);
}

enum { SRAT_ENABLED = 1, SRAT_HOTPLUG = 2 };

static void srat_memory(GByteArray *b, uint64_t at, uint64_t bytes, unsigned node, unsigned flags)
{
    put_le(b, 1, 1);
    put_le(b, 40, 1);
    put_le(b, node, 4);
    put_le(b, 0, 2);
    put_le(b, at, 8);
    put_le(b, bytes, 8);
    put_le(b, 0, 4);
    put_le(b, flags, 4);
    put_le(b, 0, 8);
}

/* RAM from its byte @from to @end, as far as it shows in the window of @bytes at @at. */
static void srat_window(GByteArray *b, uint64_t from, uint64_t end, uint64_t window, uint64_t at,
                        uint64_t bytes, unsigned node)
{
    uint64_t first = MAX(from, window), last = MIN(end, window + bytes);
    if (first < last) {
        srat_memory(b, at + (first - window), last - first, node, SRAT_ENABLED);
    }
}

static unsigned srat(struct acpi_tables *t, const struct pc_layout *pc)
{
    const struct numa *numa = pc->numa;
    GByteArray *b = t->tables;
    unsigned at = table_begin(t, "SRAT", 1);
    put_le(b, 1, 4); /* reserved, must be 1 */
    put_le(b, 0, 8);
    for (unsigned i = 0; i < pc->maxcpus; i++) {
        srat_cpu(b, pc->apic_id[i], numa->cpu_node[i]);
    }
    uint64_t from = 0, end;
    for (unsigned n = 0; n < numa->nodes; n++, from = end) {
        end = from + numa->bytes[n];
        srat_window(b, from, end, 0, 0, LOW_RAM_END, n);
        srat_window(b, from, end, ONE_MB, ONE_MB, pc->ram_below_4g - ONE_MB, n);
        srat_window(b, from, end, pc->ram_below_4g, FOUR_GB, pc->ram_above_4g, n);
    }
    if (pc->dimm_bytes) { /* the modules' own entries in the namespace say where they belong */
        srat_memory(b, pc->dimm_at, pc->dimm_bytes, numa->nodes - 1, SRAT_ENABLED | SRAT_HOTPLUG);
    }
    table_end(t, at);
    return at;
}

static unsigned slit(struct acpi_tables *t, const struct numa *numa)
{
    GByteArray *b = t->tables;
    unsigned at = table_begin(t, "SLIT", 1);
    put_le(b, numa->nodes, 8);
    for (unsigned from = 0; from < numa->nodes; from++) {
        g_byte_array_append(b, numa->distance[from], numa->nodes);
    }
    table_end(t, at);
    return at;
}

/* Tables that a user brought keep their bytes; only the checksum is made right. */
static unsigned extra_table(struct acpi_tables *t, GBytes *bytes)
{
    unsigned at = t->tables->len;
    gsize n;
    const uint8_t *data = g_bytes_get_data(bytes, &n);
    g_byte_array_append(t->tables, data, (guint)n);
    t->tables->data[at + CHECKSUM_AT] = 0;
    table_end(t, at);
    return at;
}

static unsigned root(struct acpi_tables *t, const char *signature, unsigned bytes,
                     const GArray *tables)
{
    unsigned at = table_begin(t, signature, 1);
    for (unsigned i = 0; i < tables->len; i++) {
        put_pointer(t, g_array_index(tables, unsigned, i), bytes);
    }
    table_end(t, at);
    return at;
}

static void rsdp(struct acpi_tables *t, unsigned rsdt_at, unsigned xsdt_at)
{
    GByteArray *b = t->rsdp;
    g_byte_array_append(b, (const uint8_t *)"RSD PTR ", 8);
    put_le(b, 0, 1);
    g_byte_array_append(b, (const uint8_t *)"LODGE ", 6);
    put_le(b, 2, 1);
    put_le(b, rsdt_at, 4);
    put_le(b, 36, 4);
    put_le(b, xsdt_at, 8);
    put_le(b, 0, 4);
    link_pointer(t, ACPI_RSDP_FILE, 16, 4);
    link_pointer(t, ACPI_RSDP_FILE, 24, 8);
    link_checksum(t, ACPI_RSDP_FILE, 8, 0, 20);
    link_checksum(t, ACPI_RSDP_FILE, 32, 0, 36);
}

struct acpi_tables *acpi_tables_new(const struct pc_layout *pc)
{
    struct acpi_tables *t = g_new0(struct acpi_tables, 1);
    g_autoptr(GArray) all = g_array_new(FALSE, FALSE, sizeof(unsigned));
    t->tables = g_byte_array_new();
    t->rsdp = g_byte_array_new();
    t->links = g_array_new(FALSE, FALSE, sizeof(struct link_step));
    link_add(t, (struct link_step){
                    .op = LINK_ALLOCATE, .file = ACPI_TABLES_FILE, .align = 64, .zone = 1});
    link_add(
        t, (struct link_step){.op = LINK_ALLOCATE, .file = ACPI_RSDP_FILE, .align = 16, .zone = 2});
    unsigned facs_at = facs(t), dsdt_at = dsdt(t, pc);
    unsigned list[6] = {fadt(t, pc, facs_at, dsdt_at), madt(t, pc)}, n = 2;
    if (pc->hpet) {
        list[n++] = hpet(t);
    }
    if (pc->q35) {
        list[n++] = mcfg(t, pc);
    }
    if (pc->numa) {
        list[n++] = srat(t, pc);
    }
    if (pc->numa && pc->numa->has_distances) {
        list[n++] = slit(t, pc->numa);
    }
    g_array_append_vals(all, list, n);
    for (unsigned i = 0; pc->extra && i < pc->extra->len; i++) {
        unsigned at = extra_table(t, pc->extra->pdata[i]);
        g_array_append_val(all, at);
    }
    unsigned rsdt_at = root(t, "RSDT", 4, all), xsdt_at = root(t, "XSDT", 8, all);
    rsdp(t, rsdt_at, xsdt_at);
    return t;
}

void acpi_tables_free(struct acpi_tables *t)
{
    if (t) {
        g_byte_array_unref(t->tables);
        g_byte_array_unref(t->rsdp);
        g_array_unref(t->links);
        g_free(t);
    }
}

/* ---- linking ---- */

static void put_file_name(uint8_t *at, const char *name)
{
    g_strlcpy((char *)at, name, FILE_NAME_BYTES);
}

GByteArray *acpi_loader_script(const struct acpi_tables *t)
{
    GByteArray *out = g_byte_array_new();
    for (unsigned i = 0; i < t->links->len; i++) {
        const struct link_step *s = &g_array_index(t->links, struct link_step, i);
        uint8_t step[STEP_BYTES] = {0}, *p = step + 4;
        le32_put(step, s->op);
        put_file_name(p, s->file);
        p += FILE_NAME_BYTES;
        if (s->op == LINK_ALLOCATE) {
            le32_put(p, s->align);
            p[4] = (uint8_t)s->zone;
        } else if (s->op == LINK_POINTER) {
            put_file_name(p, s->from);
            le32_put(p + FILE_NAME_BYTES, s->at);
            p[FILE_NAME_BYTES + 4] = s->bytes;
        } else {
            le32_put(p, s->at);
            le32_put(p + 4, s->start);
            le32_put(p + 8, s->length);
        }
        g_byte_array_append(out, step, sizeof(step));
    }
    return out;
}

static uint8_t sum(const uint8_t *p, unsigned n)
{
    uint8_t v = 0;
    while (n--) {
        v = (uint8_t)(v + *p++);
    }
    return v;
}

void acpi_install(struct acpi_tables *t, uint64_t tables_at, uint64_t rsdp_at)
{
    (void)rsdp_at; /* nothing points to it */
    t->installed = true;
    for (unsigned i = 0; i < t->links->len; i++) {
        const struct link_step *s = &g_array_index(t->links, struct link_step, i);
        GByteArray *b = g_str_equal(s->file, ACPI_RSDP_FILE) ? t->rsdp : t->tables;
        if (s->op == LINK_POINTER) {
            uint64_t v = 0;
            memcpy(&v, b->data + s->at, s->bytes);
            v += tables_at;
            memcpy(b->data + s->at, &v, s->bytes);
        } else if (s->op == LINK_CHECKSUM) {
            b->data[s->at] = 0;
            b->data[s->at] = (uint8_t)-sum(b->data + s->start, s->length);
        }
    }
}
