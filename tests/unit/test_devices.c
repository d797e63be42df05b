/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What every device promises, driven from the registry: no device is known here by name,
 * but for what only its own board could give it. */
#include "tests/unit/rig.h"

#include "base/bytes.h"
#include "tests/unit/noalloc.h"

#include <inttypes.h>

enum { ROUNDS = 24, STEPS = 40, MAX_SPANS = 256, MAX_TESTS = 1024 };
enum { BAR_MEMORY = 0xe0000000, BAR_STEP = 0x02000000, BAR_PORTS = 0xc000 };

static uint64_t noise(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed * 0x2545f4914f6cdd1d;
}

/* ---- a device on its board ---- */

struct subject {
    struct rig *rig;
    struct device *dev;
    struct device *front; /* the guest sees its registers: the device itself or the one it hangs on */
};

/* What is on these buses hangs on such a device. */
static const char *const fronts[] = {
    [BUS_VIRTIO] = "virtio-serial-pci", [BUS_IDE] = "piix3-ide", [BUS_SCSI] = "virtio-scsi-pci",
    [BUS_USB] = "qemu-xhci",  [BUS_HDA] = "intel-hda",
};

static const char *front_of(const struct device_model *m)
{
    return m->bus < G_N_ELEMENTS(fronts) ? fronts[m->bus] : NULL;
}

/* Parts of a vCPU have tests of their own. */
static bool has_a_board(const struct device_model *m)
{
    return (m->bus <= BUS_PCI || front_of(m)) && !g_str_has_prefix(m->name, "kvm-") &&
           !g_str_equal(m->name, "apic");
}

static void special_properties(struct device *dev)
{
    static const struct {
        const char *model, *name, *value;
    } rows[] = {
        {"cfi.pflash01", "base", "0xffe00000"},
    };
    g_autoptr(GError) error = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (g_str_equal(dev->model->name, rows[i].model)) {
            assert_works(device_set(dev, rows[i].name, rows[i].value, &error), error);
        }
    }
}

static void config(struct subject *s, unsigned at, uint32_t value, unsigned bytes)
{
    struct pci_device *pci = (struct pci_device *)s->front;
    pci_config_write(&s->rig->bus, 0, pci->devfn, at, value, bytes);
}

/* What firmware does: every BAR gets its range, memory and bus mastering go on. */
static void map_bars(struct subject *s)
{
    struct pci_device *pci = (struct pci_device *)s->front;
    for (unsigned i = 0; i < PCI_BARS; i++) {
        if (pci->bar[i].region) {
            config(s, PCI_BAR0 + 4 * i,
                   pci->bar[i].io ? BAR_PORTS + 0x400 * i : BAR_MEMORY + BAR_STEP * i, 4);
        }
    }
    config(s, PCI_COMMAND, 7, 2);
}

static struct subject subject_new(const struct device_model *m)
{
    struct subject s = {.rig = rig_new()};
    if (front_of(m)) {
        s.front = rig_start(s.rig, rig_device(s.rig, front_of(m)));
    }
    s.dev = rig_device(s.rig, m->name);
    s.front = s.front ? s.front : s.dev;
    special_properties(s.dev);
    s.rig->bus.express = strstr(m->name, "pcie") || strstr(m->name, "3130"); /* refuse any other bus */
    rig_start(s.rig, s.dev);
    if (s.front->model->bus == BUS_PCI) {
        map_bars(&s);
    }
    return s;
}

static void subject_free(struct subject *s)
{
    rig_free(s->rig);
}

static void reset(struct subject *s)
{
    device_reset(s->front);
    if (s->front != s->dev) {
        device_reset(s->dev);
    }
}

/* ---- random accesses ---- */

struct windows {
    struct space *space[MAX_SPANS];
    struct span span[MAX_SPANS];
    unsigned n;
};

static void add_windows(struct windows *w, struct space *space)
{
    struct span spans[MAX_SPANS];
    unsigned n = MIN(space_spans(space, spans, MAX_SPANS), MAX_SPANS);
    for (unsigned i = 0; i < n && w->n < MAX_SPANS; i++) {
        if (spans[i].region->ops) {
            w->space[w->n] = space;
            w->span[w->n++] = spans[i];
        }
    }
}

/* Most registers are near the start; most values are small or all ones. */
static uint64_t some_offset(uint64_t *seed, uint64_t size)
{
    uint64_t most = noise(seed) & 3 ? MIN(size, 256) : size;
    return noise(seed) % most;
}

