/* SPDX-License-Identifier: GPL-2.0-or-later */

/* bandwidth: libvirt's <bandwidth> of networks, port groups and interfaces. */
#include "manage/model/bandwidth.h"

#include "manage/error.h"

static const struct xml_row rows[] = {
    XML_LONG(struct bandwidth, average, "@average", 0),
    XML_LONG(struct bandwidth, peak, "@peak", 0),
    XML_LONG(struct bandwidth, floor, "@floor", 0),
    XML_LONG(struct bandwidth, burst, "@burst", 0),
};
const struct xml_table inbound_table = XML_TABLE("inbound", struct bandwidth, rows);
const struct xml_table outbound_table = XML_TABLE("outbound", struct bandwidth, rows);

/* What a second's number of bytes still fits in. */
enum { LIMIT_MAX = INT32_MAX };

static bool sane(const struct bandwidth *b, const char *element, GError **error)
{
    const int64_t all[] = {b->average, b->peak, b->burst, b->floor};
    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
        if (all[i] != XML_ABSENT && (all[i] < 0 || all[i] > LIMIT_MAX)) {
            libvirt_error(error, ERR_XML, "a number of <%s> is out of range", element);
            return false;
        }
    }
    if (b->average == XML_ABSENT && b->floor == XML_ABSENT) {
        libvirt_error(error, ERR_XML, "Missing mandatory average or floor attributes in %s",
                      element);
        return false;
    }
    if ((b->peak != XML_ABSENT || b->burst != XML_ABSENT) && b->average == XML_ABSENT) {
        libvirt_error(error, ERR_XML, "'peak' and 'burst' require 'average' attribute");
        return false;
    }
    return true;
}

bool bandwidth_check(const struct bandwidth *in, const struct bandwidth *out, GError **error)
{
    if (out && out->floor != XML_ABSENT) {
        libvirt_error(error, ERR_XML, "'floor' attribute is not allowed in outbound");
        return false;
    }
    return (!in || sane(in, "inbound", error)) && (!out || sane(out, "outbound", error));
}
