/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/model/xml.h"

/* libvirt's <secret> without its value. */
enum secret_usage {
    SECRET_USAGE_NONE, /* also absent */
    SECRET_USAGE_VOLUME,
    SECRET_USAGE_CEPH,
    SECRET_USAGE_ISCSI,
    SECRET_USAGE_TLS,
    SECRET_USAGE_VTPM,
};

struct secret_usage_of {
    int type; /* enum secret_usage */
    char *volume, *name, *target;
};

struct secret {
    int ephemeral, private; /* enum tristate */
    char *uuid, *description;
    struct secret_usage_of *usage;
};

extern const struct xml_table secret_table;

/* From XML; gives it a uuid if it has none. */
struct secret *secret_model_read(const char *text, GError **error);
void secret_model_free(struct secret *s);
/* What the usage is of: a path, a name; "" without usage. */
const char *secret_usage_id(const struct secret *s);
int secret_usage_type(const struct secret *s);
