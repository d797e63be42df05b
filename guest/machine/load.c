/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * load: starts a kernel without firmware: Linux (bzImage), PVH (ELF with a note) and
 * multiboot 1.  All three are entered in flat 32-bit protected mode without paging, but a kernel
 * that vmlinux.c has unpacked in 64-bit mode.
 *
 * Spec: Linux kernel documentation, "The Linux/x86 Boot Protocol", "32-bit Boot Protocol",
 * "64-bit Boot Protocol";
 * Xen, "x86/HVM direct boot ABI"; Multiboot Specification version 0.6.96, "OS image format",
 * "Boot information format"; Tool Interface Standard, Executable and Linking Format 1.2.
 *
 * Files are checked when the machine is made; what is kept is known to fit.
 */
#include "guest/machine/load.h"

#include "base/bytes.h"
#include "base/util.h"
#include "guest/machine/pc.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* What lies where below 640 KiB; all of it is free for the kernel once it runs. */
enum {
    GDT_AT = 0x500,
    INFO_AT = 0x1000,
    MAP_AT = 0x2000,
    MODULES_AT = 0x3000,
    PARAMS_AT = 0x10000,
    TEXT_AT = 0x20000,
    TEXT_MAX = 0x10000,
    PAGE_TABLES_AT = 0x30000,
    RSDP_AT = 0xf0000,
    SMBIOS_AT = 0xf0040
};
enum { GDT_POINTER_AT = 0x530, STUB_AT = 0x540, EBDA_AT = 0x9fc00 };
enum { FLAT_CODE = 0x10, FLAT_DATA = 0x18, ONE_MB = 0x100000 };

/* ---- files ---- */

static GBytes *read_file(const char *what, const char *path, GError **error)
{
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        error_set_errno(error, errno, "%s %s", what, path);
        return NULL;
    }
    GMappedFile *map = S_ISREG(st.st_mode) ? g_mapped_file_new_from_fd(fd, FALSE, NULL) : NULL;
    if (!map) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s %s: not a file that can be mapped", what, path);
        return NULL;
    }
    GBytes *bytes = g_mapped_file_get_bytes(map);
    g_mapped_file_unref(map);
    return bytes;
}

static bool bad(const struct direct_boot *d, GError **error, const char *why)
{
    g_set_error(error, LODGE_ERROR, EINVAL, "kernel %s: %s", d->path, why);
    return false;
}

/* ---- Linux ---- */

enum {
    SETUP_SECTS = 0x1f1,
    SYSSIZE = 0x1f4,
    BOOT_FLAG = 0x1fe,
    MAGIC = 0x202,
    VERSION = 0x206,
    LOADER = 0x210,
    LOADFLAGS = 0x211,
    CODE32 = 0x214,
    RAMDISK = 0x218,
    RAMDISK_SIZE = 0x21c,
    CMDLINE = 0x228,
    INITRD_MAX = 0x22c,
    CMDLINE_SIZE = 0x238,
    PREF_ADDRESS = 0x258,
    INIT_SIZE = 0x260,
    HEADER_END = 0x201
};
enum { PARAM_RSDP = 0x70, PARAM_E820_COUNT = 0x1e8, PARAM_E820 = 0x2d0, PARAM_BYTES = 4096 };
enum { LOADED_HIGH = 1, ADDRESSES_BY_CHANCE = 2 };

static bool linux_parse(struct direct_boot *d, GError **error)
{
    const uint8_t *h = d->data;
    unsigned version = le16_at(h + VERSION), setup = (h[SETUP_SECTS] ? h[SETUP_SECTS] : 4) + 1u;
    uint64_t code = (uint64_t)le32_at(h + SYSSIZE) * 16;
    d->setup_bytes = setup * 512u;
    if (version < 0x202 || !(h[LOADFLAGS] & LOADED_HIGH)) {
        return bad(d, error, "boot protocol before 2.02 or loaded low: use -M kernel-firmware=on");
    }
    if (d->setup_bytes >= d->size || d->size - d->setup_bytes < code - MIN(code, 15)) {
        return bad(d, error, "the file is truncated");
    }
    d->load_at = ONE_MB;
    d->load_bytes = d->size - d->setup_bytes;
    d->entry = ONE_MB;
    d->memory_end = d->load_at + d->load_bytes;
    if (version >= 0x20a) {
        uint64_t at = MAX(le64_at(h + PREF_ADDRESS), ONE_MB);
        uint64_t need = at + le32_at(h + INIT_SIZE);
        d->memory_end = MAX(d->memory_end, need);
    }
    d->initrd_max = version >= 0x203 ? le32_at(h + INITRD_MAX) : 0x37ffffff;
    d->text_max = version >= 0x206 ? MIN(le32_at(h + CMDLINE_SIZE), TEXT_MAX - 1) : 255;
    return true;
}

