/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where each device sits: PCI slots, drive units, ports of USB and virtio-serial; and the
 * aliases by which a running machine knows them.  The order is libvirt's, so that a guest sees
 * the same devices at the same places as under libvirtd.
 *
 * Spec: libvirt, "PCI addresses in domain XML and guest OS".
 */
#include "manage/model/domain.h"

#include "manage/error.h"

#include <string.h>

enum { BUSES = 256, SLOTS = 32, FUNCTIONS = 8 };

/* A PCI bus of the machine: its controller, and which functions are taken. */
struct placer {
    DomainDef *def;
    struct domain_controller *bus[BUSES];
    uint8_t taken[BUSES][SLOTS]; /* a bit a function */
    GError **error;
    bool failed;
};

static bool is_root(const struct domain_controller *c)
{
    return c->model == MODEL_PCI_ROOT || c->model == MODEL_PCIE_ROOT;
}

static struct address *pci_address(int64_t bus, int64_t slot, int64_t function)
{
    struct address *a = xml_new(&address_table);
    a->type = ADDRESS_PCI;
    a->domain = 0;
    a->bus = bus;
    a->slot = slot;
    a->function = function;
    return a;
}

static void claim(const struct xml_table *t, struct device_head *d, void *data)
{
    struct placer *p = data;
    struct address *a = d->address;
    if (p->failed || !a || a->type != ADDRESS_PCI) {
        return;
    }
    if (a->bus == XML_ABSENT && a->slot == XML_ABSENT) { /* <address type='pci'/>: wherever */
        xml_free(&address_table, g_steal_pointer(&d->address));
        return;
    }
    int64_t *fields[] = {&a->domain, &a->bus, &a->slot, &a->function};
    for (unsigned i = 0; i < G_N_ELEMENTS(fields); i++) {
        *fields[i] = *fields[i] == XML_ABSENT ? 0 : *fields[i];
    }
    if (a->domain != 0 || a->bus < 0 || a->bus >= BUSES || a->slot < 0 || a->slot >= SLOTS ||
        a->function < 0 || a->function >= FUNCTIONS || !p->bus[a->bus]) {
        libvirt_error(p->error, ERR_XML, "Invalid PCI address %04x:%02x:%02x.%x of <%s>",
                      (unsigned)a->domain, (unsigned)a->bus, (unsigned)a->slot,
                      (unsigned)a->function, t->element);
        p->failed = true;
    } else if (p->taken[a->bus][a->slot] & 1 << a->function) {
        libvirt_error(p->error, ERR_XML, "Attempted double use of PCI Address 0000:%02x:%02x.%x",
                      (unsigned)a->bus, (unsigned)a->slot, (unsigned)a->function);
        p->failed = true;
    } else {
        p->taken[a->bus][a->slot] |= (uint8_t)(1 << a->function);
    }
}

static void put(struct placer *p, struct device_head *d, int64_t bus, int64_t slot,
                int64_t function)
{
    p->taken[bus][slot] |= (uint8_t)(1 << function);
    d->address = pci_address(bus, slot, function);
}

/* Whether function 0 of the root bus's @slot is a port that says there are others. */
static bool is_shared(const struct placer *p, int64_t slot)
{
    for (unsigned n = 1; n < BUSES; n++) {
        const struct address *a = p->bus[n] ? p->bus[n]->address : NULL;
        if (a && a->bus == 0 && a->slot == slot && a->function == 0) {
            return p->bus[n]->model == MODEL_PCIE_ROOT_PORT && a->multifunction == TRI_YES;
        }
    }
    return false;
}

/* Root ports share slots, eight functions each, from slot 2 on. */
static void place_root_port(struct placer *p, struct domain_controller *c)
{
    for (int64_t slot = domain_is_q35(p->def) ? 2 : 3; slot < 0x1b; slot++) {
        for (int64_t function = 0; function < FUNCTIONS; function++) {
            if (p->taken[0][slot] & 1 << function || (function && !is_shared(p, slot))) {
                continue;
            }
            if (!function && p->taken[0][slot]) {
                break;
            }
            put(p, (struct device_head *)c, 0, slot, function);
            if (function == 0) {
                c->address->multifunction = TRI_YES;
            }
            if (c->port == XML_ABSENT) {
                c->port = slot * FUNCTIONS + function;
            }
            return;
        }
    }
}

