/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/settings.h"

#include "base/error.h"
#include "manage/daemon/daemon.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct row {
    const char *group, *key, *otherwise;
    char *value; /* NULL: the default */
} rows[] = {
#define SETTING(group, key, otherwise, help) {#group, #key, otherwise, NULL},
#include "schema/lodged.def"
#undef SETTING
};

static struct row *find(const char *group, const char *key)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (strcmp(rows[i].group, group) == 0 && strcmp(rows[i].key, key) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

static bool set(const char *group, const char *key, const char *value, GError **error)
{
    struct row *row = find(group, key);
    if (!row) {
        g_set_error(error, LODGE_ERROR, EINVAL, "there is no setting \"%s.%s\"", group, key);
        return false;
    }
    g_free(row->value);
    row->value = g_strdup(value);
    return true;
}

static bool read_file(const char *path, GError **error)
{
    g_autoptr(GKeyFile) file = g_key_file_new();
    if (!g_file_test(path, G_FILE_TEST_EXISTS)) {
        return true;
    }
    if (!g_key_file_load_from_file(file, path, G_KEY_FILE_NONE, error)) {
        return false;
    }
    g_auto(GStrv) groups = g_key_file_get_groups(file, NULL);
    for (char **g = groups; *g; g++) {
        g_auto(GStrv) keys = g_key_file_get_keys(file, *g, NULL, NULL);
        for (char **k = keys; *k; k++) {
            g_autofree char *value = g_key_file_get_value(file, *g, *k, NULL);
            if (!set(*g, *k, value, error)) {
                return false;
            }
        }
    }
    return true;
}

/* "group.key=value" */
static bool read_override(const char *text, GError **error)
{
    const char *dot = strchr(text, '.'), *equals = dot ? strchr(dot, '=') : NULL;
    if (!equals) {
        g_set_error(error, LODGE_ERROR, EINVAL, "\"%s\" is not group.key=value", text);
        return false;
    }
    g_autofree char *group = g_strndup(text, (size_t)(dot - text));
    g_autofree char *key = g_strndup(dot + 1, (size_t)(equals - dot - 1));
    return set(group, key, equals + 1, error);
}

static bool read_all(const char *path, char **overrides, GError **error)
{
    if (!read_file(path, error)) {
        g_prefix_error(error, "%s: ", path);
        return false;
    }
    for (; overrides && *overrides; overrides++) {
        if (!read_override(*overrides, error)) {
            return false;
        }
    }
    return true;
}

bool settings_read(const char *path, char **overrides, GError **error)
{
    char *old[G_N_ELEMENTS(rows)];
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        old[i] = g_steal_pointer(&rows[i].value);
    }
    bool ok = read_all(path, overrides, error);
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (!ok) {
            char *half_new = rows[i].value;
            rows[i].value = old[i];
            old[i] = half_new;
        }
        g_free(old[i]);
    }
    return ok;
}

const char *setting(const char *group, const char *key)
{
    const struct row *row = find(group, key);
    return row->value ? row->value : row->otherwise;
}

unsigned setting_number(const char *group, const char *key)
{
    return (unsigned)strtoul(setting(group, key), NULL, 0);
}

bool setting_admits(const char *group, const char *key, const char *text)
{
    g_auto(GStrv) patterns = g_strsplit(setting(group, key), ";", -1);
    for (char **p = patterns; *p; p++) {
        if (*g_strstrip(*p) && g_pattern_match_simple(*p, text)) {
            return true;
        }
    }
    return false;
}

bool polkit_wanted(void)
{
    const char *how = setting("socket", "auth");
    if (strcmp(how, "auto") != 0) {
        return strcmp(how, "polkit") == 0;
    }
    return !daemon_root() && !daemon_is_session() &&
           access("/run/dbus/system_bus_socket", F_OK) == 0 &&
           access("/usr/share/polkit-1/actions/org.lodge.policy", F_OK) == 0;
}