/* Returns how many entries it wrote. */
static unsigned put_e820(const struct machine *m, uint8_t *at, unsigned entry_bytes, unsigned skip)
{
    /* What firmware leaves to a kernel; its tables lie at the end of low memory. */
    uint64_t top = m->below_4g - MIN(m->below_4g / 2, FIRMWARE_BYTES);
    const struct memory_range behind_firmware[] = {
        {0, EBDA_AT, E820_RAM},
        {EBDA_AT, 0xa0000 - EBDA_AT, E820_RESERVED},
        {RSDP_AT, ONE_MB - RSDP_AT, E820_RESERVED},
        {ONE_MB, top - ONE_MB, E820_RAM},
        {top, m->below_4g - top, E820_RESERVED},
        {UINT64_C(1) << 32, m->above_4g, E820_RAM},
    };
    const struct memory_range *map = m->direct ? m->e820 : behind_firmware;
    unsigned n = m->direct ? m->n_e820 : 5 + (m->above_4g != 0);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *p = at + i * entry_bytes;
        if (skip) {
            le32_put(p, entry_bytes - skip);
        }
        le64_put(p + skip, map[i].at);
        le64_put(p + skip + 8, map[i].bytes);
        le32_put(p + skip + 16, map[i].type);
    }
    return n;
}

static void linux_params(struct machine *m, struct direct_boot *d, uint8_t *ram)
{
    uint8_t *p = ram + PARAMS_AT;
    memset(p, 0, PARAM_BYTES);
    memcpy(p + SETUP_SECTS, d->data + SETUP_SECTS, MAGIC + d->data[HEADER_END] - SETUP_SECTS);
    p[LOADER] = 0xff; /* a loader without a number of its own */
    if (d->vmlinux.end && d->vmlinux.random) {
        p[LOADFLAGS] |= ADDRESSES_BY_CHANCE;
    }
    le32_put(p + CODE32, ONE_MB);
    le32_put(p + CMDLINE, TEXT_AT);
    le32_put(p + RAMDISK, (uint32_t)d->initrd_at);
    le32_put(p + RAMDISK_SIZE, (uint32_t)d->initrd_bytes);
    le64_put(p + PARAM_RSDP, m->acpi ? RSDP_AT : 0);
    p[PARAM_E820_COUNT] = (uint8_t)put_e820(m, p + PARAM_E820, 20, 0);
    if (d->text_mode) { /* orig_video_*: colour text of 80 columns and 25 lines is set */
        p[0x06] = 3;
        p[0x07] = 80;
        p[0x0e] = 25;
        p[0x0f] = 1;
        le16_put(p + 0x10, 16);
    }
}

/* ---- ELF ---- */

enum { ELF_CLASS = 4, ELF_32 = 1, ELF_64 = 2, PT_LOAD = 1, PT_NOTE = 4, NOTE_PHYS32 = 18 };

struct segment_of {
    uint32_t type;
    uint64_t offset, paddr, filesz, memsz;
};

static bool elf_segment(const struct direct_boot *d, unsigned n, struct segment_of *s)
{
    const uint8_t *h = d->data;
    bool wide = h[ELF_CLASS] == ELF_64;
    uint64_t table = wide ? le64_at(h + 32) : le32_at(h + 28);
    unsigned size = le16_at(h + (wide ? 54 : 42)), least = wide ? 56 : 32;
    if (size < least || table > d->size || (uint64_t)(n + 1) * size > d->size - table) {
        return false;
    }
    const uint8_t *p = h + table + (uint64_t)n * size;
    s->type = le32_at(p);
    s->offset = wide ? le64_at(p + 8) : le32_at(p + 4);
    s->paddr = wide ? le64_at(p + 24) : le32_at(p + 12);
    s->filesz = wide ? le64_at(p + 32) : le32_at(p + 16);
    s->memsz = wide ? le64_at(p + 40) : le32_at(p + 20);
    bool ok = s->offset <= d->size && s->filesz <= d->size - s->offset && s->memsz >= s->filesz;
    uint64_t under = ONE_MB - MIN(s->paddr, ONE_MB);
    if (ok && s->type == PT_LOAD && s->offset == 0 && under <= PAGE_SIZE) {
        s->paddr += under; /* the file's header, which linkers put in front of the text */
        s->offset = MIN(under, d->size);
        s->filesz -= MIN(under, s->filesz);
        s->memsz -= MIN(under, s->memsz);
    }
    return ok;
}

