/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What libvirt adds to a domain's XML when it is defined, and what it refuses.
 *
 * Spec: libvirt, "Domain XML format"; measured: a definition before and after `virsh define`.
 */
#include "manage/model/domain.h"

#include "manage/error.h"
#include "manage/model/cpuset.h"
#include "manage/model/iothreads.h"

#include <string.h>

enum { VCPUS_MAX = 255 };

bool domain_is_q35(const DomainDef *def)
{
    return def->machine && strstr(def->machine, "q35");
}

bool mac_valid(const char *text)
{
    for (unsigned i = 0; i < 17; i++) {
        if (i % 3 == 2 ? text[i] != ':' : !g_ascii_isxdigit(text[i])) {
            return false;
        }
    }
    return !text[17] && !(g_ascii_xdigit_value(text[1]) & 1); /* no multicast */
}

char *mac_random(void)
{
    uint32_t r = g_random_int();
    return g_strdup_printf("52:54:00:%02x:%02x:%02x", r & 0xff, r >> 8 & 0xff, r >> 16 & 0xff);
}

int disk_index(const char *target)
{
    static const char *const prefixes[] = {"fd", "hd", "vd", "sd", "xvd", "ubd"};
    for (unsigned i = 0; i < G_N_ELEMENTS(prefixes); i++) {
        size_t n = strlen(prefixes[i]);
        if (strncmp(target, prefixes[i], n) != 0 || !target[n] || strlen(target + n) > 4) {
            continue;
        }
        int index = 0;
        for (const char *s = target + n; *s; s++) {
            if (*s < 'a' || *s > 'z') {
                return -1;
            }
            index = index * 26 + (*s - 'a') + (s[1] ? 1 : 0);
        }
        return index;
    }
    return -1;
}

const char *disk_path(const struct domain_disk *disk)
{
    const struct disk_source *s = disk->source;
    return !s ? NULL : s->file ? s->file : s->dev ? s->dev : s->path;
}

struct domain_disk *domain_find_disk(const DomainDef *def, const char *name)
{
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        struct domain_disk *disk = def->disks->pdata[i];
        if (strcmp(disk->target, name) == 0 || g_strcmp0(disk_path(disk), name) == 0) {
            return disk;
        }
    }
    return NULL;
}

struct domain_interface *domain_find_interface(const DomainDef *def, const char *name)
{
    for (unsigned i = 0; i < xml_count(def->interfaces); i++) {
        struct domain_interface *nic = def->interfaces->pdata[i];
        if (g_strcmp0(nic->target, name) == 0 || g_ascii_strcasecmp(nic->mac, name) == 0) {
            return nic;
        }
    }
    return NULL;
}

/* --- defaults --- */

/* "A-B" and "AB" in any case to libvirt's form; false if it is no UUID. */
static bool canonical_uuid(char **uuid)
{
    g_autoptr(GString) digits = g_string_new(NULL);
    for (const char *s = *uuid; *s; s++) {
        if (g_ascii_isxdigit(*s)) {
            g_string_append_c(digits, g_ascii_tolower(*s));
        } else if (*s != '-' && !g_ascii_isspace(*s)) {
            return false;
        }
    }
    if (digits->len != 32) {
        return false;
    }
    for (unsigned i = 0; i < 4; i++) {
        g_string_insert_c(digits, (const ssize_t[]){8, 13, 18, 23}[i], '-');
    }
    g_free(*uuid);
    *uuid = g_strdup(digits->str);
    return true;
}

static void default_int(int64_t *field, int64_t v)
{
    *field = *field == XML_ABSENT ? v : *field;
}

static void default_word(int *field, int v)
{
    *field = *field ? *field : v;
}

static void default_text(char **field, const char *v)
{
    *field = *field ? *field : g_strdup(v);
}

const struct domain_board domain_boards[] = {
    {"pc-i440fx-7.2", NULL, 255},
    {"pc", "pc-i440fx-7.2", 255},
    {"pc-i440fx-7.1", NULL, 255},
    {"pc-i440fx-7.0", NULL, 255},
    {"pc-i440fx-6.2", NULL, 255},
    {"pc-i440fx-6.1", NULL, 255},
    {"pc-i440fx-6.0", NULL, 255},
    {"pc-i440fx-5.2", NULL, 255},
    {"pc-i440fx-4.2", NULL, 255},
    {"pc-i440fx-3.1", NULL, 255},
    {"pc-i440fx-2.12", NULL, 255},
    {"pc-q35-7.2", NULL, 255},
    {"q35", "pc-q35-7.2", 255},
    {"pc-q35-7.1", NULL, 255},
    {"pc-q35-7.0", NULL, 255},
    {"pc-q35-6.2", NULL, 255},
    {"pc-q35-6.1", NULL, 255},
    {"pc-q35-6.0", NULL, 255},
    {"pc-q35-5.2", NULL, 255},
    {"pc-q35-4.2", NULL, 255},
    {"pc-q35-3.1", NULL, 255},
    {"pc-q35-2.12", NULL, 255},
    {"none", NULL, 1},
    {NULL},
};

