/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/build.h"

#include "base/json.h"
#include "base/log.h"
#include "base/rng.h"
#include "guest/cpu/engine.h"
#include "guest/cpu/models.h"
#include "guest/cpu/translate/bt.h"
#include "host/audio/audio.h"
#include "host/chardev/chardev.h"
#include "host/display/display.h"
#include "host/image/image.h"
#include "host/image/options.h"
#include "host/net/net.h"
#include "vmm/blockdev.h"
#include "vmm/monitor/monitor.h"
#include "vmm/vm.h"

#include <string.h>
#include <sys/prctl.h>

/*
 * build - from options to a machine, in the order in which things need each other: log,
 * engine, objects, chardevs, images, networks, board, devices, monitors, screen.
 */
static struct vm_options *opts;

void build_ide_is_cd(unsigned index, bool cd)
{
    opts->machine.ide_is_cd[index] = cd;
}

void build_add_device(const char *text)
{
    vm_options_add(opts, "drive-device", text);
}

void build_add_nic(const char *text)
{
    vm_options_add(opts, "nic-device", text);
}

/* ---- images ---- */

static bool on_drive(const struct option_use *use, void *owner, GError **error)
{
    (void)owner;
    g_autoptr(KeyVal) kv = keyval_parse(use->text, "file", error);
    bool ok = kv && vm_drive_add(kv, error);
    if (!ok) {
        g_prefix_error(error, "-drive %s: ", use->text);
    }
    return ok;
}

static const struct {
    const char *option, *iface, *index, *media;
} short_drives[] = {
    {"fda", "floppy", "0", NULL}, {"fdb", "floppy", "1", NULL},   {"hda", "ide", "0", "disk"},
    {"hdb", "ide", "1", "disk"},  {"hdc", "ide", "2", "disk"},    {"hdd", "ide", "3", "disk"},
    {"cdrom", "ide", "2", "cdrom"}, {"pflash", "pflash", NULL, NULL},
};

static bool on_short_drive(const struct option_use *use, void *owner, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_new();
    (void)owner;
    for (unsigned i = 0; i < G_N_ELEMENTS(short_drives); i++) {
        if (g_str_equal(short_drives[i].option, use->option)) {
            keyval_set(kv, "if", short_drives[i].iface);
            keyval_set(kv, "file", use->text);
            if (short_drives[i].index) {
                keyval_set(kv, "index", short_drives[i].index);
            }
            if (short_drives[i].media) {
                keyval_set(kv, "media", short_drives[i].media);
            } else if (g_str_equal(use->option, "pflash")) {
                keyval_set(kv, "format", "raw");
            }
        }
    }
    bool ok = vm_drive_add(kv, error);
    if (!ok) {
        g_prefix_error(error, "-%s %s: ", use->option, use->text);
    }
    return ok;
}

static bool on_any_drive(const struct option_use *use, void *owner, GError **error)
{
    return g_str_equal(use->option, "drive") ? on_drive(use, owner, error)
                                             : on_short_drive(use, owner, error);
}

static bool on_blockdev(const struct option_use *use, void *owner, GError **error)
{
    (void)owner;
    bool is_json = *use->text == '{';
    g_autoptr(KeyVal) kv = is_json ? NULL : keyval_parse(use->text, "driver", error);
    g_autoptr(json_t) options = is_json ? json_parse(use->text, strlen(use->text), error)
                                : kv    ? options_nest(kv, error)
                                        : NULL;
    bool ok = options && vm_blockdev_add(options, error);
    if (!ok) {
        g_prefix_error(error, "-blockdev %s: ", use->text);
    }
    return ok;
}

/* Drives without a disk that every PC has. */
static bool default_drives(struct vm_options *o, GError **error)
{
    static const char *const texts[][3] = {{"ide", "2", "if=ide,index=2,media=cdrom"},
                                           {"floppy", "0", "if=floppy,index=0"}};
    for (unsigned i = 0; i < G_N_ELEMENTS(texts) && !o->machine.nodefaults; i++) {
        if (!build_placed(texts[i][0], (unsigned)(*texts[i][1] - '0'))) {
            g_autoptr(KeyVal) kv = keyval_parse(texts[i][2], NULL, error);
            if (!vm_drive_add(kv, error)) {
                return false;
            }
        }
    }
    return true;
}

static bool build_drives(struct vm_options *o, GError **error)
{
    static const char *const names[] = {"drive", "fda", "fdb",   "hda",    "hdb",
                                        "hdc",   "hdd", "cdrom", "pflash", NULL};
    struct machine_config *m = &o->machine;
    if (!vm_options_each(o, (const char *const[]){"blockdev", NULL}, on_blockdev, NULL, error) ||
        !vm_options_each(o, names, on_any_drive, NULL, error) || !default_drives(o, error)) {
        return false;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(m->ide); i++) {
        m->ide[i] = build_placed("ide", i);
    }
    for (unsigned i = 0; i < 2; i++) {
        m->floppy[i] = build_placed("floppy", i);
        m->pflash[i] = build_placed("pflash", i);
    }
    return true;
}

/* ---- machine and devices ---- */

static bool on_device(const struct option_use *use, void *owner, GError **error)
{
    (void)owner;
    g_autoptr(KeyVal) kv = vm_keyval(use->text, "driver", error);
    bool ok = kv && vm_device_add(kv, error);
    if (!ok) {
        g_prefix_error(error, "-device %s: ", use->text);
    }
    return ok;
}

