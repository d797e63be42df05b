/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"
#include "manage/cli/xpath.h"

#include "base/util.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#define VOLUME_OPTION {"vol", OPT_TEXT, OPT_NEEDED, "volume's name, key or path", COMPLETE_VOLUME}
#define IN_POOL       {"pool", OPT_TEXT, 0, "pool it is in", COMPLETE_POOL}

static const char *type_name(int type)
{
    static const char *const names[] = {"file", "block", "dir", "network", "net-dir", "ploop"};
    return type >= 0 && type < (int)G_N_ELEMENTS(names) ? names[type] : "unknown";
}

static bool volume_of(struct shell *sh, const struct args *a, rpc_volume *vol, GError **error)
{
    return shell_volume(sh, args_text(a, "vol"), args_text(a, "pool"), vol, error);
}

/* ---- vol-list, vol-info ---- */

static int by_name(const void *a, const void *b)
{
    return g_ascii_strcasecmp(((const rpc_volume *)a)->name, ((const rpc_volume *)b)->name);
}

static void list_row(struct shell *sh, Rpc *rpc, const rpc_volume *vol, bool details)
{
    rpc_volume_args args = {*vol};
    g_auto(rpc_text) path = {0};
    rpc_volume_info info = {0};
    bool has_path = ask_storage_vol_get_path(rpc, &args, &path, NULL);
    if (!details) {
        out_row(sh, vol->name, has_path ? path.text : "-", NULL);
        return;
    }
    ask_storage_vol_get_info(rpc, &args, &info, NULL);
    g_autofree char *capacity = out_size(info.capacity, 2);
    g_autofree char *allocation = out_size(info.allocation, 2);
    out_row(sh, vol->name, has_path ? path.text : "-", type_name(info.type), capacity, allocation,
            NULL);
}

static bool run_list(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const plain[] = {"Name", "Path", NULL};
    static const char *const detailed[] = {"Name", "Path", "Type", "Capacity", "Allocation", NULL};
    bool details = args_flag(a, "details");
    g_auto(rpc_pool) pool = {0};
    g_auto(rpc_volumes) all = {0};
    if (!shell_pool(sh, args_text(a, "pool"), &pool, error)) {
        return false;
    }
    rpc_pool_list_args args = {pool, 1, 0};
    Rpc *rpc = shell_rpc(sh, NULL);
    if (!ask_storage_pool_list_all_volumes(rpc, &args, &all, error)) {
        shell_failing(sh, "Failed to list volumes");
        return false;
    }
    sort_items(all.items.items_val, all.items.items_len, sizeof(rpc_volume), by_name);
    out_table(sh, details ? detailed : plain);
    for (unsigned i = 0; i < all.items.items_len; i++) {
        list_row(sh, rpc, &all.items.items_val[i], details);
    }
    out_table_end(sh);
    return true;
}

static bool run_info(struct shell *sh, const struct args *a, GError **error)
{
    enum { PHYSICAL = 1 };
    bool bytes = args_flag(a, "bytes"), physical = args_flag(a, "physical");
    g_auto(rpc_volume) vol = {0};
    rpc_volume_info_flags info;
    if (!volume_of(sh, a, &vol, error)) {
        return false;
    }
    rpc_volume_flags args = {vol, physical ? PHYSICAL : 0};
    if (!ask_storage_vol_get_info_flags(shell_rpc(sh, NULL), &args, &info, error)) {
        return false;
    }
    out_field(sh, "Name:", "%s", vol.name);
    out_field(sh, "Type:", "%s", type_name(info.type));
    g_autofree char *capacity = bytes ? g_strdup_printf("%" PRIu64 " bytes", (uint64_t)info.capacity)
                                      : out_size(info.capacity, 2);
    g_autofree char *allocation =
        bytes ? g_strdup_printf("%" PRIu64 " bytes", (uint64_t)info.allocation)
              : out_size(info.allocation, 2);
    out_field(sh, "Capacity:", "%s", capacity);
    out_field(sh, physical ? "Physical:" : "Allocation:", "%s", allocation);
    return true;
}