const char *domain_board(const char *name)
{
    for (const struct domain_board *b = domain_boards; b->name; b++) {
        if (strcmp(name, b->name) == 0) {
            return b->canonical ? b->canonical : b->name;
        }
    }
    return NULL;
}

bool domain_stands_for_ours(const char *program)
{
    return g_str_has_prefix(program, "qemu-") || strcmp(program, "kvm") == 0;
}

static bool fill_os(DomainDef *def, GError **error)
{
    default_word(&def->os_arch, ARCH_X86_64);
    default_text(&def->machine, "pc");
    const char *board = domain_board(def->machine);
    if (!board) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "Emulator 'lodge-vm' does not support machine type '%s'", def->machine);
        return false;
    }
    if (strcmp(board, def->machine) != 0) {
        g_free(def->machine);
        def->machine = g_strdup(board);
    }
    bool ordered = false;
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        ordered |= ((struct domain_disk *)def->disks->pdata[i])->boot_order != XML_ABSENT;
    }
    for (unsigned i = 0; i < xml_count(def->interfaces); i++) {
        ordered |= ((struct domain_interface *)def->interfaces->pdata[i])->boot_order != XML_ABSENT;
    }
    if (!def->boots && !ordered) {
        struct os_boot *boot = g_new0(struct os_boot, 1);
        boot->dev = BOOT_HD;
        xml_append(NULL, &def->boots, boot);
    }
    default_word(&def->on_poweroff, ACTION_DESTROY);
    default_word(&def->on_reboot, ACTION_RESTART);
    default_word(&def->on_crash, ACTION_DESTROY);
    default_word(&def->clock_offset, OFFSET_UTC);
    if (def->cpu && def->cpu->model) {
        default_word(&def->cpu->mode, MODE_CUSTOM);
        default_word(&def->cpu->match, 2); /* exact */
    }
    for (unsigned i = 0; def->cpu && i < xml_count(def->cpu->features); i++) {
        default_word(&((struct cpu_feature *)def->cpu->features->pdata[i])->policy, POLICY_REQUIRE);
    }
    return true;
}

static bool fill_disk(struct domain_disk *disk, GError **error)
{
    static const struct {
        const char *prefix;
        int bus;
    } buses[] = {{"vd", BUS_VIRTIO}, {"hd", BUS_IDE}, {"sd", BUS_SCSI}, {"fd", BUS_FDC}};
    default_word(&disk->device, DISK_DEVICE_DISK);
    if (disk->source && !disk->type) {
        disk->type = disk->source->file   ? DISK_FILE
                     : disk->source->dev  ? DISK_BLOCK
                     : disk->source->pool ? DISK_VOLUME
                                          : DISK_NETWORK;
    }
    default_word(&disk->type, DISK_FILE);
    for (unsigned i = 0; i < G_N_ELEMENTS(buses) && !disk->bus; i++) {
        disk->bus = g_str_has_prefix(disk->target, buses[i].prefix) ? buses[i].bus : 0;
    }
    if (!disk->bus || disk_index(disk->target) < 0) {
        libvirt_error(error, ERR_XML, "Unknown disk name '%s' and no address specified",
                      disk->target);
        return false;
    }
    default_text(&disk->driver_name, "qemu");
    default_text(&disk->format, "raw");
    disk->readonly |= disk->device == DISK_DEVICE_CDROM;
    return true;
}

static void fill_interface(struct domain_interface *nic)
{
    if (!nic->mac) {
        nic->mac = mac_random();
    }
    default_text(&nic->model, "e1000");
    if (nic->target && nic->target_managed != TRI_NO &&
        (g_str_has_prefix(nic->target, "vnet") || g_str_has_prefix(nic->target, "macvtap"))) {
        g_clear_pointer(&nic->target, g_free); /* names that are made up at every start */
    }
}

static struct domain_char *new_char(const struct xml_table *t, int type, int target, int64_t port)
{
    struct domain_char *c = xml_new(t);
    c->type = type;
    c->target = target;
    c->port = port;
    return c;
}

