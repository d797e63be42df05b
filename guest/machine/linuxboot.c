/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * linuxboot: -kernel through the firmware, for those who need what it sets up (a screen in
 * text mode, BIOS services, UEFI).
 *
 * OVMF reads the kernel from fw_cfg by itself.  For SeaBIOS there is an option ROM of a few
 * instructions that is offered as a device to boot from: it has the machine put the files
 * into memory and jumps to the kernel's real-mode part, or in protected mode to the entry of
 * one that has none (multiboot, PVH).
 *
 * Spec: Linux kernel documentation, "The Linux/x86 Boot Protocol", "Running the Kernel"; Plug
 * and Play BIOS Specification 1.0A, "Option ROM header", "Expansion Header for Plug and Play".
 */
#include "base/bytes.h"
#include "guest/device/fw_cfg.h"
#include "guest/machine/pc.h"

#include <string.h>

enum { ROM_BYTES = 512, PORT = 0x51c, SETUP_AT = 0x10000, TEXT_AT = 0x20000, HEAP_END = 0xe000 };
enum {
    LOADER = 0x210,
    LOADFLAGS = 0x211,
    CAN_USE_HEAP = 0x80,
    RAMDISK = 0x218,
    RAMDISK_SIZE = 0x21c,
    HEAP_END_PTR = 0x224,
    CMDLINE = 0x228
};

static const uint8_t rom_start[] = {
    0x55, 0xaa, ROM_BYTES / 512, 0xeb, 0x4b, /* signature, length, jmp 0x50 */
};
static const uint8_t rom_pnp[] = {
    /* 0x20: "$PnP", revision, length / 16; no next header, no device id, no maker; product */
    '$',
    'P',
    'n',
    'P',
    1,
    2,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0x40,
    0,
    /* other device, bootable; no BCV, no DV, BEV, reserved, no resources */
    0,
    0,
    0,
    0x64,
    0,
    0,
    0,
    0,
    0x60,
    0,
    0,
    0,
    0,
    0,
    /* 0x40 */
    'L',
    'i',
    'n',
    'u',
    'x',
    ' ',
    'l',
    'o',
    'a',
    'd',
    'e',
    'r',
    0,
};
static const uint8_t rom_init[] = {
    0xb8, 0x20, 0x00, /* mov $0x20, %ax: there is something to boot from */
    0xcb,             /* lret */
};
static const uint8_t rom_boot[] = {
    0xfa, /* cli */
    0xba,
    PORT & 0xff,
    PORT >> 8, /* mov $PORT, %dx */
    0xb0,
    0x01, /* mov $1, %al */
    0xee, /* out %al, %dx: now the files are in memory */
    0xb8,
    0x00,
    SETUP_AT >> 12, /* mov $SETUP_AT >> 4, %ax */
    0x8e,
    0xd8,
    0x8e,
    0xc0, /* mov %ax, %ds; mov %ax, %es */
    0x8e,
    0xe0,
    0x8e,
    0xe8,
    0x8e,
    0xd0, /* mov %ax, %fs; mov %ax, %gs; mov %ax, %ss */
    0x66,
    0xbc,
    0x00,
    HEAP_END >> 8,
    0,
    0, /* mov $HEAP_END, %esp */
    0xea,
    0x00,
    0x00,
    0x20,
    SETUP_AT >> 12, /* ljmp to 512 bytes behind SETUP_AT */
};

/* For kernels that begin in protected mode: load.c has prepared the rest in low memory. */
static const uint8_t rom_boot_flat[] = {
    0xfa,                               /* cli */
    0xba, PORT & 0xff, PORT >> 8,       /* mov $PORT, %dx */
    0xb0, 0x01, 0xee,                   /* mov $1, %al; out %al, %dx */
    0x31, 0xc0, 0x8e, 0xd8,             /* xor %ax, %ax; mov %ax, %ds */
    0x0f, 0x01, 0x16, 0x30, 0x05,       /* lgdt 0x530 */
    0x0f, 0x20, 0xc0, 0x0c, 0x01,       /* mov %cr0, %eax; or $1, %al */
    0x0f, 0x22, 0xc0,                   /* mov %eax, %cr0 */
    0x66, 0xea, 0x40, 0x05, 0, 0, 0x10, 0, /* ljmpl $0x10, $0x540 */
};

static void make_rom(uint8_t rom[ROM_BYTES], bool flat)
{
    uint8_t sum = 0;
    memset(rom, 0, ROM_BYTES);
    memcpy(rom, rom_start, sizeof(rom_start));
    rom[0x1a] = 0x20;
    memcpy(rom + 0x20, rom_pnp, sizeof(rom_pnp));
    memcpy(rom + 0x50, rom_init, sizeof(rom_init));
    if (flat) {
        memcpy(rom + 0x60, rom_boot_flat, sizeof(rom_boot_flat));
    } else {
        memcpy(rom + 0x60, rom_boot, sizeof(rom_boot));
    }
    for (unsigned i = 0; i < ROM_BYTES; i++) {
        sum = (uint8_t)(sum + rom[i]);
    }
    rom[ROM_BYTES - 1] = (uint8_t)-sum;
}