static bool run_text(struct shell *sh, const struct args *a, GError **error)
{
    const char *what = shell_data(sh);
    g_auto(rpc_volume) vol = {0};
    g_auto(rpc_text) text = {0};
    if (!volume_of(sh, a, &vol, error)) {
        return false;
    }
    if (strcmp(what, "name") == 0 || strcmp(what, "key") == 0) {
        out_text(sh, what, "%s\n", *what == 'n' ? vol.name : vol.key);
        return true;
    }
    rpc_volume_flags args = {vol, 0};
    rpc_volume_args plain = {vol};
    Rpc *rpc = shell_rpc(sh, NULL);
    bool xml = strcmp(what, "xml") == 0;
    if (!(xml ? ask_storage_vol_get_xml_desc(rpc, &args, &text, error)
              : ask_storage_vol_get_path(rpc, &plain, &text, error))) {
        return false;
    }
    if (xml) {
        return show_xml(sh, a, text.text, error);
    }
    out_text(sh, what, "%s\n", text.text);
    return true;
}

static bool run_pool(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_volume) vol = {0};
    g_auto(rpc_pool_ret) pool = {0};
    if (!shell_volume(sh, args_text(a, "vol"), NULL, &vol, error)) {
        return false;
    }
    rpc_volume_args args = {vol};
    if (!ask_storage_pool_lookup_by_volume(shell_rpc(sh, NULL), &args, &pool, error)) {
        shell_failing(sh, "failed to get parent pool");
        return false;
    }
    g_autofree char *uuid = uuid_text(pool.pool.uuid);
    out_text(sh, "pool", "%s\n", args_flag(a, "uuid") ? uuid : pool.pool.name);
    return true;
}

/* ---- Making ---- */

static bool size_of(const struct args *a, const char *name, uint64_t *bytes, GError **error)
{
    const char *text = args_text(a, name);
    return !text || args_scaled(text, 1, bytes) || shell_fail(error, "Malformed size %s", text);
}

static char *volume_xml(const struct args *a, const rpc_text *backing, uint64_t capacity,
                        uint64_t allocation)
{
    GString *xml = g_string_new("<volume>\n");
    g_autofree char *name = g_markup_escape_text(args_text(a, "name"), -1);
    const char *format = args_text(a, "format"), *below = args_text(a, "backing-vol-format");
    g_string_append_printf(xml, "  <name>%s</name>\n  <capacity>%" PRIu64 "</capacity>\n", name,
                           capacity);
    if (args_text(a, "allocation")) {
        g_string_append_printf(xml, "  <allocation>%" PRIu64 "</allocation>\n", allocation);
    }
    if (format) {
        g_autofree char *safe = g_markup_escape_text(format, -1);
        g_string_append_printf(xml, "  <target>\n    <format type='%s'/>\n  </target>\n", safe);
    }
    if (backing) {
        g_autofree char *path = g_markup_escape_text(backing->text, -1);
        g_string_append_printf(xml, "  <backingStore>\n    <path>%s</path>\n", path);
        if (below) {
            g_autofree char *safe = g_markup_escape_text(below, -1);
            g_string_append_printf(xml, "    <format type='%s'/>\n", safe);
        }
        g_string_append(xml, "  </backingStore>\n");
    }
    g_string_append(xml, "</volume>\n");
    return g_string_free(xml, FALSE);
}

static bool backing_path(struct shell *sh, const struct args *a, rpc_text *path, GError **error)
{
    g_auto(rpc_volume) vol = {0};
    if (!shell_volume(sh, args_text(a, "backing-vol"), args_text(a, "pool"), &vol, error)) {
        return false;
    }
    rpc_volume_args args = {vol};
    return ask_storage_vol_get_path(shell_rpc(sh, NULL), &args, path, error);
}

static bool run_create_as(struct shell *sh, const struct args *a, GError **error)
{
    uint64_t capacity = 0, allocation = 0;
    g_auto(rpc_pool) pool = {0};
    g_auto(rpc_text) backing = {0};
    g_auto(rpc_volume_ret) ret = {0};
    bool below = args_text(a, "backing-vol") != NULL;
    if (!size_of(a, "capacity", &capacity, error) || !size_of(a, "allocation", &allocation, error) ||
        !shell_pool(sh, args_text(a, "pool"), &pool, error) ||
        (below && !backing_path(sh, a, &backing, error))) {
        return false;
    }
    g_autofree char *xml = volume_xml(a, below ? &backing : NULL, capacity, allocation);
    if (args_flag(a, "print-xml")) {
        out_text(sh, "xml", "%s", xml);
        return true;
    }
    rpc_pool_text_flags args = {pool, xml, args_flag(a, "prealloc-metadata")};
    if (!ask_storage_vol_create_xml(shell_rpc(sh, NULL), &args, &ret, error)) {
        shell_failing(sh, "Failed to create vol %s", args_text(a, "name"));
        return false;
    }
    out_note(sh, "Vol %s created", ret.vol.name);
    return true;
}

