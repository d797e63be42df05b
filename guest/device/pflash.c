/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * pflash: parallel NOR flash with the Intel command set, 8 bits wide, in blocks of 4 KiB.
 *
 * Spec: Intel, "Common Flash Interface (CFI) and Command Sets" (application note 646) and
 * "3 Volt Intel StrataFlash Memory" data sheet, "Command Definitions".
 * What firmware for virtual machines expects beyond the data sheet: clearing the status
 * register clears its ready bit too, and programming stores ones over zeroes.
 *
 * While the array is read, reads go to memory directly and only writes come here; in any
 * other mode a second region covers the first.
 */
#include "base/bytes.h"
#include "base/log.h"
#include "base/util.h"
#include "guest/device/board.h"
#include "host/image/image.h"

#include <string.h>

enum { BLOCK_BYTES = 4096, BUFFER_BYTES = 2048, CFI_AT = 0x10, CFI_BYTES = 0x52 };
enum { FLASH_BYTES_MAX = 64 << 20 };

enum flash_command {
    CMD_ARRAY = 0xff, CMD_ARRAY_AMD = 0xf0, CMD_PROGRAM = 0x10, CMD_PROGRAM_ALT = 0x40,
    CMD_ERASE = 0x20, CMD_CLEAR_STATUS = 0x50, CMD_LOCK = 0x60, CMD_STATUS = 0x70,
    CMD_ID = 0x90, CMD_CFI = 0x98, CMD_CONFIRM = 0xd0, CMD_BUFFER = 0xe8, CMD_UNLOCK_DOWN = 0x01,
};
enum status { ST_PROTECTED = 0x02, ST_PROGRAM = 0x10, ST_ERASE = 0x20, ST_READY = 0x80 };

/* Steps of commands that take several writes. */
enum step { STEP_COMMAND, STEP_SECOND, STEP_FILL, STEP_COMMIT };

struct pflash {
    struct device dev;
    Image *drive;
    uint64_t base;
    bool secure; /* taken for QEMU's sake; SMM-only flash is not modelled */
    struct ram *ram;
    uint64_t bytes;
    struct region array, mode;
    struct placing *array_at, *mode_at;
    bool mode_shown;
    uint8_t cfi[CFI_BYTES];
    /* State. */
    uint8_t command, step, status;
    uint16_t fill_left;
    uint32_t fill_at, fill_bytes;
    uint8_t fill[BUFFER_BYTES];
};

static struct pflash *self(struct device *dev)
{
    return container_of(dev, struct pflash, dev);
}

static void settle(struct device *dev)
{
    struct pflash *f = self(dev);
    bool show = f->command != CMD_ARRAY;
    if (show != f->mode_shown) {
        f->mode_shown = show;
        space_show(f->mode_at, show);
    }
}

/* ---- changing the array ---- */

static void store(struct pflash *f, uint64_t at, const void *from, uint64_t n, uint8_t failed)
{
    if (image_read_only(f->drive)) {
        f->status |= failed | ST_PROTECTED;
        return;
    }
    if (image_write(f->drive, at, from, n) < 0) {
        f->status |= failed;
        return;
    }
    memcpy(f->ram->host + at, from, n);
    ram_note_write(f->ram->host + at, n);
}

static void erase(struct pflash *f, uint64_t at)
{
    uint8_t ones[BLOCK_BYTES];
    memset(ones, 0xff, sizeof(ones));
    store(f, at & ~(uint64_t)(BLOCK_BYTES - 1), ones, sizeof(ones), ST_ERASE);
}

/* ---- writes ---- */

static void back_to_array(struct pflash *f)
{
    f->command = CMD_ARRAY;
    f->step = STEP_COMMAND;
}

