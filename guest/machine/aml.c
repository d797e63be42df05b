/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/machine/aml.h"

#include "base/bytes.h"

#include <string.h>

static void put(struct aml *a, uint64_t v, unsigned bytes)
{
    put_le(a->out, v, bytes);
}

void aml_op(struct aml *a, enum aml_op op)
{
    put(a, op, 1);
}

void aml_bytes(struct aml *a, const void *bytes, size_t n)
{
    g_byte_array_append(a->out, bytes, (guint)n);
}

void aml_path(struct aml *a, const char *path)
{
    if (*path == '\\') {
        put(a, '\\', 1);
        path++;
    }
    unsigned segments = ((unsigned)strlen(path) + 1) / 5;
    if (segments == 2) {
        put(a, 0x2e, 1);
    } else if (segments > 2) {
        put(a, 0x2f, 1);
        put(a, segments, 1);
    }
    for (unsigned i = 0; i < segments; i++) {
        aml_bytes(a, path + 5 * i, 4);
    }
}

void aml_int(struct aml *a, uint64_t v)
{
    static const struct {
        uint64_t max;
        uint8_t op, bytes;
    } forms[] = {
        {UINT8_MAX, 0x0a, 1}, {UINT16_MAX, 0x0b, 2}, {UINT32_MAX, 0x0c, 4}, {UINT64_MAX, 0x0e, 8}};
    unsigned i = 0;
    if (v <= 1) {
        aml_op(a, v ? AML_ONE : AML_ZERO);
        return;
    }
    while (v > forms[i].max) {
        i++;
    }
    put(a, forms[i].op, 1);
    put(a, v, forms[i].bytes);
}

void aml_string(struct aml *a, const char *text)
{
    put(a, 0x0d, 1);
    aml_bytes(a, text, strlen(text) + 1);
}

/* ---- objects with a length ---- */

static void open_here(struct aml *a)
{
    g_assert(a->depth < AML_DEPTH); /* our own nesting */
    a->open[a->depth++] = a->out->len;
}

/* The length counts its own bytes: one, or up to four with a nibble in the first. */
void aml_close(struct aml *a)
{
    unsigned at = a->open[--a->depth], body = a->out->len - at, n = 1;
    uint8_t len[4];
    while (n > 1 ? (body + n) >> (4 + 8 * (n - 1)) : body + n > 63) {
        n++;
    }
    unsigned total = body + n;
    len[0] = (uint8_t)(n == 1 ? total : (n - 1) << 6 | (total & 15));
    for (unsigned i = 1; i < n; i++) {
        len[i] = (uint8_t)(total >> (4 + 8 * (i - 1)));
    }
    g_byte_array_set_size(a->out, a->out->len + n);
    memmove(a->out->data + at + n, a->out->data + at, body);
    memcpy(a->out->data + at, len, n);
}

void aml_scope(struct aml *a, const char *path)
{
    aml_op(a, AML_SCOPE);
    open_here(a);
    aml_path(a, path);
}

static void extended(struct aml *a, enum aml_op op)
{
    put(a, 0x5b, 1);
    aml_op(a, op);
}

void aml_device(struct aml *a, const char *name)
{
    extended(a, AML_DEVICE);
    open_here(a);
    aml_path(a, name);
}

void aml_method(struct aml *a, const char *name, unsigned args, bool serialized)
{
    aml_op(a, AML_METHOD);
    open_here(a);
    aml_path(a, name);
    put(a, args | (serialized ? 8 : 0), 1);
}

void aml_package(struct aml *a, unsigned elements)
{
    aml_op(a, AML_PACKAGE);
    open_here(a);
    put(a, elements, 1);
}

void aml_if(struct aml *a)
{
    aml_op(a, AML_IF);
    open_here(a);
}

void aml_else(struct aml *a)
{
    aml_op(a, AML_ELSE);
    open_here(a);
}

void aml_while(struct aml *a)
{
    aml_op(a, AML_WHILE);
    open_here(a);
}

void aml_mutex(struct aml *a, const char *name)
{
    extended(a, AML_MUTEX);
    aml_path(a, name);
    put(a, 0, 1);
}

void aml_acquire(struct aml *a, const char *name)
{
    extended(a, AML_ACQUIRE);
    aml_path(a, name);
    put(a, 0xffff, 2);
}

void aml_release(struct aml *a, const char *name)
{
    extended(a, AML_RELEASE);
    aml_path(a, name);
}

void aml_name(struct aml *a, const char *name)
{
    aml_op(a, AML_NAME);
    aml_path(a, name);
}

void aml_name_int(struct aml *a, const char *name, uint64_t v)
{
    aml_name(a, name);
    aml_int(a, v);
}

