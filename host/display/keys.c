/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keys by QEMU's names, by number and by X keysym (layout en-us).
 *
 * A number is the key's set 1 scan code, with 0x80 for those that send 0xe0 first; Pause,
 * which sends 0xe1 0x1d 0x45, is 0xc6.
 *
 * Spec: X11 protocol, "Keysym encoding" (keysymdef.h); Microsoft, "Keyboard Scan Code
 * Specification".
 */
#include "host/display/keys.h"

#include "host/display/display.h"

struct key {
    const char *name;
    uint8_t code;
    uint32_t plain, shifted; /* keysyms; 0: none */
};

static const struct key keys[] = {
    {"esc", 0x01, 0xff1b, 0},
    {"1", 0x02, '1', '!'},
    {"2", 0x03, '2', '@'},
    {"3", 0x04, '3', '#'},
    {"4", 0x05, '4', '$'},
    {"5", 0x06, '5', '%'},
    {"6", 0x07, '6', '^'},
    {"7", 0x08, '7', '&'},
    {"8", 0x09, '8', '*'},
    {"9", 0x0a, '9', '('},
    {"0", 0x0b, '0', ')'},
    {"minus", 0x0c, '-', '_'},
    {"equal", 0x0d, '=', '+'},
    {"backspace", 0x0e, 0xff08, 0},
    {"tab", 0x0f, 0xff09, 0xfe20},
    {"q", 0x10, 'q', 'Q'},
    {"w", 0x11, 'w', 'W'},
    {"e", 0x12, 'e', 'E'},
    {"r", 0x13, 'r', 'R'},
    {"t", 0x14, 't', 'T'},
    {"y", 0x15, 'y', 'Y'},
    {"u", 0x16, 'u', 'U'},
    {"i", 0x17, 'i', 'I'},
    {"o", 0x18, 'o', 'O'},
    {"p", 0x19, 'p', 'P'},
    {"bracket_left", 0x1a, '[', '{'},
    {"bracket_right", 0x1b, ']', '}'},
    {"ret", 0x1c, 0xff0d, 0},
    {"ctrl", 0x1d, 0xffe3, 0},
    {"a", 0x1e, 'a', 'A'},
    {"s", 0x1f, 's', 'S'},
    {"d", 0x20, 'd', 'D'},
    {"f", 0x21, 'f', 'F'},
    {"g", 0x22, 'g', 'G'},
    {"h", 0x23, 'h', 'H'},
    {"j", 0x24, 'j', 'J'},
    {"k", 0x25, 'k', 'K'},
    {"l", 0x26, 'l', 'L'},
    {"semicolon", 0x27, ';', ':'},
    {"apostrophe", 0x28, '\'', '"'},
    {"grave_accent", 0x29, '`', '~'},
    {"shift", 0x2a, 0xffe1, 0},
    {"backslash", 0x2b, '\\', '|'},
    {"z", 0x2c, 'z', 'Z'},
    {"x", 0x2d, 'x', 'X'},
    {"c", 0x2e, 'c', 'C'},
    {"v", 0x2f, 'v', 'V'},
    {"b", 0x30, 'b', 'B'},
    {"n", 0x31, 'n', 'N'},
    {"m", 0x32, 'm', 'M'},
    {"comma", 0x33, ',', '<'},
    {"dot", 0x34, '.', '>'},
    {"slash", 0x35, '/', '?'},
    {"shift_r", 0x36, 0xffe2, 0},
    {"kp_multiply", 0x37, 0xffaa, 0},
    {"alt", 0x38, 0xffe9, 0xffe7},
    {"spc", 0x39, ' ', 0},
    {"caps_lock", 0x3a, 0xffe5, 0},
    {"f1", 0x3b, 0xffbe, 0},
    {"f2", 0x3c, 0xffbf, 0},
    {"f3", 0x3d, 0xffc0, 0},
    {"f4", 0x3e, 0xffc1, 0},
    {"f5", 0x3f, 0xffc2, 0},
    {"f6", 0x40, 0xffc3, 0},
    {"f7", 0x41, 0xffc4, 0},
    {"f8", 0x42, 0xffc5, 0},
    {"f9", 0x43, 0xffc6, 0},
    {"f10", 0x44, 0xffc7, 0},
    {"num_lock", 0x45, 0xff7f, 0},
    {"scroll_lock", 0x46, 0xff14, 0},
    {"kp_7", 0x47, 0xffb7, 0xff95},
    {"kp_8", 0x48, 0xffb8, 0xff97},
    {"kp_9", 0x49, 0xffb9, 0xff9a},
    {"kp_subtract", 0x4a, 0xffad, 0},
    {"kp_4", 0x4b, 0xffb4, 0xff96},
    {"kp_5", 0x4c, 0xffb5, 0xff9d},
    {"kp_6", 0x4d, 0xffb6, 0xff98},
    {"kp_add", 0x4e, 0xffab, 0},
    {"kp_1", 0x4f, 0xffb1, 0xff9c},
    {"kp_2", 0x50, 0xffb2, 0xff99},
    {"kp_3", 0x51, 0xffb3, 0xff9b},
    {"kp_0", 0x52, 0xffb0, 0xff9e},
    {"kp_decimal", 0x53, 0xffae, 0xff9f},
    {"sysrq", 0x54, 0xff15, 0},
    {"less", 0x56, 0, 0},
    {"f11", 0x57, 0xffc8, 0},
    {"f12", 0x58, 0xffc9, 0},
    {"kp_equals", 0x59, 0xffbd, 0},
    {"katakanahiragana", 0x70, 0xff27, 0},
    {"ro", 0x73, 0, 0},
    {"f24", 0x76, 0xffd5, 0},
    {"hiragana", 0x77, 0xff25, 0},
    {"katakana", 0x78, 0xff26, 0},
    {"henkan", 0x79, 0xff23, 0},
    {"muhenkan", 0x7b, 0xff22, 0},
    {"yen", 0x7d, 0xa5, 0},
    {"kp_comma", 0x7e, 0xffac, 0},
    {"audioprev", 0x90, 0x1008ff16, 0},
    {"audionext", 0x99, 0x1008ff17, 0},
    {"kp_enter", 0x9c, 0xff8d, 0},
    {"ctrl_r", 0x9d, 0xffe4, 0},
    {"audiomute", 0xa0, 0x1008ff12, 0},
    {"calculator", 0xa1, 0x1008ff1d, 0},
    {"audioplay", 0xa2, 0x1008ff14, 0},
    {"audiostop", 0xa4, 0x1008ff15, 0},
    {"volumedown", 0xae, 0x1008ff11, 0},
    {"volumeup", 0xb0, 0x1008ff13, 0},
    {"ac_home", 0xb2, 0x1008ff18, 0},
    {"kp_divide", 0xb5, 0xffaf, 0},
    {"print", 0xb7, 0xff61, 0},
    {"alt_r", 0xb8, 0xffea, 0},
    {"pause", 0xc6, 0xff13, 0},
    {"home", 0xc7, 0xff50, 0},
    {"up", 0xc8, 0xff52, 0},
    {"pgup", 0xc9, 0xff55, 0},
    {"left", 0xcb, 0xff51, 0},
    {"right", 0xcd, 0xff53, 0},
    {"end", 0xcf, 0xff57, 0},
    {"down", 0xd0, 0xff54, 0},
    {"pgdn", 0xd1, 0xff56, 0},
    {"insert", 0xd2, 0xff63, 0},
    {"delete", 0xd3, 0xffff, 0},
    {"meta_l", 0xdb, 0xffeb, 0},
    {"meta_r", 0xdc, 0xffec, 0},
    {"menu", 0xdd, 0xff67, 0},
    {"power", 0xde, 0x1008ff2a, 0},
    {"sleep", 0xdf, 0x1008ff2f, 0},
    {"wake", 0xe3, 0x1008ff2b, 0},
    {"ac_bookmarks", 0xe6, 0x1008ff30, 0},
    {"ac_refresh", 0xe7, 0x1008ff29, 0},
    {"ac_forward", 0xe9, 0x1008ff27, 0},
    {"ac_back", 0xea, 0x1008ff26, 0},
    {"computer", 0xeb, 0x1008ff33, 0},
    {"mail", 0xec, 0x1008ff19, 0},
    {"mediaselect", 0xed, 0x1008ff32, 0},
};