/* The first console is the first serial port, whichever of the two was written. */
static void fill_consoles(DomainDef *def)
{
    struct domain_char *console = def->consoles ? def->consoles->pdata[0] : NULL;
    if (console) {
        default_word(&console->target, TARGET_SERIAL);
        default_int(&console->port, 0);
    }
    if (console && console->target == TARGET_SERIAL && !def->serials) {
        struct domain_char *serial = xml_copy(&console_table, console);
        serial->target = TARGET_ISA_SERIAL;
        xml_append(NULL, &def->serials, serial);
    }
    for (unsigned i = 0; i < xml_count(def->serials); i++) {
        struct domain_char *serial = def->serials->pdata[i];
        default_word(&serial->target, TARGET_ISA_SERIAL);
        default_int(&serial->port, i);
        default_text(&serial->target_model, serial->target == TARGET_ISA_SERIAL  ? "isa-serial"
                                            : serial->target == TARGET_ISA_DEBUG ? "isa-debugcon"
                                                                                 : "pci-serial");
    }
    if (!console && def->serials) {
        struct domain_char *serial = def->serials->pdata[0];
        xml_append(NULL, &def->consoles,
                   new_char(&console_table, serial->type, TARGET_SERIAL, serial->port));
        console = def->consoles->pdata[0];
    }
    if (console && console->target == TARGET_SERIAL) {
        struct domain_char *serial = def->serials->pdata[0];
        struct domain_char *same = xml_copy(&serial_table, serial);
        same->target = TARGET_SERIAL;
        g_clear_pointer(&same->target_model, g_free);
        xml_free(&address_table, g_steal_pointer(&same->address));
        xml_free(&console_table, console);
        def->consoles->pdata[0] = same;
    }
    for (unsigned i = 1; i < xml_count(def->consoles); i++) {
        struct domain_char *more = def->consoles->pdata[i];
        default_word(&more->target, TARGET_VIRTIO);
        default_int(&more->port, i);
    }
    for (unsigned i = 0; i < xml_count(def->channels); i++) {
        struct domain_char *channel = def->channels->pdata[i];
        default_word(&channel->target, TARGET_VIRTIO);
    }
    for (unsigned i = 0; i < xml_count(def->parallels); i++) {
        default_int(&((struct domain_char *)def->parallels->pdata[i])->port, i);
    }
}

static void add_input(DomainDef *def, int type)
{
    for (unsigned i = 0; i < xml_count(def->inputs); i++) {
        struct domain_input *input = def->inputs->pdata[i];
        if (input->type == type && input->bus == INPUT_PS2) {
            return;
        }
    }
    struct domain_input *input = xml_new(&input_table);
    input->type = type;
    input->bus = INPUT_PS2;
    xml_append(NULL, &def->inputs, input);
}

static void fill_graphics(struct domain_graphics *g)
{
    default_int(&g->port, -1);
    if (!g->autoport && g->port == -1) {
        g->autoport = TRI_YES;
    }
    if (!g->listens) {
        struct graphics_listen *listen = xml_new(&graphics_listen_table);
        listen->type = g->socket ? LISTEN_SOCKET : LISTEN_ADDRESS;
        listen->address = g_strdup(g->listen);
        listen->socket = g_strdup(g->socket);
        xml_append(NULL, &g->listens, listen);
    }
    struct graphics_listen *first = g->listens->pdata[0];
    if (first->address && !g->listen) {
        g->listen = g_strdup(first->address);
    }
    if (first->type == LISTEN_SOCKET || first->type == LISTEN_NONE) {
        g->port = XML_ABSENT; /* there is no port then */
        g->autoport = TRI_ABSENT;
        default_text(&g->socket, first->socket);
    }
}

static void fill_screen(DomainDef *def)
{
    for (unsigned i = 0; i < xml_count(def->inputs); i++) {
        struct domain_input *input = def->inputs->pdata[i];
        default_word(&input->bus, input->type == INPUT_TABLET ? INPUT_USB : INPUT_PS2);
    }
    if (def->graphics) {
        add_input(def, INPUT_MOUSE);
        add_input(def, INPUT_KEYBOARD);
    }
    for (unsigned i = 0; i < xml_count(def->graphics); i++) {
        fill_graphics(def->graphics->pdata[i]);
    }
    if ((def->graphics || def->sounds) && !def->audios) {
        struct domain_audio *audio = xml_new(&audio_table);
        audio->id = 1;
        audio->type = 1;
        xml_append(NULL, &def->audios, audio);
    }
    if (def->graphics && !def->videos) {
        xml_append(NULL, &def->videos, xml_new(&video_table));
    }
    for (unsigned i = 0; i < xml_count(def->videos); i++) {
        struct domain_video *video = def->videos->pdata[i];
        default_word(&video->type, VIDEO_VGA);
        if (video->type != VIDEO_NONE) {
            default_int(&video->heads, 1);
            default_word((int *)&video->primary, i == 0 ? TRI_YES : TRI_ABSENT);
        }
        if (video->type == VIDEO_VGA || video->type == VIDEO_BOCHS) {
            default_int(&video->vram, 16384);
        }
    }
    if (!def->balloon) {
        def->balloon = xml_new(&balloon_table);
        def->balloon->model = BALLOON_VIRTIO;
    }
    if (def->watchdog) {
        default_word(&def->watchdog->action, 1); /* reset */
    }
}

/* --- controllers --- */

static bool index_used(const DomainDef *def, int type, int64_t index,
                       const struct domain_controller *but)
{
    for (unsigned i = 0; i < xml_count(def->controllers); i++) {
        const struct domain_controller *c = def->controllers->pdata[i];
        if (c != but && c->type == type && c->index == index) {
            return true;
        }
    }
    return false;
}

/* Companions of a USB 2 controller share its index. */
static bool is_companion(const struct domain_controller *c)
{
    return c->model >= MODEL_ICH9_UHCI1 && c->model <= MODEL_ICH9_UHCI3;
}

static void need_controller(DomainDef *def, int type, int model, int64_t index)
{
    if (index_used(def, type, index, NULL)) {
        return;
    }
    struct domain_controller *c = xml_new(&controller_table);
    c->type = type;
    c->model = model;
    c->index = index;
    xml_append(NULL, &def->controllers, c);
}

