/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/machine/machine.h"

#include "base/keyval.h"
#include "guest/cpu/engine.h"
#include "guest/device/acpi_pm.h"
#include "guest/device/mc146818.h"
#include "guest/device/pci.h"
#include "guest/machine/pc.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

/* ---- names ---- */

const struct machine_model *machine_find(const char *name)
{
    for (unsigned i = 0; i < n_machine_models; i++) {
        const struct machine_model *m = machine_models[i];
        g_auto(GStrv) aliases = g_strsplit(m->alias ? m->alias : "", ",", -1);
        if (g_str_equal(m->name, name) || g_strv_contains((const char *const *)aliases, name)) {
            return m;
        }
    }
    return NULL;
}

void machine_list(GString *out)
{
    g_string_append(out, "Supported machines are:\n");
    for (unsigned i = 0; i < n_machine_models; i++) {
        const struct machine_model *m = machine_models[i];
        g_auto(GStrv) aliases = g_strsplit(m->alias ? m->alias : "", ",", -1);
        g_string_append_printf(out, "%-20s %s%s%s%s%s\n", m->name, m->about,
                               *aliases ? " (alias of " : "", *aliases ? *aliases : "",
                               *aliases ? ")" : "", m->is_default ? " (default)" : "");
        for (unsigned a = 0; aliases[a]; a++) {
            g_string_append_printf(out, "%-20s %s\n", aliases[a], m->about);
        }
    }
}

/* ---- firmware files ---- */

static GPtrArray *extra_folders; /* of char *, the one to search first at the end */

static const char *const folders[] = {"/usr/share/seabios", "/usr/share/OVMF", "/usr/share/ovmf",
                                      "/usr/share/qemu", "/usr/lib/ipxe/qemu"};

static const struct {
    const char *prefix, *package;
} packages[] = {{"bios", "seabios"},
                {"vgabios", "seabios"},
                {"OVMF", "ovmf"},
                {"pxe-", "ipxe-qemu"},
                {"efi-", "ipxe-qemu"},
                {"linuxboot", "qemu-system-data"},
                {"multiboot", "qemu-system-data"},
                {"pvh", "qemu-system-data"},
                {"kvmvapic", "qemu-system-data"}};

void machine_firmware_folder(const char *path)
{
    if (!extra_folders) {
        extra_folders = g_ptr_array_new_with_free_func(g_free);
    }
    g_ptr_array_add(extra_folders, g_strdup(path));
}

static char *in_folder(const char *folder, const char *name)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);
    return access(path, R_OK) == 0 ? g_steal_pointer(&path) : NULL;
}

char *machine_firmware(const char *name, GError **error)
{
    char *hit = access(name, R_OK) == 0 ? g_strdup(name) : NULL;
    if (strchr(name, '/') && !hit) {
        error_set_errno(error, errno, "firmware %s", name);
        return NULL;
    }
    for (unsigned i = extra_folders ? extra_folders->len : 0; i-- && !hit;) {
        hit = in_folder(extra_folders->pdata[i], name);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(folders) && !hit; i++) {
        hit = in_folder(folders[i], name);
    }
    const char *package = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(packages) && !package; i++) {
        package = g_str_has_prefix(name, packages[i].prefix) ? packages[i].package : NULL;
    }
    if (!hit) {
        g_set_error(error, LODGE_ERROR, ENOENT, "firmware file %s not found%s%s%s", name,
                    package ? ": apt-get install "
                            : " in the folders of -L and of Debian's packages",
                    package ? package : "", "");
    }
    return hit;
}

static char *find_file(struct board *board, const char *name, GError **error)
{
    (void)board;
    return machine_firmware(name, error);
}

/* ---- properties of -M ---- */

struct machine *machine_of(struct board *board)
{
    return board->machine;
}

const char *machine_prop(const struct machine *m, const char *name, const char *otherwise)
{
    const char *text = m->config.props ? g_hash_table_lookup(m->config.props, name) : NULL;
    return text ? text : otherwise;
}

