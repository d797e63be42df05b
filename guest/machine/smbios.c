/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * smbios: what the machine is called.
 *
 * Spec: DMTF DSP0134, System Management BIOS (SMBIOS) Reference Specification 2.8.0,
 * "Structure standards", "Structure definitions", "SMBIOS Structure Table Entry Point".
 */
#include "base/bytes.h"
#include "base/keyval.h"
#include "guest/machine/tables.h"

#include <stdio.h>
#include <string.h>

enum { ANCHOR_BYTES = 31, TEXTS = 8, NO_HANDLE = 0xfffe };
enum {
    H_BIOS = 0,
    H_SYSTEM = 0x100,
    H_BASEBOARD = 0x200,
    H_CHASSIS = 0x300,
    H_CPU = 0x400,
    H_OEM = 0xe00,
    H_ARRAY = 0x1000,
    H_MODULE = 0x1100,
    H_MAPPED = 0x1300,
    H_BOOT = 0x2000,
    H_END = 0x7f00
};

/* One structure being written: the formatted part, then its texts by number. */
struct smb {
    GByteArray *out;
    const char *text[TEXTS];
    unsigned n_texts, count, largest, at;
};

static void begin(struct smb *s, uint8_t type, uint16_t handle)
{
    s->at = s->out->len;
    s->n_texts = 0;
    put_le(s->out, type, 1);
    put_le(s->out, 0, 1);
    put_le(s->out, handle, 2);
}

static void num(struct smb *s, uint64_t v, unsigned bytes)
{
    put_le(s->out, v, bytes);
}

static void text(struct smb *s, const char *t)
{
    if (!t || !*t || s->n_texts == TEXTS) {
        put_le(s->out, 0, 1);
        return;
    }
    s->text[s->n_texts++] = t;
    put_le(s->out, s->n_texts, 1);
}

static void end(struct smb *s)
{
    s->out->data[s->at + 1] = (uint8_t)(s->out->len - s->at);
    for (unsigned i = 0; i < s->n_texts; i++) {
        g_byte_array_append(s->out, (const uint8_t *)s->text[i], (guint)strlen(s->text[i]) + 1);
    }
    put_le(s->out, 0, s->n_texts ? 1 : 2);
    s->count++;
    s->largest = MAX(s->largest, s->out->len - s->at);
}

/* ---- what the user may say ---- */

/* The keys of a type; those with a value are kept, all types in one array. */
static const struct {
    uint8_t type;
    const char *key, *otherwise;
} fields[] = {
    {0, "vendor", "Lodge"},
    {0, "version", "1.0"},
    {0, "date", "01/01/2026"},
    {0, "release", NULL},
    {0, "uefi", NULL},
    {1, "manufacturer", "Lodge"},
    {1, "product", NULL},
    {1, "version", NULL},
    {1, "serial", NULL},
    {1, "uuid", NULL},
    {1, "sku", NULL},
    {1, "family", NULL},
    {2, "manufacturer", NULL},
    {2, "product", NULL},
    {2, "version", NULL},
    {2, "serial", NULL},
    {2, "asset", NULL},
    {2, "location", NULL},
    {3, "manufacturer", "Lodge"},
    {3, "version", NULL},
    {3, "serial", NULL},
    {3, "asset", NULL},
    {3, "sku", NULL},
    {4, "sock_pfx", "CPU "},
    {4, "manufacturer", "Lodge"},
    {4, "version", NULL},
    {4, "serial", NULL},
    {4, "asset", NULL},
    {4, "part", NULL},
    {4, "max-speed", "2000"},
    {4, "current-speed", "2000"},
    {11, "value", NULL},
    {17, "loc_pfx", "DIMM "},
    {17, "bank", NULL},
    {17, "manufacturer", "Lodge"},
    {17, "serial", NULL},
    {17, "asset", NULL},
    {17, "part", NULL},
    {17, "speed", NULL},
};

struct said {
    char *value[G_N_ELEMENTS(fields)];
    bool type2;
    uint8_t uuid[16];
    bool has_uuid;
};