enum { PREALLOCATE = 1, REFLINK = 2, VALIDATE = 4 };
static const struct flag_bit clone_bits[] = {{"prealloc-metadata", PREALLOCATE},
                                             {"reflink", REFLINK}};
static const struct flag_bit create_bits[] = {{"prealloc-metadata", PREALLOCATE},
                                              {"validate", VALIDATE}};

static bool run_create(struct shell *sh, const struct args *a, GError **error)
{
    const char *path = args_text(a, "file");
    g_auto(rpc_pool) pool = {0};
    g_auto(rpc_volume_ret) ret = {0};
    g_autofree char *xml = shell_read_file(path, error);
    if (!xml || !shell_pool(sh, args_text(a, "pool"), &pool, error)) {
        return false;
    }
    rpc_pool_text_flags args = {pool, xml, flags_of(a, create_bits, G_N_ELEMENTS(create_bits))};
    if (!ask_storage_vol_create_xml(shell_rpc(sh, NULL), &args, &ret, error)) {
        shell_failing(sh, "Failed to create vol from %s", path);
        return false;
    }
    out_note(sh, "Vol %s created from %s", ret.vol.name, path);
    return true;
}

static bool run_create_from(struct shell *sh, const struct args *a, GError **error)
{
    const char *path = args_text(a, "file");
    g_auto(rpc_pool) pool = {0};
    g_auto(rpc_volume) from = {0};
    g_auto(rpc_volume_ret) ret = {0};
    g_autofree char *xml = shell_read_file(path, error);
    if (!xml || !shell_pool(sh, args_text(a, "pool"), &pool, error) ||
        !shell_volume(sh, args_text(a, "vol"), args_text(a, "inputpool"), &from, error)) {
        return false;
    }
    rpc_volume_from_args args = {pool, xml, from,
                                 flags_of(a, clone_bits, G_N_ELEMENTS(clone_bits)) |
                                     (args_flag(a, "validate") ? VALIDATE : 0u)};
    if (!ask_storage_vol_create_xml_from(shell_rpc(sh, NULL), &args, &ret, error)) {
        shell_failing(sh, "Failed to create vol from %s", path);
        return false;
    }
    out_note(sh, "Vol %s created from input vol %s", ret.vol.name, from.name);
    return true;
}

/* The source's XML with another name. */
static char *renamed_xml(const char *xml, const char *name, GError **error)
{
    g_auto(xpath_t) x = {0};
    if (!xpath_open(&x, xml, error)) {
        return NULL;
    }
    xmlXPathObjectPtr names = xpath_nodes(&x, "name");
    if (names && names->nodesetval && names->nodesetval->nodeNr == 1) {
        xmlNodeSetContent(names->nodesetval->nodeTab[0], NULL);
        xmlNodeAddContent(names->nodesetval->nodeTab[0], BAD_CAST name);
    }
    xmlXPathFreeObject(names);
    xmlBufferPtr buffer = xmlBufferCreate();
    xmlNodeDump(buffer, x.doc, xmlDocGetRootElement(x.doc), 0, 1);
    char *copy = g_strdup((const char *)xmlBufferContent(buffer));
    xmlBufferFree(buffer);
    return copy;
}

