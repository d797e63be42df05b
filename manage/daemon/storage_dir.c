/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/storage_kind.h"

/* dir: volumes are the files of a directory. */

static bool build(struct pool_def *def, unsigned flags, GError **error)
{
    (void)flags;
    return files_build(def, error);
}

const struct storage_kind storage_kind_dir = {
    .type = POOL_DIR,
    .about = "files of a directory",
    .rules = {.needs = NEEDS_PATH},
    .volume_formats = file_formats,
    .build = build,
    .refresh = files_refresh,
    .remove = files_remove,
    .vol_plan = files_vol_plan,
    .vol_create = files_vol_create,
    .vol_refresh = files_vol_refresh,
    .vol_delete = files_vol_delete,
    .vol_resize = files_vol_resize,
    .vol_wipe = bytes_wipe,
};
