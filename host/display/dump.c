/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The screen as a file: PPM (Netpbm, "ppm - Netpbm color image format") or PNG by libpng.
 */
#include "host/display/display.h"

#include <png.h>
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
    g_autoptr(GError) own = NULL;
    if (!out || !out->len) {
        g_set_error(error, LODGE_ERROR, ENOMEM, "%s: no memory for the picture", path);
        return false;
    }
    if (!g_file_set_contents(path, (const char *)out->data, (gssize)out->len, &own)) {
        g_set_error(error, LODGE_ERROR, error_errno(own), "%s", own->message);
        return false;
    }
    return true;
}