static unsigned elf_segments(const struct direct_boot *d)
{
    return le16_at(d->data + (d->data[ELF_CLASS] == ELF_64 ? 56 : 44));
}

/* The entry point in a note of Xen's, or 0. */
static uint32_t pvh_note(const uint8_t *p, uint64_t n)
{
    while (n >= 12) {
        uint64_t name = (le32_at(p) + UINT64_C(3)) & ~UINT64_C(3);
        uint64_t desc = (le32_at(p + 4) + UINT64_C(3)) & ~UINT64_C(3);
        if (name + desc > n - 12) {
            return 0;
        }
        if (le32_at(p + 8) == NOTE_PHYS32 && le32_at(p) == 4 && desc >= 4 &&
            memcmp(p + 12, "Xen", 4) == 0) {
            return le32_at(p + 12 + name);
        }
        p += 12 + name + desc;
        n -= 12 + name + desc;
    }
    return 0;
}

/* Checks all segments; .memory_end is where the highest ends. */
static bool elf_check(struct direct_boot *d, GError **error)
{
    if (d->size < 64 || (d->data[ELF_CLASS] != ELF_32 && d->data[ELF_CLASS] != ELF_64)) {
        return bad(d, error, "the ELF header is truncated or of no known class");
    }
    for (unsigned i = 0; i < elf_segments(d); i++) {
        struct segment_of s;
        if (!elf_segment(d, i, &s)) {
            return bad(d, error, "an ELF segment lies outside the file: it is truncated");
        }
        if (s.type == PT_NOTE && !d->pvh_entry) {
            d->pvh_entry = pvh_note(d->data + s.offset, s.filesz);
        }
        if (s.type != PT_LOAD || !s.memsz) {
            continue;
        }
        if (s.paddr < ONE_MB || s.paddr + s.memsz < s.paddr || s.paddr + s.memsz > UINT32_MAX) {
            return bad(d, error, "an ELF segment is not to be loaded between 1 MiB and 4 GiB");
        }
        d->memory_end = MAX(d->memory_end, s.paddr + s.memsz);
    }
    return d->memory_end || bad(d, error, "the ELF file has nothing to load");
}

static void elf_place(const struct direct_boot *d, uint8_t *ram)
{
    for (unsigned i = 0; i < elf_segments(d); i++) {
        struct segment_of s;
        if (elf_segment(d, i, &s) && s.type == PT_LOAD) {
            memcpy(ram + s.paddr, d->data + s.offset, s.filesz);
            memset(ram + s.paddr + s.filesz, 0, s.memsz - s.filesz);
        }
    }
}

static bool pvh_parse(struct direct_boot *d, GError **error)
{
    if (!elf_check(d, error)) {
        return false;
    }
    if (!d->pvh_entry) {
        return bad(d, error, "an ELF file without a PVH entry note or a multiboot header");
    }
    d->entry = d->pvh_entry;
    d->initrd_max = UINT32_MAX;
    d->text_max = TEXT_MAX - 1;
    return true;
}

static void pvh_info(struct machine *m, struct direct_boot *d, uint8_t *ram)
{
    uint8_t *p = ram + INFO_AT, *module = ram + MODULES_AT;
    memset(p, 0, 64);
    le32_put(p, 0x336ec578);
    le32_put(p + 4, 1);
    le32_put(p + 12, d->initrd_bytes ? 1 : 0);
    le64_put(p + 16, MODULES_AT);
    le64_put(p + 24, TEXT_AT);
    le64_put(p + 32, m->acpi && m->direct ? RSDP_AT : 0);
    le64_put(p + 40, MAP_AT);
    memset(module, 0, 32);
    le64_put(module, d->initrd_at);
    le64_put(module + 8, d->initrd_bytes);
    memset(ram + MAP_AT, 0, E820_MAX * 24);
    le32_put(p + 48, put_e820(m, ram + MAP_AT, 24, 0));
}

/* ---- multiboot ---- */

