/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fw_cfg: how firmware learns about its machine.
 *
 * Spec: QEMU, "QEMU Firmware Configuration (fw_cfg) Device": "Guest-side Hardware
 * Interface", "Firmware Configuration Items", "Guest-side DMA Interface".
 */
#include "guest/device/fw_cfg.h"

#include "base/bytes.h"
#include "guest/device/board.h"

enum { PORT_SELECT = 0x510, PORT_DMA = 0x514 };
enum { ID_TRADITIONAL = 1, ID_DMA = 2 };
enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16 };
enum { N_KEYS = 0x20, MAX_FILES = 128, NAME_BYTES = 56, DIR_ENTRY_BYTES = 64 };
enum { KEY_MASK = 0x3fff, KEY_WRITE = 0x4000, KEY_ARCH = 0x8000 };
/* "QEMU CFG", read back from the DMA port. */
#define DMA_SIGNATURE UINT64_C(0x51454d5520434647)
#define CHUNK         4096

struct item {
    const uint8_t *data;
    uint8_t *own; /* freed with the item; NULL for a view */
    size_t n;
    struct fw_cfg_hooks hooks;
    char name[NAME_BYTES];
};

struct fw_cfg {
    struct device dev;
    struct item item[N_KEYS + MAX_FILES], arch[N_KEYS];
    unsigned n_files;
    uint16_t key;
    uint32_t at; /* in the selected item */
    uint32_t dma_high;
    bool no_dma; /* property */
    struct device_window select, dma;
};

static struct fw_cfg *self(struct device *dev)
{
    return container_of(dev, struct fw_cfg, dev);
}

static struct item *item_of(struct fw_cfg *s, uint16_t key)
{
    unsigned n = key & KEY_MASK;
    if (key & KEY_ARCH) {
        return n < G_N_ELEMENTS(s->arch) ? &s->arch[n] : NULL;
    }
    return n < G_N_ELEMENTS(s->item) ? &s->item[n] : NULL;
}

/* ---- adding; control plane ---- */

static void item_set(struct item *i, const void *view, uint8_t *own, size_t n)
{
    g_free(i->own);
    i->own = own;
    i->data = own ? own : view;
    i->n = n;
}

void fw_cfg_add_view(struct device *fw, uint16_t key, const void *data, size_t n)
{
    struct item *i = item_of(self(fw), key);
    if (i) {
        item_set(i, data, NULL, n);
    }
}

void fw_cfg_add_bytes(struct device *fw, uint16_t key, const void *data, size_t n)
{
    struct item *i = item_of(self(fw), key);
    if (i) {
        item_set(i, NULL, g_memdup2(data, n), n);
    }
}

void fw_cfg_add_u16(struct device *fw, uint16_t key, uint16_t v)
{
    uint8_t b[2];
    le16_put(b, v);
    fw_cfg_add_bytes(fw, key, b, sizeof(b));
}

void fw_cfg_add_u32(struct device *fw, uint16_t key, uint32_t v)
{
    uint8_t b[4];
    le32_put(b, v);
    fw_cfg_add_bytes(fw, key, b, sizeof(b));
}

void fw_cfg_add_u64(struct device *fw, uint16_t key, uint64_t v)
{
    uint8_t b[8];
    le64_put(b, v);
    fw_cfg_add_bytes(fw, key, b, sizeof(b));
}

void fw_cfg_add_text(struct device *fw, uint16_t key, const char *text)
{
    fw_cfg_add_bytes(fw, key, text, strlen(text) + 1);
}

static struct item *file_find(struct fw_cfg *s, const char *name)
{
    for (unsigned i = 0; i < s->n_files; i++) {
        if (g_str_equal(s->item[FW_CFG_FILE_FIRST + i].name, name)) {
            return &s->item[FW_CFG_FILE_FIRST + i];
        }
    }
    return NULL;
}

