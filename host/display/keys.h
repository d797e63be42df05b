/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdint.h>

/* The key of layout en-us that makes an X keysym, as display_key() wants it; 0: none. */
unsigned key_of_keysym(uint32_t keysym);
