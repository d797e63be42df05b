/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* UUIDs: 16 bytes on the wire, text in XML. */
enum { UUID_TEXT = 37 };

static inline void uuid_text(const void *bytes, char out[UUID_TEXT])
{
    const uint8_t *b = bytes;
    snprintf(out, UUID_TEXT, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
             b[14], b[15]);
}

/* @text is a valid UUID. */
static inline void uuid_bytes(const char *text, void *out)
{
    uint8_t *b = out;
    for (int i = 0; i < 16; text++) {
        if (*text != '-') {
            b[i++] = (uint8_t)(g_ascii_xdigit_value(text[0]) << 4 | g_ascii_xdigit_value(text[1]));
            text++;
        }
    }
}
