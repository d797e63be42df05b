/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/machine.h"

#include "manage/rpc/error.h"

/*
 * What libvirt's XML can ask for and a machine here does not get yet.  Such a domain can be
 * defined, but starting it as if nothing had been asked would be a lie.
 */
enum wish_kind {
    WISH_NUMBER, /* int64_t, XML_ABSENT if it is not there */
    WISH_TEXT,   /* char *, or a struct * */
    WISH_LIST,   /* GPtrArray * */
    WISH_WORD,   /* int: any word of an enumeration */
    WISH_ON,     /* enum tristate: on; what is off is off here anyway */
    WISH_OFF,    /* the same the other way round */
    WISH_FLAG,   /* bool */
};
struct wish {
    const char *element;
    enum wish_kind kind;
    uint16_t offset;
};

#define D(kind, member, element)                                                                   \
    {                                                                                              \
        element, kind, offsetof(struct domain_def, member)                                         \
    }
static const struct wish domain_wishes[] = {
    D(WISH_ON, loader_secure, "os/loader/@secure"),
    D(WISH_OFF, loader_readonly, "os/loader/@readonly='no'"),
    D(WISH_ON, bios_useserial, "os/bios/@useserial"),
    D(WISH_ON, pmu, "features/pmu"),
};
#undef D

#define D(kind, member, element)                                                                   \
    {                                                                                              \
        element, kind, offsetof(struct domain_disk, member)                                        \
    }
static const struct wish disk_wishes[] = {
};
#undef D

#define D(kind, member, element)                                                                   \
    {                                                                                              \
        element, kind, offsetof(struct domain_graphics, member)                                    \
    }
static const struct wish graphics_wishes[] = {
    D(WISH_TEXT, passwd_valid_to, "graphics/@passwdValidTo"),
};
#undef D

#define D(kind, member, element)                                                                   \
    {                                                                                              \
        element, kind, offsetof(struct domain_cpu, member)                                         \
    }
static const struct wish cpu_wishes[] = {
    D(WISH_WORD, cache_mode, "cpu/cache"),
};
#undef D

#define D(kind, member, element)                                                                   \
    {                                                                                              \
        element, kind, offsetof(struct clock_timer, member)                                        \
    }
static const struct wish timer_wishes[] = {
    D(WISH_NUMBER, frequency, "clock/timer/@frequency"),
    D(WISH_WORD, track, "clock/timer/@track"),
};
#undef D

static bool asked(const void *object, const struct wish *w)
{
    const void *at = (const char *)object + w->offset;
    switch (w->kind) {
    case WISH_NUMBER:
        return *(const int64_t *)at != XML_ABSENT;
    case WISH_TEXT:
        return *(void *const *)at != NULL;
    case WISH_LIST:
        return xml_count(*(GPtrArray *const *)at) > 0;
    case WISH_WORD:
        return *(const int *)at != 0;
    case WISH_OFF:
        return *(const enum tristate *)at == TRI_NO;
    case WISH_ON:
        return *(const enum tristate *)at == TRI_YES;
    case WISH_FLAG:
        return *(const bool *)at;
    }
    return false;
}

static bool granted(const void *object, const struct wish *wishes, unsigned n, GError **error)
{
    for (unsigned i = 0; i < n; i++) {
        if (asked(object, &wishes[i])) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "%s is not supported by lodged yet",
                          wishes[i].element);
            return false;
        }
    }
    return true;
}

static bool all_granted(const GPtrArray *list, const struct wish *wishes, unsigned n,
                        GError **error)
{
    for (unsigned i = 0; i < xml_count(list); i++) {
        if (!granted(list->pdata[i], wishes, n, error)) {
            return false;
        }
    }
    return true;
}

#define TABLE(t) t, G_N_ELEMENTS(t)

bool machine_can_be(const DomainDef *def, GError **error)
{
    return granted(def, TABLE(domain_wishes), error) &&
           (!def->cpu || granted(def->cpu, TABLE(cpu_wishes), error)) &&
           all_granted(def->timers, TABLE(timer_wishes), error) &&
           all_granted(def->disks, TABLE(disk_wishes), error) &&
           all_granted(def->graphics, TABLE(graphics_wishes), error) && cards_can_be(def, error);
}
