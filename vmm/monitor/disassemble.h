/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdint.h>

/*
 * disassemble - appends the text of the instruction that begins at @code (@n bytes, at least
 * one), as it stands at @pc in code of @code_bytes (2, 4 or 8).  Its length; 1 if it is none;
 * 0 with @error if there is no disassembler on this host.
 */
unsigned disassemble(const uint8_t *code, unsigned n, unsigned code_bytes, uint64_t pc,
                     GString *out, GError **error);