static bool run_clone(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_volume) vol = {0};
    g_auto(rpc_text) xml = {0};
    g_auto(rpc_pool_ret) pool = {0};
    g_auto(rpc_volume_ret) ret = {0};
    if (!volume_of(sh, a, &vol, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    rpc_volume_flags ask = {vol, 0};
    rpc_volume_args plain = {vol};
    if (!ask_storage_vol_get_xml_desc(rpc, &ask, &xml, error) ||
        !ask_storage_pool_lookup_by_volume(rpc, &plain, &pool, error)) {
        return false;
    }
    g_autofree char *changed = renamed_xml(xml.text, args_text(a, "newname"), error);
    if (!changed) {
        return false;
    }
    if (args_flag(a, "print-xml")) {
        out_text(sh, "xml", "%s", changed);
        return true;
    }
    rpc_volume_from_args args = {pool.pool, changed, vol,
                                 flags_of(a, clone_bits, G_N_ELEMENTS(clone_bits))};
    if (!ask_storage_vol_create_xml_from(rpc, &args, &ret, error)) {
        shell_failing(sh, "Failed to clone vol from %s", vol.name);
        return false;
    }
    out_note(sh, "Vol %s cloned from %s", ret.vol.name, vol.name);
    return true;
}

/* ---- Changing ---- */

/* By libvirt's numbers. */
static const char *const wipe_algorithms[] = {"zero",      "nnsa",       "dod",    "bsi",
                                              "gutmann",   "schneier",   "pfitzner7",
                                              "pfitzner33", "random",    "trim"};

static bool run_wipe(struct shell *sh, const struct args *a, GError **error)
{
    const char *wanted = args_text(a, "algorithm");
    g_auto(rpc_volume) vol = {0};
    rpc_none none;
    unsigned k = 0;
    while (wanted && k < G_N_ELEMENTS(wipe_algorithms) && strcmp(wipe_algorithms[k], wanted)) {
        k++;
    }
    if (!volume_of(sh, a, &vol, error)) {
        return false;
    }
    if (k == G_N_ELEMENTS(wipe_algorithms)) {
        return shell_fail(error, "Unsupported algorithm '%s'", wanted);
    }
    rpc_volume_flags plain = {vol, 0};
    rpc_volume_uint_flags args = {vol, k, 0};
    Rpc *rpc = shell_rpc(sh, NULL);
    if (!(wanted ? ask_storage_vol_wipe_pattern(rpc, &args, &none, error)
                 : ask_storage_vol_wipe(rpc, &plain, &none, error))) {
        shell_failing(sh, "Failed to wipe vol %s", args_text(a, "vol"));
        return false;
    }
    out_note(sh, "Vol %s wiped", args_text(a, "vol"));
    return true;
}

static bool run_delete(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_volume) vol = {0};
    rpc_none none;
    if (!volume_of(sh, a, &vol, error)) {
        return false;
    }
    enum { WITH_SNAPSHOTS = 2 };
    rpc_volume_flags args = {vol, args_flag(a, "delete-snapshots") ? WITH_SNAPSHOTS : 0};
    Rpc *rpc = shell_rpc(sh, NULL);
    if (!ask_storage_vol_delete(rpc, &args, &none, error)) {
        shell_failing(sh, "Failed to delete vol %s", args_text(a, "vol"));
        return false;
    }
    out_note(sh, "Vol %s deleted", args_text(a, "vol"));
    return true;
}

static bool run_resize(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {{"allocate", 1}, {"delta", 2}, {"shrink", 4}};
    const char *text = args_text(a, "capacity");
    bool minus = *text == '-';
    uint64_t capacity = 0;
    g_auto(rpc_volume) vol = {0};
    rpc_none none;
    if (minus && !args_flag(a, "shrink")) {
        return shell_fail(error, "negative size requires --shrink");
    }
    if (!args_scaled(text + minus, 1, &capacity)) {
        return shell_fail(error, "Malformed size %s", text);
    }
    if (!volume_of(sh, a, &vol, error)) {
        return false;
    }
    rpc_volume_uhyper_flags args = {vol, capacity, flags_of(a, bits, 3)};
    if (!ask_storage_vol_resize(shell_rpc(sh, NULL), &args, &none, error)) {
        shell_failing(sh, "Failed to change size of volume '%s' to %s", vol.name, text);
        return false;
    }
    out_note(sh, args_flag(a, "delta") ? "Size of volume '%s' successfully changed by %s"
                                       : "Size of volume '%s' successfully changed to %s",
             vol.name, text);
    return true;
}

/* ---- Contents ---- */

enum { SPARSE = 1 };

/* The length of the hole that begins at @at of @fd, 0 if there are data. */
static int64_t hole_at(int fd, off_t at, off_t size)
{
    off_t data = lseek(fd, at, SEEK_DATA);
    off_t end = data < 0 ? size : data;
    lseek(fd, at, SEEK_SET);
    return end > at ? end - at : 0;
}

