/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which programs get a process of their own, by what it would gain and has cost: counted in
 * trips there, with made-up times.
 */
#include "tests/unit/test.h"

#include "guest/cpu/translate/direct.h"

enum { US = 1000, TIMES_SLOWER = 4, TRIP = 15 };

struct program {
    struct account account;
    unsigned trips, moves;
};

static struct program *program_new(void)
{
    struct program *p = g_new0(struct program, 1);
    account_start(&p->account, US, 0, 0);
    return p;
}

/* One stretch that takes @us natively; going there takes @trip. */
static void stretch(struct program *p, uint64_t us, uint64_t trip)
{
    struct account *a = &p->account;
    bool had = a->hot;
    if (account_now(a)) {
        a->inside = us * US;
        a->beside = trip * US;
        p->trips++;
    } else {
        uint64_t first = (2 * a->trip << a->bar) + 1, all = us * TIMES_SLOWER * US;
        a->translated = all;
        if (all > first) {
            a->translated = first;
            if (account_late(a)) {
                a->inside = (all - first) / TIMES_SLOWER;
                a->beside = trip * US;
                p->trips++;
            } else {
                a->translated = all;
            }
        }
    }
    account_end(a);
    p->moves += !had && a->hot;
}

static void stretches(struct program *p, unsigned n, uint64_t us, uint64_t trip)
{
    while (n--) {
        stretch(p, us, trip);
    }
}

static void test_computes(void **state)
{
    g_autofree struct program *a = program_new(), *b = program_new();
    (void)state;
    stretches(a, 10, 1000, TRIP); /* the guest's timer is all it sees of the kernel */
    assert_int_equal(a->moves, 1);
    assert_in_range(a->trips, 5, 10);
    stretches(b, 400, 30, TRIP); /* hardly worth it, but it is */
    assert_int_equal(b->moves, 1);
    stretches(b, 100000, 30, TRIP);
    assert_int_equal(b->moves, 1);
    assert_true(b->trips > 100000);
}

/* Programs that talk to each other all the time never pay. */
static void test_calls(void **state)
{
    g_autofree struct program *p = program_new();
    (void)state;
    stretches(p, 1000000, 0, TRIP);
    assert_int_equal(p->trips, 0);
    for (unsigned k = 0; k < 1000; k++) { /* now and then the host has something else to do */
        stretch(p, 100, TRIP);
        stretches(p, 160, 0, TRIP);
    }
    assert_int_equal(p->moves, 0);
}

/* It has a process and then begins to talk: a few trips, then none, and the process goes. */
static void test_begins_to_call(void **state)
{
    g_autofree struct program *p = program_new();
    (void)state;
    stretches(p, 1000, 1000, TRIP);
    assert_true(account_now(&p->account));
    unsigned trips = p->trips;
    stretches(p, 100000, 0, TRIP);
    assert_true(p->trips - trips < 16);
    assert_false(p->account.hot);
    /* When it computes again it is there again soon. */
    stretches(p, 10, 1000, TRIP);
    assert_true(account_now(&p->account));
}

/* Bursts of calls between long stretches: it keeps its process, and calls without it. */
static void test_bursts(void **state)
{
    g_autofree struct program *p = program_new();
    (void)state;
    stretches(p, 20, 1000, TRIP);
    unsigned trips = p->trips;
    for (unsigned k = 0; k < 100; k++) {
        stretches(p, 200, 0, TRIP);
        stretches(p, 2, 1000, TRIP);
    }
    assert_int_equal(p->moves, 1);
    assert_true(p->trips - trips < 100 * (2 + 12));
    assert_true(p->trips - trips >= 100); /* the long ones went there, late or at once */
}

/* What looks good from here and costs more than it gains there: tried less and less often. */
static void test_looks_good(void **state)
{
    g_autofree struct program *p = program_new();
    (void)state;
    stretches(p, 100000, 20, 90);
    unsigned first = p->trips;
    stretches(p, 100000, 20, 90);
    assert_true(first > 0);
    assert_true(first < 2000);
    assert_true(p->trips - first < first);
}

/* A stretch that is full of what the processor refuses there ends translated. */
static void test_vain(void **state)
{
    g_autofree struct program *p = program_new();
    struct account *a = &p->account;
    unsigned trips = 0;
    (void)state;
    stretches(p, 20, 1000, TRIP);
    while (!account_vain(a) && trips < 1000) {
        a->inside += US;
        a->beside += TRIP * US;
        trips++;
    }
    assert_in_range(trips, 2, 8);
    account_end(a);
    while (!account_vain(a) && trips < 1000) {
        a->inside += 100 * US;
        a->beside += TRIP * US;
        trips++;
    }
    assert_int_equal(trips, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_computes),       cmocka_unit_test(test_calls),
        cmocka_unit_test(test_begins_to_call), cmocka_unit_test(test_bursts),
        cmocka_unit_test(test_looks_good),     cmocka_unit_test(test_vain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
