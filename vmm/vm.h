/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"
#include "base/keyval.h"
#include "guest/device/board.h"

#include <jansson.h>

/*
 * One virtual machine, the process's: made from options, run until it ends.
 *
 * Threads: the main loop's with the machine lock held, unless said otherwise.
 */
struct vm_options;
struct vcpu;

/* QMP's RunState; vm_states[] has the names. */
enum vm_state {
    VM_PRELAUNCH, /* -S, not yet continued */
    VM_RUNNING,
    VM_PAUSED,
    VM_DEBUG,          /* the debugger stopped it */
    VM_SUSPENDED,      /* ACPI S3 */
    VM_SHUTDOWN,       /* powered off, -no-shutdown */
    VM_INTERNAL_ERROR, /* a vCPU cannot go on */
    VM_IO_ERROR,       /* a disk of the host failed, -drive werror=stop */
    VM_PANICKED,
    VM_INMIGRATE,   /* -incoming has not finished */
    VM_POSTMIGRATE, /* sent elsewhere */
    VM_WATCHDOG,    /* a watchdog's time ran out, -action watchdog=pause */
    VM_STATES
};
extern const char *const vm_states[VM_STATES];

/* Main's whole work; the exit code. */
int vm_main(int argc, char **argv);

/* Makes backends, machine and monitors. */
bool vm_build(struct vm_options *o, GError **error);
struct board *vm_board(void);
void vm_set_board(struct board *board); /* for vm_build() */
const struct vm_options *vm_options(void);

/* A line on stderr that begins with the program's name. */
void vm_report(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/* ---- life ---- */
enum vm_state vm_state(void);
bool vm_running(void);
/* Stops the vCPUs; an event STOP unless they stood still. */
void vm_stop(enum vm_state why);
/* False if the machine cannot run: it is powered off, broken, or waits for its state. */
bool vm_cont(GError **error);
/* Between them no vCPU runs, without an event; they nest. */
void vm_hold(void);
void vm_release(void);
void vm_set_state(enum vm_state state); /* of a machine that stands still */
/* Why a request came, for QMP's events. */
enum vm_cause {
    CAUSE_GUEST,
    CAUSE_GUEST_RESET,
    CAUSE_HOST,
    CAUSE_HOST_RESET,
    CAUSE_HOST_UI,
    CAUSE_SIGNAL,
    CAUSE_PANIC
};
/* Any thread; carried out by the main loop. */
void vm_request_reset(enum vm_cause cause);
void vm_request_shutdown(enum vm_cause cause); /* ends the process, or pauses (-no-shutdown) */
void vm_request_exit(int code);
void vm_power_button(void);
bool vm_wakeup(GError **error);
/* What the run loop does when a debugger wants to know of stops: true if it took it. */
bool vm_set_action(const char *key, const char *value, GError **error); /* as -action key=value */
extern bool (*vm_debug_stop)(struct vcpu *cpu);
/* The debugger's: the machine has come to a stop. */
extern void (*vm_stopped)(enum vm_state why);

/* Sent to all monitors; @data is given away and may be NULL. */
void vm_event(const char *name, json_t *data);
/* Set by the monitor. */
extern void (*vm_event_sink)(const char *name, json_t *data);

/* ---- devices and backends ---- */
bool vm_device_add(KeyVal *opts, GError **error);
bool vm_device_hotplug(KeyVal *opts, GError **error); /* while the guest may run */
bool vm_device_remove(const char *id, GError **error);
struct device;
void vm_device_eject(struct board *board, struct device *dev); /* struct board's .eject */
bool vm_object_add(KeyVal *opts, GError **error);
bool vm_object_remove(const char *id, GError **error);
bool vm_drive_add(KeyVal *opts, GError **error);
struct image *vm_drive(const char *id); /* -device drive=: a drive's id or a node's name */
bool vm_drive_removable(const struct image *img); /* a CD-ROM or floppy drive */
struct device *vm_drive_owner(const struct image *img); /* the device it was given to, or NULL */
bool vm_drive_is_cd(const struct image *img);
/* Keys down now, up after @hold_ms; at most 16. */
bool vm_send_keys(const unsigned *codes, unsigned n, unsigned hold_ms);
void vm_list_devices(GString *out);
uint64_t vm_memory(void); /* bytes, modules counted */
char *vm_cpu_type(void); /* the model of -device for a processor like the others */
bool vm_list_device_properties(const char *name, GString *out, GError **error);
void vm_list_objects(GString *out);
/* Option text, or JSON if it begins with a brace. */
KeyVal *vm_keyval(const char *text, const char *implied, GError **error);

/* ---- confinement: vmm/confine.c ---- */
bool confine_daemonize(GError **error); /* the parent waits for confine_ready() */
void confine_ready(void);
bool confine_pidfile(const char *path, GError **error);
/* chroot, user, system call filter; the last thing before the guest runs. */
bool confine(const struct vm_options *o, GError **error);
bool confine_may_spawn(void); /* whether programs can still be started */