enum {
    MB_MAGIC = 0x1badb002,
    MB_LOADED = 0x2badb002,
    MB_SEARCH = 8192,
    MB_VIDEO = 1 << 2,
    MB_ADDRESSES = 1 << 16,
    MB_KNOWN = 0x10007
};
enum {
    MBI_MEMORY = 1 << 0,
    MBI_TEXT = 1 << 2,
    MBI_MODULES = 1 << 3,
    MBI_MAP = 1 << 6,
    MBI_LOADER = 1 << 9
};

static const uint8_t *multiboot_header(const struct direct_boot *d)
{
    uint64_t end = MIN(d->size, MB_SEARCH);
    for (uint64_t at = 0; at + 12 <= end; at += 4) {
        const uint8_t *p = d->data + at;
        if (le32_at(p) == MB_MAGIC && le32_at(p) + le32_at(p + 4) + le32_at(p + 8) == 0) {
            return p;
        }
    }
    return NULL;
}

/* The header itself says where what is to be loaded. */
static bool multiboot_addresses(struct direct_boot *d, const uint8_t *h, GError **error)
{
    uint64_t at = (uint64_t)(h - d->data);
    if (at + 32 > d->size) {
        return bad(d, error, "the multiboot header is truncated");
    }
    uint64_t header = le32_at(h + 12), load = le32_at(h + 16), load_end = le32_at(h + 20);
    uint64_t bss_end = le32_at(h + 24), from = at - (header - load);
    if (load > header || header - load > at || load < ONE_MB) {
        return bad(d, error, "the addresses in the multiboot header contradict each other");
    }
    d->load_from = from;
    d->load_at = load;
    d->load_bytes = load_end ? load_end - load : d->size - from;
    if ((load_end && load_end < load) || d->load_bytes > d->size - from) {
        return bad(d, error, "the file is truncated");
    }
    d->memory_end = MAX(d->load_at + d->load_bytes, bss_end);
    d->entry = le32_at(h + 28);
    return true;
}

static bool multiboot_parse(struct direct_boot *d, GError **error)
{
    const uint8_t *h = multiboot_header(d);
    uint32_t flags = le32_at(h + 4);
    if ((flags & 0xffff & ~MB_KNOWN) || (flags & MB_VIDEO)) {
        return bad(d, error, "its multiboot header wants what this loader does not give");
    }
    d->initrd_max = UINT32_MAX;
    d->text_max = TEXT_MAX / 2;
    if (flags & MB_ADDRESSES) {
        return multiboot_addresses(d, h, error);
    }
    if (memcmp(d->data, "\177ELF", 4) != 0) {
        return bad(d, error, "its multiboot header gives no addresses and it is no ELF file");
    }
    if (!elf_check(d, error)) {
        return false;
    }
    if (d->data[ELF_CLASS] != ELF_32) {
        return bad(d, error, "a 64-bit ELF file cannot be started by multiboot: give a 32-bit one");
    }
    d->elf = true;
    d->entry = le32_at(d->data + 24);
    return true;
}

static void multiboot_info(struct machine *m, struct direct_boot *d, uint8_t *ram)
{
    uint8_t *p = ram + INFO_AT;
    uint32_t text_end = TEXT_AT + (uint32_t)strlen((char *)ram + TEXT_AT) + 1;
    memset(p, 0, 120);
    le32_put(p, MBI_MEMORY | MBI_TEXT | MBI_MODULES | MBI_MAP | MBI_LOADER);
    le32_put(p + 4, 639);
    le32_put(p + 8, (uint32_t)((m->below_4g - ONE_MB) >> 10));
    le32_put(p + 16, TEXT_AT);
    le32_put(p + 20, d->n_modules);
    le32_put(p + 24, MODULES_AT);
    le32_put(p + 48, MAP_AT);
    memset(ram + MAP_AT, 0, E820_MAX * 24);
    le32_put(p + 44, put_e820(m, ram + MAP_AT, 24, 4) * 24);
    for (unsigned i = 0; i < d->n_modules; i++) {
        const struct boot_module *mod = &d->module[i];
        uint8_t *e = ram + MODULES_AT + 16 * i;
        size_t n = strlen(mod->text) + 1;
        le32_put(e, (uint32_t)mod->at);
        le32_put(e + 4, (uint32_t)(mod->at + g_bytes_get_size(mod->bytes)));
        le32_put(e + 8, text_end);
        le32_put(e + 12, 0);
        memcpy(ram + text_end, mod->text, n);
        text_end += (uint32_t)n;
    }
    memcpy(ram + text_end, "lodge-vm", 9);
    le32_put(p + 64, text_end);
}

