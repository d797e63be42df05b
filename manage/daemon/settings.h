/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>

/*
 * schema/lodged.def: from lodged.conf, then from -o options, which win.  Once more with the
 * daemon lock held; after an error all is as before.
 */
bool settings_read(const char *path, char **overrides, GError **error);
/* Never NULL. */
const char *setting(const char *group, const char *key);
unsigned setting_number(const char *group, const char *key); /* octal with a leading 0 */
/* Does @text fit one of the patterns of this setting, which semicolons separate? */
bool setting_admits(const char *group, const char *key, const char *text);
/* Whether socket.auth asks for polkit here. */
bool polkit_wanted(void);
