/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tone: plays a sine on a sound card, or beeps, inside a guest.
 * Usage: tone DSP MIXER HZ MILLISECONDS, or tone beep EVENT HZ MILLISECONDS.
 * Ends with "tone: ok" once the card has played it.
 */
#include <fcntl.h>
#include <linux/input.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/soundcard.h>
#include <unistd.h>

enum { RATE = 48000, LOUD = 16000 };

static void need(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static void loud(const char *path)
{
    int mixer = open(path, O_RDWR), all = 100 | 100 << 8, channels = 0;
    if (mixer < 0 || ioctl(mixer, SOUND_MIXER_READ_DEVMASK, &channels) < 0) {
        return;
    }
    for (int i = 0; i < SOUND_MIXER_NRDEVICES; i++) {
        if (channels & 1 << i) {
            int v = all;
            ioctl(mixer, MIXER_WRITE(i), &v);
        }
    }
    close(mixer);
}

static void play(const char *path, double hz, int ms)
{
    int dsp = open(path, O_WRONLY), format = AFMT_S16_LE, channels = 2, rate = RATE;
    need(dsp, path);
    need(ioctl(dsp, SNDCTL_DSP_SETFMT, &format), "format");
    need(ioctl(dsp, SNDCTL_DSP_CHANNELS, &channels), "channels");
    need(ioctl(dsp, SNDCTL_DSP_SPEED, &rate), "rate");
    int frames = RATE / 1000 * ms;
    int16_t *data = malloc((size_t)frames * 4);
    for (int i = 0; i < frames; i++) {
        data[2 * i] = data[2 * i + 1] = (int16_t)(LOUD * sin(2 * M_PI * hz * i / RATE));
    }
    for (char *at = (char *)data, *end = at + (size_t)frames * 4; at < end;) {
        ssize_t n = write(dsp, at, (size_t)(end - at));
        need((int)n, "write");
        at += n;
    }
    need(ioctl(dsp, SNDCTL_DSP_SYNC, 0), "sync");
}

static void beep(const char *path, int hz, int ms)
{
    struct input_event e = {.type = EV_SND, .code = SND_TONE, .value = hz};
    int fd = open(path, O_RDWR);
    need(fd, path);
    need((int)write(fd, &e, sizeof(e)), "beep");
    usleep((unsigned)ms * 1000);
    e.value = 0;
    need((int)write(fd, &e, sizeof(e)), "beep");
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        return 2;
    }
    if (strcmp(argv[1], "beep") == 0) {
        beep(argv[2], atoi(argv[3]), atoi(argv[4]));
    } else {
        loud(argv[2]);
        play(argv[1], atof(argv[3]), atoi(argv[4]));
    }
    puts("tone: ok");
    return 0;
}
