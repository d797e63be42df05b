/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vga_edid: what the monitor says about itself.
 *
 * Spec: VESA, Enhanced Extended Display Identification Data Standard, release A revision 2
 * (EDID 1.4), "Base EDID" sections.
 */
#include "guest/device/vga.h"

#include "base/bytes.h"

/* A detailed timing with the blanking of VESA's reduced-blanking timings. */
static void put_timing(uint8_t *at, unsigned w, unsigned h)
{
    enum { H_BLANK = 160, H_FRONT = 48, H_SYNC = 32, V_FRONT = 3, V_SYNC = 6, V_BLANK = 28, HZ = 75 };
    uint64_t clock = (uint64_t)(w + H_BLANK) * (h + V_BLANK) * HZ / 10000;
    unsigned mm_w = MIN(w * 254 / 1000, 4095), mm_h = MIN(h * 254 / 1000, 4095); /* 100 dpi */
    le16_put(at, (uint16_t)MIN(clock, 0xffff));
    at[2] = (uint8_t)w;
    at[3] = H_BLANK;
    at[4] = (uint8_t)(w >> 8 << 4);
    at[5] = (uint8_t)h;
    at[6] = V_BLANK;
    at[7] = (uint8_t)(h >> 8 << 4);
    at[8] = H_FRONT;
    at[9] = H_SYNC;
    at[10] = V_FRONT << 4 | V_SYNC;
    at[12] = (uint8_t)mm_w;
    at[13] = (uint8_t)mm_h;
    at[14] = (uint8_t)((mm_w >> 8) << 4 | mm_h >> 8);
    at[17] = 0x18; /* digital, separate syncs */
}

static void put_label(uint8_t *at, uint8_t tag, const char *text)
{
    bool ended = false;
    at[3] = tag;
    for (unsigned i = 0; i < 13; i++) { /* then a line feed, then blanks */
        at[5 + i] = ended ? ' ' : (uint8_t)(*text ? *text : '\n');
        ended = ended || !*text++;
    }
}

void vga_edid_make(uint8_t edid[EDID_BYTES], unsigned width, unsigned height)
{
    static const uint8_t head[] = {0, 255, 255, 255, 255, 255, 255, 0};
    static const uint8_t colours[] = {0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54};
    memset(edid, 0, EDID_BYTES);
    memcpy(edid, head, sizeof(head));
    be16_put(edid + 8, ('L' - '@') << 10 | ('D' - '@') << 5 | ('G' - '@'));
    le16_put(edid + 10, 0x1234);
    edid[16] = 1;          /* week and year of manufacture: 2024 */
    edid[17] = 2024 - 1990;
    edid[18] = 1;
    edid[19] = 4;
    edid[20] = 0xa5;       /* digital, 8 bits a colour, DisplayPort */
    edid[21] = (uint8_t)MIN(width * 254 / 10000, 255); /* cm */
    edid[22] = (uint8_t)MIN(height * 254 / 10000, 255);
    edid[23] = 120;        /* gamma 2.2 */
    edid[24] = 0x06;       /* sRGB, the first timing is the preferred one */
    memcpy(edid + 25, colours, sizeof(colours));
    edid[35] = 0x21;       /* 640x480, 800x600 at 60 Hz */
    edid[36] = 0x08;       /* 1024x768 at 60 Hz */
    for (unsigned i = 38; i < 54; i += 2) {
        edid[i] = edid[i + 1] = 1; /* no standard timing */
    }
    put_timing(edid + 54, width, height);
    put_label(edid + 72, 0xfc, "Lodge Monitor");
    static const uint8_t range[] = {0, 0, 0, 0xfd, 0, 50, 125, 30, 160, 255, 1, 10,
                                    ' ', ' ', ' ', ' ', ' ', ' '};
    memcpy(edid + 90, range, sizeof(range));
    put_label(edid + 108, 0xff, "0");
    uint8_t sum = 0;
    for (unsigned i = 0; i < EDID_BYTES - 1; i++) {
        sum = (uint8_t)(sum + edid[i]);
    }
    edid[EDID_BYTES - 1] = (uint8_t)-sum;
}
