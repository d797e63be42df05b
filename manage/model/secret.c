/* SPDX-License-Identifier: GPL-2.0-or-later */

/* secret: libvirt's <secret> as a struct. */
#include "manage/model/secret.h"

#include "manage/error.h"

static XML_WORDS(usage_names, "volume", "ceph", "iscsi", "tls", "vtpm");

static const struct xml_row usage_rows[] = {
    XML_ENUM(struct secret_usage_of, type, "@type", usage_names, XML_REQUIRED),
    XML_TEXT(struct secret_usage_of, volume, "volume", 0),
    XML_TEXT(struct secret_usage_of, name, "name", 0),
    XML_TEXT(struct secret_usage_of, target, "target", 0),
};
static const struct xml_table usage_table = XML_TABLE("usage", struct secret_usage_of, usage_rows);

static const struct xml_row secret_rows[] = {
    XML_YESNO(struct secret, ephemeral, "@ephemeral", 0),
    XML_YESNO(struct secret, private, "@private", 0),
    XML_TEXT(struct secret, uuid, "uuid", 0),
    XML_TEXT(struct secret, description, "description", 0),
    XML_STRUCT(struct secret, usage, "usage", &usage_table, 0),
};
const struct xml_table secret_table = XML_TABLE("secret", struct secret, secret_rows);

void secret_model_free(struct secret *s)
{
    xml_free(&secret_table, s);
}

int secret_usage_type(const struct secret *s)
{
    return s->usage ? s->usage->type : SECRET_USAGE_NONE;
}

const char *secret_usage_id(const struct secret *s)
{
    const char *id = NULL;
    switch (secret_usage_type(s)) {
    case SECRET_USAGE_VOLUME:
        id = s->usage->volume;
        break;
    case SECRET_USAGE_ISCSI:
        id = s->usage->target;
        break;
    case SECRET_USAGE_NONE:
        return "";
    default:
        id = s->usage->name;
    }
    return id;
}

struct secret *secret_model_read(const char *text, GError **error)
{
    struct secret *s = xml_read_text(&secret_table, text, "secret_definition", 0, error);
    if (!s) {
        return NULL;
    }
    if (s->uuid && !g_uuid_string_is_valid(s->uuid)) {
        libvirt_error(error, ERR_XML, "malformed uuid element");
    } else if (!secret_usage_id(s)) {
        libvirt_error(error, ERR_XML, "the usage of the secret does not say of what it is");
    } else {
        s->uuid = s->uuid ? s->uuid : g_uuid_string_random();
        s->ephemeral = s->ephemeral == TRI_YES ? TRI_YES : TRI_NO;
        s->private = s->private == TRI_YES ? TRI_YES : TRI_NO;
        return s;
    }
    secret_model_free(s);
    return NULL;
}
