/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices that come, change and go, in the definition and in the running machine. */
#include "manage/daemon/disks.h"
#include "manage/daemon/files.h"
#include "manage/daemon/memory_line.h"
#include "manage/daemon/network.h"
#include "manage/daemon/port_guard.h"

#include "base/util.h"

#include <string.h>
#include <unistd.h>

/* Nothing that @wanted says is otherwise in @item; by what a character device is connected to, too.
 */
static bool alike(const struct xml_table *t, const void *item, const void *wanted)
{
    bool character =
        t == &serial_table || t == &parallel_table || t == &console_table || t == &channel_table;
    const GPtrArray *is = character ? ((const struct domain_char *)item)->sources : NULL;
    const GPtrArray *asked = character ? ((const struct domain_char *)wanted)->sources : NULL;
    for (unsigned i = 0; i < xml_count(asked); i++) {
        if (i >= xml_count(is) || xml_differs(&char_source_table, is->pdata[i], asked->pdata[i])) {
            return false;
        }
    }
    return !xml_differs(t, item, wanted);
}

/* The disk, interface or other device of @def that @wanted describes; -1 if there is none. */
static int find_same(DomainDef *def, const struct device_list *list, const void *wanted)
{
    const struct device_head *w = wanted;
    if (list->single) {
        const void *only = *(void **)domain_device_array(def, list);
        return only && alike(list->table, only, wanted) ? 0 : -1;
    }
    GPtrArray *items = *domain_device_array(def, list);
    for (unsigned i = 0; i < xml_count(items); i++) {
        const void *item = items->pdata[i];
        const struct device_head *h = item;
        if (list->placed && w->alias && g_strcmp0(w->alias, h->alias) == 0) {
            return (int)i;
        }
        if (list->table == &disk_table) {
            const struct domain_disk *a = item, *b = wanted;
            if (strcmp(a->target, b->target) == 0) {
                return (int)i;
            }
        } else if (list->table == &interface_table) {
            const struct domain_interface *a = item, *b = wanted;
            if (b->mac && g_ascii_strcasecmp(a->mac, b->mac) == 0) {
                return (int)i;
            }
        } else if (list->table == &controller_table) {
            const struct domain_controller *a = item, *b = wanted;
            if (a->type == b->type && a->index == b->index) {
                return (int)i;
            }
        } else if (list->table == &memory_device_table && !w->address) {
            const struct domain_memory_device *a = item, *b = wanted;
            if (a->size == b->size && (b->node == XML_ABSENT || a->node == b->node)) {
                return (int)i;
            }
        } else if (list->placed && w->address && h->address &&
                   w->address->type == h->address->type && w->address->bus == h->address->bus &&
                   w->address->slot == h->address->slot &&
                   w->address->function == h->address->function) {
            return (int)i;
        } else if ((!list->placed || (!w->address && !w->alias)) &&
                   alike(list->table, item, wanted)) {
            return (int)i;
        }
    }
    return -1;
}

static bool check_kind(const struct device_list *list, const void *device, bool comes,
                       GError **error)
{
    const struct domain_disk *disk = list->table == &disk_table ? device : NULL;
    const struct domain_controller *c = list->table == &controller_table ? device : NULL;
    if (disk && disk->device != DISK_DEVICE_DISK) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "cdrom/floppy device hotplug isn't supported");
        return false;
    }
    if (disk && (disk->bus == BUS_IDE || disk->bus == BUS_SATA || disk->bus == BUS_FDC)) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED, "disk bus '%s' cannot be hotplugged.",
                      disk_bus_words[disk->bus]);
        return false;
    }
    if (c && c->type != CONTROLLER_SCSI) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED, "'%s' controller cannot be hot %splugged.",
                      controller_type_words[c->type], comes ? "" : "un");
        return false;
    }
    if (list->single || list->table == &graphics_table || list->table == &video_table ||
        list->table == &audio_table) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED, "live %s of device '%s' is not supported",
                      comes ? "attach" : "detach", list->table->element);
        return false;
    }
    return true;
}

/* What <memory> says counts modules. */
static void count_module(DomainDef *def, const struct device_list *list, const void *device,
                         int sign)
{
    if (list->table == &memory_device_table) {
        const struct domain_memory_device *dimm = device;
        def->memory += sign * dimm->size;
        def->current_memory += sign * dimm->size;
    }
}

/* @device into @def with its defaults and a place; taken over on success. */
static bool add_to(DomainDef *def, const struct device_list *list, void *device, GError **error)
{
    if (list->table == &disk_table &&
        domain_find_disk(def, ((struct domain_disk *)device)->target)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "target %s already exists",
                      ((struct domain_disk *)device)->target);
        return false;
    }
    if (list->single) {
        void **at = (void **)domain_device_array(def, list);
        if (*at) {
            libvirt_error(error, ERR_OPERATION_INVALID, "domain already has a %s",
                          list->table->element);
            return false;
        }
        *at = device;
    } else {
        xml_append(list->table, domain_device_array(def, list), device);
        count_module(def, list, device, 1);
    }
    if (domain_def_fill(def, error) && domain_def_check(def, error) &&
        domain_def_place(def, 0, error)) {
        return true;
    }
    if (list->single) {
        *(void **)domain_device_array(def, list) = NULL;
    } else {
        g_ptr_array_remove(*domain_device_array(def, list), device);
        count_module(def, list, device, -1);
    }
    return false;
}