/* ---- choosing ---- */

static bool is_linux(const struct direct_boot *d)
{
    return d->size > HEADER_END + 0x100 && le16_at(d->data + BOOT_FLAG) == 0xaa55 &&
           memcmp(d->data + MAGIC, "HdrS", 4) == 0;
}

static bool recognize(struct direct_boot *d, GError **error)
{
    if (is_linux(d)) {
        d->kind = BOOT_LINUX;
        return linux_parse(d, error);
    }
    if (multiboot_header(d)) {
        d->kind = BOOT_MULTIBOOT;
        return multiboot_parse(d, error);
    }
    if (d->size >= 4 && memcmp(d->data, "\177ELF", 4) == 0) {
        d->kind = BOOT_PVH;
        d->elf = true;
        return pvh_parse(d, error);
    }
    return bad(d, error, "neither Linux (bzImage), multiboot nor ELF with a PVH entry: truncated?");
}

static bool fits(const struct direct_boot *d, uint64_t top, GError **error)
{
    if (d->memory_end > top || d->memory_end < d->load_at) {
        g_set_error(error, LODGE_ERROR, ENOMEM,
                    "kernel %s: needs RAM up to byte %" PRIu64 ", the machine has it to %" PRIu64,
                    d->path, d->memory_end, top);
        return false;
    }
    return true;
}

/* As high as the kernel can reach, because low memory is dear to it. */
static bool place_initrd(struct direct_boot *d, const char *path, uint64_t top, GError **error)
{
    d->initrd = read_file("initrd", path, error);
    if (!d->initrd) {
        return false;
    }
    d->initrd_bytes = g_bytes_get_size(d->initrd);
    uint64_t limit = MIN(top, (uint64_t)d->initrd_max + 1);
    if (d->initrd_bytes > limit || ((limit - d->initrd_bytes) & PAGE_MASK) < d->memory_end) {
        g_set_error(error, LODGE_ERROR, ENOMEM,
                    "initrd %s: %" PRIu64 " bytes do not fit beside the kernel into %" PRIu64
                    " MiB of RAM",
                    path, d->initrd_bytes, top >> 20);
        return false;
    }
    d->initrd_at = (limit - d->initrd_bytes) & PAGE_MASK;
    return true;
}

/* -initrd "file arguments,file arguments": page-aligned behind the kernel. */
static bool place_modules(struct direct_boot *d, const char *list, uint64_t top, GError **error)
{
    g_auto(GStrv) items = g_strsplit(list, ",", -1);
    uint64_t at = (d->memory_end + PAGE_SIZE - 1) & PAGE_MASK;
    for (unsigned i = 0; items[i]; i++) {
        if (i == BOOT_MODULES) {
            g_set_error(error, LODGE_ERROR, E2BIG, "more than %u multiboot modules", BOOT_MODULES);
            return false;
        }
        struct boot_module *mod = &d->module[i];
        g_auto(GStrv) words = g_strsplit(items[i], " ", 2);
        mod->text = g_strdup(items[i]);
        mod->bytes = read_file("module", words[0], error);
        if (!mod->bytes) {
            return false;
        }
        mod->at = at;
        d->n_modules = i + 1;
        if (g_bytes_get_size(mod->bytes) > top - MIN(at, top)) {
            g_set_error(error, LODGE_ERROR, ENOMEM, "module %s: does not fit into RAM", words[0]);
            return false;
        }
        at = (at + g_bytes_get_size(mod->bytes) + PAGE_SIZE - 1) & PAGE_MASK;
    }
    return true;
}

static size_t text_bytes(const struct direct_boot *d)
{
    size_t n = strlen(d->text);
    for (unsigned i = 0; i < d->n_modules; i++) {
        n += strlen(d->module[i].text) + 1;
    }
    return n;
}

