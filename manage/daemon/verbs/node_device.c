/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/node_device.h"

#include "manage/daemon/capabilities.h"
#include "manage/daemon/verb.h"
#include "manage/model/xml.h"

#include <glib/gstdio.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

/*
 * The host's devices, read from /sys at each call: names and documents as libvirt gives them.
 */
static const struct {
    const char *cap;    /* in XML and as a filter */
    const char *folder; /* of /sys whose entries are such devices */
    unsigned bit;       /* of CONNECT_LIST_ALL_NODE_DEVICES */
} kinds[] = {
    [KIND_COMPUTER] = {"system", NULL, 1 << 0},
    [KIND_PCI] = {"pci", "/sys/bus/pci/devices", 1 << 1},
    [KIND_USB] = {"usb_device", "/sys/bus/usb/devices", 1 << 2},
    [KIND_NET] = {"net", "/sys/class/net", 1 << 4},
    [KIND_BLOCK] = {"storage", "/sys/class/block", 1 << 8},
};
enum { KIND_BITS = 0x1fffffff, LIST_INACTIVE = 1 << 30 };

static void device_free(void *item)
{
    struct node_device *d = item;
    g_free(d->name);
    g_free(d->path);
    g_free(d);
}

/* One line of a file in the device's folder; NULL if it is not there. */
static char *attribute(const struct node_device *d, const char *name)
{
    g_autofree char *path = g_build_filename(d->path, name, NULL);
    char *text = NULL;
    return g_file_get_contents(path, &text, NULL, NULL) ? g_strstrip(text) : NULL;
}

static char *with_underscores(char *text)
{
    return g_strcanon(text, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "_", '_');
}

/* The last part of the path that link @name of the device leads to. */
static char *link_end(const struct node_device *d, const char *name)
{
    g_autofree char *path = g_build_filename(d->path, name, NULL);
    g_autofree char *target = g_file_read_link(path, NULL);
    return target ? g_path_get_basename(target) : NULL;
}

/* Is there such a device behind entry @name?  Makes its libvirt name. */
static char *name_of(struct node_device *d, const char *entry)
{
    g_autofree char *extra = NULL, *text = NULL;
    switch (d->kind) {
    case KIND_PCI:
        text = g_strconcat("pci_", entry, NULL);
        break;
    case KIND_USB:
        text = strchr(entry, ':') ? NULL : g_strconcat("usb_", entry, NULL); /* an interface */
        break;
    case KIND_NET:
        extra = attribute(d, "address");
        text = extra ? g_strconcat("net_", entry, "_", extra, NULL) : NULL;
        break;
    case KIND_BLOCK:
        extra = g_build_filename(d->path, "device", NULL); /* no partition, no loop device */
        text = g_file_test(extra, G_FILE_TEST_EXISTS) ? g_strconcat("block_", entry, NULL) : NULL;
        break;
    default:
        break;
    }
    return text ? with_underscores(g_steal_pointer(&text)) : NULL;
}

static void scan_kind(enum node_kind kind, GPtrArray *out)
{
    g_autoptr(GDir) dir = g_dir_open(kinds[kind].folder, 0, NULL);
    const char *entry;
    while (dir && (entry = g_dir_read_name(dir))) {
        struct node_device *d = g_new0(struct node_device, 1);
        g_autofree char *link = g_build_filename(kinds[kind].folder, entry, NULL);
        d->kind = kind;
        d->path = realpath(link, NULL);
        d->name = d->path ? name_of(d, entry) : NULL;
        if (d->name) {
            g_ptr_array_add(out, d);
        } else {
            device_free(d);
        }
    }
}

/* All of those whose bit is in @bits; 0 asks for all.  Daemon lock not needed. */
static GPtrArray *scan(unsigned bits)
{
    GPtrArray *all = g_ptr_array_new_with_free_func(device_free);
    bits = bits & KIND_BITS ? bits : KIND_BITS;
    if (bits & kinds[KIND_COMPUTER].bit) {
        struct node_device *d = g_new0(struct node_device, 1);
        d->name = g_strdup("computer");
        d->path = g_strdup("/sys/devices");
        g_ptr_array_add(all, d);
    }
    for (enum node_kind k = KIND_PCI; k <= KIND_BLOCK; k++) {
        if (bits & kinds[k].bit) {
            scan_kind(k, all);
        }
    }
    return all;
}

