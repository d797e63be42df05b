/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/cli/shell.h"

/* How far a job is, on stderr as virsh writes it. */
unsigned progress_percent(uint64_t done, uint64_t total);
void progress_show(const char *label, unsigned percent);
/* The job of @dom is looked at by a connection of its own, while the caller waits for its end. */
struct progress;
struct progress *progress_begin(struct shell *sh, const rpc_domain *dom, const char *label);
/* Without a label nothing is shown; after @seconds, unless 0, the domain is suspended. */
struct progress *progress_begin_limited(struct shell *sh, const rpc_domain *dom, const char *label,
                                        uint64_t seconds);
/* @ok: it is whole. */
void progress_end(struct progress *p, bool ok);