static struct domain_controller *add_root_port(struct placer *p)
{
    for (int64_t n = 1; n < BUSES; n++) {
        if (p->bus[n]) {
            continue;
        }
        struct domain_controller *c = xml_new(&controller_table);
        c->type = CONTROLLER_PCI;
        c->model = MODEL_PCIE_ROOT_PORT;
        c->model_name = g_strdup("pcie-root-port");
        c->index = c->chassis = n;
        place_root_port(p, c);
        if (!c->address) {
            xml_free(&controller_table, c);
            return NULL;
        }
        /* Beside its kin, so that the list stays in the order of the buses. */
        unsigned at = 0;
        for (unsigned i = 0; i < p->def->controllers->len; i++) {
            struct domain_controller *other = p->def->controllers->pdata[i];
            at = other->type == CONTROLLER_PCI ? i + 1 : at;
        }
        g_ptr_array_insert(p->def->controllers, (int)at, c);
        return p->bus[n] = c;
    }
    return NULL;
}

static void no_room(struct placer *p, const struct xml_table *t)
{
    if (!p->failed) {
        libvirt_error(p->error, ERR_INTERNAL, "No more available PCI slots for <%s>", t->element);
        p->failed = true;
    }
}

/* A slot on the root bus. */
static void place_root(struct placer *p, const struct xml_table *t, struct device_head *d)
{
    int64_t first = domain_is_q35(p->def) ? 1 : 3;
    for (int64_t slot = first; slot < SLOTS - 1; slot++) {
        if (!p->taken[0][slot]) {
            put(p, d, 0, slot, 0);
            return;
        }
    }
    no_room(p, t);
}

/* A port that has its own place and an empty slot. */
static bool is_open_slot(const struct placer *p, int64_t n)
{
    const struct domain_controller *c = p->bus[n];
    bool runs = p->def->id != XML_ABSENT; /* then nothing comes where that is switched off */
    return c && domain_has_slot(c->model) && c->address && !p->taken[n][0] &&
           !(runs && c->hotplug == TRI_NO);
}

/* A PCI Express device: behind a root port of its own on q35, else a slot. */
static void place_express(struct placer *p, const struct xml_table *t, void *device)
{
    struct device_head *d = device;
    if (d->address || p->failed) {
        return;
    }
    if (!domain_is_q35(p->def)) {
        place_root(p, t, d);
        return;
    }
    for (int64_t n = 1; n < BUSES; n++) {
        if (is_open_slot(p, n)) {
            put(p, d, n, 0, 0);
            return;
        }
    }
    struct domain_controller *port = add_root_port(p);
    if (!port) {
        no_room(p, t);
        return;
    }
    put(p, d, port->index, 0, 0);
}

/* In the slot of a port with a lower index, as libvirt wants it. */
static void place_in_slot(struct placer *p, struct domain_controller *c)
{
    for (int64_t n = 1; n < c->index; n++) {
        if (is_open_slot(p, n)) {
            put(p, (struct device_head *)c, n, 0, 0);
            return;
        }
    }
    libvirt_error(
        p->error, ERR_CONFIG_UNSUPPORTED,
        "a '%s' needs the slot of a pcie-root-port (or pcie-switch-downstream-port) with a "
        "lower index than its own, %ld",
        controller_model_words[c->model], (long)c->index);
    p->failed = true;
}

static void place_fixed(struct placer *p, void *device, int64_t slot, int64_t function)
{
    struct device_head *d = device;
    if (!d->address && !(p->taken[0][slot] & 1 << function)) {
        put(p, d, 0, slot, function);
    }
}

/* Behind the first bridge of one of two models that has room. */
static void place_behind(struct placer *p, struct domain_controller *c, int model, int other)
{
    for (int64_t n = 1; n < BUSES; n++) {
        bool fits = p->bus[n] && (p->bus[n]->model == model || p->bus[n]->model == other);
        for (int64_t slot = 1; fits && slot < SLOTS; slot++) {
            if (!p->taken[n][slot]) {
                put(p, (struct device_head *)c, n, slot, 0);
                return;
            }
        }
    }
    no_room(p, &controller_table);
}