static uint64_t some_value(uint64_t *seed)
{
    uint64_t v = noise(seed);
    switch (v & 7) {
    case 0:
        return v >> 60;
    case 1:
        return UINT64_MAX;
    case 2:
        return UINT64_C(1) << (v >> 58);
    case 3:
        return v >> 40 & 0xffff;
    default:
        return v >> 3;
    }
}

/* A step of a driver that knows the protocol of drives, and what it read: noise alone never gets
 * as far as the data. */
static uint64_t poke_drive(struct subject *s, uint64_t *seed)
{
    static const uint8_t commands[] = {0xec, 0xa1, 0x20, 0x24, 0xc4, 0x30, 0xc5, 0xc6, 0xef,
                                       0xa0, 0xa0, 0xa0, 0xe7, 0x91, 0x40, 0x08, 0xca, 0xc8};
    static const uint8_t packets[] = {0x00, 0x03, 0x12, 0x25, 0x28, 0x43, 0x46, 0x4a, 0x5a, 0x1b};
    struct space *ports = s->rig->board->ports;
    uint64_t pick = noise(seed);
    unsigned at = 0x1f1 + (unsigned)(pick >> 8) % 7;
    switch (pick % 8) {
    case 0:
        space_store(ports, 0x1f7, commands[(pick >> 8) % G_N_ELEMENTS(commands)], 1);
        return 0;
    case 1:
        space_store(ports, at, at == 0x1f6 ? 0xe0 : (pick >> 16) % 5, 1);
        return 0;
    case 2:
        for (unsigned i = 0; i < 6; i++) {
            space_store(ports, 0x1f0, i ? 0x0100 : packets[(pick >> 8) % G_N_ELEMENTS(packets)], 2);
        }
        return 0;
    case 3:
        return space_load(ports, at, 1);
    default:
        return space_load(ports, 0x1f0, 2);
    }
}

/* One access at a random place; what it read, or 0. */
static uint64_t poke(struct subject *s, uint64_t *seed, bool wild)
{
    if (s->dev->model->bus == BUS_IDE && !wild && noise(seed) % 8) {
        return poke_drive(s, seed);
    }
    struct windows w = {.n = 0};
    uint64_t pick = noise(seed), value = some_value(seed);
    unsigned bytes = 1u << (pick >> 8) % 4;
    if (s->front->model->bus == BUS_PCI && pick % 8 == 0) {
        unsigned at = (unsigned)(wild ? noise(seed) % 256 : 0x40 + noise(seed) % 192);
        bytes = MIN(bytes, 4);
        struct pci_device *pci = (struct pci_device *)s->front;
        if (pick & 16) {
            return pci_config_read(&s->rig->bus, 0, pci->devfn, at & ~(bytes - 1), bytes);
        }
        config(s, at & ~(bytes - 1), (uint32_t)value, bytes);
        return 0;
    }
    add_windows(&w, s->rig->board->ports);
    add_windows(&w, s->rig->board->memory);
    if (!w.n) {
        return 0;
    }
    unsigned i = (unsigned)(pick >> 16) % w.n;
    uint64_t at = w.span[i].start + some_offset(seed, w.span[i].end - w.span[i].start);
    if (w.space[i] == s->rig->board->ports) {
        bytes = MIN(bytes, 4);
    }
    if (!wild) {
        at &= ~(uint64_t)(bytes - 1);
    }
    if (pick & 32) {
        return space_load(w.space[i], at, bytes);
    }
    space_store(w.space[i], at, value, bytes);
    return 0;
}

/* ---- tests ---- */

static void its_table_is_sound(void **state)
{
    const struct device_model *m = *state;
    assert_non_null(m->about);
    assert_non_null(m->spec);
    assert_true(m->version > 0);
    for (unsigned i = 0; i < m->nregs; i++) {
        const struct reg *r = &m->regs[i];
        assert_non_null(r->name);
        assert_true(strlen(r->name) < 256);
        assert_true(r->slot + (size_t)r->size * MAX(r->count, 1) <= m->size);
        assert_true(r->port >= 0 ? r->dir != 0 : r->size != 0);
        for (unsigned k = 0; r->size && k < i; k++) {
            if (m->regs[k].size && g_str_equal(r->name, m->regs[k].name)) {
                fail_msg("%s has two rows \"%s\"", m->name, r->name);
            }
        }
    }
}