GPtrArray *node_devices(void)
{
    return scan(0);
}

/* The bits of capability @cap; a kind that we do not know has no devices. */
static unsigned bits_of(const rpc_maybe_string cap)
{
    for (unsigned i = 0; cap && i < G_N_ELEMENTS(kinds); i++) {
        if (strcmp(kinds[i].cap, *cap) == 0) {
            return kinds[i].bit;
        }
    }
    return cap ? 1u << 28 : 0;
}

static const struct node_device *find(const GPtrArray *all, const char *name, GError **error)
{
    for (unsigned i = 0; i < all->len; i++) {
        const struct node_device *d = g_ptr_array_index(all, i);
        if (strcmp(d->name, name) == 0) {
            return d;
        }
    }
    libvirt_error(error, ERR_NO_NODE_DEVICE, "no node device with matching name '%s'", name);
    return NULL;
}

/* The nearest device above it in /sys, else the computer. */
static const char *parent_of(const GPtrArray *all, const struct node_device *d)
{
    const struct node_device *best = NULL;
    for (unsigned i = 0; i < all->len; i++) {
        const struct node_device *p = g_ptr_array_index(all, i);
        size_t n = strlen(p->path);
        if (p != d && p->kind != KIND_COMPUTER && strncmp(d->path, p->path, n) == 0 &&
            d->path[n] == '/' && (!best || n > strlen(best->path))) {
            best = p;
        }
    }
    return best ? best->name : d->kind == KIND_COMPUTER ? NULL : "computer";
}

/* ---- Documents. ---- */

static void put(GString *xml, const char *element, const char *value)
{
    if (value && *value) {
        g_string_append_printf(xml, "    <%s>", element);
        xml_escape(xml, value);
        g_string_append_printf(xml, "</%s>\n", element);
    }
}

static void put_attribute(GString *xml, const struct node_device *d, const char *element,
                          const char *file)
{
    g_autofree char *value = attribute(d, file);
    put(xml, element, value);
}

/* <product id='0x1000'>: what /sys knows is the number. */
static void put_id(GString *xml, const struct node_device *d, const char *element, const char *file,
                   const char *name_file)
{
    g_autofree char *id = attribute(d, file), *name = name_file ? attribute(d, name_file) : NULL;
    unsigned long number = id ? strtoul(id, NULL, 16) : 0;
    if (id && name) {
        g_string_append_printf(xml, "    <%s id='0x%04lx'>", element, number);
        xml_escape(xml, name);
        g_string_append_printf(xml, "</%s>\n", element);
    } else if (id) {
        g_string_append_printf(xml, "    <%s id='0x%04lx'/>\n", element, number);
    }
}

static void put_pci(GString *xml, const struct node_device *d)
{
    unsigned domain = 0, bus = 0, slot = 0, function = 0;
    g_autofree char *base = g_path_get_basename(d->path);
    sscanf(base, "%x:%x:%x.%x", &domain, &bus, &slot, &function);
    put_attribute(xml, d, "class", "class");
    g_string_append_printf(xml,
                           "    <domain>%u</domain>\n    <bus>%u</bus>\n    <slot>%u</slot>\n"
                           "    <function>%u</function>\n",
                           domain, bus, slot, function);
    put_id(xml, d, "product", "device", NULL);
    put_id(xml, d, "vendor", "vendor", NULL);
    g_autofree char *group = link_end(d, "iommu_group");
    if (group) {
        g_string_append_printf(xml,
                               "    <iommuGroup number='%s'>\n"
                               "      <address domain='0x%04x' bus='0x%02x' slot='0x%02x' "
                               "function='0x%x'/>\n    </iommuGroup>\n",
                               group, domain, bus, slot, function);
    }
}

static void put_net(GString *xml, const struct node_device *d)
{
    g_autofree char *base = g_path_get_basename(d->path);
    g_autofree char *state = attribute(d, "operstate"), *speed = attribute(d, "speed");
    put(xml, "interface", base);
    put_attribute(xml, d, "address", "address");
    if (speed && atoi(speed) > 0) {
        g_string_append_printf(xml, "    <link speed='%s' state='%s'/>\n", speed, state);
    } else if (state) {
        g_string_append_printf(xml, "    <link state='%s'/>\n", state);
    }
}

