/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * hda_codec: what is at the other end of a sound controller's link: one function group with a
 * converter and a jack to play, and the same to record.
 *
 * Spec: Intel, "High Definition Audio Specification", Revision 1.0a, "Codec Features and
 * Requirements", "Codec Verb Reference".
 * Node numbers: 1 the function group, 2 DAC, 3 line out or speaker, 4 ADC, 5 line in or
 * microphone; of a codec that only records too.
 */
#include "guest/device/hda.h"

#include "base/bytes.h"

enum { ROOT, GROUP, DAC, OUT_PIN, ADC, IN_PIN, NODES };
enum verb { /* those with 8 bits of payload; the others have 4 bits of verb and 16 of payload */
            GET_PARAMETER = 0xf00,
            GET_SELECT = 0xf01,
            GET_CONNECTIONS = 0xf02,
            GET_POWER = 0xf05,
            SET_POWER = 0x705,
            GET_STREAM = 0xf06,
            SET_STREAM = 0x706,
            GET_PIN = 0xf07,
            SET_PIN = 0x707,
            GET_UNSOLICITED = 0xf08,
            SET_UNSOLICITED = 0x708,
            GET_SENSE = 0xf09,
            GET_EAPD = 0xf0c,
            SET_EAPD = 0x70c,
            GET_DEFAULT = 0xf1c,
            GET_SUBSYSTEM = 0xf20,
            RESET = 0x7ff,
            SET_FORMAT = 0x2,
            SET_AMP = 0x3,
            GET_FORMAT = 0xa,
            GET_AMP = 0xb,
};
enum parameter {
    P_VENDOR = 0x00,
    P_REVISION = 0x02,
    P_NODES = 0x04,
    P_GROUP = 0x05,
    P_AUDIO_GROUP = 0x08,
    P_WIDGET = 0x09,
    P_PCM = 0x0a,
    P_FORMATS = 0x0b,
    P_PIN = 0x0c,
    P_CONNECTIONS = 0x0e,
    P_POWER = 0x0f,
    P_OUT_AMP = 0x12,
};
enum {
    W_STEREO = 1,
    W_OUT_AMP = 1 << 2,
    W_OWN_AMP = 1 << 3,
    W_OWN_FORMAT = 1 << 4,
    W_CONNECTIONS = 1 << 8,
    W_POWER = 1 << 10,
    W_DAC = 0 << 20,
    W_ADC = 1 << 20,
    W_PIN = 4 << 20
};
enum { PIN_OUT = 1 << 4, PIN_IN = 1 << 5, POWER_D0_D3 = 0x09 };
enum { PCM_16_BITS = 1 << 17, PCM_RATES = 0x1fc /* 16 to 96 kHz */, FORMATS_PCM = 1 };
/* Volume: 74 steps of a decibel, the last is as loud as the stream. */
enum { AMP_STEPS = 74, AMP_STEP_DB = 3 /* quarters of it less one */, AMP_MUTE = 0x80 };
enum {
    SET_OUT = 1 << 15,
    SET_LEFT = 1 << 13,
    SET_RIGHT = 1 << 12,
    GET_OUT = 1 << 15,
    GET_LEFT = 1 << 13
};
enum { VENDOR = 0x1af4 };

/* ---- formats ---- */

unsigned hda_rate(unsigned format)
{
    unsigned base = format & 1 << 14 ? 44100 : 48000, times = format >> 11 & 7;
    return times > 3 ? 0 : base * (times + 1) / ((format >> 8 & 7) + 1);
}

static unsigned sample_bytes(unsigned format)
{
    static const uint8_t bytes[8] = {1, 2, 4, 4, 4};
    return bytes[format >> 4 & 7];
}

unsigned hda_frame_bytes(unsigned format)
{
    bool is_pcm = !(format & 1 << 15) && hda_rate(format);
    return is_pcm ? sample_bytes(format) * ((format & 15) + 1) : 0;
}