/* The value of row @name in @state, a view; NULL if it has none. */
static const uint8_t *row_of(GBytes *state, const char *name, uint64_t *bytes)
{
    struct reader in = reader_of(state);
    uint64_t version;
    char text[256];
    assert_true(read_le(&in, &version, 2));
    while (read_text(&in, text)) {
        assert_true(read_le(&in, bytes, 4));
        const uint8_t *value = read_bytes(&in, *bytes);
        if (g_str_equal(text, name)) {
            return value;
        }
    }
    return NULL;
}

static void reset_gives_back_the_first_state(void **state)
{
    const struct device_model *m = *state;
    uint64_t seed = 0x9e3779b97f4a7c15;
    struct subject s = subject_new(m);
    reset(&s);
    g_autoptr(GBytes) first = device_save(s.dev);
    for (unsigned i = 0; i < 500; i++) {
        poke(&s, &seed, true);
    }
    rig_drain();
    reset(&s);
    g_autoptr(GBytes) after = device_save(s.dev);
    for (unsigned i = 0; i < m->nregs; i++) {
        const struct reg *r = &m->regs[i];
        uint64_t n = 0, n2 = 0;
        if (!r->size || r->keep) {
            continue;
        }
        const uint8_t *a = row_of(first, r->name, &n), *b = row_of(after, r->name, &n2);
        if (n != n2 || memcmp(a, b, n)) {
            fail_msg("%s: reset leaves \"%s\" as it was", m->name, r->name);
        }
    }
    subject_free(&s);
}

/* As a migration moves it: registers, RAM and the memory of the device itself. */
static void move(struct subject *s)
{
    struct subject copy = subject_new(s->dev->model);
    struct span from[MAX_SPANS], to[MAX_SPANS];
    rig_drain();
    struct device *to_dev = copy.rig->board->devices; /* those that it is made of, too */
    for (struct device *d = s->rig->board->devices; d; d = d->next, to_dev = to_dev->next) {
        g_autoptr(GBytes) saved = device_save(d);
        g_autoptr(GError) error = NULL;
        assert_works(device_load(to_dev, saved, &error), error);
    }
    unsigned n = space_spans(s->rig->board->memory, from, MAX_SPANS);
    unsigned n2 = space_spans(copy.rig->board->memory, to, MAX_SPANS);
    assert_int_equal(n, n2);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(from[i].start, to[i].start);
        if (from[i].region->ram && to[i].region->ram) {
            memcpy(to[i].region->ram->host, from[i].region->ram->host, from[i].region->ram->size);
        }
    }
    copy.rig->intx = s->rig->intx;
    subject_free(s);
    *s = copy;
}

/* What a guest sees in a run: each value read, and the lines after each step. */
static void script(const struct device_model *m, uint64_t seed, bool migrate, GArray *trace)
{
    clock_set(1000000);
    rig_disk_fill();
    struct subject s = subject_new(m);
    for (unsigned round = 0; round < ROUNDS; round++) {
        if (migrate) {
            move(&s);
        }
        for (unsigned step = 0; step < STEPS; step++) {
            noalloc_begin();
            uint64_t seen = poke(&s, &seed, false);
            /* The first run fills the pools of timers and requests; a virtio driver sets up queues. */
            if (migrate && !g_str_has_prefix(s.front->model->name, "virtio")) {
                noalloc_end();
            }
            rig_drain();
            clock_advance((int64_t)(noise(&seed) % 200000));
            uint64_t lines = 0;
            for (unsigned i = 0; i < RIG_LINES; i++) {
                lines |= (uint64_t)s.rig->line[i].level << i;
            }
            lines |= (uint64_t)s.rig->intx << 24 ^ (uint64_t)s.rig->wire.high << 56;
            g_array_append_val(trace, seen);
            g_array_append_val(trace, lines);
        }
    }
    subject_free(&s);
}

/*
 * Move the device into a fresh instance every few accesses: the guest must not be able to
 * tell.  This is what catches a field that its author left out of the table.
 */
static void migration_is_invisible(void **state)
{
    const struct device_model *m = *state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        g_autoptr(GArray) stays = g_array_new(FALSE, FALSE, 8);
        g_autoptr(GArray) moves = g_array_new(FALSE, FALSE, 8);
        script(m, seed * 0x9e3779b97f4a7c15, false, stays);
        script(m, seed * 0x9e3779b97f4a7c15, true, moves);
        for (unsigned i = 0; i < stays->len; i++) {
            uint64_t a = g_array_index(stays, uint64_t, i), b = g_array_index(moves, uint64_t, i);
            if (a != b) {
                fail_msg("%s, seed %u: step %u %s 0x%" PRIx64 ", after a migration 0x%" PRIx64,
                         m->name, (unsigned)seed, i / 2, i & 1 ? "drives" : "reads", a, b);
            }
        }
    }
}

