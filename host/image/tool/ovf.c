/* SPDX-License-Identifier: GPL-2.0-or-later */

/* OVF descriptors, by libxml2. */
#include "host/image/tool/ovf.h"

#include "base/keyval.h"

#include <inttypes.h>
#include <libxml/parser.h>
#include <libxml/xmlwriter.h>
#include <string.h>

#define OVF_NS "http://schemas.dmtf.org/ovf/envelope/1"
#define RASD_NS                                                                                    \
    "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
#define VSSD_NS  "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
#define VMDK_URI "http://www.vmware.com/interfaces/specifications/vmdk.html"

/* CIM_ResourceAllocationSettingData, "ResourceType". */
enum resource { RES_CPU = 3, RES_MEMORY = 4, RES_SCSI = 6, RES_NIC = 10, RES_DISK = 17 };

/* Parts of format URIs, and our names. */
static const struct {
    const char *part, *format;
} formats[] = {
    {"vmdk", "vmdk"}, {"vhdx", "vhdx"},  {"vhd", "vpc"},
    {"vdi", "vdi"},   {"qcow", "qcow2"}, {"raw", "raw"},
};

bool ovf_plain_name(const char *name)
{
    return *name && *name != '.' && !strpbrk(name, "/\\:") && strlen(name) <= 255 &&
           g_utf8_validate(name, -1, NULL);
}

void ovf_free(struct ovf *o)
{
    for (unsigned i = 0; o && i < o->n_disks; i++) {
        g_free(o->disks[i].id);
        g_free(o->disks[i].file);
        g_free(o->disks[i].format);
    }
    if (o) {
        g_free(o->name);
        g_free(o->os);
        g_strfreev(o->networks);
        g_free(o);
    }
}

/* ---- reading ---- */

static bool is_named(const xmlNode *n, const char *name)
{
    return n->type == XML_ELEMENT_NODE && !strcmp((const char *)n->name, name);
}

static xmlNode *child(const xmlNode *parent, const char *name)
{
    for (xmlNode *n = parent ? parent->children : NULL; n; n = n->next) {
        if (is_named(n, name)) {
            return n;
        }
    }
    return NULL;
}

/* g_malloc'd; NULL: there is none.  Namespace prefixes are not looked at: writers differ. */
static char *attribute(const xmlNode *n, const char *name)
{
    for (xmlAttr *a = n ? n->properties : NULL; a; a = a->next) {
        if (!strcmp((const char *)a->name, name)) {
            xmlChar *text = xmlNodeListGetString(n->doc, a->children, 1);
            char *copy = g_strdup(text ? (const char *)text : "");
            xmlFree(text);
            return copy;
        }
    }
    return NULL;
}

static char *content(const xmlNode *n)
{
    xmlChar *text = n ? xmlNodeGetContent(n) : NULL;
    char *copy = text ? g_strstrip(g_strdup((const char *)text)) : NULL;
    xmlFree(text);
    return copy;
}

/* "byte * 2^20" and the words of older writers; 0: not known. */
static uint64_t unit_bytes(const char *text)
{
    static const struct {
        const char *word;
        unsigned shift;
    } old[] = {{"byte", 0},       {"bytes", 0}, {"kilobytes", 10}, {"kb", 10},
               {"megabytes", 20}, {"mb", 20},   {"gigabytes", 30}, {"gb", 30}};
    g_autofree char *plain = g_ascii_strdown(text, -1);
    uint64_t power;
    g_strstrip(plain);
    for (unsigned i = 0; i < G_N_ELEMENTS(old); i++) {
        if (!strcmp(plain, old[i].word)) {
            return UINT64_C(1) << old[i].shift;
        }
    }
    char *caret = strstr(plain, "2^");
    return g_str_has_prefix(plain, "byte") && caret && text_u64(caret + 2, &power) && power < 60
               ? UINT64_C(1) << power
               : 0;
}

static bool amount(const char *number, const char *unit, uint64_t fallback, uint64_t *out)
{
    uint64_t n, bytes = unit && *unit ? unit_bytes(unit) : fallback;
    return number && text_u64(number, &n) && bytes && !__builtin_mul_overflow(n, bytes, out) &&
           *out <= INT64_MAX;
}

static bool bad(GError **error, const char *what, const char *value)
{
    g_autofree char *shown = g_strescape(value ? value : "", NULL);
    g_set_error(error, LODGE_ERROR, EINVAL, "OVF: %s \"%s\"", what, shown);
    return false;
}