/* Firmware looks names up; users see them in the guest's sysfs. */
static void directory_make(struct fw_cfg *s)
{
    size_t n = 4 + (size_t)s->n_files * DIR_ENTRY_BYTES;
    uint8_t *dir = g_malloc0(n);
    be32_put(dir, s->n_files);
    for (unsigned i = 0; i < s->n_files; i++) {
        uint8_t *e = dir + 4 + (size_t)i * DIR_ENTRY_BYTES;
        const struct item *f = &s->item[FW_CFG_FILE_FIRST + i];
        be32_put(e, (uint32_t)f->n);
        be16_put(e + 4, (uint16_t)(FW_CFG_FILE_FIRST + i));
        memcpy(e + 8, f->name, NAME_BYTES);
    }
    item_set(&s->item[FW_CFG_FILE_DIR], NULL, dir, n);
}

bool fw_cfg_add_live_file(struct device *fw, const char *name, const void *data, size_t n,
                          const struct fw_cfg_hooks *hooks, GError **error)
{
    struct fw_cfg *s = self(fw);
    if (strlen(name) >= NAME_BYTES || n > UINT32_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "fw_cfg file \"%s\": names have at most %d bytes, files 4 GiB", name,
                    NAME_BYTES - 1);
        return false;
    }
    if (file_find(s, name)) {
        g_set_error(error, LODGE_ERROR, EEXIST, "fw_cfg file \"%s\" is there already", name);
        return false;
    }
    if (s->n_files == MAX_FILES) {
        g_set_error(error, LODGE_ERROR, ENOSPC, "fw_cfg file \"%s\" is one too many", name);
        return false;
    }
    struct item *i = &s->item[FW_CFG_FILE_FIRST + s->n_files++];
    strcpy(i->name, name);
    if (hooks) {
        i->hooks = *hooks;
    }
    item_set(i, NULL, g_memdup2(data, n), n);
    directory_make(s);
    return true;
}

bool fw_cfg_add_file(struct device *fw, const char *name, const void *data, size_t n,
                     GError **error)
{
    return fw_cfg_add_live_file(fw, name, data, n, NULL, error);
}

uint8_t *fw_cfg_file_bytes(struct device *fw, const char *name, size_t *n)
{
    struct item *i = file_find(self(fw), name);
    *n = i ? i->n : 0;
    return i ? i->own : NULL;
}

bool fw_cfg_replace_file(struct device *fw, const char *name, const void *data, size_t n)
{
    struct item *i = file_find(self(fw), name);
    if (i) {
        item_set(i, NULL, g_memdup2(data, n), n);
        directory_make(self(fw));
    }
    return i != NULL;
}

/* ---- ports ---- */

static void select_item(struct fw_cfg *s, uint16_t key)
{
    s->key = key;
    s->at = 0;
    struct item *i = item_of(s, key);
    if (i && i->hooks.selected) {
        i->hooks.selected(i->hooks.owner);
    }
}

static void select_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    select_item(self(dev), (uint16_t)now);
}

static uint64_t data_read(struct device *dev, uint64_t stored)
{
    struct fw_cfg *s = self(dev);
    const struct item *i = item_of(s, s->key);
    (void)stored;
    return i && s->at < i->n ? i->data[s->at++] : 0;
}

/* ---- DMA ---- */

static bool dma_read(struct fw_cfg *s, uint64_t to, uint32_t n)
{
    static const uint8_t zeroes[CHUNK];
    const struct item *i = item_of(s, s->key);
    size_t there = i && s->at < i->n ? MIN(i->n - s->at, n) : 0;
    bool ok = !there || space_write(s->dev.board->memory, to, i->data + s->at, there);
    s->at += (uint32_t)there;
    for (uint64_t done = there; ok && done < n; done += CHUNK) { /* beyond the end: zeroes */
        ok = space_write(s->dev.board->memory, to + done, zeroes, MIN(CHUNK, n - done));
    }
    return ok;
}

static bool dma_write(struct fw_cfg *s, uint64_t from, uint32_t n)
{
    struct item *i = item_of(s, s->key);
    if (!i || !i->own || !i->hooks.writable || s->at > i->n || n > i->n - s->at ||
        !space_read(s->dev.board->memory, from, i->own + s->at, n)) {
        return false;
    }
    size_t at = s->at;
    s->at += n;
    if (i->hooks.written) {
        i->hooks.written(i->hooks.owner, at, n);
    }
    return true;
}

static void dma_skip(struct fw_cfg *s, uint32_t n)
{
    s->at = n > UINT32_MAX - s->at ? UINT32_MAX : s->at + n;
}