static void place_bridge(struct placer *p, struct domain_controller *c)
{
    if (c->address) {
        return;
    }
    switch (c->model) {
    case MODEL_PCIE_ROOT_PORT:
        place_root_port(p, c);
        break;
    case MODEL_PCIE_TO_PCI:
    case MODEL_SWITCH_UPSTREAM:
        place_in_slot(p, c);
        break;
    case MODEL_SWITCH_DOWNSTREAM:
        place_behind(p, c, MODEL_SWITCH_UPSTREAM, MODEL_SWITCH_UPSTREAM);
        break;
    case MODEL_PCI_BRIDGE:
        if (domain_is_q35(p->def)) {
            place_behind(p, c, MODEL_PCIE_TO_PCI, MODEL_DMI_TO_PCI);
            break;
        }
        place_root(p, &controller_table, (struct device_head *)c);
        break;
    case MODEL_DMI_TO_PCI:
        place_fixed(p, c, 0x1e, 0);
        if (!c->address) {
            place_root(p, &controller_table, (struct device_head *)c);
        }
        break;
    default:
        break;
    }
}

/* Devices that the board brings along. */
static void place_board(struct placer *p)
{
    bool q35 = domain_is_q35(p->def);
    for (unsigned i = 0; i < xml_count(p->def->controllers); i++) {
        struct domain_controller *c = p->def->controllers->pdata[i];
        if (q35 && c->type == CONTROLLER_SATA && c->index == 0) {
            place_fixed(p, c, 0x1f, 2);
        } else if (!q35 && c->type == CONTROLLER_IDE && c->index == 0) {
            place_fixed(p, c, 1, 1);
        } else if (!q35 && c->model == MODEL_PIIX3_UHCI && c->index == 0) {
            place_fixed(p, c, 1, 2);
        }
    }
    p->taken[0][0] |= 1;
    p->taken[0][q35 ? 0x1f : 1] = 0xff;
    if (p->def->videos) {
        struct domain_video *primary = p->def->videos->pdata[0];
        if (primary->type != VIDEO_NONE) {
            place_fixed(p, primary, q35 ? 1 : 2, 0);
        }
    } else {
        p->taken[0][q35 ? 1 : 2] |= 1; /* stays free for one */
    }
}

/* USB 2 with its companions: one slot, the functions that real chips have. */
static void place_ich9_usb(struct placer *p, struct domain_controller *c)
{
    static const uint8_t functions[] = {7, 0, 1, 2};
    if (c->address || p->failed) {
        return;
    }
    int64_t function = functions[c->model - MODEL_ICH9_EHCI1];
    int64_t slot = domain_is_q35(p->def) ? 0x1d : 0;
    for (unsigned i = 0; i < p->def->controllers->len && !slot; i++) {
        struct domain_controller *o = p->def->controllers->pdata[i];
        if (o->type == CONTROLLER_USB && o->index == c->index && o->address) {
            slot = o->address->slot;
        }
    }
    for (int64_t s = 3; !slot && s < SLOTS - 1; s++) {
        slot = p->taken[0][s] ? 0 : s;
    }
    if (!slot || p->taken[0][slot] & 1 << function) {
        no_room(p, &controller_table);
        return;
    }
    put(p, (struct device_head *)c, 0, slot, function);
    if (!function) {
        c->address->multifunction = TRI_YES;
    }
}

static void place_controller(struct placer *p, struct domain_controller *c)
{
    struct device_head *d = (struct device_head *)c;
    switch (c->type) {
    case CONTROLLER_USB:
        if (c->model >= MODEL_ICH9_EHCI1 && c->model <= MODEL_ICH9_UHCI3) {
            place_ich9_usb(p, c);
        } else if (c->model != MODEL_USB_NONE) {
            place_express(p, &controller_table, d);
        }
        break;
    case CONTROLLER_SCSI:
    case CONTROLLER_VIRTIO_SERIAL:
        place_express(p, &controller_table, d);
        break;
    case CONTROLLER_SATA:
    case CONTROLLER_IDE:
        if (!d->address) {
            place_root(p, &controller_table, d);
        }
        break;
    default:
        break;
    }
}

static void place_sound(struct placer *p, struct domain_sound *sound)
{
    if (strcmp(sound->model, "ich9") == 0 && domain_is_q35(p->def)) {
        place_fixed(p, sound, 0x1b, 0);
    }
    if (!sound->address && strcmp(sound->model, "pcspk") != 0) {
        place_root(p, &sound_table, (struct device_head *)sound);
    }
}