static const char *field(const struct said *w, unsigned type, const char *key)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(fields); i++) {
        if (fields[i].type == type && g_str_equal(fields[i].key, key)) {
            return w->value[i] ? w->value[i] : fields[i].otherwise;
        }
    }
    return NULL;
}

static bool uuid_parse(const char *t, uint8_t out[16])
{
    unsigned n = 0;
    for (; *t && n < 32; t++) {
        int digit = g_ascii_xdigit_value(*t);
        if (*t == '-') {
            continue;
        }
        if (digit < 0) {
            return false;
        }
        out[n / 2] = (uint8_t)(n % 2 ? out[n / 2] | digit : digit << 4);
        n++;
    }
    return n == 32 && !*t;
}

static bool option(struct said *w, const char *arg, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_parse(arg, NULL, error);
    unsigned type = 256;
    bool known = false;
    if (!kv || !keyval_unsigned(kv, "type", 255, &type, error)) {
        return false;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(fields); i++) {
        if (fields[i].type == type) {
            const char *v = keyval_get(kv, fields[i].key);
            known = true;
            w->value[i] = v ? g_strdup(v) : w->value[i];
        }
    }
    if (!known) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "-smbios %s: must be type=0, 1, 2, 3, 4, 11 or 17 with its fields", arg);
        return false;
    }
    w->type2 |= type == 2;
    const char *uuid = type == 1 ? keyval_get(kv, "uuid") : NULL;
    w->has_uuid |= uuid != NULL;
    if (uuid && !uuid_parse(uuid, w->uuid)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "-smbios uuid=%s is no UUID", uuid);
        return false;
    }
    if (!keyval_done(kv, error)) {
        g_prefix_error(error, "-smbios %s: ", arg);
        return false;
    }
    return true;
}

/* ---- structures ---- */

static void bios(struct smb *s, const struct said *w)
{
    const char *release = field(w, 0, "release");
    unsigned major = 0, minor = 0;
    bool uefi = false, has = release && sscanf(release, "%u.%u", &major, &minor) == 2;
    text_bool(field(w, 0, "uefi") ? field(w, 0, "uefi") : "off", &uefi);
    begin(s, 0, H_BIOS);
    text(s, field(w, 0, "vendor"));
    text(s, field(w, 0, "version"));
    num(s, 0xe800, 2);
    text(s, field(w, 0, "date"));
    num(s, 0, 1);
    num(s, 8, 8); /* characteristics are not supported */
    num(s, 0, 1);
    num(s, 0x14 | (uefi ? 8 : 0), 1); /* virtual machine, targeted content */
    num(s, has ? major : 0, 1);
    num(s, has ? minor : 0, 1);
    num(s, 0xffff, 2);
    end(s);
}

/* The first three fields are little-endian since version 2.6. */
static void put_uuid(struct smb *s, const uint8_t *u)
{
    static const uint8_t order[] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    for (unsigned i = 0; i < 16; i++) {
        num(s, u ? u[order[i]] : 0, 1);
    }
}

static void system_info(struct smb *s, const struct said *w, const struct smbios_config *c)
{
    const char *product = field(w, 1, "product"), *version = field(w, 1, "version");
    begin(s, 1, H_SYSTEM);
    text(s, field(w, 1, "manufacturer"));
    text(s, product ? product : c->product);
    text(s, version ? version : c->version);
    text(s, field(w, 1, "serial"));
    put_uuid(s, w->has_uuid ? w->uuid : c->uuid);
    num(s, 6, 1); /* woken by the power switch */
    text(s, field(w, 1, "sku"));
    text(s, field(w, 1, "family"));
    end(s);
}

static void baseboard(struct smb *s, const struct said *w)
{
    begin(s, 2, H_BASEBOARD);
    text(s, field(w, 2, "manufacturer"));
    text(s, field(w, 2, "product"));
    text(s, field(w, 2, "version"));
    text(s, field(w, 2, "serial"));
    text(s, field(w, 2, "asset"));
    num(s, 1, 1); /* hosting board */
    text(s, field(w, 2, "location"));
    num(s, H_CHASSIS, 2);
    num(s, 10, 1); /* motherboard */
    num(s, 0, 1);
    end(s);
}

