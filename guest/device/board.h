/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"

/*
 * board - what devices share: the address spaces, interrupt inputs, buses, and the way to
 * ask the owner of the machine for something.  Made by guest/machine; one a process.
 */
struct audio;
struct chardev;
struct image;
struct machine;
struct netdev;
struct pci_bus;
struct display;

/* Backends by id, filled from the command line by vmm; NULL if there is none. */
struct backends {
    struct image *(*drive)(const char *id);
    struct netdev *(*netdev)(const char *id);
    struct chardev *(*chardev)(const char *id);
    struct rng_source *(*rng)(const char *id);
    struct audio *(*audio)(const char *id);
    /* Of memory, and its size; NULL with an error also where it is taken. */
    const struct ram_source *(*memory)(const char *id, uint64_t *bytes, GError **error);
};

enum board_event {
    BOARD_RESET,      /* the guest wants a reset (0xcf9, keyboard controller, triple fault) */
    BOARD_SHUTDOWN,   /* ACPI S5 */
    BOARD_SUSPEND,    /* ACPI S3 */
    BOARD_SUSPEND_DISK, /* ACPI S4: all is off, what is to last is on the guest's disk */
    BOARD_EXIT,       /* isa-debug-exit: .code is the process's exit code */
    BOARD_PANIC,      /* pvpanic */
    BOARD_WAKEUP,
    BOARD_WATCHDOG,   /* a watchdog barks: what happens is the owner's choice */
};

/* What others may want to hear of. */
enum board_news {
    BOARD_CLOCK_SET, /* the guest set the RTC: seconds ahead of the host's time */
    BOARD_BALLOON,   /* the balloon moved: bytes that the guest has given away */
    BOARD_PORT,      /* a program in the guest opened (1) or closed (0) a virtio-serial port */
};

/* Where a processor sits; UINT32_MAX: not said. */
struct cpu_place {
    uint32_t socket, die, core, thread;
};

/* What the guest said of something that came or is to go: the arguments of ACPI's _OST. */
struct ost {
    const char *device; /* its id, or NULL */
    const char *kind;   /* "CPU", "DIMM" */
    unsigned slot;
    uint32_t source, status;
};

struct board {
    struct space *memory, *memory_smm, *ports;
    unsigned cpus;                /* of -smp: others may come and go */
    uint64_t dimm_at, dimm_bytes; /* addresses kept for memory modules */
    uint64_t dimm_max;            /* bytes that all of them may have */
    unsigned dimm_slots, numa_nodes;
    uint16_t panic_port;          /* of pvpanic; 0: there is none */
    uint64_t ram_below_4g;        /* where RAM below 4 GiB ends */
    struct pci_bus *pci;          /* root bus, or NULL */
    struct irq *isa_irq[16];      /* the inputs of the PIC and what mirrors them */
    struct irq *gsi[24];          /* IO-APIC inputs; 0-15 are isa_irq too */
    struct display *display;      /* host/display/display.h: what shows the screen */
    struct device *devices;       /* in the order in which they were started */
    struct backends backends;

    /* A message-signalled interrupt: writes @data to @address (0xfee.....). */
    void (*msi)(struct board *board, uint64_t address, uint32_t data);
    /* The same for a source that sends often: *@route, NULL at first, remembers the way, and
     * .msi_forget frees it.  Both NULL: there is no better way than .msi. */
    void (*msi_routed)(struct board *board, void **route, uint64_t address, uint32_t data);
    void (*msi_forget)(void *route);
    /* Machine lock held; takes effect after the current instruction of the vCPUs. */
    void (*request)(struct board *board, enum board_event event, int code);
    /* NULL: nobody listens.  Machine lock held. */
    void (*tell)(struct board *board, enum board_news what, const struct device *of,
                 int64_t value);
    /* SMI to all vCPUs (APM_CNT, ICH9). */
    void (*smi)(struct board *board);
    /* The power button: set by the ACPI device. */
    void (*power_button)(struct board *board);
    /* The guest has let go of @dev: free it when no vCPU runs.  NULL: it stays. */
    void (*eject)(struct board *board, struct device *dev);
    /* A processor comes (.index is which it became) or goes, while all stand still.  NULL:
     * they stay as they are. */
    bool (*cpu_start)(struct board *board, const struct cpu_place *at, uint32_t node,
                      uint32_t *index, GError **error);
    void (*cpu_stop)(struct board *board, uint32_t index);
    /* NULL: nobody listens.  Machine lock held. */
    void (*ost)(struct board *board, const struct ost *ost);
    /* Full path of a firmware file (option ROM), searched as -L says; caller frees. */
    char *(*find_file)(struct board *board, const char *name, GError **error);
    struct machine *machine; /* guest/machine's */
    void *owner; /* vmm's */

    /* Things one device gives and others look up at start, by name ("fw_cfg", "rtc",
     * "i8257", "pm"): the device, or NULL. */
    GHashTable *parts;
};

/* A board with empty address spaces and nothing else; for boards and tests. */
struct board *board_new(void);
void board_free(struct board *board); /* its devices too, the latest first */
/* False with an error if something else answers at one of @n ports. */
bool board_ports_free(const struct board *board, uint64_t at, uint64_t n, GError **error);
struct device *board_part(struct board *board, const char *name);
void board_add_part(struct board *board, const char *name, struct device *dev);
struct device *board_find(struct board *board, const char *id_or_path);
void board_reset(struct board *board); /* all devices, in order */