static void fill_root(DomainDef *def)
{
    bool q35 = domain_is_q35(def);
    for (unsigned i = 0; i < xml_count(def->controllers); i++) {
        struct domain_controller *c = def->controllers->pdata[i];
        if (c->type == CONTROLLER_PCI &&
            (c->model == MODEL_PCI_ROOT || c->model == MODEL_PCIE_ROOT)) {
            c->index = 0;
            return;
        }
    }
    if (q35 || g_str_has_prefix(def->machine, "pc")) {
        need_controller(def, CONTROLLER_PCI, q35 ? MODEL_PCIE_ROOT : MODEL_PCI_ROOT, 0);
    }
}

const char *domain_pci_controller(int model)
{
    static const char *const names[] = {
        [MODEL_PCIE_ROOT_PORT] = "pcie-root-port",
        [MODEL_PCI_BRIDGE] = "pci-bridge",
        [MODEL_DMI_TO_PCI] = "i82801b11-bridge",
        [MODEL_PCIE_TO_PCI] = "pcie-pci-bridge",
        [MODEL_SWITCH_UPSTREAM] = "x3130-upstream",
        [MODEL_SWITCH_DOWNSTREAM] = "xio3130-downstream",
    };
    return model > 0 && (unsigned)model < G_N_ELEMENTS(names) ? names[model] : NULL;
}

bool domain_has_slot(int model)
{
    return model == MODEL_PCIE_ROOT_PORT || model == MODEL_SWITCH_DOWNSTREAM;
}

static void fill_controllers(DomainDef *def)
{
    fill_root(def);
    for (unsigned i = 0; i < xml_count(def->controllers); i++) {
        struct domain_controller *c = def->controllers->pdata[i];
        if (c->index == XML_ABSENT && is_companion(c)) {
            c->index = 0;
        }
        for (int64_t n = 0; c->index == XML_ABSENT; n++) {
            c->index = index_used(def, c->type, n, c) ? XML_ABSENT : n;
        }
        const char *bridge = c->type == CONTROLLER_PCI ? domain_pci_controller(c->model) : NULL;
        if (bridge) {
            default_text(&c->model_name, bridge);
        }
        if (bridge && domain_has_slot(c->model)) {
            default_int(&c->chassis, c->index);
        }
        if (c->type == CONTROLLER_USB) {
            default_word(&c->model, MODEL_QEMU_XHCI);
        }
        if (c->type == CONTROLLER_SCSI) {
            default_word(&c->model, MODEL_VIRTIO_SCSI);
        }
    }
    if (domain_is_q35(def)) {
        need_controller(def, CONTROLLER_SATA, 0, 0);
    }
    static const struct {
        int bus, controller, model, per;
    } needs[] = {{BUS_IDE, CONTROLLER_IDE, 0, 4},
                 {BUS_SATA, CONTROLLER_SATA, 0, 6},
                 {BUS_SCSI, CONTROLLER_SCSI, MODEL_VIRTIO_SCSI, 7},
                 {BUS_FDC, CONTROLLER_FDC, 0, 2},
                 {BUS_USB, CONTROLLER_USB, MODEL_QEMU_XHCI, 1 << 20}};
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        struct domain_disk *disk = def->disks->pdata[i];
        for (unsigned k = 0; k < G_N_ELEMENTS(needs); k++) {
            if (disk->bus == needs[k].bus) {
                int64_t index = disk->address && disk->address->controller != XML_ABSENT
                                    ? disk->address->controller
                                    : disk_index(disk->target) / needs[k].per;
                need_controller(def, needs[k].controller, needs[k].model, index);
            }
        }
    }
    for (unsigned i = 0; i < xml_count(def->inputs); i++) {
        if (((struct domain_input *)def->inputs->pdata[i])->bus == INPUT_USB) {
            need_controller(def, CONTROLLER_USB, MODEL_QEMU_XHCI, 0);
        }
    }
    bool serial = def->channels != NULL;
    for (unsigned i = 0; i < xml_count(def->consoles); i++) {
        serial |= ((struct domain_char *)def->consoles->pdata[i])->target == TARGET_VIRTIO;
    }
    if (serial) {
        need_controller(def, CONTROLLER_VIRTIO_SERIAL, 0, 0);
    }
}

/* An attribute with its unit beside it, to KiB. */
static bool to_kib(int64_t *size, char **unit, const char *what, GError **error)
{
    uint64_t bytes = 1024;
    if (*unit && !xml_unit(*unit, &bytes)) {
        libvirt_error(error, ERR_XML, "unknown suffix '%s'", *unit);
        return false;
    }
    if (*size <= 0 || *size > (INT64_C(1) << 50) / (int64_t)bytes) {
        libvirt_error(error, ERR_XML, "%s of %ld is not possible", what, (long)*size);
        return false;
    }
    *size = (*size * (int64_t)bytes + 1023) / 1024;
    g_free(*unit);
    *unit = g_strdup("KiB");
    return true;
}