static bool attach_config(Domain *d, const char *xml, GError **error)
{
    void *device;
    g_autoptr(DomainDef) def = domain_config(d, error);
    const struct device_list *list = def ? domain_device_parse(xml, &device, error) : NULL;
    if (!list) {
        return false;
    }
    if (!add_to(def, list, device, error)) {
        xml_free(list->table, device);
        return false;
    }
    g_autofree char *folders = daemon_path(DAEMON_RUN, "qemu", NULL);
    domain_def_inactive(def, folders);
    return domain_save_config(d, def, error);
}

/* --- the running machine --- */

/* Linux takes 7 s to give a card natively, of which it blinks for 5; by ACPI it does so at once. */
enum { UNPLUG_SECONDS = 10 };

static void device_event(Domain *d, const char *alias, bool added)
{
    rpc_event_domain_alias message = {.dom = domain_rpc(d), .alias = (char *)alias};
    if (added) {
        event_domain_device_added(&message);
    } else {
        event_domain_device_removed(&message);
    }
    g_free(message.dom.name);
}

static bool give_secret(void *owner, const char *id, GBytes *value, GError **error)
{
    const struct machine *m = owner;
    gsize n;
    const guchar *bytes = g_bytes_get_data(value, &n);
    g_autofree char *text = g_base64_encode(bytes, n);
    return qmp_do(m->qmp, error, "object-add", "{s:s, s:s, s:s, s:s}", "qom-type", "secret", "id",
                  id, "format", "base64", "data", text);
}

static bool take_secret(void *owner, const char *id, GBytes *value, GError **error)
{
    const struct machine *m = owner;
    (void)value, (void)error;
    qmp_do(m->qmp, NULL, "object-del", "{s:s}", "id", id);
    return true;
}

static bool give_tls(const struct machine *m, const struct domain_disk *disk, GError **error)
{
    json_t *tls = disk_tls(disk);
    g_autoptr(json_t) got = tls ? qmp_run(m->qmp, "object-add", tls, QMP_TIMEOUT_MS, error) : NULL;
    return !tls || got;
}

/* Its secrets and credentials, which nobody else uses. */
static void take_objects(const struct machine *m, const struct domain_disk *disk)
{
    g_autoptr(json_t) tls = disk_tls(disk);
    disk_secrets(disk, take_secret, (void *)m, NULL);
    if (tls) {
        qmp_do(m->qmp, NULL, "object-del", "{s:s}", "id",
               json_string_value(json_object_get(tls, "id")));
    }
}

static bool add_node(struct machine *m, struct domain_disk *disk, GError **error)
{
    if (!disk_resolve(disk, error)) {
        return false;
    }
    if (!disk_has_medium(disk)) {
        return true;
    }
    if (disk->transient) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "hot-plug of transient disk '%s' is not supported", disk->target);
        return false;
    }
    if (disk_path(disk) && !file_answers(disk_path(disk), NULL, error)) {
        return false;
    }
    disk->source->index = ++m->next_node;
    g_autoptr(GPtrArray) lent = disk_lend_chain(m, disk_path(disk), disk->format, error);
    if (!lent) {
        return false;
    }
    json_t *node = disk_secrets(disk, give_secret, m, error) ? disk_node(disk, error) : NULL;
    if (node && !give_tls(m, disk, error)) {
        g_clear_pointer(&node, json_decref);
    }
    g_autoptr(json_t) got =
        node ? qmp_run(m->qmp, "blockdev-add", node, QMP_TIMEOUT_MS, error) : NULL;
    if (!got) {
        take_objects(m, disk);
        disk_give_back_all(m, lent);
    }
    return got != NULL;
}

static void drop_node(struct machine *m, const struct domain_disk *disk)
{
    g_autofree char *name = disk_node_name(disk);
    if (name) {
        qmp_do(m->qmp, NULL, "blockdev-del", "{s:s}", "node-name", name);
        take_objects(m, disk);
    }
}

/* What a disk was made of that has gone. */
static void give_back(const struct machine *m, const struct domain_disk *disk)
{
    disk_give_back(m, disk_path(disk));
    for (const struct disk_backing *b = disk->backing; b; b = b->backing) {
        disk_give_back(m, !b->source ? NULL : b->source->file ? b->source->file : b->source->dev);
    }
}

static void drop_net(struct machine *m, const struct domain_interface *nic)
{
    g_autofree char *id = g_strconcat("host", nic->alias, NULL);
    qmp_do(m->qmp, NULL, "netdev_del", "{s:s}", "id", id);
    machine_nic_close(nic);
}

