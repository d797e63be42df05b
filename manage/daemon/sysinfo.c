/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Spec: DMTF DSP0134, "System Management BIOS Reference Specification", sections "BIOS
 * Information", "System Information", "Baseboard", "System Enclosure"; libvirt, "Domain XML
 * format", "SMBIOS System Information".
 */
#include "manage/daemon/sysinfo.h"

#include "manage/daemon/capabilities.h"
#include "manage/model/xml.h"

#include <string.h>

static const struct block {
    const char *element;
    struct {
        const char *entry, *file; /* below /sys/class/dmi/id */
    } rows[7];
} blocks[] = {
    {"bios",
     {{"vendor", "bios_vendor"},
      {"version", "bios_version"},
      {"date", "bios_date"},
      {"release", "bios_release"}}},
    {"system",
     {{"manufacturer", "sys_vendor"},
      {"product", "product_name"},
      {"version", "product_version"},
      {"serial", "product_serial"},
      {"uuid", "product_uuid"},
      {"sku", "product_sku"},
      {"family", "product_family"}}},
    {"baseBoard",
     {{"manufacturer", "board_vendor"},
      {"product", "board_name"},
      {"version", "board_version"},
      {"serial", "board_serial"},
      {"asset", "board_asset_tag"}}},
    {"chassis",
     {{"manufacturer", "chassis_vendor"},
      {"version", "chassis_version"},
      {"serial", "chassis_serial"},
      {"asset", "chassis_asset_tag"}}},
};

static char *value_of(const char *file)
{
    g_autofree char *path = g_strconcat("/sys/class/dmi/id/", file, NULL), *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL) || !g_utf8_validate(text, -1, NULL) ||
        !*g_strstrip(text)) {
        return NULL;
    }
    return g_steal_pointer(&text);
}

static void put_entry(GString *xml, const char *name, const char *value)
{
    g_string_append_printf(xml, "    <entry name='%s'>", name);
    xml_escape(xml, value);
    g_string_append(xml, "</entry>\n");
}

/* "name : value" of /proc/cpuinfo, from @at on. */
static char *cpu_word(const char *at, const char *name)
{
    const char *line = strstr(at, name), *colon = line ? strchr(line, ':') : NULL;
    return colon ? g_strstrip(g_strndup(colon + 1, strcspn(colon + 1, "\n"))) : NULL;
}

/* One for each socket: that is what SMBIOS has them for. */
static void put_processors(GString *xml)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents("/proc/cpuinfo", &text, NULL, NULL)) {
        return;
    }
    g_autofree char *version = cpu_word(text, "model name"), *vendor = cpu_word(text, "vendor_id");
    for (int i = 0; i < host_cpus()->sockets * host_cpus()->nodes; i++) {
        g_autofree char *socket = g_strdup_printf("CPU %d", i);
        g_string_append(xml, "  <processor>\n");
        put_entry(xml, "socket_destination", socket);
        put_entry(xml, "type", "Central Processor");
        if (vendor) {
            put_entry(xml, "manufacturer", vendor);
        }
        if (version) {
            put_entry(xml, "version", version);
        }
        g_string_append(xml, "  </processor>\n");
    }
}

char *sysinfo_xml(void)
{
    GString *xml = g_string_new("<sysinfo type='smbios'>\n");
    for (unsigned i = 0; i < G_N_ELEMENTS(blocks); i++) {
        bool open = false;
        for (unsigned k = 0; k < G_N_ELEMENTS(blocks[i].rows) && blocks[i].rows[k].entry; k++) {
            g_autofree char *value = value_of(blocks[i].rows[k].file);
            if (value && !open) {
                g_string_append_printf(xml, "  <%s>\n", blocks[i].element);
                open = true;
            }
            if (value) {
                put_entry(xml, blocks[i].rows[k].entry, value);
            }
        }
        if (open) {
            g_string_append_printf(xml, "  </%s>\n", blocks[i].element);
        }
    }
    put_processors(xml);
    g_string_append(xml, "</sysinfo>\n");
    return g_string_free(xml, FALSE);
}

char *sysinfo_words(unsigned type)
{
    GString *out = g_string_new(NULL);
    for (unsigned k = 0; k < G_N_ELEMENTS(blocks[type].rows) && blocks[type].rows[k].entry; k++) {
        g_autofree char *value = value_of(blocks[type].rows[k].file);
        /* A machine has a UUID of its own, whatever else it shares with its host. */
        if (value && strcmp(blocks[type].rows[k].entry, "uuid") != 0) {
            g_auto(GStrv) parts = g_strsplit(value, ",", -1);
            g_autofree char *doubled = g_strjoinv(",,", parts);
            g_string_append_printf(out, ",%s=%s", blocks[type].rows[k].entry, doubled);
        }
    }
    return g_string_free(out, FALSE);
}