int64_t domain_modules(const DomainDef *def)
{
    int64_t sum = 0;
    for (unsigned i = 0; i < xml_count(def->memory_devices); i++) {
        sum += ((struct domain_memory_device *)def->memory_devices->pdata[i])->size;
    }
    return sum;
}

/* Guest nodes: numbers, KiB, and the sum of them and of the modules as the machine's memory. */
static bool fill_memory(DomainDef *def, GError **error)
{
    int64_t sum = 0;
    unsigned n = def->cpu ? xml_count(def->cpu->cells) : 0;
    for (unsigned i = 0; i < n; i++) {
        struct cpu_cell *cell = def->cpu->cells->pdata[i];
        default_int(&cell->id, i);
        if (!to_kib(&cell->memory, &cell->unit, "memory of a NUMA cell", error)) {
            return false;
        }
        sum += cell->memory;
    }
    for (unsigned i = 0; i < xml_count(def->pages); i++) {
        struct huge_page *page = def->pages->pdata[i];
        if (!to_kib(&page->size, &page->unit, "size of huge pages", error)) {
            return false;
        }
    }
    def->memory = n ? sum + domain_modules(def) : def->memory;
    return true;
}

bool domain_def_fill(DomainDef *def, GError **error)
{
    if (!def->uuid) {
        def->uuid = g_uuid_string_random();
    } else if (!canonical_uuid(&def->uuid)) {
        libvirt_error(error, ERR_INTERNAL, "malformed uuid element");
        return false;
    }
    if (!fill_memory(def, error)) {
        return false;
    }
    default_int(&def->current_memory, def->memory);
    def->current_memory = MIN(def->current_memory, def->memory);
    default_int(&def->vcpus, 1);
    default_word(&def->vcpu_placement, 1);
    if (def->current_vcpus == def->vcpus) {
        def->current_vcpus = XML_ABSENT;
    }
    if (!domain_vcpus_fill(def, error)) {
        return false;
    }
    if (!fill_os(def, error)) {
        return false;
    }
    if (def->emulator) {
        g_autofree char *base = g_path_get_basename(def->emulator);
        if (domain_stands_for_ours(base)) {
            g_clear_pointer(&def->emulator, g_free); /* ours stands in for it */
        } else if (strcmp(base, "lodge-vm") != 0) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "<emulator>%s</emulator> is not lodge-vm",
                          def->emulator);
            return false;
        }
    }
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        if (!fill_disk(def->disks->pdata[i], error)) {
            return false;
        }
    }
    for (unsigned i = 0; i < xml_count(def->interfaces); i++) {
        fill_interface(def->interfaces->pdata[i]);
    }
    fill_consoles(def);
    fill_screen(def);
    fill_controllers(def);
    return true;
}

/* --- checks --- */

static bool check_name(const DomainDef *def, GError **error)
{
    if (!def->name[0]) {
        libvirt_error(error, ERR_XML, "name must not be empty");
    } else if (strchr(def->name, '/')) {
        libvirt_error(error, ERR_XML, "name %s cannot contain '/'", def->name);
    } else if (strchr(def->name, '\n')) {
        libvirt_error(error, ERR_XML, "name cannot contain a line end");
    } else if (strcmp(def->name, ".") == 0 || strcmp(def->name, "..") == 0 ||
               strlen(def->name) > 200) {
        libvirt_error(error, ERR_XML, "name '%.210s' cannot be the name of a file", def->name);
    } else if (def->title && strchr(def->title, '\n')) {
        libvirt_error(error, ERR_XML, "Domain title can't contain newlines");
    } else {
        return true;
    }
    return false;
}

static bool check_size(const DomainDef *def, GError **error)
{
    int64_t current = def->current_vcpus == XML_ABSENT ? def->vcpus : def->current_vcpus;
    if (strcmp(def->os_type, "hvm") != 0) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "os type '%s' is not supported: only hvm",
                      def->os_type);
    } else if (def->memory <= 0) {
        libvirt_error(error, ERR_XML, "memory must not be 0");
    } else if (def->memory > INT64_C(1) << 40) {
        libvirt_error(error, ERR_XML, "memory is too large");
    } else if (def->vcpus < 1 || def->vcpus > VCPUS_MAX) {
        libvirt_error(error, ERR_XML, "invalid maximum number of vCPUs '%ld'", (long)def->vcpus);
    } else if (current < 1 || current > def->vcpus) {
        libvirt_error(error, ERR_XML, "maxvcpus must not be less than current vcpus (%ld < %ld)",
                      (long)def->vcpus, (long)current);
    } else if (def->max_memory != XML_ABSENT &&
               (def->memory_slots == XML_ABSENT || def->max_memory < def->memory)) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "<maxMemory> needs slots and must not be less than <memory>");
    } else {
        return true;
    }
    return false;
}