static bool parse(struct direct_boot *d, const struct boot_request *r, GError **error)
{
    d->file = read_file("kernel", r->kernel, error);
    if (!d->file) {
        return false;
    }
    d->data = g_bytes_get_data(d->file, &d->size);
    d->memory_top = r->ram_top;
    const char *append = r->append ? r->append : "";
    if (!recognize(d, error) || !fits(d, r->ram_top, error)) {
        return false;
    }
    d->text =
        d->kind == BOOT_MULTIBOOT ? g_strjoin(" ", r->kernel, append, NULL) : g_strdup(append);
    if (r->initrd && !(d->kind == BOOT_MULTIBOOT ? place_modules(d, r->initrd, r->ram_top, error)
                                                 : place_initrd(d, r->initrd, r->ram_top, error))) {
        return false;
    }
    if (text_bytes(d) > d->text_max) {
        g_set_error(error, LODGE_ERROR, E2BIG, "-append: %zu bytes, kernel %s takes at most %u",
                    text_bytes(d), d->path, d->text_max);
        return false;
    }
    return true;
}

struct direct_boot *direct_boot_parse(const struct boot_request *r, GError **error)
{
    struct direct_boot *d = g_new0(struct direct_boot, 1);
    d->path = g_strdup(r->kernel);
    if (!parse(d, r, error)) {
        direct_boot_free(d);
        return NULL;
    }
    return d;
}

bool direct_boot_wants_bios(const char *kernel)
{
    struct direct_boot d = {.path = (char *)kernel};
    d.file = read_file("kernel", kernel, NULL);
    d.data = d.file ? g_bytes_get_data(d.file, &d.size) : NULL;
    bool yes = d.data && !is_linux(&d) && multiboot_header(&d);
    g_clear_pointer(&d.file, g_bytes_unref);
    return yes;
}

void direct_boot_free(struct direct_boot *d)
{
    if (!d) {
        return;
    }
    for (unsigned i = 0; i < BOOT_MODULES; i++) {
        g_free(d->module[i].text);
        g_clear_pointer(&d->module[i].bytes, g_bytes_unref);
    }
    g_clear_pointer(&d->file, g_bytes_unref);
    g_clear_pointer(&d->initrd, g_bytes_unref);
    g_free(d->text);
    g_free(d->path);
    g_free(d);
}

/* ---- starting ---- */

static void copy(uint8_t *ram, uint64_t at, GBytes *bytes)
{
    gsize n;
    const void *data = g_bytes_get_data(bytes, &n);
    memcpy(ram + at, data, n);
}

/* The pages of a mapped file are not needed before the next reset, which reads them again. */
static void forget(GBytes *bytes)
{
    gsize n = 0;
    const void *data = bytes ? g_bytes_get_data(bytes, &n) : NULL;
    if (n) {
        madvise((void *)((uintptr_t)data & PAGE_MASK), n + ((uintptr_t)data & ~PAGE_MASK),
                MADV_DONTNEED);
    }
}

/* One table of pointers reaches 512 GiB. */
#define ABOVE_4G_MAX (UINT64_C(508) << 30)

/* The kernel's own decompressor takes a third of a second to do the same. */
static bool place_unpacked(const struct machine *m, struct direct_boot *d)
{
    struct ram_range ram[] = {
        {ONE_MB, d->memory_top - ONE_MB, m->ram->host + ONE_MB},
        {UINT64_C(1) << 32, MIN(m->above_4g, ABOVE_4G_MAX), m->ram->host + m->below_4g},
    };
    d->vmlinux = (struct vmlinux){0};
    return d->kind == BOOT_LINUX && m->cpu_model->offers[FEAT_LM] &&
           vmlinux_place(d, ram, G_N_ELEMENTS(ram), &d->vmlinux);
}

static void place_files(const struct machine *m, struct direct_boot *d)
{
    uint8_t *ram = m->ram->host;
    if (d->elf) {
        elf_place(d, ram);
    } else if (!place_unpacked(m, d)) {
        uint64_t from = d->kind == BOOT_LINUX ? d->setup_bytes : d->load_from;
        memcpy(ram + d->load_at, d->data + from, d->load_bytes);
        if (d->kind == BOOT_MULTIBOOT) {
            uint64_t end = d->load_at + d->load_bytes;
            memset(ram + end, 0, d->memory_end - end);
        }
    }
    if (d->initrd) {
        copy(ram, d->initrd_at, d->initrd);
    }
    for (unsigned i = 0; i < d->n_modules; i++) {
        copy(ram, d->module[i].at, d->module[i].bytes);
        forget(d->module[i].bytes);
    }
    forget(d->initrd);
    forget(d->file);
}