/* ---- what the guest asks ---- */

static bool has_node(const struct hda_codec *c, unsigned node)
{
    return node <= GROUP || (node <= OUT_PIN ? c->kind->out : node < NODES && c->kind->in);
}

static uint32_t sub_nodes(const struct hda_codec *c)
{
    unsigned first = c->kind->out ? DAC : ADC, end = c->kind->in ? NODES : ADC;
    return first << 16 | (end - first);
}

static uint32_t widget(const struct hda_codec *c, unsigned node)
{
    uint32_t amp = c->prop_mixer ? W_OUT_AMP | W_OWN_AMP : 0;
    switch (node) {
    case DAC:
        return W_DAC | W_STEREO | W_OWN_FORMAT | W_POWER | amp;
    case ADC:
        return W_ADC | W_STEREO | W_OWN_FORMAT | W_POWER | W_CONNECTIONS;
    case OUT_PIN:
        return W_PIN | W_STEREO | W_CONNECTIONS;
    default:
        return W_PIN | W_STEREO;
    }
}

static uint32_t parameter(const struct hda_codec *c, unsigned node, enum parameter p)
{
    bool converter = node == DAC || node == ADC, is_pin = node == OUT_PIN || node == IN_PIN;
    switch (p) {
    case P_VENDOR:
        return node == ROOT ? VENDOR << 16 | c->kind->device : 0;
    case P_REVISION:
        return node == ROOT ? 0x100101 : 0;
    case P_NODES:
        return node == ROOT ? GROUP << 16 | 1 : node == GROUP ? sub_nodes(c) : 0;
    case P_GROUP:
        return node == GROUP ? 1 : 0; /* audio */
    case P_AUDIO_GROUP:
        return 0;
    case P_WIDGET:
        return node >= DAC ? widget(c, node) : 0;
    case P_PCM:
        return converter || node == GROUP ? PCM_16_BITS | PCM_RATES : 0;
    case P_FORMATS:
        return converter || node == GROUP ? FORMATS_PCM : 0;
    case P_PIN:
        return is_pin ? node == OUT_PIN ? PIN_OUT : PIN_IN : 0;
    case P_CONNECTIONS:
        return node == OUT_PIN || node == ADC ? 1 : 0;
    case P_POWER:
        return is_pin ? 0 : POWER_D0_D3;
    case P_OUT_AMP:
        return node == DAC && c->prop_mixer
                   ? 1u << 31 | AMP_STEP_DB << 16 | AMP_STEPS << 8 | AMP_STEPS
                   : 0;
    default:
        return 0;
    }
}

/* Jack, where and what, colour, place in the group: of a jack without a name, and of an inner one.
 */
static uint32_t pin_default(const struct hda_codec *c, unsigned node)
{
    if (node == OUT_PIN) {
        return c->kind->micro ? 0x90100110 /* speaker */ : 0x01014010 /* green line out */;
    }
    return c->kind->micro ? 0x90a00120 /* microphone */ : 0x01819020 /* red line in */;
}

static uint32_t get_amp(const struct hda_codec *c, unsigned node, uint32_t payload)
{
    return node == DAC && (payload & GET_OUT) ? c->gain[payload & GET_LEFT ? 0 : 1] : 0;
}

