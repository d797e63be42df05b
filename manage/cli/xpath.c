/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/xpath.h"

#include <libxml/parser.h>
#include <string.h>

bool xpath_open(struct xpath *x, const char *xml, GError **error)
{
    *x = (struct xpath){0};
    x->doc = xmlReadMemory(xml, (int)strlen(xml), "domain.xml", NULL,
                           XML_PARSE_NONET | XML_PARSE_NOBLANKS | XML_PARSE_NOERROR |
                               XML_PARSE_NOWARNING);
    x->context = x->doc ? xmlXPathNewContext(x->doc) : NULL;
    return x->context || shell_fail(error, "the daemon's XML cannot be read");
}

void xpath_clear(xpath_t *x)
{
    if (x->context) {
        xmlXPathFreeContext(x->context);
    }
    if (x->doc) {
        xmlFreeDoc(x->doc);
    }
}

xmlXPathObjectPtr xpath_nodes(struct xpath *x, const char *path)
{
    x->context->node = xmlDocGetRootElement(x->doc);
    return xmlXPathEval(BAD_CAST path, x->context);
}

char *xpath_text(struct xpath *x, xmlNodePtr node, const char *path)
{
    x->context->node = node ? node : xmlDocGetRootElement(x->doc);
    xmlXPathObjectPtr found = xmlXPathEval(BAD_CAST path, x->context);
    char *text = NULL;
    if (found && found->nodesetval && found->nodesetval->nodeNr > 0) {
        xmlChar *content = xmlNodeGetContent(found->nodesetval->nodeTab[0]);
        text = g_strdup((char *)content);
        xmlFree(content);
    }
    if (found) {
        xmlXPathFreeObject(found);
    }
    return text;
}

static char *wrapped(const struct xpath *x, const xmlXPathObject *found)
{
    xmlDocPtr doc = xmlNewDoc(BAD_CAST "1.0");
    xmlNodePtr root = xmlNewNode(NULL, BAD_CAST "nodes");
    xmlBufferPtr out = xmlBufferCreate();
    xmlDocSetRootElement(doc, root);
    for (int i = 0; i < found->nodesetval->nodeNr; i++) {
        xmlAddChild(root, xmlDocCopyNode(found->nodesetval->nodeTab[i], doc, 1));
    }
    xmlNodeDump(out, doc, root, 0, 1);
    char *text = g_strdup_printf("%s\n", (const char *)xmlBufferContent(out));
    xmlBufferFree(out);
    xmlFreeDoc(doc);
    (void)x;
    return text;
}

char *xpath_dump(struct xpath *x, const char *path, bool wrap, GError **error)
{
    xmlXPathObjectPtr found = xpath_nodes(x, path);
    char *text = NULL;
    if (!found || found->type != XPATH_NODESET) {
        shell_fail(error, "'%s' is no XPath expression that selects elements", path);
    } else if (!found->nodesetval || found->nodesetval->nodeNr == 0) {
        text = g_strdup("");
    } else if (wrap) {
        text = wrapped(x, found);
    } else {
        xmlBufferPtr out = xmlBufferCreate();
        for (int i = 0; i < found->nodesetval->nodeNr; i++) {
            xmlNodeDump(out, x->doc, found->nodesetval->nodeTab[i], 0, 1);
            xmlBufferCat(out, BAD_CAST "\n");
        }
        text = g_strdup((const char *)xmlBufferContent(out));
        xmlBufferFree(out);
    }
    xmlXPathFreeObject(found);
    return text;
}

bool xpath_domain(struct shell *sh, const char *name, unsigned flags, rpc_domain *dom,
                  struct xpath *x, GError **error)
{
    g_auto(rpc_text) xml = {0};
    if (!shell_domain(sh, name, dom, error)) {
        return false;
    }
    rpc_domain_flags args = {*dom, flags};
    return ask_domain_get_xml_desc(shell_rpc(sh, NULL), &args, &xml, error) &&
           xpath_open(x, xml.text, error);
}
