/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/model/domain.h"

/* <iothreads>: how many; <iothreadids>: the numbers of some, the others get the lowest free. */
enum { IOTHREADS_MAX = 64 };
GArray *domain_iothreads(const DomainDef *def); /* of int64_t, ascending */
bool domain_has_iothread(const DomainDef *def, int64_t id);
void domain_add_iothread(DomainDef *def, int64_t id); /* which is not there */
void domain_drop_iothread(DomainDef *def, int64_t id);
/* The target of a disk or the alias of a controller that uses it; NULL: nobody does. */
const char *domain_iothread_user(const DomainDef *def, int64_t id);
/* The processors it is pinned to; NULL: it is not.  Given away. */
const char *domain_iothread_pin(const DomainDef *def, int64_t id);
void domain_pin_iothread(DomainDef *def, int64_t id, const char *cpuset);
bool domain_check_iothreads(const DomainDef *def, GError **error);
