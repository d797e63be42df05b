/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/hmp.h"

#include "guest/cpu/paging.h"
#include "guest/cpu/regs.h"
#include "guest/device/board.h"
#include "vmm/monitor/disassemble.h"
#include "vmm/vm.h"

#include <inttypes.h>
#include <string.h>

/* examine - x, xp, print, i and o of the human monitor */

enum { INSN_MAX = 15 };

/* ---- numbers: terms of + - * / & | ^ and parentheses, registers as $rip ---- */

struct scan {
    const char *at;
    unsigned depth;
    const char *wrong; /* NULL: fine so far */
};

static uint64_t sum(struct scan *s);

static uint64_t reg_value(struct scan *s)
{
    size_t n = strspn(++s->at, "abcdefghijklmnopqrstuvwxyz0123456789_.");
    g_autofree char *name = g_strndup(s->at, n);
    const char *real = g_str_equal(name, "pc") ? "rip" : g_str_equal(name, "sp") ? "rsp" : name;
    s->at += n;
    if (g_str_equal(name, "pc") && !vcpu_code64(hmp_cpu())) {
        return (uint32_t)(hmp_cpu()->r.seg[SEG_CS].base + hmp_cpu()->r.rip);
    }
    for (unsigned i = 0; i < n_cpu_regs; i++) {
        if (g_str_equal(cpu_regs[i].name, real) && cpu_regs[i].bytes <= 8) {
            uint64_t v = 0;
            memcpy(&v, (const char *)&hmp_cpu()->r + cpu_regs[i].at, cpu_regs[i].bytes);
            return v;
        }
    }
    s->wrong = "no such register";
    return 0;
}

static uint64_t unary(struct scan *s)
{
    char *end;
    if (*s->at == '-' || *s->at == '~' || *s->at == '+') {
        char op = *s->at++;
        uint64_t v = s->depth++ < 32 ? unary(s) : 0;
        s->depth--;
        return op == '-' ? -v : op == '~' ? ~v : v;
    }
    if (*s->at == '(') {
        s->at++;
        uint64_t v = s->depth++ < 32 ? sum(s) : 0;
        s->depth--;
        s->wrong = *s->at == ')' ? s->wrong : "a ) is missing";
        s->at += *s->at == ')';
        return v;
    }
    if (*s->at == '$') {
        return reg_value(s);
    }
    uint64_t v = g_ascii_strtoull(s->at, &end, 0);
    if (end == s->at) {
        s->wrong = "a number is missing";
    }
    s->at = end;
    return v;
}

static uint64_t product(struct scan *s)
{
    uint64_t v = unary(s);
    while (!s->wrong && (*s->at == '*' || *s->at == '/' || *s->at == '%')) {
        char op = *s->at++;
        uint64_t by = unary(s);
        if (op != '*' && by == 0) {
            s->wrong = "division by zero";
            return 0;
        }
        v = op == '*' ? v * by : op == '/' ? v / by : v % by;
    }
    return v;
}

static uint64_t sum(struct scan *s)
{
    uint64_t v = product(s);
    while (!s->wrong && *s->at && strchr("+-&|^", *s->at)) {
        char op = *s->at++;
        uint64_t by = product(s);
        v = op == '+' ? v + by : op == '-' ? v - by : op == '&' ? v & by : op == '|' ? v | by : v ^ by;
    }
    return v;
}

bool hmp_number(const char *text, uint64_t *out, GError **error)
{
    struct scan s = {.at = text};
    *out = sum(&s);
    if (!s.wrong && *s.at) {
        s.wrong = "cannot read the end of it";
    }
    if (s.wrong) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: %s", text, s.wrong);
    }
    return !s.wrong;
}

/* ---- formats: /COUNTfSIZE ---- */

struct format {
    unsigned count, bytes;
    char letter;
};

static bool parse_format(const char *text, struct format *f, GError **error)
{
    char *end = (char *)text + 1;
    if (g_ascii_isdigit(*end)) {
        uint64_t count = g_ascii_strtoull(end, &end, 10);
        f->count = (unsigned)MIN(count, 4096);
    }
    for (; *end; end++) {
        static const char sizes[] = "bhwg";
        const char *size = strchr(sizes, *end);
        if (size) {
            f->bytes = 1u << (size - sizes);
        } else if (strchr("xduoci", *end)) {
            f->letter = *end;
        } else {
            g_set_error(error, LODGE_ERROR, ENOTSUP, "format %s: no such letter", text);
            return false;
        }
    }
    f->bytes = f->letter == 'c' ? 1 : f->bytes;
    return true;
}