static uint32_t get(const struct hda_codec *c, unsigned node, enum verb verb, uint8_t payload)
{
    unsigned dir = node == ADC || node == IN_PIN;
    bool converter = node == DAC || node == ADC, is_pin = node == OUT_PIN || node == IN_PIN;
    switch ((unsigned)verb) {
    case GET_PARAMETER:
        return parameter(c, node, payload);
    case GET_CONNECTIONS:
        return payload ? 0 : node == OUT_PIN ? DAC : node == ADC ? IN_PIN : 0;
    case GET_POWER:
        return (uint32_t)c->power[node] << 4 | c->power[node];
    case GET_STREAM:
        return converter ? c->stream[dir] : 0;
    case GET_PIN:
        return is_pin ? c->pin[dir] : 0;
    case GET_UNSOLICITED:
        return is_pin ? c->unsolicited[dir] : 0;
    case GET_SENSE:
        return is_pin ? 0xffffffff : 0; /* something is plugged in */
    case GET_EAPD:
        return is_pin ? c->eapd[dir] : 0;
    case GET_DEFAULT:
        return is_pin ? pin_default(c, node) : 0;
    case GET_SUBSYSTEM:
        return node == GROUP ? VENDOR << 16 | c->kind->device : 0;
    default:
        return 0;
    }
}

/* ---- what the guest sets ---- */

static void quiet(struct hda_codec *c)
{
    audio_voice_stop(c->voice);
}

static void set_amp(struct hda_codec *c, unsigned node, uint32_t payload)
{
    uint8_t gain = (uint8_t)((payload & AMP_MUTE) | MIN(payload & 0x7f, (uint32_t)AMP_STEPS));
    if (node != DAC || !(payload & SET_OUT) || !c->prop_mixer) {
        return;
    }
    c->gain[0] = payload & SET_LEFT ? gain : c->gain[0];
    c->gain[1] = payload & SET_RIGHT ? gain : c->gain[1];
}

static void set(struct hda_codec *c, unsigned node, enum verb verb, uint8_t payload)
{
    unsigned dir = node == ADC || node == IN_PIN;
    bool converter = node == DAC || node == ADC, is_pin = node == OUT_PIN || node == IN_PIN;
    switch ((unsigned)verb) {
    case SET_POWER:
        c->power[node] = payload & 3;
        break;
    case SET_STREAM:
        if (converter) {
            c->stream[dir] = payload;
        }
        if (node == DAC && !(payload >> 4)) {
            quiet(c);
        }
        break;
    case SET_PIN:
        c->pin[dir] = is_pin ? payload : c->pin[dir];
        break;
    case SET_UNSOLICITED:
        c->unsolicited[dir] = is_pin ? payload : c->unsolicited[dir];
        break;
    case SET_EAPD:
        c->eapd[dir] = is_pin ? payload : c->eapd[dir];
        break;
    case RESET:
        device_reset(&c->dev);
        break;
    default:
        break;
    }
}

/* 28 bits: node, verb, payload. */
uint32_t hda_command(struct hda_codec *c, uint32_t command)
{
    unsigned node = command >> 20 & 0x7f, dir = node == ADC;
    uint16_t payload = (uint16_t)command;
    if (node >= NODES || !has_node(c, node)) {
        return 0;
    }
    switch (command >> 16 & 15) {
    case SET_FORMAT:
        c->format[dir] = node == DAC || node == ADC ? payload : c->format[dir];
        return 0;
    case GET_FORMAT:
        return node == DAC || node == ADC ? c->format[dir] : 0;
    case SET_AMP:
        set_amp(c, node, payload);
        return 0;
    case GET_AMP:
        return get_amp(c, node, payload);
    case 0xf:
        return get(c, node, command >> 8 & 0xfff, (uint8_t)payload);
    case 0x7:
        set(c, node, command >> 8 & 0xfff, (uint8_t)payload);
        return 0;
    default:
        return 0;
    }
}

/* ---- streams ---- */

void hda_stream_stops(struct hda_codec *c, unsigned tag)
{
    if (c->kind->out && c->stream[0] >> 4 == tag) {
        quiet(c);
    }
}

/* Parts of 65536 for each step of the volume: a decibel (times 0.8913) down from the last. */
static const uint32_t *loudness(void)
{
    static uint32_t table[AMP_STEPS + 1];
    if (!table[AMP_STEPS]) {
        uint64_t value = 65536ull << 16;
        for (int i = AMP_STEPS; i >= 0; i--, value = value * 58409 >> 16) {
            table[i] = (uint32_t)(value >> 16);
        }
    }
    return table;
}

