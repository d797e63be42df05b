/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * firmware: what SeaBIOS and OVMF want to know: fw_cfg items and files, bytes in CMOS, the
 * order in which to boot.
 *
 * Spec: QEMU, "QEMU Firmware Configuration (fw_cfg) Device"; SeaBIOS, "Runtime_config";
 * IEEE Std 1275, "Device paths" as SeaBIOS writes them.
 */
#include "base/bytes.h"
#include "base/keyval.h"
#include "guest/device/ata.h"
#include "guest/device/fw_cfg.h"
#include "guest/device/isa_fdc.h"
#include "guest/device/mc146818.h"
#include "guest/device/pci.h"
#include "guest/device/scsi.h"
#include "guest/device/usb.h"
#include "guest/machine/pc.h"

#include <stdio.h>
#include <string.h>

enum {
    CMOS_FLOPPY = 0x10,
    CMOS_EQUIPMENT = 0x14,
    CMOS_BASE = 0x15,
    CMOS_EXTENDED = 0x17,
    CMOS_EXTENDED2 = 0x30,
    CMOS_ABOVE_16M = 0x34,
    CMOS_BOOT3 = 0x38,
    CMOS_BOOT12 = 0x3d,
    CMOS_ABOVE_4G = 0x5b,
    CMOS_CPUS = 0x5f
};
enum { ONE_MB = 0x100000 };

/* ---- CMOS ---- */

static void cmos16(struct device *rtc, uint8_t at, uint64_t v)
{
    mc146818_set(rtc, at, (uint8_t)v);
    mc146818_set(rtc, at + 1, (uint8_t)(v >> 8));
}

static unsigned boot_code(char letter)
{
    switch (letter) {
    case 'a':
    case 'b':
        return 1;
    case 'c':
        return 2;
    case 'd':
        return 3;
    case 'n':
        return 4;
    default:
        return 0;
    }
}

/* Three devices, first to last, as the firmware of Bochs had them. */
static void cmos_boot_order(struct device *rtc, const char *order)
{
    unsigned code[3] = {0};
    for (unsigned i = 0; i < 3 && order[i]; i++) {
        code[i] = boot_code(order[i]);
    }
    mc146818_set(rtc, CMOS_BOOT12, (uint8_t)(code[1] << 4 | code[0]));
    mc146818_set(rtc, CMOS_BOOT3, (uint8_t)(code[2] << 4));
}

static void cmos_floppies(struct machine *m, struct device *rtc)
{
    const struct device *fdc = board_part(m->board, "fdc");
    unsigned n = 0, kinds = 0;
    for (unsigned i = 0; i < 2 && fdc; i++) {
        unsigned type = isa_fdc_drive_type(fdc, i);
        kinds |= type << (i ? 0 : 4);
        n += type != 0;
    }
    mc146818_set(rtc, CMOS_FLOPPY, (uint8_t)kinds);
    mc146818_set(rtc, CMOS_EQUIPMENT, (uint8_t)(0x06 | (n ? 1 | (n - 1) << 6 : 0)));
}

static void fill_cmos(struct machine *m, struct device *rtc)
{
    uint64_t low = m->below_4g, extended = MIN((low - ONE_MB) >> 10, 65535);
    uint64_t above16 = low > 16 * ONE_MB ? (low - 16 * ONE_MB) >> 16 : 0;
    cmos16(rtc, CMOS_BASE, 640);
    cmos16(rtc, CMOS_EXTENDED, extended);
    cmos16(rtc, CMOS_EXTENDED2, extended);
    cmos16(rtc, CMOS_ABOVE_16M, MIN(above16, 65535));
    cmos16(rtc, CMOS_ABOVE_4G, m->above_4g >> 16);
    mc146818_set(rtc, CMOS_ABOVE_4G + 2, (uint8_t)(m->above_4g >> 32));
    cmos_floppies(m, rtc);
}