static void put_value(GString *out, const struct format *f, uint64_t v)
{
    unsigned shift = 64 - 8 * f->bytes;
    switch (f->letter) {
    case 'd':
        g_string_append_printf(out, " %" PRId64, (int64_t)(v << shift) >> shift);
        break;
    case 'u':
        g_string_append_printf(out, " %" PRIu64, v);
        break;
    case 'o':
        g_string_append_printf(out, " %#" PRIo64, v);
        break;
    case 'c':
        g_string_append_printf(out, g_ascii_isprint((char)v) ? " '%c'" : " '\\x%02x'", (int)v);
        break;
    default:
        g_string_append_printf(out, " 0x%0*" PRIx64, (int)f->bytes * 2, v);
    }
}

static bool peek(uint64_t at, uint64_t *v, unsigned bytes, bool physical)
{
    *v = 0;
    if (physical) {
        space_read(vm_board()->memory, at, v, bytes);
        return true;
    }
    return paging_peek(hmp_cpu(), at, v, bytes);
}

/* x /4i: instructions, one a line. */
static bool examine_code(uint64_t at, unsigned count, bool physical, GString *out, GError **error)
{
    const struct vcpu *cpu = hmp_cpu();
    bool wide = cpu->r.seg[SEG_CS].attr & SEG_DB;
    unsigned mode = vcpu_code64(cpu) ? 8 : wide ? 4 : 2;
    for (unsigned i = 0; i < count; i++) {
        uint8_t code[INSN_MAX];
        unsigned n = 0;
        for (uint64_t v; n < INSN_MAX && peek(at + n, &v, 1, physical); n++) {
            code[n] = (uint8_t)v;
        }
        g_string_append_printf(out, "0x%08" PRIx64 ":  ", at);
        if (!n) {
            g_string_append(out, "Cannot access memory\n");
            return true;
        }
        unsigned bytes = disassemble(code, n, mode, at, out, error);
        if (!bytes) {
            return false;
        }
        g_string_append_c(out, '\n');
        at += bytes;
    }
    return true;
}

bool hmp_examine(const struct hmp_args *args, bool physical, GString *out, GError **error)
{
    static struct format last = {1, 4, 'x'}; /* as gdb does, the next x has the same */
    bool has_format = args->n > 1;
    uint64_t at, v;
    last.count = 1;
    if ((has_format && (*args->at[0] != '/' || !parse_format(args->at[0], &last, error))) ||
        !hmp_number(args->at[args->n - 1], &at, error)) {
        return false;
    }
    if (last.letter == 'i') {
        return examine_code(at, last.count, physical, out, error);
    }
    unsigned a_line = last.letter == 'c' ? 8 : 16 / last.bytes;
    for (unsigned i = 0; i < last.count; i++, at += last.bytes) {
        if (i % a_line == 0) {
            g_string_append_printf(out, "%s%016" PRIx64 ":", i ? "\n" : "", at);
        }
        if (!peek(at, &v, last.bytes, physical)) {
            g_string_append(out, " Cannot access memory");
            break;
        }
        put_value(out, &last, v);
    }
    g_string_append_c(out, '\n');
    return true;
}

bool hmp_print(const struct hmp_args *args, GString *out, GError **error)
{
    struct format f = {1, 8, 'x'};
    uint64_t v;
    bool has_format = args->n > 1;
    if ((has_format && (*args->at[0] != '/' || !parse_format(args->at[0], &f, error))) ||
        !hmp_number(args->at[args->n - 1], &v, error)) {
        return false;
    }
    if (f.letter == 'x') {
        g_string_append_printf(out, "%#" PRIx64 "\n", v);
    } else {
        f.bytes = 8;
        put_value(out, &f, v);
        g_string_append_c(out, '\n');
    }
    return true;
}

/* i /w 0x3f8: a port is read, with all that does. */
bool hmp_port(const struct hmp_args *args, bool write, GString *out, GError **error)
{
    struct format f = {1, 1, 'x'};
    uint64_t port, value = 0;
    unsigned first = *args->at[0] == '/';
    if ((first && !parse_format(args->at[0], &f, error)) || args->n - first != (write ? 2u : 1u)) {
        if (error && !*error) {
            g_set_error(error, LODGE_ERROR, EINVAL, "want [/SIZE] PORT%s", write ? " VALUE" : "");
        }
        return false;
    }
    if (!hmp_number(args->at[first], &port, error) ||
        (write && !hmp_number(args->at[first + 1], &value, error))) {
        return false;
    }
    f.bytes = MIN(f.bytes, 4);
    if (write) {
        space_store(vm_board()->ports, port & 0xffff, value, f.bytes);
    } else {
        value = space_load(vm_board()->ports, port & 0xffff, f.bytes);
        g_string_append_printf(out, "port%c[0x%04x] = 0x%0*" PRIx64 "\n", "?bw?l"[f.bytes],
                               (unsigned)port & 0xffff, (int)f.bytes * 2, value);
    }
    return true;
}