static bool send_file(Rpc *rpc, int fd, bool sparse, uint64_t length, GError **error)
{
    static char buffer[STREAM_CHUNK];
    off_t at = 0, size = lseek(fd, 0, SEEK_END);
    uint64_t left = length ? length : UINT64_MAX;
    lseek(fd, 0, SEEK_SET);
    while (left) {
        int64_t hole = sparse ? hole_at(fd, at, size) : 0;
        if (hole) {
            if (!rpc_stream_send_hole(rpc, (uint64_t)hole, error)) {
                return false;
            }
            at += hole;
            lseek(fd, at, SEEK_SET);
            continue;
        }
        ssize_t n = read(fd, buffer, MIN(sizeof(buffer), left));
        if (n < 0) {
            return shell_fail(error, "read: %s", g_strerror(errno));
        }
        if (n == 0) {
            break;
        }
        if (!rpc_stream_send(rpc, buffer, (size_t)n, error)) {
            return false;
        }
        at += n;
        left -= (uint64_t)n;
    }
    return rpc_stream_finish(rpc, error);
}

static bool receive_file(Rpc *rpc, int fd, bool sparse, GError **error)
{
    static char buffer[STREAM_CHUNK];
    off_t at = 0;
    for (;;) {
        uint64_t hole = 0;
        ssize_t n = rpc_stream_receive(rpc, buffer, sizeof(buffer), sparse ? &hole : NULL, error);
        if (n < 0) {
            return false;
        }
        if (n == 0 && !hole) {
            return rpc_stream_finish(rpc, error);
        }
        at += (off_t)hole;
        bool ok = n ? pwrite(fd, buffer, (size_t)n, at) == n : ftruncate(fd, at) == 0;
        if (!ok) {
            return shell_fail(error, "write: %s", g_strerror(errno));
        }
        at += n;
    }
}