/* Names that QEMU has twice, and keysyms that mean a key which has another already. */
static const struct {
    const char *alias, *name;
} aliases[] = {
    {"asterisk", "kp_multiply"}, {"ctrl_l", "ctrl"}, {"shift_l", "shift"}, {"alt_l", "alt"},
    {"compose", "menu"},
};
static const struct {
    uint32_t keysym;
    uint8_t code;
} more[] = {
    {0xff7e, 0xb8} /* Mode_switch */, {0xfe03, 0xb8} /* ISO_Level3_Shift */,
    {0xffe8, 0xb8} /* Meta_R */,      {0xff20, 0xdd} /* Multi_key */,
    {0xff0a, 0x1c} /* Linefeed */,    {0xff6b, 0xc6} /* Break */,
};

unsigned display_scancode(const char *qcode_name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(aliases); i++) {
        if (g_str_equal(aliases[i].alias, qcode_name)) {
            qcode_name = aliases[i].name;
        }
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++) {
        if (g_str_equal(keys[i].name, qcode_name)) {
            return keys[i].code;
        }
    }
    return 0;
}

const char *display_key_name(unsigned scancode)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++) {
        if (keys[i].code == scancode) {
            return keys[i].name;
        }
    }
    return NULL;
}

unsigned key_of_keysym(uint32_t keysym)
{
    for (unsigned i = 0; keysym && i < G_N_ELEMENTS(keys); i++) {
        if (keys[i].plain == keysym || keys[i].shifted == keysym) {
            return keys[i].code;
        }
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(more); i++) {
        if (more[i].keysym == keysym) {
            return more[i].code;
        }
    }
    return 0;
}
