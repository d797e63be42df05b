/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"
#include "base/util.h"
#include "guest/device/irq.h"
#include "guest/memory/space.h"
#include "guest/time/clock.h"

#include <stddef.h>
#include <stdint.h>

/*
 * device - a device is a table
 *
 * Registers with reset value, writable bits, read and write hooks; properties of the
 * command line; wires to irqs and backends.  Bus decoding, reset, saving, restoring, the
 * inspector, the fuzzer and the generic tests all walk these tables.
 *
 * Threads: everything here runs with the machine lock held.
 */
struct device;
struct board;

enum reg_dir { REG_R = 1, REG_W = 2, REG_RW = 3 };
enum { REG_HIDDEN = -1, BANK_ANY = 0 };
enum reg_kind { REG_PLAIN, REG_TIMER /* the slot is a struct timer; its .due is the state */ };

/*
 * One row of a device's table.  A field that is not in the table does not survive a
 * migration, and tests/unit/test_devices.c says so.
 */
struct reg {
    const char *name;  /* as in the data sheet; the key in the state stream */
    uint32_t slot;     /* offsetof() the storage in the device struct */
    uint32_t size;     /* bytes of storage of one element: 1, 2, 4, 8 (any with .count for
                          plain bytes); 0 if the value is computed */
    uint32_t count;    /* elements, for arrays that are only state; 0 means one */
    uint8_t kind;      /* enum reg_kind */
    uint8_t width;     /* bytes on the bus; 0: .size, or 1 if the value is computed */
    bool boolean;      /* the storage is a bool: a state with another value is refused */
    uint8_t dir;       /* enum reg_dir, as the guest sees it */
    uint8_t window;    /* which of the device's windows */
    uint8_t bank;      /* bank in which the port decodes, or BANK_ANY */
    uint8_t since;     /* first state version that carries the row */
    bool keep;         /* reset leaves it alone (battery, straps, guest-visible media) */
    int32_t port;      /* byte offset in the window, or REG_HIDDEN */
    uint64_t reset;    /* value after power-on */
    uint64_t writable; /* bits that a guest write stores */
    uint64_t w1c;      /* bits that a guest write of 1 clears */
    uint64_t rclr;     /* bits that a guest read clears */
    uint64_t (*on_read)(struct device *dev, uint64_t stored);
    /* After the store: what was stored before and now; of a computed row, 0 and what the
     * guest wrote. */
    void (*on_write)(struct device *dev, uint64_t old, uint64_t now);
    const char *help;
};

#define REG_IS_BOOL(x)                                                                             \
    (__builtin_types_compatible_p(__typeof__(x), bool) ||                                          \
     __builtin_types_compatible_p(__typeof__(x), _Atomic bool))

#define REG(type, field, ...)                                                                      \
    {                                                                                              \
        .name = #field, .slot = offsetof(type, field), .size = sizeof(((type *)0)->field),         \
        .boolean = REG_IS_BOOL(((type *)0)->field), __VA_ARGS__                                                                                \
    }
#define REG_COMPUTED(label, ...)                                                                   \
    {                                                                                              \
        .name = label, __VA_ARGS__                                                                 \
    }
/* State the guest does not address: a scalar, an array of scalars or bytes, a timer. */
#define STATE(type, field, ...) REG(type, field, .port = REG_HIDDEN, __VA_ARGS__)
#define STATE_ARRAY(type, field, ...)                                                              \
    {                                                                                              \
        .name = #field, .slot = offsetof(type, field), .size = sizeof(((type *)0)->field[0]),      \
        .count = sizeof(((type *)0)->field) / sizeof(((type *)0)->field[0]), .port = REG_HIDDEN,   \
        .boolean = REG_IS_BOOL(((type *)0)->field[0]), __VA_ARGS__                                                                                \
    }
#define STATE_TIMER(type, field, ...)                                                              \
    {                                                                                              \
        .name = #field, .slot = offsetof(type, field), .size = 8, .kind = REG_TIMER,               \
        .port = REG_HIDDEN, __VA_ARGS__                                                            \
    }

/* One thing a device is connected to from outside before it starts. */
enum wire_kind { WIRE_IRQ /* struct irq * */ };

struct wire {
    const char *name; /* "irq": the key for boards */
    enum wire_kind kind;
    uint32_t slot;    /* offsetof() the pointer in the device struct */
};

/* One key=value of -device, and of boards. */
enum prop_kind {
    PROP_BOOL,    /* bool: on/off/yes/no/true/false */
    PROP_U8, PROP_U16, PROP_U32, PROP_U64, /* decimal, 0x hex; U64 takes k, M, G, T */
    PROP_STRING,  /* const char *: NULL if absent */
    PROP_MAC,     /* uint8_t[6] */
    /* Backends, from here on. */
    PROP_DRIVE,   /* struct image *: id of a -drive/-blockdev */
    PROP_NETDEV,  /* struct netdev * */
    PROP_CHARDEV, /* struct chardev * */
    PROP_RNG,     /* struct rng_source *: an -object rng-* */
    PROP_AUDIO,   /* struct audio *: an -audiodev */
};
struct prop {
    const char *name;
    enum prop_kind kind;
    uint32_t slot;
    uint64_t value;  /* default for numbers and bool; text of a default string is NULL */
    bool required;
    const char *help;
};