static void chassis(struct smb *s, const struct said *w, const struct smbios_config *c)
{
    const char *version = field(w, 3, "version");
    begin(s, 3, H_CHASSIS);
    text(s, field(w, 3, "manufacturer"));
    num(s, 1, 1); /* "other" */
    text(s, version ? version : c->version);
    text(s, field(w, 3, "serial"));
    text(s, field(w, 3, "asset"));
    num(s, 0x03030303, 4); /* boot, power, thermal: safe; security: none */
    num(s, 0, 4);
    num(s, 0, 4); /* height, cords, no elements */
    text(s, field(w, 3, "sku"));
    end(s);
}

static void processor(struct smb *s, const struct said *w, const struct smbios_config *c,
                      unsigned n)
{
    char socket[64];
    const char *version = field(w, 4, "version");
    unsigned threads = c->cores_per_socket * c->threads_per_core;
    snprintf(socket, sizeof(socket), "%.48s%u", field(w, 4, "sock_pfx"), n);
    begin(s, 4, (uint16_t)(H_CPU + n));
    text(s, socket);
    num(s, 3, 1); /* central processor */
    num(s, 1, 1); /* family "other": see family 2 */
    text(s, field(w, 4, "manufacturer"));
    num(s, 0, 8);
    text(s, version ? version : c->cpu_brand);
    num(s, 0, 1);
    num(s, 0, 2);
    num(s, g_ascii_strtoull(field(w, 4, "max-speed"), NULL, 10), 2);
    num(s, g_ascii_strtoull(field(w, 4, "current-speed"), NULL, 10), 2);
    num(s, 0x41, 1); /* populated, enabled */
    num(s, 1, 1);
    num(s, 0xffff, 2);
    num(s, 0xffff, 2);
    num(s, 0xffff, 2);
    text(s, field(w, 4, "serial"));
    text(s, field(w, 4, "asset"));
    text(s, field(w, 4, "part"));
    num(s, MIN(c->cores_per_socket, 255), 1);
    num(s, MIN(c->cores_per_socket, 255), 1);
    num(s, MIN(threads, 255), 1);
    num(s, 2, 2);
    num(s, 1, 2);
    num(s, c->cores_per_socket, 2);
    num(s, c->cores_per_socket, 2);
    num(s, threads, 2);
    end(s);
}

static void oem_text(struct smb *s, const struct said *w)
{
    if (field(w, 11, "value")) {
        begin(s, 11, H_OEM);
        num(s, 1, 1);
        s->text[s->n_texts++] = field(w, 11, "value");
        end(s);
    }
}

static void mapped(struct smb *s, unsigned n, uint64_t start, uint64_t bytes)
{
    if (bytes) {
        begin(s, 19, (uint16_t)(H_MAPPED + n));
        num(s, start >> 10, 4);
        num(s, ((start + bytes) >> 10) - 1, 4);
        num(s, H_ARRAY, 2);
        num(s, 1, 1);
        num(s, 0, 8);
        num(s, 0, 8);
        end(s);
    }
}

