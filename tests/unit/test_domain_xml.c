/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * manage/model/domain*.c: libvirt's domain XML in, defaults and addresses as libvirt gives them,
 * and out again; what is not supported is refused by its name.
 *
 * With arguments: reads each file, prints the definition or the refusal (tests/flow use it).
 */
#include "manage/model/domain.h"

#include "manage/error.h"
#include "manage/model/network.h"
#include "manage/model/volume.h"
#include "tests/unit/test.h"

#include <inttypes.h>
#include <string.h>

static DomainDef *parse(const char *text)
{
    g_autoptr(GError) error = NULL;
    DomainDef *def = domain_def_parse(text, 0, &error);
    if (!def) {
        fail_msg("%s", error->message);
    }
    return def;
}

static void fails(const char *text, int code, const char *words)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(DomainDef) def = domain_def_parse(text, 0, &error);
    assert_null(def);
    if (error->code != code || !strstr(error->message, words)) {
        fail_msg("%d \"%s\", not %d \"%s\"", error->code, error->message, code, words);
    }
}

#define MACHINE(type, inside)                                                                      \
    "<domain type='qemu'><name>m</name><memory>65536</memory><os><type machine='" type             \
    "'>hvm</type></os>" inside "</domain>"
#define DEVICES(type, inside) MACHINE(type, "<devices>" inside "</devices>")
#define DISK(dev, more)       "<disk><source file='/x/" dev "'/><target dev='" dev "'/>" more "</disk>"

static void defaults(void **state)
{
    (void)state;
    g_autoptr(DomainDef) def = parse(MACHINE("q35", ""));
    assert_int_equal(def->vcpus, 1);
    assert_int_equal(def->current_memory, 65536);
    assert_string_equal(def->machine, "pc-q35-7.2");
    assert_int_equal(strlen(def->uuid), 36);
    assert_int_equal(def->on_reboot, ACTION_RESTART);
    g_autofree char *text = domain_def_format(def, 0);
    assert_non_null(strstr(text, "<controller type='pci' index='0' model='pcie-root'/>"));
    assert_non_null(strstr(text, "<memballoon model='virtio'>"));
    assert_non_null(strstr(text, "<boot dev='hd'/>"));
    /* Once more: nothing changes. */
    g_autoptr(DomainDef) again = parse(text);
    g_autofree char *second = domain_def_format(again, 0);
    assert_string_equal(text, second);
}

/* The places of virt-install's Debian guest, as libvirtd gives them. */
static void places_on_q35(void **state)
{
    (void)state;
    g_autoptr(DomainDef) def = parse(DEVICES(
        "q35", "<disk type='file'><source file='/a'/><target dev='vda' bus='virtio'/></disk>"
               "<controller type='usb' model='qemu-xhci' ports='15'/>"
               "<controller type='pci' model='pcie-root'/>"
               "<controller type='pci' model='pcie-root-port'/><controller type='pci' "
               "model='pcie-root-port'/><controller type='pci' model='pcie-root-port'/>"
               "<interface type='user'><model type='virtio'/></interface><console type='pty'/>"
               "<channel type='unix'><source mode='bind'/><target type='virtio' "
               "name='org.qemu.guest_agent.0'/></channel>"
               "<input type='tablet' bus='usb'/><graphics type='vnc' port='-1'/>"
               "<video><model type='virtio'/></video><memballoon model='virtio'/>"
               "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"));
    struct domain_interface *nic = def->interfaces->pdata[0];
    struct domain_disk *disk = def->disks->pdata[0];
    struct domain_rng *rng = def->rngs->pdata[0];
    struct domain_video *video = def->videos->pdata[0];
    assert_int_equal(nic->address->bus, 1);
    assert_int_equal(disk->address->bus, 4);
    assert_int_equal(def->balloon->address->bus, 5);
    assert_int_equal(rng->address->bus, 6);
    assert_int_equal(video->address->slot, 1);
    g_autofree char *text = domain_def_format(def, 0);
    assert_non_null(strstr(text, "<target chassis='1' port='0x10'/>"));
    assert_non_null(strstr(text, "<controller type='pci' index='6' model='pcie-root-port'>"));
    assert_non_null(
        strstr(text, "<address type='virtio-serial' controller='0' bus='0' port='1'/>"));
    assert_non_null(strstr(text, "<address type='usb' bus='0' port='1'/>"));
    assert_non_null(strstr(text, "<target type='isa-serial' port='0'>"));
    assert_non_null(strstr(text, "<input type='keyboard' bus='ps2'/>"));
    assert_non_null(strstr(text, "<listen type='address'/>"));
    domain_def_alias(def);
    assert_string_equal(disk->alias, "virtio-disk0");
    assert_string_equal(nic->alias, "net0");
    assert_string_equal(((struct domain_char *)def->consoles->pdata[0])->alias, "serial0");
}

