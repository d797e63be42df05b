/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Spec: RFC 3986, "Uniform Resource Identifier (URI): Generic Syntax".
 */
#include "host/image/remote.h"

#include "host/image/options.h"

static bool only_keys(const json_t *object, const char *const *known, const char *const *more,
                      GError **error)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        if (!g_strv_contains(known, key) && !(more && g_strv_contains(more, key))) {
            g_set_error(error, LODGE_ERROR, EINVAL, "no parameter \"%s\"", key);
            return false;
        }
    }
    return true;
}

bool remote_keys(const json_t *object, const char *const *known, GError **error)
{
    return only_keys(object, known, NULL, error);
}

bool remote_options(const json_t *object, const char *const *known, GError **error)
{
    return only_keys(object, known, options_of_nodes, error);
}

GUri *remote_uri(const char *name, GError **error)
{
    g_autoptr(GError) why = NULL;
    GUri *uri = g_uri_parse(name, G_URI_FLAGS_HAS_PASSWORD | G_URI_FLAGS_ENCODED_QUERY, &why);
    if (!uri) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: not a valid URI: %s", name, why->message);
    }
    return uri;
}

GHashTable *remote_query(GUri *uri, GError **error)
{
    g_autoptr(GError) why = NULL;
    const char *query = g_uri_get_query(uri);
    GHashTable *all = g_uri_parse_params(query ? query : "", -1, "&;", G_URI_PARAMS_NONE, &why);
    if (!all) {
        g_set_error(error, LODGE_ERROR, EINVAL, "?%s: %s", query, why->message);
    }
    return all;
}