static bool module_wrong(const DomainDef *def, unsigned i, GError **error)
{
    const struct domain_memory_device *dimm = def->memory_devices->pdata[i];
    int64_t slot = dimm->address ? dimm->address->slot : XML_ABSENT;
    unsigned cells = def->cpu ? xml_count(def->cpu->cells) : 0;
    if (dimm->address && dimm->address->type != ADDRESS_DIMM) {
        libvirt_error(error, ERR_XML, "only 'dimm' addresses are supported for the pc-dimm device");
    } else if (slot != XML_ABSENT && slot >= def->memory_slots) {
        libvirt_error(error, ERR_XML, "memory device slot '%ld' exceeds slots count '%ld'",
                      (long)slot, (long)def->memory_slots);
    } else if (dimm->size <= 0 || dimm->size % 2048) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "size of a memory device must be a multiple of 2 MiB, not %ld KiB",
                      (long)dimm->size);
    } else if (dimm->node != XML_ABSENT && (dimm->node < 0 || dimm->node >= MAX(cells, 1))) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "can't add memory backend for guest node '%ld' as the guest has only '%u' "
                      "NUMA nodes configured",
                      (long)dimm->node, cells);
    } else {
        for (unsigned k = 0; k < i; k++) {
            const struct domain_memory_device *other = def->memory_devices->pdata[k];
            if (slot != XML_ABSENT && other->address && other->address->slot == slot) {
                libvirt_error(error, ERR_XML, "memory device slot '%ld' is already being used",
                              (long)slot);
                return true;
            }
        }
        return false;
    }
    return true;
}

static bool check_modules(const DomainDef *def, GError **error)
{
    unsigned n = xml_count(def->memory_devices);
    if (n && def->max_memory == XML_ABSENT) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "cannot use/hotplug a memory device when "
                      "domain 'maxMemory' is not defined");
        return false;
    }
    if (n && n > def->memory_slots) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "memory device count '%u' exceeds slots count '%ld'", n,
                      (long)def->memory_slots);
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        if (module_wrong(def, i, error)) {
            return false;
        }
    }
    if (n && domain_modules(def) >= def->memory) {
        libvirt_error(error, ERR_XML, "Total size of memory devices exceeds the total memory size");
        return false;
    }
    return true;
}

static bool check_cpu(const DomainDef *def, GError **error)
{
    const struct domain_cpu *cpu = def->cpu;
    if (cpu && !domain_check_cpu(cpu, error)) {
        return false;
    }
    if (!cpu || cpu->sockets == XML_ABSENT) {
        return true;
    }
    if (cpu->clusters != XML_ABSENT && cpu->clusters != 1) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "Only one cluster per die is supported");
        return false;
    }
    int64_t dies = cpu->dies == XML_ABSENT ? 1 : cpu->dies;
    if (cpu->sockets < 1 || cpu->cores < 1 || cpu->threads < 1 || dies < 1 ||
        cpu->sockets > VCPUS_MAX || cpu->cores > VCPUS_MAX || cpu->threads > VCPUS_MAX ||
        dies > VCPUS_MAX) {
        libvirt_error(error, ERR_XML, "Missing or invalid attribute in CPU topology");
        return false;
    }
    if (cpu->sockets * dies * cpu->cores * cpu->threads != def->vcpus) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "CPU topology doesn't match maximum vcpu count");
        return false;
    }
    return true;
}

static bool check_set(const char *text, unsigned limit, struct cpuset *out, GError **error)
{
    if (text && !cpuset_parse(text, out, error)) {
        return false;
    }
    for (unsigned i = limit; text && i < CPUSET_BITS; i++) {
        if (cpuset_has(out, i)) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          "CPU %u of a NUMA cell is beyond the maximum of %u", i, limit);
            return false;
        }
    }
    return true;
}

static bool check_cells(const DomainDef *def, GError **error)
{
    struct cpuset all = {0}, set = {0};
    unsigned n = def->cpu ? xml_count(def->cpu->cells) : 0;
    for (unsigned i = 0; i < n; i++) {
        const struct cpu_cell *cell = def->cpu->cells->pdata[i];
        if (cell->id != i) {
            libvirt_error(error, ERR_XML, "NUMA cells must be numbered from 0 on, in order");
            return false;
        }
        memset(&set, 0, sizeof(set));
        if (!check_set(cell->cpus, (unsigned)def->vcpus, &set, error)) {
            return false;
        }
        for (unsigned k = 0; k < CPUSET_BYTES; k++) {
            if (all.bytes[k] & set.bytes[k]) {
                libvirt_error(error, ERR_XML, "NUMA cells %u and another have vCPUs in common", i);
                return false;
            }
            all.bytes[k] |= set.bytes[k];
        }
        for (unsigned k = 0; k < xml_count(cell->distances); k++) {
            const struct cell_distance *d = cell->distances->pdata[k];
            if (d->id < 0 || d->id >= n || d->value < 10 || d->value > 255 ||
                (d->value == 10) != (d->id == i)) {
                libvirt_error(error, ERR_XML, "NUMA distance %ld from cell %u to %ld is not valid",
                              (long)d->value, i, (long)d->id);
                return false;
            }
        }
    }
    for (unsigned i = 0; i < xml_count(def->memnodes); i++) {
        const struct numa_memnode *node = def->memnodes->pdata[i];
        if (node->cell < 0 || node->cell >= MAX(n, 1)) {
            libvirt_error(error, ERR_XML, "Argument 'cellid' in <memnode> must name a guest cell");
            return false;
        }
        if (!cpuset_parse(node->nodeset, &set, error)) {
            return false;
        }
    }
    return true;
}