static void places_on_pc(void **state)
{
    (void)state;
    g_autoptr(DomainDef) def =
        parse(DEVICES("pc", DISK("hda", "") DISK("hdc", "") DISK("vda", "") DISK("sdb", "")));
    struct domain_disk *hdc = def->disks->pdata[1], *sdb = def->disks->pdata[3];
    assert_int_equal(hdc->address->bus, 1);
    assert_int_equal(hdc->address->unit, 0);
    assert_int_equal(sdb->address->unit, 1);
    domain_def_alias(def);
    assert_string_equal(hdc->alias, "ide0-1-0");
    assert_string_equal(sdb->alias, "scsi0-0-0-1");
    assert_int_equal(disk_index("vdaa"), 26);
    assert_int_equal(disk_index("vd1"), -1);
}

static void refusals(void **state)
{
    (void)state;
    fails(DEVICES("pc", "<tpm model='tpm-crb'/>"), ERR_CONFIG_UNSUPPORTED, "<tpm>");
    fails(DEVICES("pc", "<hostdev mode='subsystem'/>"), ERR_CONFIG_UNSUPPORTED, "<hostdev>");
    fails(DEVICES("pc", "<filesystem/>"), ERR_CONFIG_UNSUPPORTED, "<filesystem>");
    fails(DEVICES("pc", "<graphics type='spice'/>"), ERR_CONFIG_UNSUPPORTED, "spice");
    fails(MACHINE("pc", "<cpu mode='custom'><feature name='sse3'/></cpu>"), ERR_XML,
          "Non-empty feature list specified without CPU model");
    fails(MACHINE("pc", "<features><hyperv/></features>"), ERR_CONFIG_UNSUPPORTED, "<hyperv>");
    fails(DEVICES("pc", DISK("vda", "") DISK("vda", "")), ERR_XML, "target 'vda' duplicated");
    fails(DEVICES("pc", "<disk><target dev='vda'/></disk>"), ERR_XML, "missing source");
    fails(DEVICES("q35", DISK("hda", "")), ERR_CONFIG_UNSUPPORTED, "IDE controllers");
    fails(DEVICES("pc", DISK("vda", "<address type='pci' slot='4'/>")
                            DISK("vdb", "<address type='pci' slot='4'/>")),
          ERR_XML, "Attempted double use of PCI Address 0000:00:04.0");
    fails(DEVICES("pc", DISK("vda", "<address type='pci' bus='9' slot='4'/>")), ERR_XML,
          "Invalid PCI address");
    fails(DEVICES("pc", "<interface type='bridge'/>"), ERR_XML, "bridge");
    fails(DEVICES("pc", "<interface type='user'><mac address='01:00:00:00:00:00'/></interface>"),
          ERR_XML, "unicast mac");
    fails(MACHINE("pc", "<vcpu current='3'>2</vcpu>"), ERR_XML, "maxvcpus must not be less");
    fails(MACHINE("pc", "<vcpu>4</vcpu><cpu><topology sockets='1' cores='2' threads='1'/></cpu>"),
          ERR_CONFIG_UNSUPPORTED, "CPU topology");
    fails(MACHINE("pc", "<uuid>xyz</uuid>"), ERR_INTERNAL, "malformed uuid");
    fails(
        "<domain type='qemu'><name>a/b</name><memory>1</memory><os><type>hvm</type></os></domain>",
        ERR_XML, "cannot contain '/'");
    fails("<domain type='xen'><name>a</name></domain>", ERR_CONFIG_UNSUPPORTED, "'xen'");
    fails("<domain type='qemu'>\n<name>a</nam>\n</domain>", ERR_XML_DETAIL,
          "(domain_definition):2:");
}

/* A slot's functions belong to root ports only if the first is one. */
static void slots_of_ports(void **state)
{
    (void)state;
    g_autoptr(DomainDef) def =
        parse(DEVICES("q35", "<controller type='pci' index='1' model='dmi-to-pci-bridge'/>"
                             "<controller type='pci' index='2' model='pci-bridge'/>"
                             "<controller type='sata' index='1'/>"));
    g_autofree char *text = domain_def_format(def, 0);
    assert_non_null(strstr(text, "bus='0x00' slot='0x1e' function='0x0'"));
    for (unsigned i = 0; i < def->controllers->len; i++) {
        const struct domain_controller *c = def->controllers->pdata[i];
        if (c->type == CONTROLLER_SATA && c->index == 1) {
            assert_int_equal(c->address->bus, 0);
            for (unsigned k = 0; k < def->controllers->len; k++) {
                const struct domain_controller *o = def->controllers->pdata[k];
                assert_true(o == c || !o->address || o->address->bus ||
                            o->address->slot != c->address->slot);
            }
        }
    }
    g_autofree char *given = g_strdup(DEVICES(
        "q35", "<controller type='sata' index='1'><address type='pci' slot='2'/></controller>" DISK(
                   "vda", "")));
    g_autoptr(DomainDef) other = parse(given);
    g_autofree char *second = domain_def_format(other, 0);
    assert_null(strstr(second, "slot='0x02' function='0x1'"));
}

