/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/cli/shell.h"

#include <libxml/xpath.h>

/* Looking things up in the XML that the daemon gives. */
struct xpath {
    xmlDocPtr doc;
    xmlXPathContextPtr context;
};
bool xpath_open(struct xpath *x, const char *xml, GError **error);
typedef struct xpath xpath_t;
void xpath_clear(xpath_t *x);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(xpath_t, xpath_clear)
/* What @path selects; xmlXPathFreeObject(); its nodesetval may be NULL. */
xmlXPathObjectPtr xpath_nodes(struct xpath *x, const char *path);
/* Text of what @path selects, below @node (NULL: the root); NULL if there is none; g_free(). */
char *xpath_text(struct xpath *x, xmlNodePtr node, const char *path);

/* What @path selects as XML, a line each, or in one element <nodes>; NULL with an error; g_free(). */
char *xpath_dump(struct xpath *x, const char *path, bool wrap, GError **error);

/* The domain's XML, opened. */
bool xpath_domain(struct shell *sh, const char *name, unsigned flags, rpc_domain *dom,
                  struct xpath *x, GError **error);
