/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/rpc/packet.h"

/*
 * schema/verbs.def as numbers: PROC_connect_open is 1, EVENT_domain_lifecycle 318.
 */
enum remote_procedure {
#define VERB(number, name, args, ret, may, where) PROC_##name = number,
#define EVENT(number, name, class, id, message)   EVENT_##name = number,
#define QEMU_VERB(number, name, args, ret, may, where)
#define QEMU_EVENT(number, name, class, id, message)
#include "schema/verbs.def"
#undef VERB
#undef EVENT
#undef QEMU_VERB
#undef QEMU_EVENT
    REMOTE_PROCEDURES = 450, /* a number beyond the last */
};

enum qemu_procedure {
#define VERB(number, name, args, ret, may, where)
#define EVENT(number, name, class, id, message)
#define QEMU_VERB(number, name, args, ret, may, where) QEMU_PROC_##name = number,
#define QEMU_EVENT(number, name, class, id, message)   QEMU_EVENT_##name = number,
#include "schema/verbs.def"
#undef VERB
#undef EVENT
#undef QEMU_VERB
#undef QEMU_EVENT
    QEMU_PROCEDURES = 8,
};