static bool give_fds(const struct machine *m, const GArray *fds, json_t *netdev, GError **error)
{
    const char *id = json_string_value(json_object_get(netdev, "id"));
    g_autoptr(GString) names = g_string_new(NULL);
    for (unsigned i = 0; i < fds->len; i++) {
        g_autofree char *name = g_strdup_printf("%s-%u", id, i);
        g_string_append_printf(names, "%s%s", i ? ":" : "", name);
        if (!qmp_give_fd(m->qmp, g_array_index(fds, int, i), name, error)) {
            return false;
        }
    }
    if (fds->len) {
        json_object_set_new(netdev, fds->len > 1 ? "fds" : "fd", json_string(names->str));
    }
    return true;
}

static bool plug_net(struct machine *m, const struct domain_interface *nic, GError **error)
{
    return (nic->link != LINK_DOWN || machine_net_link(m, nic, error)) &&
           machine_net_guard(nic, error);
}

/* The host's side of a card: lodged makes the tap, the machine gets its descriptors. */
static bool add_net(struct machine *m, struct domain_interface *nic, GError **error)
{
    g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
    json_t *netdev = machine_netdev(m, nic, fds, error);
    bool ok = netdev && give_fds(m, fds, netdev, error);
    g_autoptr(json_t) got =
        ok ? qmp_run(m->qmp, "netdev_add", json_incref(netdev), QMP_TIMEOUT_MS, error) : NULL;
    for (unsigned i = 0; i < fds->len; i++) {
        close(g_array_index(fds, int, i));
    }
    if (got && !plug_net(m, nic, error)) {
        drop_net(m, nic);
        ok = false;
    } else if (netdev && !got) {
        machine_nic_close(nic);
        ok = false;
    }
    json_decref(netdev);
    return ok;
}

static bool add_module(struct machine *m, const DomainDef *def,
                       const struct domain_memory_device *dimm, GError **error)
{
    const struct memory_line memory = {def, m->folder};
    json_t *object = memory_module_object(&memory, dimm, error);
    g_autoptr(json_t) got =
        object ? qmp_run(m->qmp, "object-add", object, QMP_TIMEOUT_MS, error) : NULL;
    return got != NULL;
}

static void drop_module(struct machine *m, const struct domain_memory_device *dimm)
{
    g_autofree char *id = g_strconcat("mem", dimm->alias, NULL);
    qmp_do(m->qmp, NULL, "object-del", "{s:s}", "id", id);
}

/* What the machine is when device @alias is in, for another lodged; @def NULL: it is, or is not. */
static void note_plugging(struct machine *m, const DomainDef *def, const char *alias)
{
    g_autofree char *path = g_build_filename(m->folder, "next.xml", NULL);
    g_autofree char *text = def ? domain_def_format(def, XML_MODE_LIVE | XML_MODE_SECRET) : NULL;
    g_free(m->plugging);
    m->plugging = NULL;
    if (m->ended) {
        return;
    }
    if (text && alias && daemon_note_file(path, text, NULL)) {
        m->plugging = g_strdup(alias);
    }
    machine_save(m);
    if (!text) {
        unlink(path);
    }
}

static bool is_plugged(struct machine *m, const char *alias)
{
    g_autoptr(json_t) args = json_pack("{s:s}", "path", "/machine/peripheral");
    g_autoptr(json_t) all = qmp_run(m->qmp, "qom-list", json_incref(args), QMP_TIMEOUT_MS, NULL);
    size_t i;
    json_t *one;
    json_array_foreach(all, i, one)
    {
        if (g_strcmp0(json_string_value(json_object_get(one, "name")), alias) == 0) {
            return true;
        }
    }
    return false;
}

void machine_plug_recover(struct machine *m)
{
    g_autofree char *path = g_build_filename(m->folder, "next.xml", NULL), *text = NULL;
    if (!m->plugging) {
        return;
    }
    g_autoptr(DomainDef) next = g_file_get_contents(path, &text, NULL, NULL)
                                    ? domain_def_load(text, XML_MODE_LIVE, NULL)
                                    : NULL;
    bool plugged = next && is_plugged(m, m->plugging);
    if (m->ended || qmp_unanswered(m->qmp)) {
        return;
    }
    if (plugged) {
        domain_def_free(m->def);
        m->def = g_steal_pointer(&next);
    }
    for (unsigned i = 0; !plugged && next && i < xml_count(next->disks); i++) {
        const struct domain_disk *disk = next->disks->pdata[i];
        if (g_strcmp0(disk->alias, m->plugging) == 0) {
            disk_give_back(m, disk_path(disk));
        }
    }
    note_plugging(m, NULL, NULL);
}