bool machine_prop_bool(const struct machine *m, const char *name, bool otherwise, bool *out,
                       GError **error)
{
    const char *text = machine_prop(m, name, NULL);
    *out = otherwise;
    if (!text || g_str_equal(text, "auto") || text_bool(text, out)) {
        return true;
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "-M %s=%s: must be on, off or auto", name, text);
    return false;
}

/* Every name that some board or vmm understands, with what its value may be. */
static const struct {
    const char *name;
    const char *only; /* a value list; NULL: checked where it is used */
} props[] = {
    {"type", NULL},
    {"accel", NULL},
    {"kernel-firmware", NULL},
    {"smm", NULL},
    {"max-ram-below-4g", NULL},
    {"acpi", NULL},
    {"hpet", NULL},
    {"kernel-irqchip", "on,split"},
    {"kernel_irqchip", "on,split"},
    {"vmport", NULL},
    {"pcspk-audiodev", NULL},
    {"graphics", "on,off"},
    {"i8042", "on"},
    {"pit", "on"},
    {"sata", "on"},
    {"smbus", NULL},
    {"dump-guest-core", NULL},
    {"mem-merge", "off"},
    {"memory-backend", NULL},
    {"firmware", NULL},
    {"nvdimm", "off"},
    {"memory-encryption", ""},
    {"default-bus-bypass-iommu", "off"},
    {"hmat", "off"},
    {"append", NULL},
    {"kernel", NULL},
    {"initrd", NULL},
    {"smp", NULL},
    {"boot", NULL},
    {"pflash0", NULL},
    {"pflash1", NULL},
};

static bool prop_allowed(const char *name, const char *value, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(props); i++) {
        if (!g_str_equal(props[i].name, name)) {
            continue;
        }
        g_auto(GStrv) only = g_strsplit(props[i].only ? props[i].only : "", ",", -1);
        if (!props[i].only || g_strv_contains((const char *const *)only, value)) {
            return true;
        }
        g_set_error(error, LODGE_ERROR, ENOTSUP, "-M %s=%s is not supported", name, value);
        return false;
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "-M: there is no property \"%s\"", name);
    return false;
}

static bool props_check(const struct machine_config *c, GError **error)
{
    GHashTableIter i;
    void *name, *value;
    if (!c->props) {
        return true;
    }
    g_hash_table_iter_init(&i, c->props);
    while (g_hash_table_iter_next(&i, &name, &value)) {
        if (!prop_allowed(name, value ? value : "on", error)) {
            return false;
        }
    }
    return true;
}

/* ---- devices ---- */

struct device *pc_device_new(const char *model, GError **error)
{
    const struct device_model *m = device_model_find(model);
    if (!m) {
        g_set_error(error, LODGE_ERROR, ENOENT, "there is no device \"%s\"", model);
        return NULL;
    }
    return device_new(m);
}

struct device *pc_device(struct machine *m, const char *model, const char *path, GError **error,
                         ...)
{
    struct device *dev = pc_device_new(model, error);
    va_list texts;
    bool good = dev;
    va_start(texts, error);
    for (const char *key; good && (key = va_arg(texts, const char *));) {
        good = device_set(dev, key, va_arg(texts, const char *), error);
    }
    va_end(texts);
    if (dev && !good) {
        device_free(dev);
        return NULL;
    }
    return good && device_start(dev, m->board, path, error) ? dev : NULL;
}

/* ---- the machine ---- */

/* Threads in a core, cores in a die and so on take whole bits of the id: AMD and Intel do so. */
static unsigned bits_for(unsigned n)
{
    unsigned bits = 0;
    while (1u << bits < n) {
        bits++;
    }
    return bits;
}

