/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The screen as a file: PPM (Netpbm, "ppm - Netpbm color image format") or PNG by libpng.
 */
#include "base/util.h"
#include "host/display/display.h"

#include <fcntl.h>
#include <png.h>
#include <stdio.h>
#include <string.h>

/* Three bytes a pixel, rows without gaps. */
static uint8_t *rgb_of(const struct display *d)
{
    uint8_t *rgb = g_try_malloc(3ull * d->width * d->height), *out = rgb;
    for (unsigned y = 0; rgb && y < d->height; y++) {
        const uint32_t *row = (const uint32_t *)((const uint8_t *)d->pixels + (size_t)y * d->stride);
        for (unsigned x = 0; x < d->width; x++) {
            *out++ = (uint8_t)(row[x] >> 16);
            *out++ = (uint8_t)(row[x] >> 8);
            *out++ = (uint8_t)row[x];
        }
    }
    return rgb;
}

static GByteArray *to_ppm(const struct display *d, const uint8_t *rgb)
{
    GByteArray *out = g_byte_array_new();
    g_autofree char *head = g_strdup_printf("P6\n%u %u\n255\n", d->width, d->height);
    g_byte_array_append(out, (const guint8 *)head, (guint)strlen(head));
    g_byte_array_append(out, rgb, 3 * d->width * d->height);
    return out;
}

static GByteArray *to_png(const struct display *d, const uint8_t *rgb)
{
    png_image png = {.version = PNG_IMAGE_VERSION, .width = d->width, .height = d->height,
                     .format = PNG_FORMAT_RGB};
    png_alloc_size_t room = PNG_IMAGE_PNG_SIZE_MAX(png);
    GByteArray *out = g_byte_array_new();
    g_byte_array_set_size(out, (guint)room);
    bool ok = png_image_write_to_memory(&png, out->data, &room, 0, rgb, 0, NULL);
    g_byte_array_set_size(out, ok ? (guint)room : 0);
    return out;
}

/* Written beside and renamed: nobody finds half a picture. */
static bool save(const char *path, const GByteArray *data, GError **error)
{
    g_autofree char *name = g_strdup_printf("%s.XXXXXX", path);
    autofd int fd = g_mkstemp_full(name, O_WRONLY | O_CLOEXEC, 0644);
    size_t done = 0;
    while (fd >= 0 && done < data->len) {
        ssize_t n = write(fd, data->data + done, data->len - done);
        if (n < 0 && errno != EINTR) {
            break;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    if (fd < 0 || done < data->len || rename(name, path) < 0) {
        error_set_errno(error, errno, "%s", path);
        if (fd >= 0) {
            unlink(name);
        }
        return false;
    }
    return true;
}

bool display_dump(struct display *d, const char *path, const char *format, GError **error)
{
    bool png = format && g_str_equal(format, "png");
    if (format && !png && !g_str_equal(format, "ppm")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "no screen format \"%s\"; there are: ppm png", format);
        return false;
    }
    if (d->refresh) {
        d->refresh(d->adapter);
    }
    if (!d->pixels || !d->width || !d->height) {
        g_set_error(error, LODGE_ERROR, ENODEV, "there is no screen to dump");
        return false;
    }
    g_autofree uint8_t *rgb = rgb_of(d);
    g_autoptr(GByteArray) out = rgb ? png ? to_png(d, rgb) : to_ppm(d, rgb) : NULL;
    if (!out || !out->len) {
        g_set_error(error, LODGE_ERROR, ENOMEM, "%s: no memory for the picture", path);
        return false;
    }
    return save(path, out, error);
}
