/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * aml - writes ACPI Machine Language, one object a call.
 *
 * Spec: ACPI Specification 6.3, "ACPI Machine Language (AML) Specification".
 * Objects with a package length are opened and closed: the length is known at the end.
 */
enum { AML_DEPTH = 16 };

struct aml {
    GByteArray *out;
    unsigned open[AML_DEPTH], depth; /* where the lengths of the open objects go */
};

enum aml_op {
    AML_ZERO = 0x00, AML_ONE = 0x01, AML_NAME = 0x08, AML_SCOPE = 0x10, AML_BUFFER = 0x11,
    AML_PACKAGE = 0x12, AML_METHOD = 0x14, AML_LOCAL0 = 0x60, AML_ARG0 = 0x68, AML_STORE = 0x70,
    AML_ADD = 0x72, AML_SUBTRACT = 0x74, AML_AND = 0x7b, AML_OR = 0x7d, AML_NOTIFY = 0x86,
    AML_DWORD_FIELD = 0x8a, AML_QWORD_FIELD = 0x8f, AML_LEQUAL = 0x93, AML_LLESS = 0x95,
    AML_IF = 0xa0, AML_ELSE = 0xa1, AML_WHILE = 0xa2, AML_RETURN = 0xa4,
    /* After the prefix 0x5b. */
    AML_MUTEX = 0x01, AML_ACQUIRE = 0x23, AML_RELEASE = 0x27, AML_REGION = 0x80, AML_FIELD = 0x81,
    AML_DEVICE = 0x82,
};

void aml_op(struct aml *a, enum aml_op op);
void aml_path(struct aml *a, const char *path); /* "\\_SB_.PCI0", "_HID": full four letters */
void aml_int(struct aml *a, uint64_t v);
void aml_string(struct aml *a, const char *text);
void aml_bytes(struct aml *a, const void *bytes, size_t n);

/* Close each with aml_close(). */
void aml_scope(struct aml *a, const char *path);
void aml_device(struct aml *a, const char *name);
void aml_method(struct aml *a, const char *name, unsigned args, bool serialized);
void aml_package(struct aml *a, unsigned elements);
void aml_if(struct aml *a); /* the condition follows */
void aml_else(struct aml *a);
void aml_while(struct aml *a); /* the condition follows */
void aml_close(struct aml *a);

/* Name(@name, ...). */
void aml_name(struct aml *a, const char *name); /* the value follows */
void aml_name_int(struct aml *a, const char *name, uint64_t v);
void aml_name_id(struct aml *a, const char *name, const char *id); /* "PNP0A03" as EISA id */
void aml_name_resources(struct aml *a, const char *name, GByteArray *resources); /* frees */
void aml_region(struct aml *a, const char *name, unsigned space, uint64_t at, uint64_t bytes);
/* A field of @region of byte access; aml_field_unit() for each, then aml_close(). */
void aml_field(struct aml *a, const char *region);
void aml_field_dwords(struct aml *a, const char *region); /* the same, of 32-bit access */
void aml_field_events(struct aml *a, const char *region); /* bytes; a write's other bits are 0 */
void aml_field_unit(struct aml *a, const char *name, unsigned bits); /* NULL: skipped */

void aml_mutex(struct aml *a, const char *name);
void aml_acquire(struct aml *a, const char *name); /* waits as long as it takes */
void aml_release(struct aml *a, const char *name);

/* Resource templates; aml_buffer() ends one and frees it. */
GByteArray *res_new(void);
void res_io(GByteArray *r, uint16_t at, uint8_t bytes);
void res_irq(GByteArray *r, unsigned irq);      /* edge, active high, exclusive */
void res_dma(GByteArray *r, unsigned channel);
void res_memory(GByteArray *r, uint32_t at, uint32_t bytes); /* fixed, read and write */
void res_interrupts(GByteArray *r, const uint32_t *irqs, unsigned n); /* level, high, shared */
void res_bus(GByteArray *r, unsigned first, unsigned last);
void res_io_window(GByteArray *r, uint16_t first, uint16_t last);
void res_memory_window(GByteArray *r, uint64_t first, uint64_t last); /* 64 bits above 4 GiB */
void aml_buffer(struct aml *a, GByteArray *bytes);
void aml_resources(struct aml *a, GByteArray *resources);