/* Sets of the host's processors and nodes. */
static bool check_pins(const DomainDef *def, GError **error)
{
    struct cpuset set;
    const char *const texts[] = {def->vcpu_cpuset, def->emulator_pin, def->numatune_nodeset};
    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++) {
        if (texts[i] && !cpuset_parse(texts[i], &set, error)) {
            return false;
        }
    }
    for (unsigned i = 0; i < xml_count(def->vcpu_pins); i++) {
        const struct vcpu_pin *pin = def->vcpu_pins->pdata[i];
        if (!cpuset_parse(pin->cpuset, &set, error)) {
            return false;
        }
    }
    return true;
}

/* What cannot go together in one disk. */
static bool check_disk_words(const struct domain_disk *disk, GError **error)
{
    const char *startup = disk->source ? disk->source->startup : NULL;
    const char *const policies[] = {"mandatory", "requisite", "optional", NULL};
    if (disk->copy_on_read == TRI_YES && disk->readonly) {
        libvirt_error(error, ERR_XML, "copy_on_read is not compatible with read-only disk '%s'",
                      disk->target);
    } else if (disk->rerror_policy == POLICY_ENOSPACE) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "unknown disk read error policy '%s'",
                      error_policy_words[POLICY_ENOSPACE]);
    } else if (startup && !g_strv_contains(policies, startup)) {
        libvirt_error(error, ERR_XML, "unknown startupPolicy value '%s'", startup);
    } else if (startup && disk->type == DISK_NETWORK) {
        libvirt_error(error, ERR_XML, "Setting disk %s is not allowed for disk of network type",
                      startup);
    } else if (startup && disk->device == DISK_DEVICE_DISK && startup[0] == 'r') {
        libvirt_error(error, ERR_XML, "Setting disk '%s' is allowed only for cdrom or floppy",
                      startup);
    } else if (disk->removable && disk->bus != BUS_USB) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "removable is only valid for usb disks");
    } else if ((disk->vendor || disk->product) && disk->bus != BUS_SCSI) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "Only scsi disk supports vendor and product");
    } else if ((disk->cylinders == XML_ABSENT) != (disk->heads == XML_ABSENT) ||
               (disk->cylinders == XML_ABSENT) != (disk->track_sectors == XML_ABSENT)) {
        libvirt_error(error, ERR_XML, "geometry of disk '%s' is not whole: cyls, heads and secs",
                      disk->target);
    } else if (disk->cylinders != XML_ABSENT && (disk->device != DISK_DEVICE_DISK ||
                                                 (disk->bus != BUS_IDE && disk->bus != BUS_SATA))) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "CHS geometry can not be set for '%s' bus of disk '%s'",
                      disk_bus_words[disk->bus], disk->target);
    } else if (disk->io == IO_NATIVE && disk->cache != CACHE_NONE &&
               disk->cache != CACHE_DIRECTSYNC) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "native I/O needs either no disk cache or directsync cache mode, QEMU will "
                      "fallback to aio=threads");
    } else if (disk->transient && disk->device != DISK_DEVICE_DISK) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "disk '%s' is no hard disk: it cannot be transient", disk->target);
    } else {
        return true;
    }
    return false;
}

static bool check_disk(const DomainDef *def, unsigned n, GError **error)
{
    const struct domain_disk *disk = def->disks->pdata[n];
    const struct disk_source *s = disk->source;
    const char *path = disk_path(disk);
    bool has = s && (path || (s->pool && s->volume) || s->protocol);
    for (unsigned i = 0; i < n; i++) {
        const struct domain_disk *other = def->disks->pdata[i];
        if (strcmp(other->target, disk->target) == 0) {
            libvirt_error(error, ERR_XML, "target '%s' duplicated for disk sources '%s' and '%s'",
                          disk->target, disk_path(other) ? disk_path(other) : "", path ? path : "");
            return false;
        }
    }
    if (!has && disk->device == DISK_DEVICE_DISK) {
        libvirt_error(error, ERR_XML, "missing source for disk '%s'", disk->target);
    } else if (path && path[0] != '/') {
        libvirt_error(error, ERR_XML, "path '%s' of disk '%s' is not absolute", path, disk->target);
    } else if (strcmp(disk->driver_name, "qemu") != 0) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "unsupported driver name '%s' for disk '%s'",
                      disk->driver_name, disk->target);
    } else if (disk->bus == BUS_IDE && domain_is_q35(def)) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "IDE controllers are unsupported for this QEMU binary or machine type");
    } else if (disk->type == DISK_NETWORK && has && (!s->protocol || s->file || s->dev)) {
        libvirt_error(error, ERR_XML, "missing protocol of network disk '%s'", disk->target);
    } else if (disk->device == DISK_DEVICE_FLOPPY && disk->bus != BUS_FDC) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "Invalid bus type '%s' for floppy disk",
                      disk_bus_words[disk->bus]);
    } else if (disk->device == DISK_DEVICE_CDROM && disk->bus == BUS_VIRTIO) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "disk type of '%s' does not support ejectable "
                      "media",
                      disk->target);
    } else {
        return check_disk_words(disk, error);
    }
    return false;
}