/* Adds the device of @copy's list @list, the last one, to the machine. */
static bool plug(struct machine *m, DomainDef *copy, const struct device_list *list, void *device,
                 GError **error)
{
    struct device_head *head = device;
    domain_def_alias(copy);
    if (list->table == &disk_table && !add_node(m, device, error)) {
        return false;
    }
    if (list->table == &interface_table && !add_net(m, device, error)) {
        return false;
    }
    if (list->table == &rng_table) {
        g_autofree char *id = g_strconcat("obj", head->alias, NULL);
        const struct domain_rng *rng = device;
        bool file = rng->backend_model == 1;
        json_t *object =
            json_pack("{s:s, s:s}", "qom-type", file ? "rng-random" : "rng-builtin", "id", id);
        if (file) {
            json_object_set_new(object, "filename",
                                json_string(rng->backend ? rng->backend : "/dev/urandom"));
        }
        g_autoptr(json_t) got = qmp_run(m->qmp, "object-add", object, QMP_TIMEOUT_MS, error);
        if (!got) {
            return false;
        }
    }
    if (list->table == &memory_device_table && !add_module(m, copy, device, error)) {
        return false;
    }
    json_t *options = device_options(copy, list->table, device, error);
    note_plugging(m, copy, list->placed ? head->alias : NULL);
    g_autoptr(json_t) got =
        options ? qmp_run(m->qmp, "device_add", options, QMP_TIMEOUT_MS, error) : NULL;
    if (!got) {
        note_plugging(m, NULL, NULL);
    }
    if (!got && list->table == &disk_table) {
        drop_node(m, device);
        disk_give_back(m, disk_path(device));
    } else if (!got && list->table == &interface_table) {
        drop_net(m, device);
    } else if (!got && list->table == &memory_device_table) {
        drop_module(m, device);
    }
    return got != NULL;
}

static struct domain_controller *controller_at(const DomainDef *def, int type, int64_t index)
{
    for (unsigned i = 0; i < xml_count(def->controllers); i++) {
        struct domain_controller *c = def->controllers->pdata[i];
        if (c->type == type && c->index == index) {
            return c;
        }
    }
    return NULL;
}

/* A SCSI disk or a USB device may need another controller, which @copy has then; it stays, whatever
 * follows. */
static bool plug_host(struct machine *m, DomainDef *copy, const struct device_list *of,
                      const void *device, GError **error)
{
    static const struct device_list list = {.table = &controller_table};
    const struct address *at = of->placed ? ((const struct device_head *)device)->address : NULL;
    const struct domain_disk *disk = of->table == &disk_table ? device : NULL;
    bool scsi = disk && disk->bus == BUS_SCSI, usb = at && at->type == ADDRESS_USB;
    if (!scsi && !usb) {
        return true;
    }
    int type = scsi ? CONTROLLER_SCSI : CONTROLLER_USB;
    int64_t index = !at ? 0 : scsi ? at->controller : at->bus;
    struct domain_controller *c = controller_at(copy, type, index);
    if (!c || controller_at(m->def, type, index)) {
        return true;
    }
    if (!plug(m, copy, &list, c, error) || m->ended) {
        g_prefix_error(error, "a %s controller is needed: ", controller_type_words[type]);
        return false;
    }
    xml_append(&controller_table, &m->def->controllers, xml_copy(&controller_table, c));
    machine_save(m);
    note_plugging(m, NULL, NULL);
    return true;
}

static unsigned pci_buses(const DomainDef *def)
{
    unsigned n = 0;
    for (unsigned i = 0; i < xml_count(def->controllers); i++) {
        n += ((struct domain_controller *)def->controllers->pdata[i])->type == CONTROLLER_PCI;
    }
    return n;
}

/* Ports of the root bus are those that the machine began with. */
static bool has_slot(const DomainDef *def, const DomainDef *copy, GError **error)
{
    if (pci_buses(copy) > pci_buses(def)) {
        libvirt_error(error, ERR_INTERNAL, "No more available PCI slots");
        return false;
    }
    return true;
}

/* Defaults are filled in as for a definition, which has no names of running taps. */
static void keep_targets(DomainDef *copy, const DomainDef *def)
{
    for (unsigned i = 0; i < xml_count(def->interfaces); i++) {
        const struct domain_interface *old = def->interfaces->pdata[i];
        struct domain_interface *nic = copy->interfaces->pdata[i];
        if (!nic->target) {
            nic->target = g_strdup(old->target);
        }
    }
}

static bool attach_live(Domain *d, const char *xml, GError **error)
{
    void *device;
    vm_learn_devices();
    g_autoptr(Machine) m = machine_of(d, error);
    const struct device_list *list = m ? domain_device_parse(xml, &device, error) : NULL;
    if (!list) {
        return false;
    }
    int64_t until = g_get_monotonic_time() + UNPLUG_SECONDS * (int64_t)G_USEC_PER_SEC;
    while (m->leaving && daemon_wait(until)) {
    }
    g_autoptr(DomainDef) copy = domain_def_copy(m->def);
    if (list->placed) {
        domain_device_forget_alias(device); /* another's, if the XML is that of one that runs */
    }
    if (!add_to(copy, list, device, error)) {
        xml_free(list->table, device);
        return false;
    }
    keep_targets(copy, m->def);
    if (!check_kind(list, device, true, error) ||
        !machine_can_be(copy, error) || /* all of it but this device is already so */
        !has_slot(m->def, copy, error)) {
        return false;
    }
    /* While the machine is asked, nobody else changes .def: that needs the job, or an unplug. */
    if (!plug_host(m, copy, list, device, error) || !plug(m, copy, list, device, error) ||
        m->ended) {
        return false;
    }
    g_autofree char *alias = list->placed ? g_strdup(((struct device_head *)device)->alias) : NULL;
    domain_def_free(m->def);
    m->def = g_steal_pointer(&copy);
    bool ok = list->table != &disk_table || (disks_learn(m, error) && disks_throttle(m, error));
    ok = ok && (list->table != &memory_device_table || modules_learn(m, error));
    if (!m->ended) {
        machine_save(m);
        note_plugging(m, NULL, NULL);
        device_event(d, alias, true);
    }
    return ok;
}