static void place_tables(struct machine *m, uint8_t *ram)
{
    if (m->acpi) {
        memcpy(ram + m->tables_at, m->acpi->tables->data, m->acpi->tables->len);
        memcpy(ram + RSDP_AT, m->acpi->rsdp->data, m->acpi->rsdp->len);
    }
    if (m->smbios) {
        memcpy(ram + m->smbios_at, m->smbios->data, m->smbios->len);
        memcpy(ram + SMBIOS_AT, m->smbios_anchor->data, m->smbios_anchor->len);
    }
}

static void put_gdt(uint8_t *ram)
{
    le64_put(ram + GDT_AT, 0);
    le64_put(ram + GDT_AT + 8, 0);
    le64_put(ram + GDT_AT + FLAT_CODE, UINT64_C(0x00cf9b000000ffff));
    le64_put(ram + GDT_AT + FLAT_DATA, UINT64_C(0x00cf93000000ffff));
    le16_put(ram + GDT_POINTER_AT, 0x1f);
    le32_put(ram + GDT_POINTER_AT + 2, GDT_AT);
}

/* What little of the BIOS's data kernels look at that know no better place. */
static void put_bios_data(uint8_t *ram)
{
    le16_put(ram + 0x400, 0x3f8);
    le16_put(ram + 0x40e, EBDA_AT >> 4);
    le16_put(ram + 0x413, EBDA_AT >> 10);
    le16_put(ram + 0x44a, 80);
    le16_put(ram + 0x463, 0x3d4);
    ram[0x449] = 3;
    ram[0x484] = 24;
    ram[EBDA_AT] = 1; /* KiB */
}

/* Tables that show memory at its own addresses: the first GiB and where the kernel is. */
static void put_page_tables(const struct vmlinux *v, uint8_t *ram)
{
    enum { PML5, PML4, POINTERS, DIRECTORY, PRESENT = 3, LARGE = 0x80, ENTRIES = 512 };
    const uint64_t gib[] = {0, v->at >> 30, (v->end - 1) >> 30};
    uint8_t *tables = ram + PAGE_TABLES_AT;
    memset(tables, 0, (DIRECTORY + G_N_ELEMENTS(gib)) * PAGE_SIZE);
    le64_put(tables + PML5 * PAGE_SIZE, (PAGE_TABLES_AT + PML4 * PAGE_SIZE) | PRESENT);
    le64_put(tables + PML4 * PAGE_SIZE, (PAGE_TABLES_AT + POINTERS * PAGE_SIZE) | PRESENT);
    for (unsigned i = 0; i < G_N_ELEMENTS(gib); i++) {
        uint64_t directory = (DIRECTORY + i) * PAGE_SIZE;
        le64_put(tables + POINTERS * PAGE_SIZE + 8 * gib[i],
                 (PAGE_TABLES_AT + directory) | PRESENT);
        for (unsigned j = 0; j < ENTRIES; j++) {
            le64_put(tables + directory + UINT64_C(8) * j,
                     gib[i] << 30 | j << 21 | LARGE | PRESENT);
        }
    }
}

/* From 32-bit protected mode, as set_cpu() leaves it. */
static void go_64_bit(const struct machine *m, const struct direct_boot *d, struct regs *r)
{
    bool five = m->cpu_model->offers[FEAT_LA57] && vmlinux_wants_five_levels(d);
    put_page_tables(&d->vmlinux, m->ram->host);
    le64_put(m->ram->host + GDT_AT + FLAT_CODE, UINT64_C(0x00af9b000000ffff));
    r->seg[SEG_CS].attr = 0xa09b;
    r->cr3 = five ? PAGE_TABLES_AT : PAGE_TABLES_AT + PAGE_SIZE;
    r->cr4 = CR4_PAE | (five ? CR4_LA57 : 0);
    r->cr0 |= CR0_PG;
    r->efer = EFER_LME | EFER_LMA;
    r->rip = d->vmlinux.entry;
}