void firmware_cpus(struct machine *m)
{
    struct device *fw = board_part(m->board, "fw_cfg"), *rtc = board_part(m->board, "rtc");
    g_autofree bool *present = g_new0(bool, m->config.maxcpus);
    unsigned n = 0;
    size_t bytes;
    for (unsigned i = 0; i < m->config.maxcpus; i++) {
        present[i] = pc_cpu_present(m, i);
        n += present[i];
    }
    if (rtc && n) {
        mc146818_set(rtc, CMOS_CPUS, (uint8_t)(n - 1));
    }
    if (fw) {
        fw_cfg_add_u16(fw, FW_CFG_NB_CPUS, (uint16_t)n);
    }
    if (m->acpi) {
        uint8_t *file = fw ? fw_cfg_file_bytes(fw, ACPI_TABLES_FILE, &bytes) : NULL;
        acpi_tables_cpus(m->acpi, m->acpi->tables->data, present);
        if (file) {
            acpi_tables_cpus(m->acpi, file, present);
        }
    }
}

void firmware_boot_order(struct machine *m)
{
    const char *order = m->config.boot_order ? m->config.boot_order : "cad";
    struct device *rtc = board_part(m->board, "rtc");
    if (rtc) {
        cmos_boot_order(rtc, m->config.boot_once && !m->booted ? m->config.boot_once : order);
    }
    m->booted = true;
}

/* ---- boot order by bootindex ---- */

static bool bootindex_of(struct device *dev, const char *name, uint32_t *out)
{
    for (unsigned i = 0; i < dev->model->nprops; i++) {
        const struct prop *p = &dev->model->props[i];
        if (g_str_equal(p->name, name) && p->kind == PROP_U32) {
            memcpy(out, (char *)dev + p->slot, sizeof(*out));
            return *out != UINT32_MAX;
        }
    }
    return false;
}

static void pci_path(GString *path, const struct pci_device *pci, const char *kind)
{
    if (pci->bus->bridge) {
        pci_path(path, pci->bus->bridge, "pci-bridge");
    } else {
        g_string_assign(path, "/pci@i0cf8");
    }
    g_string_append_printf(path, "/%s@%x", kind, pci->devfn >> 3);
    if (pci->devfn & 7) {
        g_string_append_printf(path, ",%x", pci->devfn & 7);
    }
}

/* Port "ahci0.2" belongs to the device "ahci0"; the ports of the board's own controller have
 * no such device in front. */
static bool ata_path(struct machine *m, GString *path, struct device *dev)
{
    struct ata_drive *d = (struct ata_drive *)dev;
    const char *dot = d->port ? strrchr(d->port->name, '.') : NULL;
    if (!dot) {
        return false;
    }
    g_autofree char *owner = g_strndup(d->port->name, (gsize)(dot - d->port->name));
    struct device *controller = board_find(m->board, owner);
    controller = controller ? controller : board_find(m->board, "ide");
    if (!controller || controller->model->bus != BUS_PCI) {
        return false;
    }
    pci_path(path, (struct pci_device *)controller, d->port->ahci ? "pci8086,2922" : "ide");
    g_string_append_printf(path, "/drive@%s/disk@%u", dot + 1, d->at);
    return true;
}

/* "/pci@i0cf8/scsi@4/channel@0/disk@1,0": what SeaBIOS and OVMF know a unit by. */
static bool scsi_path(GString *path, const struct scsi_unit *u)
{
    if (!u->bus || u->bus->owner->model->bus != BUS_PCI) {
        return false;
    }
    pci_path(path, (const struct pci_device *)u->bus->owner, "scsi");
    g_string_append_printf(path, "/channel@0/disk@%x,%x", u->prop_target, u->prop_lun);
    return true;
}

static bool usb_path(GString *path, const struct usb_device *u)
{
    if (!u->bus || u->bus->owner->model->bus != BUS_PCI) {
        return false;
    }
    pci_path(path, (const struct pci_device *)u->bus->owner, "usb");
    g_string_append_printf(path, "/storage@%x/channel@0/disk@0,0", u->port);
    return true;
}

static bool path_of(struct machine *m, GString *path, struct device *dev)
{
    if (dev->model->bus == BUS_USB) {
        return usb_path(path, (const struct usb_device *)dev);
    }
    if (dev->model->bus == BUS_SCSI) {
        return scsi_path(path, (const struct scsi_unit *)dev);
    }
    if (dev->model->bus == BUS_IDE) {
        return ata_path(m, path, dev);
    }
    if (dev->model->bus != BUS_PCI) {
        return false;
    }
    struct pci_device *pci = (struct pci_device *)dev;
    unsigned class = le16_at(pci->config + PCI_CLASS) >> 8;
    pci_path(path, pci, class == 2 ? "ethernet" : "scsi");
    g_string_append(path, class == 2 ? "/ethernet-phy@0" : "/disk@0,0");
    return true;
}