static bool attach(const rpc_domain *named, const char *xml, unsigned flags, GError **error)
{
    g_autoptr(DomainJob) d = domain_take(named, error);
    return d && domain_affect(d, &flags, error) &&
           (!(flags & AFFECT_LIVE) || attach_live(d, xml, error)) &&
           (!(flags & AFFECT_CONFIG) || attach_config(d, xml, error));
}

bool verb_domain_attach_device(struct call *call, const rpc_domain_text *args, rpc_none *ret,
                               GError **error)
{
    (void)call, (void)ret;
    return attach(&args->dom, args->text, AFFECT_LIVE, error);
}

bool verb_domain_attach_device_flags(struct call *call, const rpc_domain_text_flags *args,
                                     rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    return attach(&args->dom, args->text, args->flags, error);
}

/* --- going --- */

static bool missing(const struct device_list *list, GError **error)
{
    libvirt_error(error, ERR_DEVICE_MISSING, "no matching device '%s' was found",
                  list->table->element);
    return false;
}

static bool detach_config(Domain *d, const struct device_list *list, const void *wanted,
                          GError **error)
{
    g_autoptr(DomainDef) def = domain_config(d, error);
    if (!def) {
        return false;
    }
    if (list->table == &balloon_table) { /* every machine has one */
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "persistent detach of device 'memballoon' is not supported");
        return false;
    }
    int at = find_same(def, list, wanted);
    if (at < 0) {
        return missing(list, error);
    }
    GPtrArray **items = domain_device_array(def, list);
    void *gone = list->single ? g_steal_pointer((void **)items)
                              : g_ptr_array_remove_index(*items, (unsigned)at);
    count_module(def, list, gone, -1);
    xml_free(list->table, gone);
    return domain_save_config(d, def, error);
}

/* A device has left the machine: out of the definition, its backend too. */
static void removed(struct machine *m, const struct device_list *list, unsigned at)
{
    GPtrArray **items = domain_device_array(m->def, list);
    struct device_head *head = g_ptr_array_remove_index(*items, at);
    g_autofree char *alias = g_strdup(head->alias);
    if (!m->ended) {
        machine_save(m);
        device_event(m->domain, alias, false);
        daemon_wake();
    }
    count_module(m->def, list, head, -1);
    m->leaving++; /* its alias is in use until the backend has gone */
    if (list->table == &disk_table) {
        drop_node(m, (struct domain_disk *)head);
        give_back(m, (struct domain_disk *)head);
    } else if (list->table == &interface_table) {
        drop_net(m, (struct domain_interface *)head);
    } else if (list->table == &memory_device_table) {
        drop_module(m, (struct domain_memory_device *)head);
    }
    m->leaving--;
    daemon_wake();
    xml_free(list->table, head);
}

static int find_alias(DomainDef *def, const struct device_list *list, const char *alias)
{
    GPtrArray *items = list->single || !list->placed ? NULL : *domain_device_array(def, list);
    for (unsigned i = 0; i < xml_count(items); i++) {
        if (g_strcmp0(((struct device_head *)items->pdata[i])->alias, alias) == 0) {
            return (int)i;
        }
    }
    return -1;
}

void machine_device_gone(struct machine *m, const char *alias)
{
    if (g_str_has_prefix(alias, "vcpu")) {
        machine_vcpu_gone(m, (unsigned)strtoul(alias + 4, NULL, 10));
        return;
    }
    for (unsigned i = 0; i < device_list_count; i++) {
        int at = find_alias(m->def, &device_lists[i], alias);
        if (at >= 0) {
            removed(m, &device_lists[i], (unsigned)at);
            return;
        }
    }
}

/* Whether the device at @at may be taken out of a running machine. */
static bool may_leave(struct machine *m, const struct device_list *list, int at, GError **error)
{
    DomainDef *def = m->def;
    const void *device = (*domain_device_array(def, list))->pdata[at];
    const struct domain_controller *c = list->table == &controller_table ? device : NULL;
    for (unsigned i = 0; c && i < xml_count(def->disks); i++) {
        const struct domain_disk *disk = def->disks->pdata[i];
        if (disk->bus == BUS_SCSI && c->type == CONTROLLER_SCSI && disk->address &&
            disk->address->controller == c->index) {
            libvirt_error(error, ERR_OPERATION_FAILED, "device cannot be detached: device is busy");
            return false;
        }
    }
    if (list->table == &disk_table && !check_kind(list, device, false, NULL)) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "This type of disk cannot be hot unplugged");
        return false;
    }
    const struct domain_disk *disk = list->table == &disk_table ? device : NULL;
    return (!disk || disk_idle(m, disk, error)) && check_kind(list, device, false, error);
}

