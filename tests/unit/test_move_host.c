/* SPDX-License-Identifier: GPL-2.0-or-later */
/* manage/daemon: under which name a host offers itself to a migration's source. */
#include "manage/daemon/migrate.h"
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <string.h>

/* A label longer than names may have, so that no name server is asked. */
#define NOWHERE "nowhere-nowhere-nowhere-nowhere-nowhere-nowhere-nowhere-nowhere-nowhere"

static const struct sockaddr *at(const char *text)
{
    static struct sockaddr_in in;
    in = (struct sockaddr_in){.sin_family = AF_INET};
    assert_int_equal(inet_pton(AF_INET, text, &in.sin_addr), 1);
    return (struct sockaddr *)&in;
}

/* Names that lead nowhere, to another host, to whoever asks. */
static void test_useless_names(void **state)
{
    static const char *const names[] = {NOWHERE,     "198.51.100.77", "127.0.0.1", "::1",
                                        "localhost", "0.0.0.0",       "fe80::1"};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *host = move_host(names[i], at("203.0.113.5"));
        assert_string_equal(host, "203.0.113.5");
    }
}

/* By a UNIX socket nobody comes in at an address: what is offered then is one of ours. */
static void test_local_client(void **state)
{
    const struct sockaddr local = {.sa_family = AF_UNIX};
    struct in_addr ip;
    struct ifaddrs *all = NULL;
    bool found = false;
    (void)state;
    g_autofree char *host = move_host(NOWHERE, &local);
    g_autofree char *same = move_host(NOWHERE, NULL);
    assert_string_equal(host, same);
    assert_int_equal(inet_pton(AF_INET, host, &ip), 1);
    assert_int_equal(getifaddrs(&all), 0);
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)i->ifa_addr;
        found = found || (in && in->sin_family == AF_INET && in->sin_addr.s_addr == ip.s_addr);
    }
    freeifaddrs(all);
    assert_true(found || strcmp(host, "127.0.0.1") == 0);
}

/* A name for an address of this host, and for nothing else, is what it is offered under. */
static void test_own_name(void **state)
{
    g_autofree char *ours = move_host(NOWHERE, NULL);
    (void)state;
    g_autofree char *host = move_host(ours, at("203.0.113.5"));
    assert_string_equal(host, strcmp(ours, "127.0.0.1") == 0 ? "203.0.113.5" : ours);
}

/* A daemon that listens for both families says whose client came by IPv4. */
static void test_mapped(void **state)
{
    struct sockaddr_in6 in = {.sin6_family = AF_INET6};
    (void)state;
    assert_int_equal(inet_pton(AF_INET6, "::ffff:203.0.113.6", &in.sin6_addr), 1);
    g_autofree char *four = move_host(NOWHERE, (struct sockaddr *)&in);
    assert_string_equal(four, "203.0.113.6");
    assert_int_equal(inet_pton(AF_INET6, "2001:db8::6", &in.sin6_addr), 1);
    g_autofree char *six = move_host(NOWHERE, (struct sockaddr *)&in);
    assert_string_equal(six, "2001:db8::6");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_useless_names),
        cmocka_unit_test(test_local_client),
        cmocka_unit_test(test_own_name),
        cmocka_unit_test(test_mapped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