struct boot_entry {
    uint32_t index;
    char *path;
};

static int by_bootindex(const void *a, const void *b)
{
    const struct boot_entry *x = a, *y = b;
    return x->index < y->index ? -1 : x->index > y->index;
}

static void clear_entry(void *entry)
{
    g_free(((struct boot_entry *)entry)->path);
}

static void add_entry(GArray *list, uint32_t index, GString *path)
{
    struct boot_entry entry = {index, g_strdup(path->str)};
    g_array_append_val(list, entry);
}

/* The drives of a floppy disk controller are no devices. */
static void add_device_entries(struct machine *m, GArray *list, struct device *dev)
{
    static const char *const floppies[] = {"bootindexA", "bootindexB"};
    g_autoptr(GString) path = g_string_new(NULL);
    uint32_t index;
    if (bootindex_of(dev, "bootindex", &index) && path_of(m, path, dev)) {
        add_entry(list, index, path);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(floppies); i++) {
        if (bootindex_of(dev, floppies[i], &index)) {
            g_string_printf(path, "/pci@i0cf8/isa@%x/fdc@03f0/floppy@%u", m->q35 ? 0x1f : 1, i);
            add_entry(list, index, path);
        }
    }
}

static bool add_boot_order(struct machine *m, struct device *fw, GError **error)
{
    g_autoptr(GArray) list = g_array_new(FALSE, FALSE, sizeof(struct boot_entry));
    g_autoptr(GString) text = g_string_new(NULL);
    g_array_set_clear_func(list, clear_entry);
    for (struct device *dev = m->board->devices; dev; dev = dev->next) {
        add_device_entries(m, list, dev);
    }
    g_array_sort(list, by_bootindex);
    if (m->firmware_kernel) {
        g_string_append(text, "/rom@genroms/linuxboot.bin\n");
    }
    for (unsigned i = 0; i < list->len; i++) {
        g_string_append_printf(text, "%s\n", g_array_index(list, struct boot_entry, i).path);
    }
    if (text->len && m->config.boot_strict) {
        g_string_append(text, "HALT");
    }
    return !text->len || fw_cfg_add_file(fw, "bootorder", text->str, text->len + 1, error);
}

/* ---- files ---- */

static bool add_le(struct device *fw, const char *name, uint64_t v, unsigned bytes, GError **error)
{
    uint8_t data[8];
    le64_put(data, v);
    return fw_cfg_add_file(fw, name, data, bytes, error);
}

static bool add_array(struct device *fw, const char *name, const GByteArray *b, GError **error)
{
    return !b || fw_cfg_add_file(fw, name, b->data, b->len, error);
}

static bool add_memory_map(struct machine *m, struct device *fw, GError **error)
{
    g_autoptr(GByteArray) map = g_byte_array_new();
    for (unsigned i = 0; i < m->n_e820; i++) {
        put_le(map, m->e820[i].at, 8);
        put_le(map, m->e820[i].bytes, 8);
        put_le(map, m->e820[i].type, 4);
    }
    return add_array(fw, "etc/e820", map, error) &&
           add_le(fw, "etc/reserved-memory-end", pc_memory_end(m), 8, error);
}

static bool add_tables(struct machine *m, struct device *fw, GError **error)
{
    if (m->acpi) {
        g_autoptr(GByteArray) script = acpi_loader_script(m->acpi);
        if (!add_array(fw, ACPI_TABLES_FILE, m->acpi->tables, error) ||
            !add_array(fw, ACPI_RSDP_FILE, m->acpi->rsdp, error) ||
            !add_array(fw, "etc/table-loader", script, error)) {
            return false;
        }
    }
    return add_array(fw, "etc/smbios/smbios-tables", m->smbios, error) &&
           add_array(fw, "etc/smbios/smbios-anchor", m->smbios_anchor, error);
}