static void memory(struct smb *s, const struct said *w, const struct smbios_config *c)
{
    char slot[64];
    uint64_t mb = c->ram_bytes >> 20, kb = c->ram_bytes >> 10;
    begin(s, 16, H_ARRAY);
    num(s, 1, 1); /* "other" place */
    num(s, 3, 1); /* system memory */
    num(s, 6, 1); /* multi-bit ECC */
    num(s, kb < 0x80000000u ? kb : 0x80000000u, 4);
    num(s, NO_HANDLE, 2);
    num(s, 1, 2);
    num(s, kb < 0x80000000u ? 0 : c->ram_bytes, 8);
    end(s);
    snprintf(slot, sizeof(slot), "%.48s0", field(w, 17, "loc_pfx"));
    begin(s, 17, H_MODULE);
    num(s, H_ARRAY, 2);
    num(s, NO_HANDLE, 2);
    num(s, 0xffff, 2);
    num(s, 0xffff, 2);
    num(s, mb < 0x7fff ? mb : 0x7fff, 2);
    num(s, 9, 1); /* DIMM */
    num(s, 0, 1);
    text(s, slot);
    text(s, field(w, 17, "bank"));
    num(s, 7, 1); /* RAM */
    num(s, 2, 2);
    num(s, field(w, 17, "speed") ? g_ascii_strtoull(field(w, 17, "speed"), NULL, 10) : 0, 2);
    text(s, field(w, 17, "manufacturer"));
    text(s, field(w, 17, "serial"));
    text(s, field(w, 17, "asset"));
    text(s, field(w, 17, "part"));
    num(s, 0, 1);
    num(s, mb < 0x7fff ? 0 : mb, 4);
    num(s, 0, 2);
    num(s, 0, 6);
    end(s);
    mapped(s, 0, 0, c->ram_below_4g);
    mapped(s, 1, UINT64_C(1) << 32, c->ram_above_4g);
}

static void closing(struct smb *s)
{
    begin(s, 32, H_BOOT);
    num(s, 0, 6);
    num(s, 0, 1); /* no errors at boot */
    end(s);
    begin(s, 127, H_END);
    end(s);
}

/* ---- the whole ---- */

static uint8_t sum(const uint8_t *p, unsigned n)
{
    uint8_t v = 0;
    while (n--) {
        v = (uint8_t)(v + *p++);
    }
    return v;
}

void smbios_install(GByteArray *anchor, uint64_t at)
{
    uint8_t *a = anchor->data;
    le32_put(a + 0x18, (uint32_t)at);
    a[4] = a[0x15] = 0;
    a[0x15] = (uint8_t)-sum(a + 0x10, 15);
    a[4] = (uint8_t)-sum(a, ANCHOR_BYTES);
}

static GByteArray *anchor_new(const struct smb *s)
{
    GByteArray *a = g_byte_array_new();
    g_byte_array_append(a, (const uint8_t *)"_SM_", 4);
    put_le(a, 0, 1);
    put_le(a, ANCHOR_BYTES, 1);
    put_le(a, 0x0802, 2);
    put_le(a, s->largest, 2);
    put_le(a, 0, 6);
    g_byte_array_append(a, (const uint8_t *)"_DMI_", 5);
    put_le(a, 0, 1);
    put_le(a, s->out->len, 2);
    put_le(a, 0, 4);
    put_le(a, s->count, 2);
    put_le(a, 0x28, 1);
    smbios_install(a, 0);
    return a;
}

static bool write_all(struct smb *s, const struct said *w, const struct smbios_config *c,
                      GError **error)
{
    bios(s, w);
    system_info(s, w, c);
    if (w->type2) {
        baseboard(s, w);
    }
    chassis(s, w, c);
    for (unsigned i = 0; i < c->sockets; i++) {
        processor(s, w, c, i);
    }
    oem_text(s, w);
    memory(s, w, c);
    closing(s);
    if (s->out->len > UINT16_MAX) {
        g_set_error(error, LODGE_ERROR, E2BIG, "-smbios: the structures exceed 64 KiB");
        return false;
    }
    return true;
}

bool smbios_new(const struct smbios_config *config, GByteArray **tables, GByteArray **anchor,
                GError **error)
{
    struct said w = {0};
    struct smb s = {.out = g_byte_array_new()};
    bool good = true;
    for (unsigned i = 0; good && config->options && i < config->options->len; i++) {
        good = option(&w, config->options->pdata[i], error);
    }
    good = good && write_all(&s, &w, config, error);
    if (good) {
        *anchor = anchor_new(&s);
        *tables = g_byte_array_ref(s.out);
    }
    g_byte_array_unref(s.out);
    for (unsigned i = 0; i < G_N_ELEMENTS(w.value); i++) {
        g_free(w.value[i]);
    }
    return good;
}