static void first_write(struct pflash *f, uint8_t value)
{
    switch (value) {
    case CMD_PROGRAM:
    case CMD_PROGRAM_ALT:
    case CMD_ERASE:
    case CMD_LOCK:
        f->command = value;
        f->step = STEP_SECOND;
        break;
    case CMD_BUFFER:
        f->status |= ST_READY;
        f->command = value;
        f->step = STEP_SECOND;
        break;
    case CMD_STATUS:
    case CMD_ID:
    case CMD_CFI:
        f->command = value;
        break;
    case CMD_CLEAR_STATUS:
        f->status = 0;
        back_to_array(f);
        break;
    case CMD_ARRAY:
    case CMD_ARRAY_AMD:
    case 0:
        back_to_array(f);
        break;
    default:
        log_line(LOG_GUEST_ERRORS, "pflash: command %#x is not known", value);
        back_to_array(f);
        break;
    }
}

static void end_of_operation(struct pflash *f)
{
    f->status |= ST_READY;
    f->command = CMD_STATUS;
    f->step = STEP_COMMAND;
}

static void second_write(struct pflash *f, uint64_t at, uint8_t value)
{
    switch (f->command) {
    case CMD_PROGRAM:
    case CMD_PROGRAM_ALT:
        store(f, at, &value, 1, ST_PROGRAM);
        end_of_operation(f);
        break;
    case CMD_ERASE:
        if (value == CMD_CONFIRM) {
            erase(f, at);
            end_of_operation(f);
        } else {
            f->status |= value == CMD_ARRAY ? 0 : ST_ERASE | ST_PROGRAM;
            back_to_array(f);
        }
        break;
    case CMD_BUFFER:
        f->fill_left = (uint16_t)(value + 1);
        f->fill_bytes = 0;
        f->step = STEP_FILL;
        break;
    default: /* lock bits: taken, and nothing is ever locked */
        if (value == CMD_CONFIRM || value == CMD_UNLOCK_DOWN) {
            end_of_operation(f);
        } else {
            back_to_array(f);
        }
        break;
    }
}

/* The first address says where the buffer goes; it must not leave its block. */
static void fill_write(struct pflash *f, uint64_t at, uint8_t value)
{
    if (!f->fill_bytes) {
        f->fill_at = (uint32_t)at;
    }
    f->fill[f->fill_bytes++ % BUFFER_BYTES] = value;
    if (!--f->fill_left) {
        f->step = STEP_COMMIT;
    }
}

static void commit_write(struct pflash *f, uint8_t value)
{
    uint32_t in_block = f->fill_at % BLOCK_BYTES;
    if (value != CMD_CONFIRM || f->fill_bytes > BUFFER_BYTES ||
        in_block + f->fill_bytes > BLOCK_BYTES || f->fill_at + f->fill_bytes > f->bytes) {
        f->status |= ST_PROGRAM;
        back_to_array(f);
        return;
    }
    store(f, f->fill_at, f->fill, f->fill_bytes, ST_PROGRAM);
    end_of_operation(f);
}

static void write_byte(struct pflash *f, uint64_t at, uint8_t value)
{
    switch (f->step) {
    case STEP_COMMAND:
        first_write(f, value);
        break;
    case STEP_SECOND:
        second_write(f, at, value);
        break;
    case STEP_FILL:
        fill_write(f, at, value);
        break;
    default:
        commit_write(f, value);
        break;
    }
    settle(&f->dev);
}

/* ---- reads outside the array ---- */

static uint8_t read_byte(const struct pflash *f, uint64_t at)
{
    static const uint8_t id[] = {0x89, 0x18, 0}; /* Intel; not locked */
    switch (f->command) {
    case CMD_ARRAY:
        return f->ram->host[at];
    case CMD_ID:
        return at % BLOCK_BYTES < sizeof(id) ? id[at % BLOCK_BYTES] : 0;
    case CMD_CFI:
        return at < CFI_BYTES ? f->cfi[at] : 0;
    default:
        return f->status;
    }
}

static uint64_t flash_read(void *owner, uint64_t at, unsigned bytes)
{
    (void)bytes;
    return read_byte(owner, at);
}

static void flash_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    (void)bytes;
    write_byte(owner, at, (uint8_t)value);
}

static const struct region_ops ops = {.read = flash_read, .write = flash_write, .max_bytes = 1};

/* ---- life ---- */