static void put(struct machine *m, uint64_t at, const void *data, uint64_t n)
{
    space_write(m->board->memory, at, data, n);
}

/* The setup code looks at its own header: it says where the rest is. */
static void place_files(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct machine *m = owner;
    const struct direct_boot *d = m->firmware_kernel;
    uint8_t head[0x300];
    (void)at, (void)value, (void)bytes;
    if (d->kind != BOOT_LINUX) {
        direct_boot_behind_firmware(m);
        return;
    }
    memcpy(head, d->data, sizeof(head));
    head[LOADER] = 0xff;
    head[LOADFLAGS] |= CAN_USE_HEAP;
    le16_put(head + HEAP_END_PTR, HEAP_END - 0x200);
    le32_put(head + CMDLINE, TEXT_AT);
    le32_put(head + RAMDISK, (uint32_t)d->initrd_at);
    le32_put(head + RAMDISK_SIZE, (uint32_t)d->initrd_bytes);
    put(m, SETUP_AT, d->data, d->setup_bytes);
    put(m, SETUP_AT, head, MIN(sizeof(head), d->setup_bytes));
    put(m, TEXT_AT, d->text, strlen(d->text) + 1);
    put(m, d->load_at, d->data + d->setup_bytes, d->load_bytes);
    if (d->initrd) {
        put(m, d->initrd_at, g_bytes_get_data(d->initrd, NULL), d->initrd_bytes);
    }
}

static const struct region_ops port_ops = {.write = place_files, .max_bytes = 1};

static void add_items(struct machine *m, struct device *fw)
{
    const struct direct_boot *d = m->firmware_kernel;
    size_t text = strlen(d->text) + 1;
    fw_cfg_add_u32(fw, FW_CFG_SETUP_ADDR, SETUP_AT);
    fw_cfg_add_u32(fw, FW_CFG_SETUP_SIZE, (uint32_t)d->setup_bytes);
    fw_cfg_add_view(fw, FW_CFG_SETUP_DATA, d->data, d->setup_bytes);
    fw_cfg_add_u32(fw, FW_CFG_KERNEL_ADDR, (uint32_t)d->load_at);
    fw_cfg_add_u32(fw, FW_CFG_KERNEL_SIZE, (uint32_t)d->load_bytes);
    fw_cfg_add_view(fw, FW_CFG_KERNEL_DATA, d->data + d->setup_bytes, d->load_bytes);
    fw_cfg_add_u32(fw, FW_CFG_CMDLINE_ADDR, TEXT_AT);
    fw_cfg_add_u32(fw, FW_CFG_CMDLINE_SIZE, (uint32_t)text);
    fw_cfg_add_view(fw, FW_CFG_CMDLINE_DATA, d->text, text);
    if (d->initrd) {
        fw_cfg_add_u32(fw, FW_CFG_INITRD_ADDR, (uint32_t)d->initrd_at);
        fw_cfg_add_u32(fw, FW_CFG_INITRD_SIZE, (uint32_t)d->initrd_bytes);
        fw_cfg_add_view(fw, FW_CFG_INITRD_DATA, g_bytes_get_data(d->initrd, NULL), d->initrd_bytes);
    }
}

bool linuxboot_add(struct machine *m, GError **error)
{
    struct device *fw = board_part(m->board, "fw_cfg");
    struct boot_request r = {.kernel = m->config.kernel,
                             .initrd = m->config.initrd,
                             .append = m->config.append,
                             .ram_top = m->below_4g - MIN(m->below_4g / 2, FIRMWARE_BYTES)};
    uint8_t rom[ROM_BYTES];
    m->firmware_kernel = direct_boot_parse(&r, error);
    if (!m->firmware_kernel) {
        return false;
    }
    bool flat = m->firmware_kernel->kind != BOOT_LINUX;
    if (flat && m->config.pflash[0]) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "kernel %s: UEFI starts only Linux: leave -pflash out", m->config.kernel);
        return false;
    }
    if (!flat) {
        add_items(m, fw);
    }
    make_rom(rom, flat);
    m->kernel_port = (struct region){.name = "linuxboot", .size = 1, .ops = &port_ops, .owner = m};
    space_place(m->board->ports, &m->kernel_port, PORT, 0);
    return fw_cfg_add_file(fw, "genroms/linuxboot.bin", rom, sizeof(rom), error);
}
