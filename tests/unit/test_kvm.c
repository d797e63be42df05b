/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/test.h"

#include "guest/cpu/engine.h"
#include "guest/cpu/kvm/kvm.h"

#include <string.h>
#include <time.h>

static double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Whatever /dev/kvm this host has, or none: an answer comes soon, and a refusal says why. */
static void the_probe_decides_in_time(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    double start = seconds();
    bool works = cpu_engine_find("kvm")->probe(&error);
    double took = seconds() - start;
    if (!works) {
        assert_non_null(error);
        assert_non_null(strstr(error->message, "/dev/kvm"));
        print_message("%s\n", error->message);
    } else {
        assert_null(error);
    }
    assert_true(took < 1.0); /* 0.1 s where nobody else runs: make bench measures it */
    print_message("the probe took %.3f s\n", took);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_probe_decides_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