static void a_state_that_was_cut_is_refused(void **state)
{
    struct subject s = subject_new(*state);
    g_autoptr(GBytes) saved = device_save(s.dev);
    size_t n = g_bytes_get_size(saved), step = MAX(n / 150, 1);
    for (size_t cut = 0; cut < n; cut += cut < 100 ? 1 : step) {
        g_autoptr(GBytes) part = g_bytes_new_from_bytes(saved, 0, cut);
        g_autoptr(GError) error = NULL;
        if (cut == 2 && n == 2) {
            continue;
        }
        assert_fails(device_load(s.dev, part, &error), error, EINVAL);
    }
    g_autoptr(GError) error = NULL;
    assert_works(device_load(s.dev, saved, &error), error);
    subject_free(&s);
}

static void a_corrupt_state_does_no_harm(void **state)
{
    uint64_t seed = 0x5851f42d4c957f2d;
    struct subject s = subject_new(*state);
    for (unsigned i = 0; i < 200; i++) {
        poke(&s, &seed, true);
    }
    rig_drain();
    g_autoptr(GBytes) saved = device_save(s.dev);
    size_t n;
    const uint8_t *data = g_bytes_get_data(saved, &n);
    for (unsigned round = 0; round < 150; round++) {
        g_autofree uint8_t *bad = g_memdup2(data, n);
        for (unsigned i = 0; i <= round % 4; i++) {
            bad[noise(&seed) % n] = (uint8_t)some_value(&seed);
        }
        g_autoptr(GBytes) bytes = g_bytes_new(bad, n);
        g_autoptr(GError) error = NULL;
        bool works = device_load(s.dev, bytes, &error);
        assert_int_equal(works, error == NULL);
        if (!works) {
            reset(&s);
        }
        for (unsigned i = 0; i < 20; i++) {
            poke(&s, &seed, true);
            clock_advance((int64_t)(noise(&seed) % 1000000));
        }
        rig_drain();
    }
    subject_free(&s);
}

static void wild_accesses_do_no_harm(void **state)
{
    uint64_t seed = 0x14057b7ef767814f;
    struct subject s = subject_new(*state);
    for (unsigned i = 0; i < 6000; i++) {
        poke(&s, &seed, true);
        if (i % 16 == 0) {
            clock_advance((int64_t)(noise(&seed) % 3000000));
            rig_drain();
        }
        if (i % 1000 == 999 && s.front->model->bus == BUS_PCI) {
            map_bars(&s);
        }
    }
    subject_free(&s);
}

int main(void)
{
    static const struct {
        const char *name;
        CMUnitTestFunction run;
    } kinds[] = {
        {"its table is sound", its_table_is_sound},
        {"reset gives back the first state", reset_gives_back_the_first_state},
        {"migration is invisible", migration_is_invisible},
        {"a state that was cut is refused", a_state_that_was_cut_is_refused},
        {"a corrupt state does no harm", a_corrupt_state_does_no_harm},
        {"wild accesses do no harm", wild_accesses_do_no_harm},
    };
    static struct CMUnitTest tests[MAX_TESTS];
    g_autoptr(GString) names = g_string_new(NULL);
    const char *only = g_getenv("DEVICE");
    size_t n = 0;
    machine_lock();
    clock_wall_follow_guest();
    clock_set_wall_offset(1000000000 * INT64_C(1000000000) - clock_wall_ns());
    for (unsigned i = 0; i < n_device_models; i++) {
        const struct device_model *m = device_models[i];
        if (only && !g_str_equal(m->name, only)) {
            continue;
        }
        g_string_append_printf(names, has_a_board(m) ? " %s" : " (%s)", m->name);
        for (unsigned k = 0; k < (has_a_board(m) ? G_N_ELEMENTS(kinds) : 1); k++) {
            assert_true(n < MAX_TESTS);
            tests[n++] = (struct CMUnitTest){
                .name = g_strdup_printf("%s: %s", m->name, kinds[k].name),
                .test_func = kinds[k].run, .initial_state = (void *)m};
        }
    }
    print_message("devices; of those in brackets only the table:%s\n", names->str);
    int failed = _cmocka_run_group_tests("devices", tests, n, NULL, NULL);
    g_unlink(rig_disk_path());
    return failed;
}