static bool run_transfer(struct shell *sh, const struct args *a, GError **error)
{
    bool up = strcmp(shell_data(sh), "upload") == 0, sparse = args_flag(a, "sparse");
    const char *path = args_text(a, "file");
    uint64_t offset = 0, length = 0;
    g_auto(rpc_volume) vol = {0};
    rpc_none none;
    args_number(a, "offset", &offset);
    args_number(a, "length", &length);
    if (!volume_of(sh, a, &vol, error)) {
        return false;
    }
    autofd int fd = open(path, up ? O_RDONLY | O_CLOEXEC : O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                         0666);
    if (fd < 0) {
        return shell_fail(error, "cannot %s %s: %s", up ? "open" : "create", path,
                          g_strerror(errno));
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    rpc_volume_stream_args args = {vol, offset, length, sparse ? SPARSE : 0};
    if (!(up ? ask_storage_vol_upload(rpc, &args, &none, error)
             : ask_storage_vol_download(rpc, &args, &none, error))) {
        shell_failing(sh, up ? "cannot upload to volume %s" : "cannot download from volume %s",
                      vol.name);
        return false;
    }
    if (!(up ? send_file(rpc, fd, sparse, length, error)
             : receive_file(rpc, fd, sparse, error))) {
        rpc_stream_abort(rpc, NULL);
        shell_failing(sh, up ? "cannot send data to volume %s" : "cannot receive data from volume %s",
                      vol.name);
        return false;
    }
    return true;
}

#define TRANSFER_OPTIONS                                                                           \
    VOLUME_OPTION, {"file", OPT_TEXT, OPT_NEEDED, "the file here", COMPLETE_FILE}, IN_POOL,        \
        {"offset", OPT_NUMBER, OPT_NAMED, "byte of the volume to begin at"},                       \
        {"length", OPT_NUMBER, OPT_NAMED, "how many bytes"},                                       \
        {"sparse", OPT_BOOL, 0, "holes stay holes"}, {NULL}

const struct verb_group verb_group_volume = {"Storage Volume", "volume", (const struct verb_row[]){
    {"vol-clone", (const struct option_row[]){VOLUME_OPTION,
        {"newname", OPT_TEXT, OPT_NEEDED, "name of the copy"}, IN_POOL,
        {"prealloc-metadata", OPT_BOOL, 0, "make all tables"},
        {"reflink", OPT_BOOL, 0, "sharing its blocks, where the file system can"},
        {"print-xml", OPT_BOOL, 0, "print the XML and do nothing"}, {NULL}},
     "copies a volume", run_clone},
    {"vol-create", (const struct option_row[]){POOL_OPTION, FILE_OPTION,
        {"prealloc-metadata", OPT_BOOL, 0, "make all tables"},
        {"validate", OPT_BOOL, 0, "check the XML (it always is)"}, {NULL}},
     "makes a volume of XML", run_create},
    {"vol-create-as", (const struct option_row[]){POOL_OPTION,
        {"name", OPT_TEXT, OPT_NEEDED, "name of the volume"},
        {"capacity", OPT_TEXT, OPT_NEEDED, "bytes, or with a suffix"},
        {"allocation", OPT_TEXT, 0, "taken at once"},
        {"format", OPT_TEXT, 0, "raw, qcow2, vmdk, ..."},
        {"backing-vol", OPT_TEXT, 0, "volume below it", COMPLETE_VOLUME},
        {"backing-vol-format", OPT_TEXT, 0, "its format"},
        {"prealloc-metadata", OPT_BOOL, 0, "make all tables"},
        {"print-xml", OPT_BOOL, 0, "print the XML and do nothing"}, {NULL}},
     "makes a volume of arguments", run_create_as},
    {"vol-create-from", (const struct option_row[]){POOL_OPTION, FILE_OPTION, VOLUME_OPTION,
        {"inputpool", OPT_TEXT, OPT_NAMED, "pool of the source", COMPLETE_POOL},
        {"prealloc-metadata", OPT_BOOL, 0, "make all tables"},
        {"reflink", OPT_BOOL, 0, "sharing its blocks, where the file system can"},
        {"validate", OPT_BOOL, 0, "check the XML (it always is)"}, {NULL}},
     "makes a volume of XML, with another one's contents", run_create_from},
    {"vol-delete", (const struct option_row[]){VOLUME_OPTION, IN_POOL,
        {"delete-snapshots", OPT_BOOL, 0, "and its snapshots"}, {NULL}},
     "removes a volume", run_delete},
    {"vol-download", (const struct option_row[]){TRANSFER_OPTIONS},
     "copies a volume's bytes to a file", run_transfer, "download"},
    {"vol-dumpxml", (const struct option_row[]){VOLUME_OPTION, IN_POOL, XPATH_OPTIONS, {NULL}},
     "prints a volume's XML", run_text, "xml"},
    {"vol-info", (const struct option_row[]){VOLUME_OPTION, IN_POOL,
        {"bytes", OPT_BOOL, 0, "sizes as plain numbers"},
        {"physical", OPT_BOOL, 0, "the file's size instead of its allocation"}, {NULL}},
     "tells about a volume", run_info},
    {"vol-key", (const struct option_row[]){VOLUME_OPTION, IN_POOL, {NULL}},
     "prints a volume's key", run_text, "key"},
    {"vol-list", (const struct option_row[]){POOL_OPTION,
        {"details", OPT_BOOL, 0, "type and sizes too"}, {NULL}}, "lists a pool's volumes",
     run_list},
    {"vol-name", (const struct option_row[]){VOLUME_OPTION, IN_POOL, {NULL}},
     "prints a volume's name", run_text, "name"},
    {"vol-path", (const struct option_row[]){VOLUME_OPTION, IN_POOL, {NULL}},
     "prints a volume's path", run_text, "path"},
    {"vol-pool", (const struct option_row[]){VOLUME_OPTION,
        {"uuid", OPT_BOOL, 0, "its UUID"}, {NULL}}, "prints the pool of a volume", run_pool},
    {"vol-resize", (const struct option_row[]){VOLUME_OPTION,
        {"capacity", OPT_TEXT, OPT_NEEDED, "bytes, or with a suffix"}, IN_POOL,
        {"allocate", OPT_BOOL, 0, "take the space at once"},
        {"delta", OPT_BOOL, 0, "by that much"}, {"shrink", OPT_BOOL, 0, "smaller too"}, {NULL}},
     "changes a volume's size", run_resize},
    {"vol-upload", (const struct option_row[]){TRANSFER_OPTIONS},
     "copies a file's bytes to a volume", run_transfer, "upload"},
    {"vol-wipe", (const struct option_row[]){VOLUME_OPTION, IN_POOL,
        {"algorithm", OPT_TEXT, 0, "zero, random, trim, nnsa, dod, ..."}, {NULL}},
     "overwrites a volume", run_wipe},
    {NULL},
}};
