/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/keyval.h"
#include "guest/machine/machine.h"

/*
 * What the command line said, before anything is made of it.
 *
 * Options that may be given several times and name a thing to make are kept as they were
 * written, in order, in .uses; the rest is in fields.
 */
enum action_reboot { REBOOT_RESET, REBOOT_SHUTDOWN };
enum action_shutdown { SHUTDOWN_POWEROFF, SHUTDOWN_PAUSE };
enum action_watchdog {
    WATCHDOG_RESET, WATCHDOG_SHUTDOWN, WATCHDOG_POWEROFF, WATCHDOG_INJECT_NMI, WATCHDOG_PAUSE,
    WATCHDOG_DEBUG, WATCHDOG_NONE,
};
enum action_panic { PANIC_PAUSE, PANIC_SHUTDOWN, PANIC_EXIT_FAILURE, PANIC_NONE };

struct option_use {
    const char *option; /* "drive", "hda", "device": without the dash */
    char *text;
};

struct vm_options {
    struct machine_config machine;
    GArray *uses;           /* of struct option_use */
    GPtrArray *texts;       /* what the fields below and .machine point to */
    const char *accel;      /* "kvm:tcg"; NULL: choose */
    const char *memory_backend;
    const char *mem_path;
    const char *display, *vnc, *keymap, *gdb, *incoming, *debugcon, *loadvm;
    const char *log_items, *log_file;
    const char *runas, *chroot, *pidfile, *sandbox;
    const char *rtc_base;
    bool enable_kvm, mem_prealloc, nographic, paused, daemonize, no_user_config, snapshot, usb;
    bool timestamps;        /* -msg */
    enum action_reboot on_reboot;
    enum action_shutdown on_shutdown;
    enum action_panic on_panic;
    enum action_watchdog on_watchdog;
    char *answer;           /* the user asked something (-h, -cpu help): this is it */
};

struct vm_options *vm_options_parse(int argc, char **argv, GError **error);
void vm_options_free(struct vm_options *o);

/* Calls @each for the uses of the options in @names (NULL-terminated), in order. */
bool vm_options_each(struct vm_options *o, const char *const *names,
                     bool (*each)(const struct option_use *use, void *owner, GError **error),
                     void *owner, GError **error);
/* As if the user had written -@option @text. */
bool vm_options_apply(struct vm_options *o, const char *option, const char *text, GError **error);
/* -readconfig: vmm/readconfig.c. */
bool vm_options_read(struct vm_options *o, const char *path, GError **error);
bool vm_options_used(const struct vm_options *o, const char *name);
/* Adds a use as if the user had written it. */
void vm_options_add(struct vm_options *o, const char *option, const char *text);
/* Keeps @text as long as @o lives. */
const char *vm_options_keep(struct vm_options *o, const char *text);

/* "16,maxcpus=128,cores=4" by QEMU's rules; fills .cpus, .maxcpus and .topology. */
bool vm_options_smp(struct machine_config *m, const char *text, GError **error);

/* All of the table: the names, whether each takes an argument; for QMP and the man page. */
struct option_row;
unsigned vm_option_count(void);
const char *vm_option_name(unsigned i, bool *has_argument, bool *refused);
/* The answer of -help; vmm/manual.py makes the man page of the same table. */
char *vm_options_help(void);

extern const char vm_version[];