/* Fills the machine until there is no root port left; nothing overflows. */
/* What templates leave empty is not there. */
static void empty(void **state)
{
    (void)state;
    g_autoptr(DomainDef) def = parse(
        "<domain type='qemu'><name>m</name><uuid/><title></title><memory>65536</memory><os>"
        "<type machine='q35'>hvm</type><kernel></kernel><initrd/><cmdline/></os><devices>"
        "<emulator/><disk type='file' device='cdrom'><source file='' startupPolicy='optional'/>"
        "<target dev='sda' bus='sata'/></disk></devices></domain>");
    assert_int_equal(strlen(def->uuid), 36);
    assert_null(def->kernel);
    g_autofree char *text = domain_def_format(def, 0);
    assert_null(strstr(text, "file="));
    assert_null(strstr(text, "<cmdline"));
    void *disk;
    assert_ptr_equal(domain_device_parse("<disk device='cdrom'><source file=''/><target dev='sda'/>"
                                         "</disk>",
                                         &disk, NULL)
                         ->table,
                     &disk_table);
    assert_null(disk_path(disk));
    xml_free(&disk_table, disk);
}

static void full(void **state)
{
    (void)state;
    g_autoptr(GString) text =
        g_string_new("<domain type='qemu'><name>m</name><memory>65536</memory>"
                     "<os><type machine='q35'>hvm</type></os><devices>");
    for (unsigned i = 0; i < 300; i++) {
        g_string_append(text, "<rng model='virtio'><backend model='builtin'/></rng>");
    }
    g_string_append(text, "</devices></domain>");
    fails(text->str, ERR_INTERNAL, "No more available PCI slots");
}

/* --- numbers --- */

/* The element @path leads to below @node, made where it is not there yet; attributes are given. */
static void plant(xmlNode *node, const char *path, const char *value)
{
    g_auto(GStrv) parts = g_strsplit(path, "/", -1);
    for (unsigned i = 0; parts[i]; i++) {
        xmlNode *c = node->children;
        while (c && strcmp((const char *)c->name, parts[i]) != 0) {
            c = c->next;
        }
        if (parts[i][0] == '@') {
            xmlSetProp(node, (const xmlChar *)parts[i] + 1, (const xmlChar *)value);
            return;
        }
        if (strcmp(parts[i], ".") != 0) {
            node = c ? c : xmlNewChild(node, NULL, (const xmlChar *)parts[i], NULL);
        }
    }
    xmlNodeAddContent(node, (const xmlChar *)value);
}

static bool is_number(const struct xml_row *row)
{
    return row->kind == XML_KIND_INT || row->kind == XML_KIND_HEX || row->kind == XML_KIND_SIZE;
}

/* Whether @row is an attribute of the element whose text is @r. */
static bool is_above(const struct xml_row *r, const struct xml_row *row)
{
    size_t n = strlen(r->path);
    return is_number(r) && strncmp(row->path, r->path, n) == 0 && row->path[n] == '/';
}

/* An element with what @t wants and @value at @row, which is one of @t's numbers. */
static xmlDoc *with_number(const struct xml_table *t, const char *by, const char *which,
                           const struct xml_row *row, const char *value)
{
    xmlDoc *doc = xmlNewDoc((const xmlChar *)"1.0");
    xmlNode *root = xmlNewNode(NULL, (const xmlChar *)t->element);
    xmlDocSetRootElement(doc, root);
    if (by) {
        plant(root, by, which);
    }
    for (unsigned i = 0; i < t->n; i++) {
        const struct xml_row *r = &t->rows[i];
        if (r != row && ((r->flags & XML_REQUIRED) || is_above(r, row))) {
            plant(root, r->path,
                  r->words                    ? r->words[1]
                  : is_number(r)              ? "1"
                  : r->kind == XML_KIND_YESNO ? "yes"
                  : r->kind == XML_KIND_ONOFF ? "on"
                                              : "x");
        }
    }
    plant(root, row->path, value);
    return doc;
}