/* The file of References that @disk's fileRef names. */
static bool take_file(struct ovf_disk *d, const xmlNode *references, const char *ref,
                      GError **error)
{
    for (xmlNode *n = references ? references->children : NULL; n; n = n->next) {
        g_autofree char *id = is_named(n, "File") ? attribute(n, "id") : NULL;
        if (!id || strcmp(id, ref)) {
            continue;
        }
        g_autofree char *href = attribute(n, "href"), *size = attribute(n, "size");
        g_autofree char *chunk = attribute(n, "chunkSize"), *packed = attribute(n, "compression");
        if (!href || !ovf_plain_name(href)) {
            return bad(error, "a file's href is no plain file name:", href);
        }
        if (chunk) {
            return bad(error, "files in chunks are not supported:", href);
        }
        if (packed && *packed && strcmp(packed, "identity")) {
            return bad(error, "files with compression are not supported:", href);
        }
        if (size && !text_u64(size, &d->size)) {
            return bad(error, "a file's size is", size);
        }
        d->file = g_steal_pointer(&href);
        return true;
    }
    return bad(error, "a disk names a file that is not in References:", ref);
}

static void take_format(struct ovf_disk *d, const char *uri)
{
    g_autofree char *low = g_ascii_strdown(uri ? uri : "", -1);
    for (unsigned i = 0; i < G_N_ELEMENTS(formats) && !d->format; i++) {
        d->format = strstr(low, formats[i].part) ? g_strdup(formats[i].format) : NULL;
    }
}

static bool take_disk(struct ovf *o, const xmlNode *n, const xmlNode *references, GError **error)
{
    g_autofree char *capacity = attribute(n, "capacity"), *ref = attribute(n, "fileRef");
    g_autofree char *unit = attribute(n, "capacityAllocationUnits");
    g_autofree char *parent = attribute(n, "parentRef"), *uri = attribute(n, "format");
    if (o->n_disks == OVF_DISKS_MAX) {
        return bad(error, "too many disks, the last", ref);
    }
    struct ovf_disk *d = &o->disks[o->n_disks++];
    d->id = attribute(n, "diskId");
    d->id = d->id ? d->id : g_strdup("");
    take_format(d, uri);
    if (parent) {
        return bad(error, "disks with a parent are not supported:", d->id);
    }
    if (!amount(capacity, unit, 1, &d->capacity)) {
        return bad(error, "a disk's capacity is", capacity);
    }
    return !ref || take_file(d, references, ref, error);
}

static void take_item(struct ovf *o, const xmlNode *n)
{
    g_autofree char *type = content(child(n, "ResourceType"));
    g_autofree char *quantity = content(child(n, "VirtualQuantity"));
    g_autofree char *unit = content(child(n, "AllocationUnits"));
    uint64_t kind;
    if (!type || !text_u64(type, &kind)) {
        return;
    }
    if (kind == RES_CPU && quantity) {
        text_u64(quantity, &o->cpus);
    } else if (kind == RES_MEMORY) {
        amount(quantity, unit, 1 << 20, &o->memory);
    }
}

static void take_system(struct ovf *o, const xmlNode *system)
{
    o->name = content(child(system, "Name"));
    o->name = o->name ? o->name : attribute(system, "id");
    o->os = content(child(child(system, "OperatingSystemSection"), "Description"));
    const xmlNode *hardware = child(system, "VirtualHardwareSection");
    for (xmlNode *n = hardware ? hardware->children : NULL; n; n = n->next) {
        if (is_named(n, "Item") || is_named(n, "StorageItem") || is_named(n, "EthernetPortItem")) {
            take_item(o, n);
        }
    }
}

static char **networks_of(const xmlNode *section)
{
    GPtrArray *all = g_ptr_array_new();
    for (xmlNode *n = section ? section->children : NULL; n; n = n->next) {
        char *name = is_named(n, "Network") ? attribute(n, "name") : NULL;
        if (name) {
            g_ptr_array_add(all, name);
        }
    }
    g_ptr_array_add(all, NULL);
    return (char **)g_ptr_array_free(all, FALSE);
}

static bool take_envelope(struct ovf *o, const xmlNode *root, GError **error)
{
    const xmlNode *references = child(root, "References"), *disks = child(root, "DiskSection");
    if (!root || !is_named(root, "Envelope")) {
        return bad(error, "the root element is", root ? (const char *)root->name : "");
    }
    for (xmlNode *n = disks ? disks->children : NULL; n; n = n->next) {
        if (is_named(n, "Disk") && !take_disk(o, n, references, error)) {
            return false;
        }
    }
    o->networks = networks_of(child(root, "NetworkSection"));
    const xmlNode *system = child(root, "VirtualSystem");
    take_system(o,
                system ? system : child(child(root, "VirtualSystemCollection"), "VirtualSystem"));
    return true;
}