static bool unplug(struct machine *m, const struct device_list *list, int at, GError **error)
{
    GPtrArray *items = *domain_device_array(m->def, list);
    g_autofree char *alias = g_strdup(((struct device_head *)items->pdata[at])->alias);
    g_clear_pointer(&m->refused, g_free);
    if (!qmp_do(m->qmp, error, "device_del", "{s:s}", "id", alias)) {
        return false;
    }
    /* The guest lets go when it wants to, maybe later: DEVICE_DELETED says so. */
    int64_t until = g_get_monotonic_time() + UNPLUG_SECONDS * (int64_t)G_USEC_PER_SEC;
    while (!m->ended && find_alias(m->def, list, alias) >= 0 && g_strcmp0(m->refused, alias) != 0 &&
           daemon_wait(until)) {
    }
    if (g_strcmp0(m->refused, alias) == 0) {
        libvirt_error(error, ERR_OPERATION_FAILED, "unplug of device was rejected by the guest");
        return false;
    }
    return true;
}

static bool detach_live(Domain *d, const struct device_list *list, const void *wanted,
                        GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    if (!m || (list->single && !check_kind(list, wanted, false, error))) {
        return false;
    }
    int at = find_same(m->def, list, wanted);
    return at < 0 ? missing(list, error)
                  : may_leave(m, list, at, error) && unplug(m, list, at, error);
}

/* Where the device with @alias is; NULL with an error. */
static const struct device_list *named(DomainDef *def, const char *alias, int *at, GError **error)
{
    for (unsigned i = 0; i < device_list_count; i++) {
        *at = find_alias(def, &device_lists[i], alias);
        if (*at >= 0) {
            return &device_lists[i];
        }
    }
    libvirt_error(error, ERR_DEVICE_MISSING, "no device found with alias '%s'", alias);
    return NULL;
}

bool verb_domain_detach_device_alias(struct call *call, const rpc_domain_text_flags *args,
                                     rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    unsigned flags = args->flags;
    int at;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    if (!d || !domain_affect(d, &flags, error)) {
        return false;
    }
    if (flags & AFFECT_LIVE) { /* answered at once: DEVICE_DELETED says when it has gone */
        g_autoptr(Machine) m = machine_of(d, error);
        const struct device_list *list = m ? named(m->def, args->text, &at, error) : NULL;
        if (!list || !may_leave(m, list, at, error) ||
            !qmp_do(m->qmp, error, "device_del", "{s:s}", "id", args->text)) {
            return false;
        }
    }
    if (flags & AFFECT_CONFIG) {
        g_autoptr(DomainDef) def = domain_config(d, error);
        const struct device_list *list = def ? named(def, args->text, &at, error) : NULL;
        if (!list) {
            return false;
        }
        GPtrArray *items = *domain_device_array(def, list);
        void *gone = g_ptr_array_remove_index(items, (unsigned)at);
        count_module(def, list, gone, -1);
        xml_free(list->table, gone);
        return domain_save_config(d, def, error);
    }
    return true;
}

static bool detach(const rpc_domain *named, const char *xml, unsigned flags, GError **error)
{
    void *wanted;
    g_autoptr(DomainJob) d = domain_take(named, error);
    if (!d || !domain_affect(d, &flags, error)) {
        return false;
    }
    const struct device_list *list = domain_device_parse(xml, &wanted, error);
    if (!list) {
        return false;
    }
    bool ok = (!(flags & AFFECT_LIVE) || detach_live(d, list, wanted, error)) &&
              (!(flags & AFFECT_CONFIG) || detach_config(d, list, wanted, error));
    xml_free(list->table, wanted);
    return ok;
}

bool verb_domain_detach_device(struct call *call, const rpc_domain_text *args, rpc_none *ret,
                               GError **error)
{
    (void)call, (void)ret;
    return detach(&args->dom, args->text, AFFECT_LIVE, error);
}

bool verb_domain_detach_device_flags(struct call *call, const rpc_domain_text_flags *args,
                                     rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    return detach(&args->dom, args->text, args->flags, error);
}

/* --- changing: another medium, another link state --- */

/* What a disk keeps as long as it is plugged in: all but its medium. */
static bool same_drive(const struct domain_disk *disk, const struct domain_disk *wanted,
                       GError **error)
{
    struct domain_disk like = *wanted; /* owns nothing */
    like.type = like.snapshot = like.tray = 0;
    like.driver_name = like.format = NULL;
    const struct xml_row *row = xml_differs(&disk_table, disk, &like);
    if (!row && wanted->iotune) {
        g_autofree struct iotune *none = disk->iotune ? NULL : xml_new(&iotune_table);
        row = xml_differs(&iotune_table, disk->iotune ? disk->iotune : none, wanted->iotune);
    }
    if (row) {
        const char *at = strrchr(row->path, '@');
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "cannot modify field '%s' (or its parts) of the disk",
                      at ? at + 1 : row->path);
    }
    return !row;
}

/* Nothing but what lodged itself keeps in mind of a disk that stays. */
static bool same_medium(const struct domain_disk *disk, const struct domain_disk *wanted)
{
    const struct disk_source *source = wanted->source;
    return disk->device == DISK_DEVICE_DISK &&
           (!source || (disk->source && !xml_differs(&disk_source_table, disk->source, source)));
}