static void dma_run(struct fw_cfg *s, uint64_t at)
{
    struct space *memory = s->dev.board->memory;
    uint8_t raw[16], done[4];
    if (!space_read(memory, at, raw, sizeof(raw))) {
        be32_put(done, DMA_ERROR);
        space_write(memory, at, done, sizeof(done));
        return;
    }
    uint32_t control = be32_at(raw), n = be32_at(raw + 4);
    uint64_t address = be64_at(raw + 8);
    bool ok = true;
    if (control & DMA_SELECT) {
        select_item(s, (uint16_t)(control >> 16));
    }
    if (control & DMA_READ) {
        ok = dma_read(s, address, n);
    } else if (control & DMA_WRITE) {
        ok = dma_write(s, address, n);
    } else if (control & DMA_SKIP) {
        dma_skip(s, n);
    }
    be32_put(done, ok ? 0 : DMA_ERROR);
    space_write(memory, at, done, sizeof(done));
}

/* Big-endian on the bus; the low half starts the transfer. */
static void dma_high_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct fw_cfg *s = self(dev);
    (void)old;
    s->dma_high = GUINT32_SWAP_LE_BE((uint32_t)now);
}

static void dma_low_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct fw_cfg *s = self(dev);
    uint64_t at = (uint64_t)s->dma_high << 32 | GUINT32_SWAP_LE_BE((uint32_t)now);
    (void)old;
    s->dma_high = 0;
    dma_run(s, at);
}

static uint64_t dma_high_read(struct device *dev, uint64_t stored)
{
    (void)dev, (void)stored;
    return GUINT32_SWAP_LE_BE((uint32_t)(DMA_SIGNATURE >> 32));
}

static uint64_t dma_low_read(struct device *dev, uint64_t stored)
{
    (void)dev, (void)stored;
    return GUINT32_SWAP_LE_BE((uint32_t)DMA_SIGNATURE);
}

/* ---- life ---- */

static bool start(struct device *dev, GError **error)
{
    struct fw_cfg *s = self(dev);
    (void)error;
    fw_cfg_add_bytes(dev, FW_CFG_SIGNATURE, "QEMU", 4);
    fw_cfg_add_u32(dev, FW_CFG_ID, ID_TRADITIONAL | (s->no_dma ? 0 : ID_DMA));
    directory_make(s);
    device_window_init(&s->select, dev, 0, "fwcfg", 2);
    device_place(&s->select, dev->board->ports, PORT_SELECT, 0);
    if (!s->no_dma) {
        device_window_init(&s->dma, dev, 1, "fwcfg-dma", 8);
        device_place(&s->dma, dev->board->ports, PORT_DMA, 0);
    }
    board_add_part(dev->board, "fw_cfg", dev);
    return true;
}

static void stop(struct device *dev)
{
    struct fw_cfg *s = self(dev);
    for (unsigned i = 0; i < G_N_ELEMENTS(s->item); i++) {
        g_free(s->item[i].own);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(s->arch); i++) {
        g_free(s->arch[i].own);
    }
}

static const struct reg regs[] = {
    REG_COMPUTED("data", .port = 1, .dir = REG_RW, .on_read = data_read,
                 .help = "the next byte of the selected item"),
    REG_COMPUTED("selector", .port = 0, .width = 2, .dir = REG_W, .on_write = select_write),
    REG_COMPUTED("dma-high", .window = 1, .port = 0, .width = 4, .dir = REG_RW,
                 .on_read = dma_high_read, .on_write = dma_high_write),
    REG_COMPUTED("dma-low", .window = 1, .port = 4, .width = 4, .dir = REG_RW,
                 .on_read = dma_low_read, .on_write = dma_low_write),
    STATE(struct fw_cfg, key),
    STATE(struct fw_cfg, at),
    STATE(struct fw_cfg, dma_high),
};

static const struct prop props[] = {
    {"no-dma", PROP_BOOL, offsetof(struct fw_cfg, no_dma)},
};

const struct device_model model_fw_cfg = {
    .name = "fw_cfg",
    .about = "firmware configuration",
    .spec = "QEMU Firmware Configuration (fw_cfg) Device, \"Guest-side Hardware Interface\"",
    .size = sizeof(struct fw_cfg),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .stop = stop,
};
