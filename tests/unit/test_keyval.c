/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/json.h"
#include "base/keyval.h"

#include "test.h"

static void commas_are_doubled_and_the_first_key_may_be_implied(void **state)
{
    (void)state;
    GError *error = NULL;
    g_autoptr(KeyVal) kv = keyval_parse("socket,path=/a,,b,server,nowait,x=1=2", "backend", &error);
    assert_works(kv != NULL, error);
    assert_string_equal(keyval_get(kv, "backend"), "socket");
    assert_string_equal(keyval_get(kv, "path"), "/a,b");
    assert_string_equal(keyval_get(kv, "server"), "on");
    assert_string_equal(keyval_get(kv, "wait"), "off");
    assert_false(keyval_done(kv, &error));
    assert_string_equal(error->message, "no parameter \"x\"");
    g_clear_error(&error);
    g_autofree char *rest = keyval_rest(kv);
    assert_string_equal(rest, "x=1=2");
}

static void the_last_of_a_key_counts(void **state)
{
    (void)state;
    g_autoptr(KeyVal) kv = keyval_parse("a=1,a=2", NULL, NULL);
    assert_string_equal(keyval_get(kv, "a"), "2");
    assert_null(keyval_get(kv, "b"));
}

static void sizes_have_suffixes_and_fractions(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t unit, want;
    } good[] = {{"4096", 1 << 20, UINT64_C(4) << 30}, {"1.5G", 1, 3 << 29}, {"64k", 1, 65536},
                {"0x10", 1, 16},                      {"2G", 1, UINT64_C(2) << 30},
                {"512M", 1, 512 << 20},               {"7b", 1024, 7}};
    uint64_t v;
    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        assert_true(text_size(good[i].text, good[i].unit, &v));
        assert_int_equal(v, good[i].want);
    }
    static const char *const bad[] = {"", "-1", " 1", "1Q", "1GG", "99999999999999999999", "16E",
                                      "1.G", "0x1G", "x"};
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        assert_false(text_size(bad[i], 1, &v));
    }
}

static void values_that_do_not_fit_are_named(void **state)
{
    (void)state;
    GError *error = NULL;
    g_autoptr(KeyVal) kv = keyval_parse("on=maybe,n=300,s=many", NULL, NULL);
    bool b;
    unsigned n = 0;
    uint64_t s;
    assert_fails(keyval_bool(kv, "on", &b, &error), error, EINVAL);
    assert_fails(keyval_unsigned(kv, "n", 255, &n, &error), error, EINVAL);
    assert_fails(keyval_size(kv, "s", 1, &s, &error), error, EINVAL);
}

static void json_is_bounded_and_exact(void **state)
{
    (void)state;
    GError *error = NULL;
    g_autofree char *deep = g_strnfill(100000, '[');
    assert_fails(json_parse(deep, 100000, &error) != NULL, error, EINVAL);
    assert_fails(json_parse("{\"a\":1,\"a\":2}", 13, &error) != NULL, error, EINVAL);
    assert_fails(json_parse("'a'", 3, &error) != NULL, error, EINVAL);
    g_autoptr(json_t) v = json_parse("{\"a\":\"]}\\\"{\",\"n\":9223372036854775807}", 37, &error);
    assert_works(v != NULL, error);
    assert_int_equal(json_integer_value(json_object_get(v, "n")), INT64_MAX);
}

static void json_objects_become_option_text(void **state)
{
    (void)state;
    GError *error = NULL;
    const char *text = "{\"driver\":\"raw\",\"file\":{\"driver\":\"file\"},\"ro\":true,\"a\":[1]}";
    g_autoptr(json_t) v = json_parse(text, strlen(text), &error);
    g_autoptr(KeyVal) kv = json_to_keyval(v, &error);
    assert_works(kv != NULL, error);
    assert_string_equal(keyval_get(kv, "file.driver"), "file");
    assert_string_equal(keyval_get(kv, "ro"), "on");
    assert_string_equal(keyval_get(kv, "a.0"), "1");
}

static void texts_are_cut_from_a_stream(void **state)
{
    (void)state;
    struct json_framer f;
    json_framer_init(&f);
    const char *stream = "{\"a\":\"}\\\"\"} \n[1,2]{\"b\":{}}oops\n{\"c\":\"bro\nken\"}\n{}";
    static const char *const want[] = {"{\"a\":\"}\\\"\"}", "[1,2]", "{\"b\":{}}", "oops\n",
                                       "{\"c\":\"bro\n",    "ken\"}\n", "{}"};
    unsigned n = 0;
    for (; *stream; stream++) {
        if (json_framer_byte(&f, *stream)) {
            assert_true(n < G_N_ELEMENTS(want));
            assert_string_equal(f.text->str, want[n++]);
            g_string_truncate(f.text, 0);
        }
    }
    assert_int_equal(n, G_N_ELEMENTS(want));
    json_framer_clear(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commas_are_doubled_and_the_first_key_may_be_implied),
        cmocka_unit_test(the_last_of_a_key_counts),
        cmocka_unit_test(sizes_have_suffixes_and_fractions),
        cmocka_unit_test(values_that_do_not_fit_are_named),
        cmocka_unit_test(json_is_bounded_and_exact),
        cmocka_unit_test(json_objects_become_option_text),
        cmocka_unit_test(texts_are_cut_from_a_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