static int16_t sample_at(const uint8_t *at, unsigned bytes, uint32_t loud)
{
    int32_t v = bytes == 1 ? (at[0] - 128) * 256 : (int16_t)le16_at(at + bytes - 2);
    return (int16_t)((int64_t)v * loud >> 16);
}

void hda_stream_data(struct hda_codec *c, unsigned tag, unsigned format, const uint8_t *data,
                     size_t n)
{
    struct audio_frame out[256];
    unsigned bytes = sample_bytes(format), frame = hda_frame_bytes(format), used = 0;
    if (!c->kind->out || !tag || c->stream[0] >> 4 != tag || !frame) {
        return;
    }
    unsigned channels = format & 15, left = MIN(c->stream[0] & 15u, channels);
    unsigned right = MIN(left + 1, channels);
    uint32_t loud[2];
    for (unsigned i = 0; i < 2; i++) {
        loud[i] = c->gain[i] & AMP_MUTE ? 0 : loudness()[MIN(c->gain[i], AMP_STEPS)];
    }
    audio_voice_start(c->voice, hda_rate(format));
    for (; n >= frame; data += frame, n -= frame) {
        out[used++] = (struct audio_frame){sample_at(data + left * bytes, bytes, loud[0]),
                                           sample_at(data + right * bytes, bytes, loud[1])};
        if (used == G_N_ELEMENTS(out)) {
            audio_play(c->voice, out, used);
            used = 0;
        }
    }
    audio_play(c->voice, out, used);
}

/* ---- life ---- */

static bool take_place(struct hda_codec *c, GError **error)
{
    struct hda *bus = hda_bus_find(c->dev.board, c->prop_bus);
    unsigned cad = c->prop_cad;
    if (!bus) {
        g_set_error(error, LODGE_ERROR, ENODEV,
                    "there is no sound controller%s%s: add -device intel-hda",
                    c->prop_bus ? " with the bus " : "", c->prop_bus ? c->prop_bus : "");
        return false;
    }
    for (unsigned i = 0; cad == UINT32_MAX && i < HDA_CODECS; i++) {
        cad = !bus->codec[i] ? i : cad;
    }
    if (cad >= HDA_CODECS || bus->codec[cad]) {
        g_set_error(error, LODGE_ERROR, cad >= HDA_CODECS ? EINVAL : EBUSY,
                    cad >= HDA_CODECS ? "cad is from 0 to 14" : "cad=%u is taken", cad);
        return false;
    }
    c->prop_cad = cad;
    c->bus = bus;
    bus->codec[cad] = c;
    return true;
}

bool hda_codec_start(struct hda_codec *c, const struct hda_kind *kind, GError **error)
{
    c->kind = kind;
    if (!take_place(c, error)) {
        return false;
    }
    c->voice = audio_voice_new(c->audio ? c->audio : audio_first());
    return true;
}

void hda_codec_stop(struct device *dev)
{
    struct hda_codec *c = (struct hda_codec *)dev;
    if (c->bus) {
        c->bus->codec[c->prop_cad] = NULL;
    }
    g_clear_pointer(&c->voice, audio_voice_free);
}

void hda_codec_reset(struct device *dev)
{
    struct hda_codec *c = (struct hda_codec *)dev;
    quiet(c);
    c->gain[0] = c->gain[1] = AMP_STEPS;
    c->format[0] = c->format[1] = 0x11; /* 48 kHz, 16 bits, stereo */
}

bool hda_codec_loaded(struct device *dev, GError **error)
{
    struct hda_codec *c = (struct hda_codec *)dev;
    for (unsigned i = 0; i < NODES; i++) {
        if (c->power[i] > 3) {
            g_set_error(error, LODGE_ERROR, EINVAL, "power state %u", c->power[i]);
            return false;
        }
    }
    return true;
}