static void put_block(GString *xml, const struct node_device *d)
{
    g_autofree char *base = g_path_get_basename(d->path), *sectors = attribute(d, "size");
    g_autofree char *logical = attribute(d, "queue/logical_block_size");
    uint64_t bytes = sectors ? g_ascii_strtoull(sectors, NULL, 10) * 512 : 0;
    unsigned block = logical ? (unsigned)atoi(logical) : 512;
    g_string_append_printf(xml, "    <block>/dev/%s</block>\n", base);
    g_string_append(xml, g_str_has_prefix(base, "sr") ? "    <drive_type>cdrom</drive_type>\n"
                                                      : "    <drive_type>disk</drive_type>\n");
    put_attribute(xml, d, "model", "device/model");
    put_attribute(xml, d, "vendor", "device/vendor");
    put_attribute(xml, d, "serial", "device/serial");
    g_string_append_printf(xml,
                           "    <size>%" PRIu64 "</size>\n"
                           "    <logical_block_size>%u</logical_block_size>\n"
                           "    <num_blocks>%" PRIu64 "</num_blocks>\n",
                           bytes, block, bytes / MAX(block, 1));
}

static void put_usb(GString *xml, const struct node_device *d)
{
    put_attribute(xml, d, "bus", "busnum");
    put_attribute(xml, d, "device", "devnum");
    put_id(xml, d, "product", "idProduct", "product");
    put_id(xml, d, "vendor", "idVendor", "manufacturer");
}

static void put_computer(GString *xml)
{
    g_autofree char *vendor = NULL, *product = NULL, *uuid = host_uuid();
    g_file_get_contents("/sys/class/dmi/id/product_name", &product, NULL, NULL);
    g_file_get_contents("/sys/class/dmi/id/sys_vendor", &vendor, NULL, NULL);
    put(xml, "product", product ? g_strstrip(product) : NULL);
    g_string_append(xml, "    <hardware>\n");
    put(xml, "vendor", vendor ? g_strstrip(vendor) : NULL);
    put(xml, "uuid", uuid ? uuid : "00000000-0000-0000-0000-000000000000");
    g_string_append(xml, "    </hardware>\n    <firmware>\n    </firmware>\n");
}

static char *document(const GPtrArray *all, const struct node_device *d)
{
    GString *xml = g_string_new("<device>\n");
    const char *parent = parent_of(all, d);
    g_autofree char *driver = link_end(d, "driver");
    g_string_append_printf(xml, "  <name>%s</name>\n", d->name);
    if (parent) {
        g_string_append_printf(xml, "  <path>%s</path>\n  <parent>%s</parent>\n", d->path, parent);
    }
    if (driver) {
        g_string_append_printf(xml, "  <driver>\n    <name>%s</name>\n  </driver>\n", driver);
    }
    g_string_append_printf(xml, "  <capability type='%s'>\n", kinds[d->kind].cap);
    switch (d->kind) {
    case KIND_COMPUTER:
        put_computer(xml);
        break;
    case KIND_PCI:
        put_pci(xml, d);
        break;
    case KIND_USB:
        put_usb(xml, d);
        break;
    case KIND_NET:
        put_net(xml, d);
        break;
    case KIND_BLOCK:
        put_block(xml, d);
        break;
    }
    g_string_append(xml, "  </capability>\n</device>\n");
    return g_string_free(xml, FALSE);
}

/* ---- Verbs.  /sys is read without the daemon lock. ---- */

static GPtrArray *scan_unlocked(unsigned bits)
{
    daemon_unlock();
    GPtrArray *all = scan(bits);
    daemon_lock();
    return all;
}

bool verb_node_num_of_devices(struct call *call, const rpc_node_devices_args *args, rpc_int *ret,
                              GError **error)
{
    g_autoptr(GPtrArray) all = scan_unlocked(bits_of(args->cap));
    (void)call, (void)error;
    ret->value = (int)all->len;
    return true;
}