static uint32_t apic_id(const struct cpu_topology *t, unsigned index)
{
    unsigned threads = MAX(t->threads, 1), cores = MAX(t->cores, 1), dies = MAX(t->dies, 1);
    unsigned thread = index % threads, core = index / threads % cores;
    unsigned die = index / threads / cores % dies, socket = index / threads / cores / dies;
    unsigned tb = bits_for(threads), cb = bits_for(cores), db = bits_for(dies);
    return thread | core << tb | die << (tb + cb) | socket << (tb + cb + db);
}

static struct machine *machine_make(const struct machine_config *config,
                                    const struct machine_model *model)
{
    struct machine *m = g_new0(struct machine, 1);
    m->config = *config;
    m->model = model;
    m->board = board_new();
    m->board->machine = m;
    m->board->backends = config->backends;
    m->board->request = config->request;
    m->board->owner = config->owner;
    m->board->display = config->display;
    m->board->find_file = find_file;
    m->kvm = config->engine && g_str_equal(config->engine->name, "kvm");
    m->config.maxcpus = MAX(config->maxcpus, MAX(config->cpus, 1));
    m->config.cpus = MAX(config->cpus, 1);
    m->apic_ids = g_new0(uint32_t, m->config.maxcpus);
    for (unsigned i = 0; i < m->config.maxcpus; i++) {
        m->apic_ids[i] = apic_id(&config->topology, i);
    }
    return m;
}

struct board *machine_new(const struct machine_config *config, GError **error)
{
    const struct machine_model *model = machine_find(config->machine ? config->machine : "pc");
    if (!model) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "unsupported machine type \"%s\": -M help lists what there is",
                    config->machine);
        return NULL;
    }
    if (config->maxcpus > model->max_cpus) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%u CPUs: machine \"%s\" takes at most %u",
                    config->maxcpus, model->name, model->max_cpus);
        return NULL;
    }
    if (!props_check(config, error)) {
        return NULL;
    }
    return machine_make(config, model)->board;
}

bool machine_build(struct board *board, GError **error)
{
    struct machine *m = board->machine;
    return m->model->build(board, &m->config, error);
}

bool machine_finish(struct board *board, GError **error)
{
    struct machine *m = board->machine;
    return !m->model->finish || m->model->finish(board, error);
}

static void reset_all(struct board *board)
{
    space_begin(board->memory);
    space_begin(board->ports);
    board_reset(board);
    space_commit(board->ports);
    space_commit(board->memory);
    for (unsigned i = 0; i < vcpu_count(); i++) {
        vcpu_reset(vcpu_at(i), false);
    }
    for (struct device *d = board->devices; d; d = d->next) {
        device_settle(d); /* what follows processors' registers: where local APICs are */
    }
}

void machine_reset(struct board *board)
{
    struct machine *m = board->machine;
    reset_all(board);
    firmware_boot_order(m);
    firmware_cpus(m);
    if (m->direct) {
        pc_direct_boot(m);
    }
}

enum { CMOS_SHUTDOWN = 0x0f, SHUTDOWN_S3 = 0xfe };

void machine_wake(struct board *board)
{
    struct machine *m = board->machine;
    struct device *rtc = board_part(board, "rtc");
    struct acpi_pm *pm = acpi_pm_of(board);
    unsigned pam = m->q35 ? 0x90 : 0x59;
    uint32_t shadow[2];
    for (unsigned i = 0; i < 2; i++) {
        shadow[i] = board->pci ? pci_config_read(board->pci, 0, 0, pam + 3 * i, 4) : 0;
    }
    reset_all(board);
    /* SeaBIOS knows from its variables in shadow RAM that it ran before: it must find them. */
    for (unsigned i = 0; i < 2 && board->pci; i++) {
        pci_config_write(board->pci, 0, 0, pam + 3 * i, shadow[i], 4);
    }
    if (rtc) {
        mc146818_set(rtc, CMOS_SHUTDOWN, SHUTDOWN_S3);
    }
    if (m->direct) {
        pc_direct_wake(m);
    }
    if (pm) {
        acpi_pm_wake(pm);
    }
}