static bool change_medium(struct machine *m, struct domain_disk *disk, struct domain_disk *wanted,
                          bool force, GError **error)
{
    if (!same_drive(disk, wanted, error)) {
        return false;
    }
    if (same_medium(disk, wanted)) {
        disk->snapshot = wanted->snapshot;
        return true;
    }
    if (!disk_resolve(wanted, error) || !disk_decrypt(wanted, NULL, error)) {
        return false;
    }
    char *from = (char *)disk_path(disk), *to = (char *)disk_path(wanted);
    if (disk->device == DISK_DEVICE_DISK) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "disk device '%s' does not have removable media", disk->target);
        return false;
    }
    g_autoptr(GPtrArray) lent = NULL;
    if (to && (!file_answers(to, NULL, error) ||
               !(lent = disk_lend_chain(m, to, wanted->format, error)))) {
        return false;
    }
    bool floppy = disk->bus == BUS_FDC; /* its controller is the device */
    const char *key = floppy ? "device" : "id";
    g_autofree char *drive = floppy ? disk_drive_name(disk) : g_strdup(disk->alias);
    bool ok =
        to ? qmp_do(m->qmp, error, "blockdev-change-medium", "{s:s, s:s, s:s, s:s, s:b}", key,
                    drive, "filename", to, "format", wanted->format ? wanted->format : "raw",
                    "read-only-mode", disk->readonly ? "read-only" : "read-write", "force", force)
           : qmp_do(m->qmp, error, "eject", "{s:s, s:b}", key, drive, "force", force);
    if (!ok) {
        disk_give_back_all(m, lent);
        return false;
    }
    rpc_event_disk_change message = {.dom = domain_rpc(m->domain),
                                     .old_path = from ? &from : NULL,
                                     .new_path = to ? &to : NULL,
                                     .alias = disk->alias,
                                     .reason = 0};
    event_domain_disk_change(&message);
    g_free(message.dom.name);
    struct disk_source *old = disk->source;
    disk->source = g_steal_pointer(&wanted->source);
    disk_give_back(m, from);
    xml_free(&disk_source_table, old);
    return true;
}

static bool set_link(struct machine *m, struct domain_interface *nic, int state, GError **error)
{
    int was = nic->link;
    nic->link = state;
    if (!machine_net_link(m, nic, error)) {
        nic->link = was;
        return false;
    }
    return true;
}

static bool same_tags(const struct domain_interface *a, const struct domain_interface *b)
{
    bool same = a->vlan_trunk == b->vlan_trunk && xml_count(a->tags) == xml_count(b->tags);
    for (unsigned i = 0; same && i < xml_count(a->tags); i++) {
        const struct vlan_tag *x = a->tags->pdata[i], *y = b->tags->pdata[i];
        same = x->id == y->id && x->native == y->native;
    }
    return same;
}

/* Other wires behind the same card: everything about where it is plugged in. */
static bool same_wires(const struct domain_interface *a, const struct domain_interface *b)
{
    return a->type == b->type && g_strcmp0(a->network, b->network) == 0 &&
           g_strcmp0(a->portgroup, b->portgroup) == 0 &&
           (a->type != IFACE_DIRECT || (g_strcmp0(a->dev, b->dev) == 0 && a->mode == b->mode)) &&
           (a->type != IFACE_BRIDGE || g_strcmp0(a->bridge, b->bridge) == 0) && same_tags(a, b) &&
           a->isolated == b->isolated;
}

/* What a card keeps as long as it is plugged in; what the new XML does not say stays as well. */
static bool same_card(const struct domain_interface *nic, const struct domain_interface *wanted,
                      GError **error)
{
    const struct {
        const char *what, *is, *asked;
    } texts[] = {{"model", nic->model, wanted->model},
                 {"rom file", nic->rom_file, wanted->rom_file}};
    const struct {
        const char *what;
        int64_t is, asked;
    } numbers[] = {{"mtu", nic->mtu, wanted->mtu},
                   {"queues", nic->queues, wanted->queues},
                   {"rx_queue_size", nic->rx_queue_size, wanted->rx_queue_size},
                   {"tx_queue_size", nic->tx_queue_size, wanted->tx_queue_size},
                   {"boot order", nic->boot_order, wanted->boot_order}};
    const char *differs = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++) {
        bool same = !texts[i].asked || g_strcmp0(texts[i].is, texts[i].asked) == 0;
        differs = same ? differs : texts[i].what;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(numbers); i++) {
        bool same = numbers[i].asked == XML_ABSENT || numbers[i].is == numbers[i].asked;
        differs = same ? differs : numbers[i].what;
    }
    if (differs) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED, "cannot modify network device %s", differs);
    }
    return !differs;
}

/* @nic's limits and filter become @from's, whose own they were. */
static void swap_guard(struct domain_interface *nic, struct domain_interface *from)
{
    struct domain_interface was = *nic;
    nic->inbound = from->inbound;
    nic->outbound = from->outbound;
    nic->filter = from->filter;
    nic->filter_parameters = from->filter_parameters;
    from->inbound = was.inbound;
    from->outbound = was.outbound;
    from->filter = was.filter;
    from->filter_parameters = was.filter_parameters;
}

static bool guarded(const struct domain_interface *nic)
{
    return nic->inbound || nic->outbound || nic->filter;
}