bool verb_node_list_devices(struct call *call, const rpc_node_devices_names_args *args,
                            rpc_names *ret, GError **error)
{
    g_autoptr(GPtrArray) all = scan_unlocked(bits_of(args->cap));
    unsigned n = MIN(all->len, (unsigned)MAX(args->max, 0));
    (void)call, (void)error;
    ret->names.names_val = g_new0(rpc_string, MAX(n, 1));
    for (; ret->names.names_len < n; ret->names.names_len++) {
        const struct node_device *d = g_ptr_array_index(all, ret->names.names_len);
        ret->names.names_val[ret->names.names_len] = g_strdup(d->name);
    }
    return true;
}

bool verb_connect_list_all_node_devices(struct call *call, const rpc_list_args *args,
                                        rpc_node_devices *ret, GError **error)
{
    (void)call, (void)error;
    if ((args->flags & LIST_INACTIVE) && !(args->flags >> 31)) {
        return true; /* devices of /sys are all there */
    }
    g_autoptr(GPtrArray) all = scan_unlocked(args->flags);
    ret->count = all->len;
    ret->items.items_val = g_new0(rpc_node_device, all->len + 1);
    for (unsigned i = 0; args->need_results && i < all->len; i++) {
        const struct node_device *d = g_ptr_array_index(all, i);
        ret->items.items_val[ret->items.items_len++].name = g_strdup(d->name);
    }
    return true;
}

bool verb_node_device_lookup_by_name(struct call *call, const rpc_text *args,
                                     rpc_node_device_ret *ret, GError **error)
{
    g_autoptr(GPtrArray) all = scan_unlocked(0);
    const struct node_device *d = find(all, args->text, error);
    (void)call;
    if (d) {
        ret->dev.name = g_strdup(d->name);
    }
    return d;
}

bool verb_node_device_get_xml_desc(struct call *call, const rpc_text_flags *args, rpc_text *ret,
                                   GError **error)
{
    g_autoptr(GPtrArray) all = scan_unlocked(0);
    const struct node_device *d = find(all, args->text, error);
    (void)call;
    if (d) {
        ret->text = document(all, d);
    }
    return d;
}

bool verb_node_device_get_parent(struct call *call, const rpc_text *args, rpc_maybe_text *ret,
                                 GError **error)
{
    g_autoptr(GPtrArray) all = scan_unlocked(0);
    const struct node_device *d = find(all, args->text, error);
    const char *parent = d ? parent_of(all, d) : NULL;
    (void)call;
    if (parent) {
        ret->text = g_new(rpc_string, 1);
        *ret->text = g_strdup(parent);
    }
    return d;
}

bool verb_node_device_num_of_caps(struct call *call, const rpc_text *args, rpc_int *ret,
                                  GError **error)
{
    g_autoptr(GPtrArray) all = scan_unlocked(0);
    (void)call;
    ret->value = 1;
    return find(all, args->text, error);
}

bool verb_node_device_list_caps(struct call *call, const rpc_text_int *args, rpc_names *ret,
                                GError **error)
{
    g_autoptr(GPtrArray) all = scan_unlocked(0);
    const struct node_device *d = find(all, args->text, error);
    (void)call;
    if (d && args->value > 0) {
        ret->names.names_val = g_new0(rpc_string, 1);
        ret->names.names_val[0] = g_strdup(kinds[d->kind].cap);
        ret->names.names_len = 1;
    }
    return d;
}

/* Of a device that /sys shows: it is there, and not by any definition of ours. */
static bool answer(const rpc_text *args, int value, rpc_int *ret, GError **error)
{
    g_autoptr(GPtrArray) all = scan_unlocked(0);
    ret->value = value;
    return find(all, args->text, error);
}

bool verb_node_device_is_active(struct call *call, const rpc_text *args, rpc_int *ret,
                                GError **error)
{
    (void)call;
    return answer(args, 1, ret, error);
}

bool verb_node_device_is_persistent(struct call *call, const rpc_text *args, rpc_int *ret,
                                    GError **error)
{
    (void)call;
    return answer(args, 1, ret, error);
}

bool verb_node_device_get_autostart(struct call *call, const rpc_text *args, rpc_int *ret,
                                    GError **error)
{
    (void)call;
    return answer(args, 1, ret, error);
}