/* Some messages of libxml2's know no option that turns them off. */
static void say_nothing(void *owner, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static void say_nothing(void *owner, const char *fmt, ...)
{
    (void)owner, (void)fmt;
}

struct ovf *ovf_parse(const char *text, size_t n, GError **error)
{
    if (n > OVF_TEXT_MAX) {
        g_set_error(error, LODGE_ERROR, EFBIG, "OVF: more than %d bytes", OVF_TEXT_MAX);
        return NULL;
    }
    xmlSetGenericErrorFunc(NULL, say_nothing);
    xmlDoc *doc = xmlReadMemory(text, (int)n, NULL, NULL,
                                XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    if (!doc) {
        const xmlError *e = xmlGetLastError();
        g_autofree char *why = g_strchomp(g_strdup(e && e->message ? e->message : "no XML"));
        g_set_error(error, LODGE_ERROR, EINVAL, "OVF: line %d: %s", e ? e->line : 0, why);
        return NULL;
    }
    struct ovf *o = g_new0(struct ovf, 1);
    bool ok = take_envelope(o, xmlDocGetRootElement(doc), error);
    xmlFreeDoc(doc);
    if (!ok) {
        ovf_free(o);
        return NULL;
    }
    return o;
}

/* ---- writing ---- */

static void open_element(xmlTextWriter *w, const char *name)
{
    xmlTextWriterStartElement(w, BAD_CAST name);
}

static void put_attribute(xmlTextWriter *w, const char *name, const char *value)
{
    xmlTextWriterWriteAttribute(w, BAD_CAST name, BAD_CAST value);
}

static void put_number(xmlTextWriter *w, const char *name, uint64_t value)
{
    xmlTextWriterWriteFormatAttribute(w, BAD_CAST name, "%" PRIu64, value);
}

static void put_element(xmlTextWriter *w, const char *name, const char *value)
{
    xmlTextWriterWriteElement(w, BAD_CAST name, BAD_CAST value);
}

static void close_element(xmlTextWriter *w)
{
    xmlTextWriterEndElement(w);
}

/* One Item of the hardware; its elements come in the order of their names, as the schema has it. */
struct item {
    const char *address, *on_parent, *unit, *connection, *name, *host, *sub;
    unsigned id, parent;
    enum resource type;
    uint64_t quantity;
};

static void put_item(xmlTextWriter *w, const struct item *i)
{
    const struct {
        const char *name, *value;
    } texts[] = {{"rasd:Address", i->address},      {"rasd:AddressOnParent", i->on_parent},
                 {"rasd:AllocationUnits", i->unit}, {"rasd:Connection", i->connection},
                 {"rasd:ElementName", i->name},     {"rasd:HostResource", i->host}};
    open_element(w, "Item");
    for (unsigned n = 0; n < G_N_ELEMENTS(texts); n++) {
        if (texts[n].value) {
            put_element(w, texts[n].name, texts[n].value);
        }
    }
    xmlTextWriterWriteFormatElement(w, BAD_CAST "rasd:InstanceID", "%u", i->id);
    if (i->parent) {
        xmlTextWriterWriteFormatElement(w, BAD_CAST "rasd:Parent", "%u", i->parent);
    }
    if (i->sub) {
        put_element(w, "rasd:ResourceSubType", i->sub);
    }
    xmlTextWriterWriteFormatElement(w, BAD_CAST "rasd:ResourceType", "%d", (int)i->type);
    if (i->quantity) {
        xmlTextWriterWriteFormatElement(w, BAD_CAST "rasd:VirtualQuantity", "%" PRIu64,
                                        i->quantity);
    }
    close_element(w);
}

static void put_references(xmlTextWriter *w, const struct ovf *o)
{
    open_element(w, "References");
    for (unsigned i = 0; i < o->n_disks; i++) {
        open_element(w, "File");
        put_attribute(w, "ovf:href", o->disks[i].file);
        xmlTextWriterWriteFormatAttribute(w, BAD_CAST "ovf:id", "file%u", i + 1);
        put_number(w, "ovf:size", o->disks[i].size);
        close_element(w);
    }
    close_element(w);
}

static void put_disks(xmlTextWriter *w, const struct ovf *o)
{
    open_element(w, "DiskSection");
    put_element(w, "Info", "Virtual disks");
    for (unsigned i = 0; i < o->n_disks; i++) {
        open_element(w, "Disk");
        put_number(w, "ovf:capacity", o->disks[i].capacity);
        put_attribute(w, "ovf:capacityAllocationUnits", "byte");
        put_attribute(w, "ovf:diskId", o->disks[i].id);
        xmlTextWriterWriteFormatAttribute(w, BAD_CAST "ovf:fileRef", "file%u", i + 1);
        put_attribute(w, "ovf:format", VMDK_URI "#streamOptimized");
        close_element(w);
    }
    close_element(w);
}

static void put_networks(xmlTextWriter *w)
{
    open_element(w, "NetworkSection");
    put_element(w, "Info", "Networks");
    open_element(w, "Network");
    put_attribute(w, "ovf:name", "default");
    put_element(w, "Description", "The network that the machine is connected to");
    close_element(w);
    close_element(w);
}

static void put_hardware(xmlTextWriter *w, const struct ovf *o)
{
    unsigned id = 1, controller = 3;
    open_element(w, "VirtualHardwareSection");
    put_element(w, "Info", "Virtual hardware");
    open_element(w, "System");
    put_element(w, "vssd:ElementName", "Virtual Hardware Family");
    put_element(w, "vssd:InstanceID", "0");
    put_element(w, "vssd:VirtualSystemIdentifier", o->name);
    put_element(w, "vssd:VirtualSystemType", "vmx-07");
    close_element(w);
    put_item(w, &(struct item){.unit = "hertz * 10^6",
                               .name = "processors",
                               .id = id++,
                               .type = RES_CPU,
                               .quantity = o->cpus});
    put_item(w, &(struct item){.unit = "byte * 2^20",
                               .name = "memory",
                               .id = id++,
                               .type = RES_MEMORY,
                               .quantity = o->memory >> 20});
    put_item(w, &(struct item){.address = "0",
                               .name = "SCSI controller",
                               .sub = "lsilogic",
                               .id = id++,
                               .type = RES_SCSI});
    for (unsigned i = 0; i < o->n_disks; i++) {
        g_autofree char *host = g_strdup_printf("ovf:/disk/%s", o->disks[i].id);
        g_autofree char *slot = g_strdup_printf("%u", i), *name = g_strdup_printf("disk %u", i + 1);
        put_item(w, &(struct item){.on_parent = slot,
                                   .name = name,
                                   .host = host,
                                   .id = id++,
                                   .parent = controller,
                                   .type = RES_DISK});
    }
    put_item(w, &(struct item){.connection = "default",
                               .name = "network adapter",
                               .sub = "E1000",
                               .id = id++,
                               .type = RES_NIC});
    close_element(w);
}

static void put_system(xmlTextWriter *w, const struct ovf *o)
{
    open_element(w, "VirtualSystem");
    put_attribute(w, "ovf:id", o->name);
    put_element(w, "Info", "A virtual machine");
    put_element(w, "Name", o->name);
    open_element(w, "OperatingSystemSection");
    put_attribute(w, "ovf:id", "1"); /* CIM: other */
    put_element(w, "Info", "The operating system");
    put_element(w, "Description", o->os ? o->os : "other");
    close_element(w);
    put_hardware(w, o);
    close_element(w);
}

char *ovf_write(const struct ovf *o, GError **error)
{
    xmlBuffer *buffer = xmlBufferCreate();
    xmlTextWriter *w = buffer ? xmlNewTextWriterMemory(buffer, 0) : NULL;
    if (!w) {
        xmlBufferFree(buffer);
        g_set_error(error, LODGE_ERROR, ENOMEM, "OVF: no memory");
        return NULL;
    }
    xmlTextWriterSetIndent(w, 1);
    xmlTextWriterStartDocument(w, NULL, "UTF-8", NULL);
    open_element(w, "Envelope");
    put_attribute(w, "xmlns", OVF_NS);
    put_attribute(w, "xmlns:ovf", OVF_NS);
    put_attribute(w, "xmlns:rasd", RASD_NS);
    put_attribute(w, "xmlns:vssd", VSSD_NS);
    put_references(w, o);
    put_disks(w, o);
    put_networks(w);
    put_system(w, o);
    xmlTextWriterEndDocument(w);
    xmlFreeTextWriter(w);
    char *text = g_strdup((const char *)xmlBufferContent(buffer));
    xmlBufferFree(buffer);
    return text;
}