/* Spec: ACPI 6.3, "EISAID": three letters of five bits, four hexadecimal digits. */
void aml_name_id(struct aml *a, const char *name, const char *id)
{
    uint32_t v = (uint32_t)((id[0] & 31) << 26 | (id[1] & 31) << 21 | (id[2] & 31) << 16);
    for (unsigned i = 0; i < 4; i++) {
        v |= (uint32_t)g_ascii_xdigit_value(id[3 + i]) << (12 - 4 * i);
    }
    aml_name(a, name);
    put(a, 0x0c, 1);
    put(a, GUINT32_SWAP_LE_BE(v), 4);
}

void aml_region(struct aml *a, const char *name, unsigned space, uint64_t at, uint64_t bytes)
{
    extended(a, AML_REGION);
    aml_path(a, name);
    put(a, space, 1);
    aml_int(a, at);
    aml_int(a, bytes);
}

enum { FIELD_BYTES = 1, FIELD_DWORDS = 3, FIELD_ZEROS = 2 << 5 }; /* no lock, preserve */

static void field(struct aml *a, const char *region, unsigned access)
{
    extended(a, AML_FIELD);
    open_here(a);
    aml_path(a, region);
    put(a, access, 1);
}

void aml_field(struct aml *a, const char *region)
{
    field(a, region, FIELD_BYTES);
}

void aml_field_dwords(struct aml *a, const char *region)
{
    field(a, region, FIELD_DWORDS);
}

void aml_field_events(struct aml *a, const char *region)
{
    field(a, region, FIELD_BYTES | FIELD_ZEROS);
}

void aml_field_unit(struct aml *a, const char *name, unsigned bits)
{
    if (name) {
        aml_path(a, name);
    } else {
        put(a, 0, 1);
    }
    if (bits < 64) {
        put(a, bits, 1);
    } else {
        put(a, 1 << 6 | (bits & 15), 1);
        put(a, bits >> 4, 1);
    }
}

/* ---- resources ---- */

GByteArray *res_new(void)
{
    return g_byte_array_new();
}

void res_io(GByteArray *r, uint16_t at, uint8_t bytes)
{
    put_le(r, 0x47, 1);
    put_le(r, 1, 1); /* decodes 16 bits */
    put_le(r, at, 2);
    put_le(r, at, 2);
    put_le(r, 1, 1);
    put_le(r, bytes, 1);
}

void res_irq(GByteArray *r, unsigned irq)
{
    put_le(r, 0x22, 1);
    put_le(r, 1u << irq, 2);
}

void res_dma(GByteArray *r, unsigned channel)
{
    put_le(r, 0x2a, 1);
    put_le(r, 1u << channel, 1);
    put_le(r, 0, 1);
}

void res_memory(GByteArray *r, uint32_t at, uint32_t bytes)
{
    put_le(r, 0x86, 1);
    put_le(r, 9, 2);
    put_le(r, 1, 1);
    put_le(r, at, 4);
    put_le(r, bytes, 4);
}

void res_interrupts(GByteArray *r, const uint32_t *irqs, unsigned n)
{
    put_le(r, 0x89, 1);
    put_le(r, 2 + 4 * n, 2);
    put_le(r, 1 | 8, 1); /* consumer, level, active high, shared */
    put_le(r, n, 1);
    for (unsigned i = 0; i < n; i++) {
        put_le(r, irqs[i], 4);
    }
}

/* An address space descriptor of @bytes bytes a field. */
static void window(GByteArray *r, unsigned tag, unsigned kind, unsigned flags, uint64_t first,
                   uint64_t last, unsigned bytes)
{
    put_le(r, tag, 1);
    put_le(r, 3 + 5 * bytes, 2);
    put_le(r, kind, 1);
    put_le(r, 0x0c, 1); /* producer, positive decode, both ends fixed */
    put_le(r, flags, 1);
    put_le(r, 0, bytes);
    put_le(r, first, bytes);
    put_le(r, last, bytes);
    put_le(r, 0, bytes);
    put_le(r, last - first + 1, bytes);
}

void res_bus(GByteArray *r, unsigned first, unsigned last)
{
    window(r, 0x88, 2, 0, first, last, 2);
}

void res_io_window(GByteArray *r, uint16_t first, uint16_t last)
{
    window(r, 0x88, 1, 3, first, last, 2);
}

void res_memory_window(GByteArray *r, uint64_t first, uint64_t last)
{
    if (last <= UINT32_MAX) {
        window(r, 0x87, 0, 1, first, last, 4);
    } else {
        window(r, 0x8a, 0, 1 | 1 << 1, first, last, 8);
    }
}

void aml_buffer(struct aml *a, GByteArray *bytes)
{
    aml_op(a, AML_BUFFER);
    open_here(a);
    aml_int(a, bytes->len);
    aml_bytes(a, bytes->data, bytes->len);
    aml_close(a);
    g_byte_array_unref(bytes);
}

void aml_resources(struct aml *a, GByteArray *resources)
{
    put_le(resources, 0x79, 1); /* end tag; checksum 0: not checked */
    put_le(resources, 0, 1);
    aml_buffer(a, resources);
}

void aml_name_resources(struct aml *a, const char *name, GByteArray *resources)
{
    aml_name(a, name);
    aml_resources(a, resources);
}
