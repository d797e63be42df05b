/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pc_memory: RAM around the holes of a PC, and the firmware at their ends. */
#include "base/keyval.h"
#include "guest/machine/pc.h"
#include "host/image/image.h"

#include <inttypes.h>
#include <string.h>

#define FOUR_GB (UINT64_C(1) << 32)
#define ONE_GB (UINT64_C(1) << 30)

enum { VGA_AT = 0xa0000, ROM_AT = 0xc0000, ONE_MB = 0x100000, ISA_BIOS_BYTES = 0x20000 };
enum { BIOS_MAX = 16 << 20, BIOS_UNIT = 0x10000 };

void e820_add(struct machine *m, uint64_t at, uint64_t bytes, uint32_t type)
{
    if (bytes && m->n_e820 < E820_MAX) {
        m->e820[m->n_e820++] = (struct memory_range){.at = at, .bytes = bytes, .type = type};
    }
}

static bool below_limit(const struct machine *m, uint64_t *gap, uint64_t *split, GError **error)
{
    const char *text = machine_prop(m, "max-ram-below-4g", NULL);
    uint64_t limit;
    if (!text) {
        return true;
    }
    if (!text_size(text, 1, &limit) || limit < ONE_MB || limit > FOUR_GB - (512 << 20)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "-M max-ram-below-4g=%s: must be a size from 1M to 3.5G", text);
        return false;
    }
    *gap = MIN(*gap, limit);
    *split = MIN(*split, limit);
    return true;
}

static void place_ram(struct machine *m)
{
    struct space *s = m->board->memory;
    m->ram_640k =
        (struct region){.name = "ram-640k", .size = MIN(m->below_4g, VGA_AT), .ram = m->ram};
    m->ram_low = (struct region){
        .name = "ram-below-4g", .size = m->below_4g - ONE_MB, .ram = m->ram, .ram_at = ONE_MB};
    m->ram_high = (struct region){
        .name = "ram-above-4g", .size = m->above_4g, .ram = m->ram, .ram_at = m->below_4g};
    space_begin(s);
    space_place(s, &m->ram_640k, 0, 0);
    space_place(s, &m->ram_low, ONE_MB, 0);
    if (m->above_4g) {
        space_place(s, &m->ram_high, FOUR_GB, 0);
    }
    space_commit(s);
}

static uint64_t whole_gib(uint64_t v)
{
    return (v + ONE_GB - 1) & ~(ONE_GB - 1);
}

uint64_t pc_memory_end(const struct machine *m)
{
    const struct board *b = m->board;
    return whole_gib(b->dimm_bytes ? b->dimm_at + b->dimm_bytes : FOUR_GB + m->above_4g);
}

/* Each slot may waste as much as the greatest page, so that the whole of maxmem finds room. */
static void keep_room_for_dimms(struct machine *m)
{
    struct board *b = m->board;
    b->numa_nodes = m->config.numa ? m->config.numa->nodes : 1;
    if (m->config.max_ram_bytes > m->config.ram_bytes) {
        b->dimm_max = m->config.max_ram_bytes - m->config.ram_bytes;
        b->dimm_slots = m->config.ram_slots;
        b->dimm_at = whole_gib(FOUR_GB + m->above_4g);
        b->dimm_bytes = b->dimm_max + b->dimm_slots * ONE_GB;
    }
}

bool pc_memory(struct machine *m, uint64_t gap_at, uint64_t split_at, GError **error)
{
    uint64_t bytes = m->config.ram_bytes;
    if (!below_limit(m, &gap_at, &split_at, error)) {
        return false;
    }
    if (bytes < 2 * ONE_MB || (bytes & (PAGE_SIZE - 1))) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "-m: %" PRIu64 " bytes: a PC needs 2 MiB or more, in pages of 4 KiB", bytes);
        return false;
    }
    m->below_4g = bytes >= gap_at ? MIN(split_at, bytes) : bytes;
    m->above_4g = bytes - m->below_4g;
    m->board->ram_below_4g = m->below_4g;
    keep_room_for_dimms(m);
    bool dump = !m->config.ram_source.dump_off;
    if (!machine_prop_bool(m, "dump-guest-core", dump, &dump, error)) {
        return false;
    }
    m->config.ram_source.dump_off = !dump;
    m->ram = ram_new("pc.ram", bytes, &m->config.ram_source, error);
    if (!m->ram) {
        return false;
    }
    place_ram(m);
    return true;
}