enum bus_kind {
    BUS_BOARD,  /* soldered on: only boards make it */
    BUS_ISA,    /* -device puts it at its iobase/irq properties */
    BUS_PCI,    /* first member is struct pci_device, guest/device/pci.h */
    BUS_VIRTIO, /* a virtio device behind virtio-pci: guest/device/virtio.h */
    BUS_IDE,    /* ide-hd, ide-cd: a drive on an IDE or AHCI channel */
    BUS_SCSI,   /* a drive on a controller's struct scsi_bus */
    BUS_USB,    /* on a port of a USB controller */
    BUS_HDA,    /* a codec on the link of a sound controller: guest/device/hda.h */
    BUS_OTHER,
};

struct device_model {
    const char *name;  /* "serial16550": command line, XML and state stream */
    const char *alias; /* other names of the command line, comma-separated, or NULL */
    const char *about; /* one line for `-device help` */
    const char *spec;  /* document, edition and section title */
    size_t size;       /* of the instance; struct device is its first member */
    uint16_t version;  /* of the state stream */
    uint8_t bus;       /* enum bus_kind */
    bool soldered;     /* only boards make it, whatever its bus */
    bool joins_later;  /* a state that was made before boards had it lacks it: it is as reset */
    uint16_t nregs, nwires, nprops;
    const struct reg *regs;
    const struct wire *wires;
    const struct prop *props;
    const void *bus_data; /* struct pci_ident, struct virtio_model, ... */
    /* Wires and properties are set: check them, take backends, place windows. */
    bool (*start)(struct device *dev, GError **error);
    void (*stop)(struct device *dev);           /* after start(); before freeing */
    unsigned (*bank)(const struct device *dev); /* 1, 2, ...; NULL if there are no banks */
    /* Of what comes and goes while the guest runs and is no card of a bus: it has come, tell
     * the guest; ask the guest to let go; the guest has let go. */
    void (*plugged)(struct device *dev);
    bool (*unplug)(struct device *dev, GError **error);
    void (*ejected)(struct device *dev);
    void (*settle)(struct device *dev);         /* recompute outputs after access, reset, load */
    void (*reset)(struct device *dev);          /* what rows cannot say; rows were reset */
    /* Before a save: fetch into the rows what is kept elsewhere (the kernel). */
    void (*saving)(struct device *dev);
    /* After load: derive what is not state; false if the values cannot be (EINVAL). */
    bool (*loaded)(struct device *dev, GError **error);
};

struct device {
    const struct device_model *model;
    struct board *board;
    char *id;            /* -device id=, or NULL; owned */
    char *path;          /* unique in the board: key of the state stream; owned */
    const struct device_bus *at; /* the bus it sits on, for buses that need it */
    struct device *next; /* the board's list */
    bool started;
    struct device_window *windows;     /* those that were prepared, device.c's */
    GPtrArray *texts;                  /* owned text of properties */
    GPtrArray *wires;                  /* struct irq: the device's own ends of shared lines */
    GPtrArray *links;                  /* pairs of text: backends by id, looked up at start */
};

/* ---- making; control plane ---- */

/* A zero-filled instance with properties at their defaults, not yet on a board. */
struct device *device_new(const struct device_model *model);
/* From now on @prop of new devices of @model is @value (-global). */
bool device_global(const struct device_model *model, const char *prop, const char *value,
                   GError **error);
/* Several devices may be connected to one line: it is high while any of them holds it. */
bool device_connect(struct device *dev, const char *wire, enum wire_kind kind, void *end,
                    GError **error);
/* The device's own end of a line that others drive too; NULL for NULL.  device_free()
 * lets go of it. */
struct irq *device_irq(struct device *dev, struct irq *line);
/* Sets one property from text ("id" too); EINVAL with a line that names device, property and
 * value.  Backends are looked up by their id when the device starts. */
bool device_set(struct device *dev, const char *name, const char *value, GError **error);
/* Sets a drive, netdev, chardev or rng property to a backend at hand. */
bool device_give(struct device *dev, const char *name, void *backend, GError **error);
/* Puts it into @board under @path (unique; NULL: made from the model's name), starts and
 * resets it.  On failure the device is freed. */
bool device_start(struct device *dev, struct board *board, const char *path, GError **error);
void device_free(struct device *dev); /* stops it, takes it off its board */

/* ---- data path: these and the hooks of a model allocate nothing ---- */
uint64_t device_read(struct device *dev, unsigned window, uint64_t port);
void device_write(struct device *dev, unsigned window, uint64_t port, uint64_t value);
/*
 * A window in an address space: accesses of any size and alignment are taken apart into
 * those of the rows.  Bytes between rows read as ones.  Place .region with space_place(), or
 * let device_place() do it: then device_free() takes it away again.
 */
struct device_window {
    struct device *dev;
    unsigned window;
    struct region region;
    struct placing *placing;
    struct device_window *next; /* the device's */
};
/* Prepares @w to show window @window of @dev, @size bytes. */
void device_window_init(struct device_window *w, struct device *dev, unsigned window,
                        const char *name, uint64_t size);
void device_place(struct device_window *w, struct space *s, uint64_t at, int priority);

/* ---- state ---- */
void device_settle(struct device *dev);
void device_reset(struct device *dev);
GBytes *device_save(struct device *dev);
/* Where it fails, @dev holds a mixture and must be reset. */
bool device_load(struct device *dev, GBytes *state, GError **error);
void device_describe(const struct device *dev, GString *out);

/* Generated from the list in guest/device/meson.build. */
extern const struct device_model *const device_models[];
extern const unsigned n_device_models;
const struct device_model *device_model_find(const char *name); /* aliases too; NULL: none */
