/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"

/*
 * fw_cfg - items that the machine gives its firmware, by number or file name
 *
 * The part "fw_cfg" of the board.  Contents are made when the machine is built and are not
 * state: a machine that loads a state has made the same ones.
 */
enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_MACHINE_ID = 0x06,
    FW_CFG_KERNEL_ADDR = 0x07,
    FW_CFG_KERNEL_SIZE = 0x08,
    FW_CFG_KERNEL_CMDLINE = 0x09,
    FW_CFG_INITRD_ADDR = 0x0a,
    FW_CFG_INITRD_SIZE = 0x0b,
    FW_CFG_BOOT_DEVICE = 0x0c,
    FW_CFG_NUMA = 0x0d,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_KERNEL_ENTRY = 0x10,
    FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12,
    FW_CFG_CMDLINE_ADDR = 0x13,
    FW_CFG_CMDLINE_SIZE = 0x14,
    FW_CFG_CMDLINE_DATA = 0x15,
    FW_CFG_SETUP_ADDR = 0x16,
    FW_CFG_SETUP_SIZE = 0x17,
    FW_CFG_SETUP_DATA = 0x18,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20,
    FW_CFG_ACPI_TABLES = 0x8000,
    FW_CFG_SMBIOS_ENTRIES = 0x8001,
    FW_CFG_IRQ0_OVERRIDE = 0x8002,
    FW_CFG_E820_TABLE = 0x8003,
    FW_CFG_HPET = 0x8004,
};

/* Bytes are copied; an item that was there is replaced.  Numbers are little-endian. */
void fw_cfg_add_bytes(struct device *fw, uint16_t key, const void *data, size_t n);
void fw_cfg_add_u16(struct device *fw, uint16_t key, uint16_t v);
void fw_cfg_add_u32(struct device *fw, uint16_t key, uint32_t v);
void fw_cfg_add_u64(struct device *fw, uint16_t key, uint64_t v);
void fw_cfg_add_text(struct device *fw, uint16_t key, const char *text); /* with its NUL */

/* Without a copy: @data lives as long as the machine (a kernel that was mapped). */
void fw_cfg_add_view(struct device *fw, uint16_t key, const void *data, size_t n);

/*
 * A file of the directory: a name of up to 55 bytes.  EEXIST if there is one, ENOSPC if the
 * directory is full.
 */
bool fw_cfg_add_file(struct device *fw, const char *name, const void *data, size_t n,
                     GError **error);
/*
 * A file with hooks, either may be NULL.  .selected runs when the guest selects the file,
 * before it reads: it may change the bytes (fw_cfg_file_bytes()).  .written runs after each
 * write by DMA to a .writable file; what was written is state of the hooks' owner.
 */
struct fw_cfg_hooks {
    void (*selected)(void *owner);
    void (*written)(void *owner, size_t at, size_t n);
    void *owner;
    bool writable;
};
bool fw_cfg_add_live_file(struct device *fw, const char *name, const void *data, size_t n,
                          const struct fw_cfg_hooks *hooks, GError **error);
/* The bytes of a file, owned by the device, or NULL. */
uint8_t *fw_cfg_file_bytes(struct device *fw, const char *name, size_t *n);
/* Replaces the bytes of a file, keeping its key; false if there is no such file. */
bool fw_cfg_replace_file(struct device *fw, const char *name, const void *data, size_t n);