static void set_cpu(const struct machine *m, const struct direct_boot *d, struct vcpu *cpu)
{
    struct regs *r = &cpu->r;
    r->seg[SEG_CS] = (struct segment){.limit = UINT32_MAX, .attr = 0xc09b, .selector = FLAT_CODE};
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        if (i != SEG_CS) {
            r->seg[i] =
                (struct segment){.limit = UINT32_MAX, .attr = 0xc093, .selector = FLAT_DATA};
        }
    }
    r->gdt = (struct table_register){.base = GDT_AT, .limit = 0x1f};
    r->idt = (struct table_register){0};
    r->cr0 = CR0_PE | CR0_ET;
    r->rflags = 2;
    r->rip = d->entry;
    r->gpr[RSP] = GDT_AT - 0x100;
    r->gpr[RSI] = d->kind == BOOT_LINUX ? PARAMS_AT : 0;
    r->gpr[RBX] = d->kind == BOOT_LINUX ? 0 : INFO_AT;
    r->gpr[RAX] = d->kind == BOOT_MULTIBOOT ? MB_LOADED : 0;
    if (d->vmlinux.end) {
        go_64_bit(m, d, r);
    }
    vcpu_loaded(cpu);
}

/* Kernel, modules, and what the kernel is told. */
static void place(struct machine *m, struct direct_boot *d)
{
    uint8_t *ram = m->ram->host;
    put_gdt(ram);
    memcpy(ram + TEXT_AT, d->text, strlen(d->text) + 1);
    place_files(m, d);
    if (d->kind == BOOT_LINUX) {
        linux_params(m, d, ram);
    } else if (d->kind == BOOT_PVH) {
        pvh_info(m, d, ram);
    } else {
        multiboot_info(m, d, ram);
    }
}

/* mov $imm32, %reg */
static uint8_t *put_mov(uint8_t *p, enum gpr reg, uint32_t value)
{
    *p = (uint8_t)(0xb8 + reg);
    le32_put(p + 1, value);
    return p + 5;
}

void direct_boot_behind_firmware(struct machine *m)
{
    static const uint8_t load_segments[] = {
        0x66, 0xb8, FLAT_DATA, 0x00,                                     /* mov $FLAT_DATA, %ax */
        0x8e, 0xd8, 0x8e,      0xc0, 0x8e, 0xd0, 0x8e, 0xe0, 0x8e, 0xe8, /* ... to all of them */
    };
    struct direct_boot *d = m->firmware_kernel;
    uint8_t *ram = m->ram->host, *p = ram + STUB_AT;
    place(m, d);
    memcpy(p, load_segments, sizeof(load_segments));
    p = put_mov(p + sizeof(load_segments), RSP, 0x7c00);
    p = put_mov(p, RBX, INFO_AT);
    p = put_mov(p, RAX, d->kind == BOOT_MULTIBOOT ? MB_LOADED : 0);
    p = put_mov(p, RDX, d->entry);
    memcpy(p, (const uint8_t[]){0xff, 0xe2}, 2); /* jmp *%edx */
    ram_note_write(ram, m->below_4g);
}

/* Memory types as firmware leaves them on all processors: RAM is written back, the rest of the
 * first MiB and the hole below 4 GiB are not.  Linux leaves PAT alone without them. */
static void set_memory_types(struct machine *m)
{
    enum { UNCACHED = 0, WRITE_BACK = 6, ENABLED = 0xc00, VALID = 0x800, FIXED_64K_AND_80000 = 2 };
    uint64_t hole = m->below_4g <= UINT64_C(1) << 31 ? UINT64_C(1) << 31 : UINT64_C(3) << 30;
    uint64_t size = (UINT64_C(1) << 32) - hole;
    unsigned bits = m->cpu_model->phys_bits ? m->cpu_model->phys_bits : 40;
    for (unsigned n = 0; n < vcpu_count(); n++) {
        struct regs *r = &vcpu_at(n)->r;
        for (unsigned i = 0; i < G_N_ELEMENTS(r->mtrr_fixed); i++) {
            r->mtrr_fixed[i] = i < FIXED_64K_AND_80000    ? UINT64_C(0x0606060606060606)
                               : i == FIXED_64K_AND_80000 ? UNCACHED /* the screen */
                                                          : UINT64_C(0x0505050505050505);
        }
        r->mtrr_def_type = ENABLED | WRITE_BACK;
        r->mtrr_base[0] = hole | UNCACHED;
        r->mtrr_mask[0] = (((UINT64_C(1) << bits) - 1) & ~(size - 1)) | VALID;
    }
}

void direct_boot_go(struct machine *m)
{
    struct direct_boot *d = m->direct;
    place(m, d);
    put_bios_data(m->ram->host);
    place_tables(m, m->ram->host);
    ram_note_write(m->ram->host, m->below_4g + (d->vmlinux.end ? m->above_4g : 0));
    set_memory_types(m);
    set_cpu(m, d, vcpu_at(0));
}
