/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/cpu/regs.h"

#include "base/bytes.h"
#include "guest/time/clock.h"

const struct cpu_reg cpu_regs[] = {
#define REG(name, field, bytes, group) {name, offsetof(struct regs, field), bytes, REGS_##group},
#include "guest/cpu/regs.def"
#undef REG
};
const unsigned n_cpu_regs = G_N_ELEMENTS(cpu_regs);

/* A row is as large as its field. */
#define REG(name, field, bytes, group)                                                             \
    G_STATIC_ASSERT(sizeof(((struct regs *)0)->field) == (bytes));
#include "guest/cpu/regs.def"
#undef REG

/* Offsets are of this process's clock: the stream has the time stamp counter's value. */
GBytes *vcpu_save(const struct vcpu *cpu)
{
    GByteArray *out = g_byte_array_new();
    struct regs r = cpu->r;
    r.tsc_offset = vcpu_tsc(cpu);
    for (unsigned i = 0; i < n_cpu_regs; i++) {
        const struct cpu_reg *reg = &cpu_regs[i];
        put_text(out, reg->name);
        put_le(out, reg->bytes, 2);
        g_byte_array_append(out, (const uint8_t *)&r + reg->at, reg->bytes);
    }
    return g_byte_array_free_to_bytes(out);
}

static const struct cpu_reg *find(const char *name)
{
    for (unsigned i = 0; i < n_cpu_regs; i++) {
        if (!strcmp(cpu_regs[i].name, name)) {
            return &cpu_regs[i];
        }
    }
    return NULL;
}

static bool load_one(struct regs *r, struct reader *in, bool *seen, GError **error)
{
    char name[256];
    uint64_t bytes;
    if (!read_text(in, name) || !read_le(in, &bytes, 2)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "CPU state is cut off");
        return false;
    }
    const struct cpu_reg *reg = find(name);
    if (!reg || reg->bytes != bytes || seen[reg - cpu_regs]) {
        g_autofree char *shown = g_strescape(name, NULL);
        g_set_error(error, LODGE_ERROR, EINVAL, "CPU state has %s register \"%s\" of %u bytes",
                    reg ? "an unexpected" : "an unknown", shown, (unsigned)bytes);
        return false;
    }
    const uint8_t *from = read_bytes(in, bytes);
    if (!from) {
        g_set_error(error, LODGE_ERROR, EINVAL, "CPU state is cut off in register \"%s\"", name);
        return false;
    }
    memcpy((uint8_t *)r + reg->at, from, bytes);
    seen[reg - cpu_regs] = true;
    return true;
}

bool vcpu_load(struct vcpu *cpu, GBytes *state, GError **error)
{
    struct reader in = reader_of(state);
    bool seen[G_N_ELEMENTS(cpu_regs)] = {false};
    struct regs r;
    while (in.at < in.end) {
        if (!load_one(&r, &in, seen, error)) {
            return false;
        }
    }
    for (unsigned i = 0; i < n_cpu_regs; i++) {
        if (!seen[i]) {
            g_set_error(error, LODGE_ERROR, EINVAL, "CPU state lacks register \"%s\"",
                        cpu_regs[i].name);
            return false;
        }
    }
    r.tsc_offset -= tsc_now();
    cpu->r = r;
    vcpu_loaded(cpu);
    return true;
}