static bool build_devices(struct vm_options *o, GError **error)
{
    static const char *const order[] = {"nic-device", "usb-controller", "usb-device", "sound-device",
                                        "device", "drive-device"};
    if (o->usb) {
        vm_options_add(o, "usb-controller", "qemu-xhci");
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(order); i++) {
        if (!vm_options_each(o, (const char *const[]){order[i], NULL}, on_device, NULL, error)) {
            return false;
        }
    }
    return true;
}

/* A -device of the same kind takes the place of a default one. */
static bool has_device(const struct option_use *use, void *owner, GError **error)
{
    (void)error;
    return !g_str_has_prefix(use->text, owner);
}

static void choose_vga(struct vm_options *o)
{
    static const char *const screens[] = {"VGA", "virtio-vga", "virtio-gpu", "bochs-display"};
    bool own = false;
    for (unsigned i = 0; i < G_N_ELEMENTS(screens); i++) {
        own |= !vm_options_each(o, (const char *const[]){"device", NULL}, has_device,
                                (void *)screens[i], NULL);
    }
    if (!o->machine.vga) {
        o->machine.vga = own || o->machine.nodefaults ? "none" : "std";
    }
    bool hidden = o->nographic || (o->display && g_str_equal(o->display, "none"));
    o->machine.graphic = o->vnc || (!hidden && (own || !g_str_equal(o->machine.vga, "none")));
}

/* base=2006-06-17T16:01:21 counts from there, localtime is the host's zone. */
static bool set_clock(struct vm_options *o, GError **error)
{
    const char *base = o->rtc_base;
    if (!base || g_str_equal(base, "utc")) {
        return true;
    }
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    if (g_str_equal(base, "localtime")) {
        clock_set_wall_offset(g_date_time_get_utc_offset(now) * 1000);
        return true;
    }
    g_autoptr(GTimeZone) utc = g_time_zone_new_utc();
    g_autofree char *with_time = strchr(base, 'T') ? g_strdup(base) : g_strconcat(base, "T00:00:00", NULL);
    g_autoptr(GDateTime) wanted = g_date_time_new_from_iso8601(with_time, utc);
    if (!wanted) {
        g_set_error(error, LODGE_ERROR, EINVAL, "-rtc base=%s: want utc, localtime or a date", base);
        return false;
    }
    clock_set_wall_offset(g_date_time_difference(wanted, now) * 1000);
    return true;
}

static bool build_board(struct vm_options *o, GError **error)
{
    struct machine_config *m = &o->machine;
    const struct machine_model *model = NULL;
    for (unsigned i = 0; i < n_machine_models && !m->machine; i++) {
        m->machine = machine_models[i]->is_default ? machine_models[i]->name : NULL;
    }
    model = m->machine ? machine_find(m->machine) : NULL;
    if (!model) {
        g_set_error(error, LODGE_ERROR, EINVAL, "no machine \"%s\"; -M help lists them",
                    m->machine ? m->machine : "");
        return false;
    }
    if (m->maxcpus > model->max_cpus) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Invalid SMP CPUs %u. The max CPUs supported by machine '%s' is %u", m->maxcpus,
                    m->machine, model->max_cpus);
        return false;
    }
    m->backends = (struct backends){vm_drive, netdev_find, build_chardev, rng_find, audio_find,
                                    build_module_backend};
    m->display = display_new();
    struct board *board = machine_new(m, error);
    vm_set_board(board);
    if (!board || !machine_build(board, error)) {
        return false;
    }
    board->eject = vm_device_eject;
    const struct vcpu *cpu = vcpu_at(0);
    if (cpu && cpu->model && cpu->model->missing[0]) {
        vm_report("-cpu %s: this host, or this engine, lacks %s", cpu->model->name,
                  cpu->model->missing);
    }
    return true;
}

static bool on_process_name(const struct option_use *use, void *owner, GError **error)
{
    (void)owner, (void)error;
    prctl(PR_SET_NAME, use->text);
    return true;
}

static bool needs_kernel(const struct machine_config *m, GError **error)
{
    const char *alone = m->initrd ? "initrd" : m->append ? "append" : NULL;
    if (!alone || m->kernel) {
        return true;
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "-%s is of no use without -kernel", alone);
    return false;
}

static void lonely(struct netdev *net, void *owner)
{
    (void)owner;
    if (!net->card) {
        vm_report("warning: netdev %s has no peer", net->id);
    }
}

static bool one_firmware(const struct machine_config *m, GError **error)
{
    if (!m->bios || !build_placed("pflash", 0)) {
        return true;
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "-bios %s and a pflash drive exclude each other", m->bios);
    return false;
}

bool vm_build(struct vm_options *o, GError **error)
{
    opts = o;
    if (!needs_kernel(&o->machine, error)) {
        return false;
    }
    vm_options_each(o, (const char *const[]){"process-name", NULL}, on_process_name, NULL, NULL);
    if ((o->log_file && !log_to_file(o->log_file, error)) || !build_globals(o, error) ||
        !build_objects(o, error) || !build_ram_source(o, error) || !build_numa(o, error) || !set_clock(o, error) ||
        !build_audio(o, error) || !build_serials(o, error) || !build_drives(o, error) ||
        !one_firmware(&o->machine, error) || !build_nets(o, error)) {
        return false;
    }
    choose_vga(o);
    o->machine.engine = build_engine(o, error);
    ram_in_files = o->machine.engine == cpu_engine_find("bt") && bt_direct != DIRECT_OFF &&
                   bt_direct_prepare();
    if (!o->machine.engine || !build_board(o, error) || !build_devices(o, error) ||
        !machine_finish(vm_board(), error) || !build_display(o, error) ||
        !build_monitors(o, error) || (o->gdb && !gdb_start(o->gdb, error))) {
        return false;
    }
    build_engine_notes();
    netdev_each(lonely, NULL);
    return true;
}