/* Limits and filter as the new XML has them, which may be none. */
static bool change_guard(struct machine *m, struct domain_interface *nic,
                         struct domain_interface *wanted, GError **error)
{
    if (!guarded(nic) && !guarded(wanted)) {
        return true;
    }
    swap_guard(nic, wanted);
    g_autofree char *mac = g_strdup(nic->mac);
    struct domain_interface *copy = xml_copy(&interface_table, nic);
    bool ok = machine_net_guard_anew(copy, error);
    xml_free(&interface_table, copy);
    nic = m->ended ? NULL : domain_find_interface(m->def, mac);
    if (!ok && nic) {
        swap_guard(nic, wanted);
    }
    return ok;
}

static bool change_interface(struct machine *m, struct domain_interface *nic,
                             struct domain_interface *wanted, GError **error)
{
    return same_card(nic, wanted, error) &&
           (same_wires(nic, wanted) || machine_net_move(m, nic, wanted, error)) &&
           set_link(m, nic, wanted->link, error) && change_guard(m, nic, wanted, error);
}

/* Its password, and until when that holds: all else stays as long as the machine runs. */
static bool change_graphics(struct machine *m, struct domain_graphics *g,
                            struct domain_graphics *wanted, GError **error)
{
    const struct graphics_listen *listen = wanted->listens ? wanted->listens->pdata[0] : NULL;
    const char *address = wanted->listen ? wanted->listen : listen ? listen->address : NULL;
    const char *differs =
        wanted->autoport != TRI_YES && wanted->port >= 0 && wanted->port != g->port ? "port"
        : wanted->websocket != XML_ABSENT && wanted->websocket != g->websocket      ? "websocket"
        : wanted->keymap && g_strcmp0(wanted->keymap, g->keymap) != 0               ? "keymap"
        : wanted->share_policy && wanted->share_policy != g->share_policy           ? "share policy"
        : address && g_strcmp0(address, g->listen) != 0 ? "listen address"
                                                        : NULL;
    if (differs) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED, "cannot change %s setting on vnc graphics",
                      differs);
        return false;
    }
    if (!wanted->passwd) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "only a password of vnc can change, and none is given");
        return false;
    }
    if (!domain_check_valid_to(wanted, error) || !machine_set_password(m, wanted, error)) {
        return false;
    }
    g_free(g->passwd);
    g->passwd = g_steal_pointer(&wanted->passwd);
    g_free(g->passwd_valid_to);
    g->passwd_valid_to = g_steal_pointer(&wanted->passwd_valid_to);
    return true;
}

/* Of graphics there is one. */
static int find_changed(DomainDef *def, const struct device_list *list, const void *wanted)
{
    return list->single                     ? -1
           : list->table == &graphics_table ? (int)xml_count(def->graphics) - 1
                                            : find_same(def, list, wanted);
}

static bool update_live(Domain *d, const struct device_list *list, void *wanted, bool force,
                        GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    if (!m) {
        return false;
    }
    int at = find_changed(m->def, list, wanted);
    if (at < 0) {
        return missing(list, error);
    }
    void *item = (*domain_device_array(m->def, list))->pdata[at];
    bool ok = false;
    if (list->table == &disk_table) {
        ok = change_medium(m, item, wanted, force, error);
    } else if (list->table == &interface_table) {
        ok = change_interface(m, item, wanted, error);
    } else if (list->table == &graphics_table) {
        ok = change_graphics(m, item, wanted, error);
    } else {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "live update of device '%s' is not supported", list->table->element);
    }
    if (ok && !m->ended) {
        machine_save(m);
    }
    return ok;
}

static bool update_config(Domain *d, const struct device_list *list, const char *xml,
                          GError **error)
{
    void *wanted;
    g_autoptr(DomainDef) def = domain_config(d, error);
    if (!def || !domain_device_parse(xml, &wanted, error)) {
        return false;
    }
    int at = find_changed(def, list, wanted);
    if (at < 0) {
        xml_free(list->table, wanted);
        return missing(list, error);
    }
    GPtrArray *items = *domain_device_array(def, list);
    struct device_head *old = items->pdata[at], *fresh = wanted;
    if (list->placed && !fresh->address) {
        fresh->address = g_steal_pointer(&old->address);
    }
    xml_free(list->table, old);
    items->pdata[at] = wanted;
    return domain_def_fill(def, error) && domain_def_check(def, error) &&
           domain_def_place(def, 0, error) && domain_save_config(d, def, error);
}

enum { UPDATE_FORCE = 4 };

bool verb_domain_update_device_flags(struct call *call, const rpc_domain_text_flags *args,
                                     rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    void *wanted;
    unsigned flags = args->flags;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    if (!d || !domain_affect(d, &flags, error)) {
        return false;
    }
    const struct device_list *list = domain_device_parse(args->text, &wanted, error);
    if (!list) {
        return false;
    }
    bool ok = (!(flags & AFFECT_LIVE) ||
               update_live(d, list, wanted, args->flags & UPDATE_FORCE, error)) &&
              (!(flags & AFFECT_CONFIG) || update_config(d, list, args->text, error));
    xml_free(list->table, wanted);
    return ok;
}