/* What is read of @doc is written so that it can be read, and the number is the one given. */
static bool read_and_written(const struct xml_table *t, const xmlDoc *doc, const char *where)
{
    unsigned mode = XML_MODE_LIVE | XML_MODE_SECRET;
    g_autoptr(GError) error = NULL;
    void *object = xml_read(t, xmlDocGetRootElement(doc), mode, &error);
    if (!object) {
        return false;
    }
    g_autofree char *text = xml_write_text(t, object, mode);
    void *again = xml_read_text(t, text, "test", mode, &error);
    if (!again) {
        fail_msg("%s: %s\n%s", where, error->message, text);
    }
    g_autofree char *second = xml_write_text(t, again, mode);
    assert_string_equal(text, second);
    assert_null(xml_differs(t->variants ? &t->variants[1] : t, object, again));
    xml_free(t, object);
    xml_free(t, again);
    return true;
}

static void try_numbers(const struct xml_table *t, const struct xml_table *rows, const char *which)
{
    static const char *const beyond[] = {"9223372036854775808",
                                         "18446744073709551615",
                                         "-9223372036854775808",
                                         "-9223372036854775809",
                                         "0xffffffffffffffff",
                                         "99999999999999999999",
                                         "1x",
                                         ""};
    for (unsigned i = 0; i < rows->n; i++) {
        const struct xml_row *row = &rows->rows[i];
        if (!is_number(row) || (row->flags & XML_OURS)) {
            continue;
        }
        g_autofree char *by = which ? g_strconcat("@", t->by, NULL) : NULL;
        g_autofree char *where = g_strdup_printf("<%s> %s", t->element, row->path);
        for (unsigned k = 0; k < G_N_ELEMENTS(beyond); k++) {
            g_autoptr(xmlDoc) doc = with_number(rows, by, which, row, beyond[k]);
            if (read_and_written(t, doc, where)) {
                fail_msg("%s takes '%s'", where, beyond[k]);
            }
        }
        int64_t least = row->kind == XML_KIND_SIZE ? 0 : row->least;
        int64_t most = row->kind == XML_KIND_SIZE ? INT64_MAX / 1024 : row->most;
        assert_true(least > XML_ABSENT && least < most);
        const struct {
            int64_t value;
            bool good;
        } edges[] = {{least, true}, {most, true}, {least - 1, false}, {-1, least < 0}};
        for (unsigned k = 0; k < G_N_ELEMENTS(edges); k++) {
            g_autofree char *value = g_strdup_printf("%" PRId64, edges[k].value);
            g_autoptr(xmlDoc) doc = with_number(rows, by, which, row, value);
            if (read_and_written(t, doc, where) != edges[k].good) {
                fail_msg("%s %s '%s'", where, edges[k].good ? "refuses" : "takes", value);
            }
        }
    }
}

static void try_table(GHashTable *seen, const struct xml_table *t)
{
    if (!g_hash_table_add(seen, (void *)t)) {
        return;
    }
    if (!t->variants) {
        try_numbers(t, t, NULL);
    }
    for (unsigned v = 1; t->variants && t->words[v]; v++) {
        try_numbers(t, &t->variants[v], t->words[v]);
    }
    for (unsigned i = 0; i < t->n; i++) {
        if (t->rows[i].table) {
            try_table(seen, t->rows[i].table);
        }
    }
}

/* In every table that a definition may have: a number out of its range is refused as it is read. */
static void numbers_have_ranges(void **state)
{
    (void)state;
    const struct xml_table *const tables[] = {&domain_table, &network_table, &pool_table,
                                              &volume_table};
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(tables); i++) {
        try_table(seen, tables[i]);
    }
    assert_true(g_hash_table_size(seen) > 50);
    fails(DEVICES("q35", "<controller type='pci' index='1' model='pcie-root-port'>"
                         "<target chassis='1' port='-1'/></controller>"),
          ERR_XML, "attribute 'port' in element 'target': '-1'");
}

static int show(int n, char **names)
{
    int refused = 0;
    for (int i = 1; i < n; i++) {
        g_autofree char *text = NULL;
        g_autoptr(GError) error = NULL;
        g_autoptr(DomainDef) def = g_file_get_contents(names[i], &text, NULL, &error)
                                       ? domain_def_parse(text, 0, &error)
                                       : NULL;
        g_autofree char *out = def ? domain_def_format(def, 0) : NULL;
        if (out) {
            fputs(out, stdout);
        } else {
            fprintf(stderr, "%s: %s\n", names[i], error->message);
            refused++;
        }
    }
    return refused != 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(places_on_q35),
        cmocka_unit_test(places_on_pc),
        cmocka_unit_test(refusals),
        cmocka_unit_test(empty),
        cmocka_unit_test(full),
        cmocka_unit_test(numbers_have_ranges),
        cmocka_unit_test(slots_of_ports),
    };
    return argc > 1 ? show(argc, argv) : cmocka_run_group_tests(tests, NULL, NULL);
}
