/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/model/network.h"
#include "manage/model/volume.h"

#include <stdlib.h>
#include <string.h>

/*
 * XML from clients, as networks, pools and volumes: what is accepted is written so that it is
 * accepted again and says the same; what is refused has an error.
 */
static const char *const formats[] = {"auto", "ext4", NULL};
static const struct pool_rules rules = {
    .needs = NEEDS_NAME | NEEDS_PATH, .formats = formats, .path = "/dev/"};

static const struct pool_rules *any(int type)
{
    (void)type;
    return &rules;
}

static char *as_network(const char *text, GError **error)
{
    struct network_def *def = network_parse(text, error);
    char *out = def ? network_format(def) : NULL;
    network_def_free(def);
    return out;
}

static char *as_pool(const char *text, GError **error)
{
    struct pool_def *def = pool_parse(text, any, error);
    char *out = def ? pool_format(def) : NULL;
    pool_def_free(def);
    return out;
}

static char *as_volume(const char *text, GError **error)
{
    struct volume_def *def = volume_parse(text, error);
    char *out = def ? volume_format(def) : NULL;
    volume_def_free(def);
    return out;
}

static void check(char *(*as)(const char *, GError **), const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *once = as(text, &error);
    if (!once != !!error) {
        abort();
    }
    g_autofree char *twice = once ? as(once, &error) : NULL;
    if (once && (!twice || strcmp(once, twice) != 0)) {
        abort();
    }
}

static void update(const char *text, unsigned section)
{
    static const char base[] = "<network><name>n</name><ip address='10.0.0.1' prefix='24'><dhcp>"
                               "<range start='10.0.0.9' end='10.0.0.99'/></dhcp></ip></network>";
    for (unsigned command = 0; command < 6; command++) {
        struct network_def *def = network_parse(base, NULL);
        network_update(def, command, section, -1, text, NULL);
        network_def_free(def);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2) {
        return 0;
    }
    g_autofree char *text = g_strndup((const char *)data + 1, n - 1);
    check(as_network, text);
    check(as_pool, text);
    check(as_volume, text);
    update(text, data[0] % 14);
    return 0;
}