static bool check_interface(const struct domain_interface *nic, GError **error)
{
    const char *missing = nic->type == IFACE_NETWORK && !nic->network ? "network"
                          : nic->type == IFACE_BRIDGE && !nic->bridge ? "bridge"
                          : nic->type == IFACE_DIRECT && !nic->dev    ? "dev"
                                                                      : NULL;
    if (!bandwidth_check(nic->inbound, nic->outbound, error)) {
        return false;
    }
    if (!mac_valid(nic->mac)) {
        libvirt_error(error, ERR_XML, "expected unicast mac address, found '%s'", nic->mac);
    } else if (missing) {
        libvirt_error(error, ERR_XML,
                      "No <source> '%s' attribute specified with <interface "
                      "type='%s'/>",
                      missing, interface_table.rows[0].words[nic->type]);
    } else if (nic->forwards && nic->type != IFACE_USER) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "<portForward> is supported only by <interface type='user'>");
    } else {
        return true;
    }
    return false;
}

static bool check_order(const DomainDef *def, int64_t order, GHashTable *seen, GError **error)
{
    if (order == XML_ABSENT) {
        return true;
    }
    if (order < 1 || order > INT32_MAX) {
        libvirt_error(error, ERR_XML, "incorrect boot order '%ld', expecting positive integer",
                      (long)order);
    } else if (xml_count(def->boots)) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "per-device boot elements cannot be used together with os/boot elements");
    } else if (!g_hash_table_add(seen, GINT_TO_POINTER((int)order))) {
        libvirt_error(error, ERR_XML, "boot order '%ld' used for more than one device",
                      (long)order);
    } else {
        return true;
    }
    return false;
}

/* What becomes of a guest that ends; as libvirt, which has no machine for the other words. */
static bool check_lifecycle(const DomainDef *def, GError **error)
{
    const int actions[] = {def->on_poweroff, def->on_reboot, def->on_crash};
    for (unsigned i = 0; i < G_N_ELEMENTS(actions); i++) {
        bool crash = i == 2;
        if (actions[i] == ACTION_RENAME_RESTART || (actions[i] == ACTION_PRESERVE && !crash) ||
            (actions[i] > ACTION_RENAME_RESTART && !crash)) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          "qemu driver doesn't support '%s' action for "
                          "'on_reboot'/'on_poweroff'/'on_crash'",
                          lifecycle_words[actions[i]]);
            return false;
        }
    }
    return true;
}

static bool check_clock(const DomainDef *def, GError **error)
{
    const char *zone = def->clock_offset == OFFSET_TIMEZONE ? def->clock_timezone : NULL;
    g_autoptr(GTimeZone) tz = zone ? g_time_zone_new_identifier(zone) : NULL;
    const char *adjustment = def->clock_adjustment;
    if (zone && !tz) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "no time zone '%s' is known here", zone);
    } else if (adjustment && strcmp(adjustment, "reset") != 0 &&
               !g_regex_match_simple("^-?[0-9]{1,18}$", adjustment, 0, 0)) {
        libvirt_error(error, ERR_XML,
                      "Invalid value for attribute 'adjustment' in element 'clock': '%.200s'",
                      adjustment);
    } else if (def->clock_offset == OFFSET_TIMEZONE && !zone) {
        libvirt_error(error, ERR_XML,
                      "missing 'timezone' attribute for clock with offset='timezone'");
    } else if (def->reboot_timeout != XML_ABSENT &&
               (def->reboot_timeout < -1 || def->reboot_timeout > UINT16_MAX)) {
        libvirt_error(error, ERR_XML,
                      "invalid value for rebootTimeout, must be in range [-1,65535]");
    } else {
        return true;
    }
    return false;
}

static bool check_orders(const DomainDef *def, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    bool ok = true;
    for (unsigned i = 0; ok && i < xml_count(def->disks); i++) {
        ok =
            check_order(def, ((struct domain_disk *)def->disks->pdata[i])->boot_order, seen, error);
    }
    for (unsigned i = 0; ok && i < xml_count(def->interfaces); i++) {
        const struct domain_interface *nic = def->interfaces->pdata[i];
        ok = check_order(def, nic->boot_order, seen, error);
    }
    return ok;
}

bool domain_def_check(const DomainDef *def, GError **error)
{
    if (!check_lifecycle(def, error) || !check_clock(def, error) || !check_name(def, error) ||
        !check_size(def, error) || !check_cpu(def, error) || !check_cells(def, error) ||
        !check_modules(def, error) || !check_pins(def, error) ||
        !domain_check_iothreads(def, error) || !check_orders(def, error)) {
        return false;
    }
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        if (!check_disk(def, i, error)) {
            return false;
        }
    }
    for (unsigned i = 0; i < xml_count(def->interfaces); i++) {
        if (!check_interface(def->interfaces->pdata[i], error)) {
            return false;
        }
    }
    return domain_check_devices(def, error);
}
