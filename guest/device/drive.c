/* SPDX-License-Identifier: GPL-2.0-or-later */

/* drive: what devices with a disk behind them have in common. */
#include "guest/device/drive.h"

void (*drive_tray_moved)(Image *img, bool open);

static bool take(const char *name, const char *word, enum image_on_error *out, GError **error)
{
    if (word &&
        (!image_on_error_parse(word, out) || (*out == IMAGE_ON_ERROR_ENOSPC && *name == 'r'))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "no %s=%s", name, word);
        return false;
    }
    return true;
}

bool drive_policy_apply(const struct drive_policy *p, Image *img, GError **error)
{
    enum image_on_error read = IMAGE_ON_ERROR_DEFAULT, write = IMAGE_ON_ERROR_DEFAULT;
    if (!take("werror", p->werror, &write, error) || !take("rerror", p->rerror, &read, error)) {
        return false;
    }
    image_set_on_error(img, read, write);
    return true;
}