/* S3 and S4: bit 7 says that the state exists, the rest is its SLP_TYP. */
static bool add_settings(struct machine *m, struct device *fw, GError **error)
{
    static const uint8_t states[6] = {128, 0, 0, 128 | 1, 128 | 2, 128};
    uint64_t wait = m->config.boot_splash_ms ? m->config.boot_splash_ms : 1;
    return fw_cfg_add_file(fw, "etc/system-states", states, sizeof(states), error) &&
           add_le(fw, "etc/max-cpus", m->config.maxcpus, 2, error) &&
           add_le(fw, "etc/boot-fail-wait", m->config.boot_fail_wait - 1, 4, error) &&
           (!(m->config.boot_menu && m->config.boot_splash_ms) ||
            add_le(fw, "etc/boot-menu-wait", wait, 2, error));
}

/* -fw_cfg [name=]NAME,file=PATH or ,string=TEXT */
static bool add_option(struct device *fw, const char *arg, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_parse(arg, "name", error);
    if (!kv) {
        return false;
    }
    const char *name = keyval_get(kv, "name"), *file = keyval_get(kv, "file");
    const char *string = keyval_get(kv, "string");
    g_autofree char *data = NULL;
    gsize n = string ? strlen(string) : 0;
    if (!keyval_done(kv, error)) {
        g_prefix_error(error, "-fw_cfg %s: ", arg);
        return false;
    }
    if (!name || !file == !string) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "-fw_cfg %s: must be name=NAME and either file=PATH or string=TEXT", arg);
        return false;
    }
    g_autoptr(GError) why = NULL;
    if (file && !g_file_get_contents(file, &data, &n, &why)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "-fw_cfg: %s", why->message);
        return false;
    }
    return fw_cfg_add_file(fw, name, file ? data : string, n, error);
}

/* The number of nodes, the node of each processor by the number of its APIC, bytes of the nodes. */
static void add_numa(struct machine *m, struct device *fw)
{
    const struct numa *numa = m->config.numa;
    unsigned nodes = numa ? numa->nodes : 0, last = m->apic_ids[m->config.maxcpus - 1];
    g_autofree uint64_t *out = g_new0(uint64_t, 1 + last + 1 + nodes);
    out[0] = nodes;
    for (unsigned i = 0; nodes && i < m->config.maxcpus; i++) {
        out[1 + m->apic_ids[i]] = numa->cpu_node[i];
    }
    for (unsigned n = 0; n < nodes; n++) {
        out[1 + last + 1 + n] = numa->bytes[n];
    }
    fw_cfg_add_bytes(fw, FW_CFG_NUMA, out, (1 + last + 1 + nodes) * sizeof(*out));
}

static void add_numbers(struct machine *m, struct device *fw)
{
    fw_cfg_add_u16(fw, FW_CFG_MAX_CPUS, (uint16_t)m->config.maxcpus);
    fw_cfg_add_u64(fw, FW_CFG_RAM_SIZE, m->config.ram_bytes);
    fw_cfg_add_u16(fw, FW_CFG_NOGRAPHIC, 0);
    fw_cfg_add_u16(fw, FW_CFG_BOOT_MENU, m->config.boot_menu);
    fw_cfg_add_u32(fw, FW_CFG_IRQ0_OVERRIDE, 1);
    add_numa(m, fw);
    fw_cfg_add_bytes(fw, FW_CFG_UUID, m->uuid, sizeof(m->uuid));
}

bool firmware_prepare(struct machine *m, GError **error)
{
    struct device *fw = board_part(m->board, "fw_cfg"), *rtc = board_part(m->board, "rtc");
    if (rtc) {
        fill_cmos(m, rtc);
    }
    firmware_boot_order(m);
    firmware_cpus(m);
    m->booted = false;
    if (!fw) {
        return true;
    }
    add_numbers(m, fw);
    for (unsigned i = 0; m->config.fw_cfg && i < m->config.fw_cfg->len; i++) {
        if (!add_option(fw, m->config.fw_cfg->pdata[i], error)) {
            return false;
        }
    }
    return add_memory_map(m, fw, error) && add_tables(m, fw, error) && add_settings(m, fw, error) &&
           add_boot_order(m, fw, error);
}