#define EACH(type, item, list)                                                                     \
    for (unsigned item##_i = 0; item##_i < xml_count(list); item##_i++)                            \
        for (type *item = (list)->pdata[item##_i], *item##_once = item; item##_once;               \
             item##_once = NULL)

static void place_devices(struct placer *p)
{
    DomainDef *def = p->def;
    EACH(struct domain_interface, nic, def->interfaces)
    {
        if (strcmp(nic->model, "e1000") == 0 || strcmp(nic->model, "rtl8139") == 0) {
            if (!nic->address) {
                place_root(p, &interface_table, (struct device_head *)nic);
            }
        } else {
            place_express(p, &interface_table, nic);
        }
    }
    EACH(struct domain_sound, sound, def->sounds)
    {
        place_sound(p, sound);
    }
    for (unsigned i = 0; i < xml_count(def->controllers); i++) {
        place_controller(p, def->controllers->pdata[i]); /* the list may grow meanwhile */
    }
    EACH(struct domain_disk, disk, def->disks)
    {
        if (disk->bus == BUS_VIRTIO) {
            place_express(p, &disk_table, disk);
        }
    }
    if (def->balloon && def->balloon->model == BALLOON_VIRTIO) {
        place_express(p, &balloon_table, def->balloon);
    }
    EACH(struct domain_rng, rng, def->rngs)
    {
        place_express(p, &rng_table, rng);
    }
    if (def->watchdog && def->watchdog->model == 1 && !def->watchdog->address) { /* i6300esb */
        place_root(p, &watchdog_table, (struct device_head *)def->watchdog);
    }
    EACH(struct domain_video, video, def->videos)
    {
        if (video->type != VIDEO_NONE) {
            place_express(p, &video_table, video);
        }
    }
    EACH(struct domain_input, input, def->inputs)
    {
        if (input->bus == INPUT_VIRTIO) {
            place_express(p, &input_table, input);
        }
    }
    EACH(struct domain_char, serial, def->serials)
    {
        if (serial->target == TARGET_PCI_SERIAL && !serial->address) {
            place_root(p, &serial_table, (struct device_head *)serial);
        }
    }
}

/* Who has left the buses to us gets one more port than devices, so that one can be attached. */
static void spare_port(struct placer *p)
{
    for (int64_t n = 1; n < BUSES; n++) {
        if (is_open_slot(p, n)) {
            return;
        }
    }
    add_root_port(p);
}

static bool place_pci(DomainDef *def, unsigned mode, GError **error)
{
    g_autofree struct placer *p = g_new0(struct placer, 1);
    bool ours = domain_is_q35(def) && (mode & DOMAIN_NEW);
    p->def = def;
    p->error = error;
    EACH(struct domain_controller, c, def->controllers)
    {
        if (c->type != CONTROLLER_PCI) {
            continue;
        }
        if (c->index < 0 || c->index >= BUSES || p->bus[c->index] ||
            (c->index == 0) != is_root(c)) {
            libvirt_error(error, ERR_XML, "Invalid index of PCI controller '%ld'", (long)c->index);
            return false;
        }
        p->bus[c->index] = c;
        ours = ours && c->index == 0;
    }
    if (!p->bus[0]) {
        return true; /* a board without PCI */
    }
    domain_each_device(def, claim, p);
    if (p->failed) {
        return false;
    }
    place_board(p);
    for (unsigned n = 1; n < BUSES; n++) { /* each behind one before it, as they are numbered */
        if (p->bus[n]) {
            place_bridge(p, p->bus[n]);
        }
    }
    place_devices(p);
    if (ours && !p->failed) {
        spare_port(p);
    }
    return !p->failed;
}

/* --- drives, USB, virtio-serial --- */

static void place_drive(struct domain_disk *disk)
{
    struct address *given = disk->address;
    if (given && given->type == ADDRESS_DRIVE) {
        int64_t *fields[] = {&given->controller, &given->bus, &given->target, &given->unit};
        for (unsigned i = 0; i < G_N_ELEMENTS(fields); i++) {
            *fields[i] = *fields[i] == XML_ABSENT ? 0 : *fields[i];
        }
    }
    static const struct {
        int bus, per, per_bus;
    } shapes[] = {{BUS_IDE, 4, 2}, {BUS_SATA, 6, 6}, {BUS_SCSI, 7, 7}, {BUS_FDC, 2, 2}};
    for (unsigned i = 0; i < G_N_ELEMENTS(shapes); i++) {
        if (disk->bus != shapes[i].bus || disk->address) {
            continue;
        }
        int index = disk_index(disk->target), in = index % shapes[i].per;
        struct address *a = disk->address = xml_new(&address_table);
        a->type = ADDRESS_DRIVE;
        a->controller = index / shapes[i].per;
        a->bus = in / shapes[i].per_bus;
        a->target = 0;
        a->unit = in % shapes[i].per_bus;
    }
}

static bool drives_apart(const DomainDef *def, GError **error)
{
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        const struct domain_disk *d = def->disks->pdata[i];
        for (unsigned k = 0; k < i; k++) {
            const struct domain_disk *o = def->disks->pdata[k];
            if (d->bus == o->bus && d->address && o->address && d->address->type == ADDRESS_DRIVE &&
                d->address->controller == o->address->controller &&
                d->address->bus == o->address->bus && d->address->target == o->address->target &&
                d->address->unit == o->address->unit) {
                libvirt_error(error, ERR_XML,
                              "found duplicate drive address for disk with target name '%s' "
                              "controller='%ld' bus='%ld' target='%ld' unit='%ld'",
                              d->target, (long)d->address->controller, (long)d->address->bus,
                              (long)d->address->target, (long)d->address->unit);
                return false;
            }
        }
    }
    return true;
}

/* How many devices of ours fit; companions have none of their own. */
static int64_t usb_ports(const struct domain_controller *c, bool fast)
{
    switch (c->model) {
    case MODEL_QEMU_XHCI:
    case MODEL_NEC_XHCI:
        return c->ports == XML_ABSENT ? 4 : c->ports;
    case MODEL_ICH9_EHCI1:
    case MODEL_EHCI:
        return 6;
    case MODEL_PIIX3_UHCI:
    case MODEL_PIIX4_UHCI:
        return fast ? 0 : 2;
    default:
        return 0;
    }
}

static bool usb_port_used(const DomainDef *def, int64_t bus, int64_t port)
{
    g_autofree char *text = g_strdup_printf("%ld", (long)port);
    const GPtrArray *lists[] = {def->inputs, def->disks};
    for (unsigned i = 0; i < G_N_ELEMENTS(lists); i++) {
        EACH(struct device_head, d, lists[i])
        {
            if (d->address && d->address->type == ADDRESS_USB && d->address->bus == bus &&
                g_strcmp0(d->address->port, text) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* The first free port; without one another controller comes, unless there is to be none. */
static void place_usb_device(DomainDef *def, struct address **address, bool fast)
{
    int64_t bus = 0, port = 1, next = 0;
    bool found = false, none = false;
    if (*address) {
        return;
    }
    EACH(const struct domain_controller, c, def->controllers)
    {
        if (c->type != CONTROLLER_USB || found) {
            continue;
        }
        none |= c->model == MODEL_USB_NONE;
        next = MAX(next, c->index + 1);
        bus = c->index;
        for (port = 1; port <= usb_ports(c, fast) && !found; port += !found) {
            found = !usb_port_used(def, bus, port);
        }
    }
    if (!found) {
        port = 1;
        bus = none ? 0 : next;
    }
    if (!found && !none) {
        struct domain_controller *more = xml_new(&controller_table);
        more->type = CONTROLLER_USB;
        more->model = MODEL_QEMU_XHCI;
        more->index = next;
        more->ports = 15;
        xml_append(NULL, &def->controllers, more);
    }
    *address = xml_new(&address_table);
    (*address)->type = ADDRESS_USB;
    (*address)->bus = bus;
    (*address)->port = g_strdup_printf("%ld", (long)port);
}

static void first_bus(const struct xml_table *t, struct device_head *d, void *data)
{
    (void)t, (void)data;
    if (d->address && d->address->type == ADDRESS_USB && d->address->bus == XML_ABSENT) {
        d->address->bus = 0;
    }
}

static void place_usb(DomainDef *def)
{
    domain_each_device(def, first_bus, NULL);
    EACH(struct domain_input, input, def->inputs)
    {
        if (input->bus == INPUT_USB) {
            place_usb_device(def, &input->address, false);
        }
    }
    EACH(struct domain_disk, disk, def->disks)
    {
        if (disk->bus == BUS_USB) {
            place_usb_device(def, &disk->address, true);
        }
    }
}

static void place_virtio_serial(struct domain_char *c, int64_t *next)
{
    if (c->target != TARGET_VIRTIO) {
        return;
    }
    if (!c->address) {
        c->address = xml_new(&address_table);
        c->address->type = ADDRESS_VIRTIO_SERIAL;
        c->address->controller = c->address->bus = 0;
        c->address->port_number = *next;
    }
    *next = MAX(*next, c->address->port_number + 1);
}

static bool module_in(const DomainDef *def, int64_t slot)
{
    EACH(const struct domain_memory_device, dimm, def->memory_devices)
    {
        if (dimm->address && dimm->address->slot == slot) {
            return true;
        }
    }
    return false;
}

bool domain_def_place(DomainDef *def, unsigned mode, GError **error)
{
    EACH(struct domain_disk, disk, def->disks)
    {
        place_drive(disk);
    }
    if (!drives_apart(def, error)) {
        return false;
    }
    int64_t next = 1; /* port 0 is for consoles */
    EACH(struct domain_char, console, def->consoles)
    {
        place_virtio_serial(console, &next);
    }
    EACH(struct domain_char, channel, def->channels)
    {
        place_virtio_serial(channel, &next);
    }
    place_usb(def);
    EACH(struct domain_memory_device, dimm, def->memory_devices)
    {
        if (!dimm->address) {
            int64_t slot = 0;
            while (module_in(def, slot)) {
                slot++;
            }
            dimm->address = xml_new(&address_table);
            dimm->address->type = ADDRESS_DIMM;
            dimm->address->slot = slot;
        }
    }
    return place_pci(def, mode, error);
}

/* --- aliases --- */

static char *disk_alias(const struct domain_disk *disk)
{
    const struct address *a = disk->address;
    if (a && a->type == ADDRESS_DRIVE) {
        return disk->bus == BUS_SCSI
                   ? g_strdup_printf("scsi%ld-%ld-%ld-%ld", (long)a->controller, (long)a->bus,
                                     (long)a->target, (long)a->unit)
                   : g_strdup_printf("%s%ld-%ld-%ld", disk_bus_words[disk->bus],
                                     (long)a->controller, (long)a->bus, (long)a->unit);
    }
    return g_strdup_printf("%s-disk%d", disk->bus == BUS_USB ? "usb" : "virtio",
                           disk_index(disk->target));
}

static char *controller_alias(const DomainDef *def, const struct domain_controller *c)
{
    long n = (long)c->index;
    if (c->type == CONTROLLER_PCI) {
        return g_strdup_printf("%s.%ld", c->model == MODEL_PCIE_ROOT ? "pcie" : "pci", n);
    }
    if ((c->type == CONTROLLER_IDE || (c->type == CONTROLLER_SATA && domain_is_q35(def))) &&
        n == 0) {
        return g_strdup("ide"); /* what the board calls its own */
    }
    if (c->type == CONTROLLER_USB && n == 0) {
        return g_strdup("usb");
    }
    return g_strdup_printf("%s%ld", controller_type_words[c->type], n);
}

/* "net0": the first number that nobody has. */
struct taken {
    const char *alias;
    bool found;
};
static void look_for(const struct xml_table *t, struct device_head *d, void *data)
{
    struct taken *taken = data;
    taken->found |= t != &console_table && g_strcmp0(d->alias, taken->alias) == 0;
}

static char *numbered(DomainDef *def, const char *stem)
{
    for (unsigned n = 0;; n++) {
        g_autofree char *name = g_strdup_printf("%s%u", stem, n);
        struct taken taken = {.alias = name};
        domain_each_device(def, look_for, &taken);
        if (!taken.found) {
            return g_steal_pointer(&name);
        }
    }
}

static void set_alias(const struct xml_table *t, struct device_head *d, void *data)
{
    DomainDef *def = data;
    static const struct {
        const struct xml_table *table;
        const char *stem;
    } stems[] = {
        {&interface_table, "net"},   {&serial_table, "serial"},      {&parallel_table, "parallel"},
        {&channel_table, "channel"}, {&input_table, "input"},        {&sound_table, "sound"},
        {&video_table, "video"},     {&watchdog_table, "watchdog"},  {&balloon_table, "balloon"},
        {&rng_table, "rng"},         {&memory_device_table, "dimm"}, {&panic_table, "panic"},
        {&console_table, "console"},
    };
    if (d->alias) {
        return;
    }
    if (t == &disk_table) {
        d->alias = disk_alias((struct domain_disk *)d);
    } else if (t == &controller_table) {
        d->alias = controller_alias(def, (struct domain_controller *)d);
    } else if (t == &console_table && ((struct domain_char *)d)->target == TARGET_SERIAL &&
               def->serials) {
        d->alias = g_strdup(((struct domain_char *)def->serials->pdata[0])->alias);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(stems) && !d->alias; i++) {
        d->alias = stems[i].table == t ? numbered(def, stems[i].stem) : NULL;
    }
}

void domain_def_alias(DomainDef *def)
{
    domain_each_device(def, set_alias, def);
}