/* ---- firmware ---- */

/* The last 128 KiB of the firmware show below 1 MiB as well. */
static bool isa_bios(struct machine *m, const uint8_t *end, uint64_t bytes, GError **error)
{
    uint64_t n = MIN(bytes, ISA_BIOS_BYTES);
    m->isa_bios = ram_new("isa-bios", n, NULL, error);
    if (!m->isa_bios) {
        return false;
    }
    memcpy(m->isa_bios->host, end - n, n);
    m->isa_bios->read_only = true;
    m->isa_bios_region =
        (struct region){.name = "isa-bios", .size = n, .ram = m->isa_bios, .read_only = true};
    space_place(m->board->memory, &m->isa_bios_region, ONE_MB - n, 1);
    return true;
}

static bool rom(struct machine *m, const char *path, const char *data, gsize n, GError **error)
{
    if (!n || n % BIOS_UNIT || n > BIOS_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "firmware %s: %zu bytes: must be a multiple of 64 KiB up to 16 MiB", path,
                    (size_t)n);
        return false;
    }
    m->bios = ram_new("pc.bios", n, NULL, error);
    if (!m->bios) {
        return false;
    }
    memcpy(m->bios->host, data, n);
    m->bios->read_only = true;
    m->bios_region = (struct region){.name = "bios", .size = n, .ram = m->bios, .read_only = true};
    space_place(m->board->memory, &m->bios_region, FOUR_GB - n, 0);
    return isa_bios(m, m->bios->host + n, n, error);
}

/* The code ends at 4 GiB, the variables lie in front of it: where firmware looks for them. */
static bool flash(struct machine *m, GError **error)
{
    uint64_t end = FOUR_GB;
    for (unsigned i = 0; i < G_N_ELEMENTS(m->config.pflash) && m->config.pflash[i]; i++) {
        Image *img = m->config.pflash[i];
        g_autofree char *base = g_strdup_printf("%" PRIu64, end - image_size(img));
        g_autofree char *path = g_strdup_printf("system.flash%u", i);
        struct device *dev = pc_device_new("cfi.pflash01", error);
        if (!dev || !device_set(dev, "base", base, error) ||
            !device_give(dev, "drive", img, error) || !device_start(dev, m->board, path, error)) {
            return false;
        }
        end -= image_size(img);
    }
    uint8_t tail[ISA_BIOS_BYTES];
    uint64_t size = image_size(m->config.pflash[0]), n = MIN(size, sizeof(tail));
    int r = image_read(m->config.pflash[0], size - n, tail, n);
    if (r < 0) {
        error_set_errno(error, -r, "pflash %s", image_file(m->config.pflash[0]));
        return false;
    }
    return isa_bios(m, tail + n, n, error);
}

bool pc_firmware(struct machine *m, const char *file, GError **error)
{
    if (m->config.pflash[0]) {
        return flash(m, error);
    }
    if (m->config.pflash[1]) {
        g_set_error(error, LODGE_ERROR, EINVAL, "pflash unit 1 without unit 0");
        return false;
    }
    g_autofree char *path = machine_firmware(m->config.bios ? m->config.bios : file, error);
    g_autofree char *data = NULL;
    g_autoptr(GError) why = NULL;
    gsize n;
    if (!path) {
        return false;
    }
    if (!g_file_get_contents(path, &data, &n, &why)) {
        g_set_error(error, LODGE_ERROR, error_errno(why), "firmware %s: %s", path,
                    g_strerror(error_errno(why)));
        return false;
    }
    return rom(m, path, data, n, error);
}