static void fill_cfi(struct pflash *f)
{
    static const uint8_t fixed[] = {
        'Q', 'R', 'Y', 0x01, 0x00, 0x31, 0x00, 0, 0, 0, 0, /* Intel command set, table at 0x31 */
        0x45, 0x55, 0, 0,                                  /* 4.5 to 5.5 V */
        0x07, 0x07, 0x0a, 0, 0x04, 0x04, 0x04, 0,          /* times */
    };
    uint8_t *c = f->cfi;
    memcpy(c + CFI_AT, fixed, sizeof(fixed));
    c[0x27] = (uint8_t)(63 - __builtin_clzll(f->bytes)); /* size, as a power of two */
    c[0x28] = 0;                                         /* 8 bits wide */
    c[0x2a] = 11;                                        /* BUFFER_BYTES */
    c[0x2c] = 1;                                         /* one kind of block */
    le16_put(c + 0x2d, (uint16_t)(f->bytes / BLOCK_BYTES - 1));
    le16_put(c + 0x2f, BLOCK_BYTES >> 8);
    memcpy(c + 0x31, "PRI10", 5);
}

static bool start(struct device *dev, GError **error)
{
    struct pflash *f = self(dev);
    f->bytes = image_size(f->drive);
    if (!f->bytes || f->bytes % BLOCK_BYTES || f->bytes > FLASH_BYTES_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "%s: %" G_GUINT64_FORMAT " bytes are not a number of 4 KiB blocks up to 64 MiB",
                    image_file(f->drive) ? image_file(f->drive) : "no medium", f->bytes);
        return false;
    }
    f->ram = ram_new(dev->path, f->bytes, NULL, error);
    if (!f->ram) {
        return false;
    }
    int r = image_read(f->drive, 0, f->ram->host, f->bytes);
    if (r < 0) {
        error_set_errno(error, -r, "%s", image_file(f->drive));
        g_clear_pointer(&f->ram, ram_free);
        return false;
    }
    fill_cfi(f);
    struct space *s = dev->board->memory;
    f->array = (struct region){.name = dev->path, .size = f->bytes, .ram = f->ram,
                               .read_only = true, .ops = &ops, .owner = f};
    f->mode = (struct region){.name = dev->path, .size = f->bytes, .ops = &ops, .owner = f};
    f->array_at = space_place(s, &f->array, f->base, 0);
    f->mode_at = space_place(s, &f->mode, f->base, 1);
    f->mode_shown = true;
    return true;
}

static void stop(struct device *dev)
{
    struct pflash *f = self(dev);
    space_remove(f->mode_at);
    space_remove(f->array_at);
    g_clear_pointer(&f->ram, ram_free);
}

static bool loaded(struct device *dev, GError **error)
{
    struct pflash *f = self(dev);
    if (f->step > STEP_COMMIT || (f->step == STEP_FILL && (!f->fill_left || f->fill_left > 256)) ||
        f->fill_bytes > BUFFER_BYTES) {
        g_set_error(error, LODGE_ERROR, EINVAL, "step %u of a command cannot be", f->step);
        return false;
    }
    return true;
}

#define S(field, ...) STATE(struct pflash, field, __VA_ARGS__)
static const struct reg regs[] = {
    S(command, .reset = CMD_ARRAY, .help = "what reads show"),
    S(step, .help = "of a command that takes several writes"),
    S(status, .reset = ST_READY),
    S(fill_left, .help = "bytes that the write buffer still waits for"),
    S(fill_at, .help = "where the write buffer goes"),
    S(fill_bytes, .help = "bytes in the write buffer"),
    STATE_ARRAY(struct pflash, fill),
};

static const struct prop props[] = {
    {"drive", PROP_DRIVE, offsetof(struct pflash, drive), .required = true},
    {"base", PROP_U64, offsetof(struct pflash, base), .help = "physical address"},
    {"secure", PROP_BOOL, offsetof(struct pflash, secure)},
};

const struct device_model model_pflash = {
    .name = "cfi.pflash01",
    .about = "NOR flash with the Intel command set",
    .spec = "Intel AP-646, \"Common Flash Interface (CFI) and Command Sets\"",
    .size = sizeof(struct pflash),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .stop = stop,
    .settle = settle,
    .loaded = loaded,
};
