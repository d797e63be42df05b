/* SPDX-License-Identifier: GPL-2.0-or-later */
/* manage/model/xml.c: tables read and write the same, and refuse by name what they lack. */
#include "manage/model/xml.h"

#include "manage/error.h"
#include "tests/unit/test.h"

#include <string.h>

struct part {
    char *name, *text;
    int64_t slot;
};
struct thing {
    char *name, *cache, *inside, *backend, *model;
    int64_t memory, size;
    int kind;
    enum tristate on;
    bool flag;
    int64_t eoi;
    char *seen;
    GPtrArray *parts;
    struct part *one;
};
static XML_WORDS(kinds, "alpha", "beta", XML_OTHERS, "gamma", "delta");
static const struct xml_row part_rows[] = {
    XML_TEXT(struct part, name, "@name", XML_REQUIRED),
    XML_HEX(struct part, slot, "@slot", 2, 0x1f, 0),
    XML_TEXT(struct part, text, ".", 0),
};
static const struct xml_table part_table = XML_TABLE("part", struct part, part_rows);
static const struct xml_table one_table = XML_TABLE("one", struct part, part_rows);
static const struct xml_row thing_rows[] = {
    XML_ENUM(struct thing, kind, "@kind", kinds, 0),
    XML_TEXT(struct thing, name, "name", XML_REQUIRED),
    XML_RAW(struct thing, inside, "metadata", 0),
    XML_SIZE(struct thing, memory, "memory", 1024, 0),
    XML_SIZE(struct thing, size, "size", 1, 0),
    XML_FLAG(struct thing, flag, "features/apic", 0),
    XML_INT(struct thing, eoi, "features/apic/@eoi", 0),
    XML_ONOFF(struct thing, on, "features/vmport/@state", 0),
    XML_TEXT(struct thing, cache, "driver/@cache", 0),
    XML_TEXT(struct thing, model, "devices/backend/@model", 0),
    XML_TEXT(struct thing, backend, "devices/backend", 0),
    XML_LIST(struct thing, parts, "devices/part", &part_table, 0),
    XML_STRUCT(struct thing, one, "one", &one_table, 0),
    XML_TEXT(struct thing, seen, "alias/@name", XML_LIVE),
};
static const struct xml_table thing_table = XML_TABLE("thing", struct thing, thing_rows);

static void round_trip(void **state)
{
    (void)state;
    static const char text[] = "<thing kind='beta'>\n"
                               "  <name>a &amp; b</name>\n"
                               "  <metadata>\n"
                               "    <x:y xmlns:x=\"urn:x\"><x:z/></x:y>\n"
                               "  </metadata>\n"
                               "  <memory unit='KiB'>2048</memory>\n"
                               "  <size unit='bytes'>7</size>\n"
                               "  <features>\n"
                               "    <apic eoi='3'/>\n"
                               "    <vmport state='off'/>\n"
                               "  </features>\n"
                               "  <driver cache='none'/>\n"
                               "  <devices>\n"
                               "    <backend model='random'>/dev/urandom</backend>\n"
                               "    <part name='p' slot='0x1f'/>\n"
                               "    <part name='q'>words</part>\n"
                               "  </devices>\n"
                               "  <one name='single'/>\n"
                               "  <alias name='live'/>\n"
                               "</thing>\n";
    g_autoptr(GError) error = NULL;
    struct thing *t = xml_read_text(&thing_table, text, "test", XML_MODE_LIVE, &error);
    assert_null(error);
    assert_int_equal(t->memory, 2048);
    assert_int_equal(((struct part *)t->parts->pdata[0])->slot, 0x1f);
    assert_true(((struct part *)t->parts->pdata[1])->slot == XML_ABSENT);
    struct thing *copy = xml_copy(&thing_table, t);
    xml_free(&thing_table, t);
    g_autofree char *back = xml_write_text(&thing_table, copy, XML_MODE_LIVE);
    assert_string_equal(back, text);
    g_autofree char *dead = xml_write_text(&thing_table, copy, 0);
    assert_null(strstr(dead, "alias"));
    xml_free(&thing_table, copy);
    /* What only a running object has is read over otherwise. */
    t = xml_read_text(&thing_table, text, "test", 0, &error);
    assert_null(error);
    assert_null(t->seen);
    xml_free(&thing_table, t);
}

static void fails(const char *text, int code, const char *words)
{
    g_autoptr(GError) error = NULL;
    void *t = xml_read_text(&thing_table, text, "test", 0, &error);
    assert_null(t);
    assert_true(error->domain == LIBVIRT_ERROR);
    if (!strstr(error->message, words)) {
        fail_msg("\"%s\" lacks \"%s\"", error->message, words);
    }
    assert_int_equal(error->code, code);
}

static void refusals(void **state)
{
    (void)state;
    fails("<thing><name>x</name>\n<tpm/></thing>", ERR_CONFIG_UNSUPPORTED,
          "element <tpm> in <thing> (line 2) is not supported");
    fails("<thing><name colour='red'>x</name></thing>", ERR_CONFIG_UNSUPPORTED,
          "attribute 'colour' of element <name>");
    fails("<thing xmlns:q='urn:q'><name>x</name><q:one/></thing>", ERR_CONFIG_UNSUPPORTED,
          "element <q:one> in <thing>");
    fails("<thing kind='omega'><name>x</name></thing>", ERR_XML,
          "Invalid value for attribute 'kind' in element 'thing': 'omega' (line 1)");
    fails("<thing kind='delta'><name>x</name></thing>", ERR_CONFIG_UNSUPPORTED,
          "element <thing> with kind='delta' (line 1) is not supported");
    fails("<thing><name>x</name><memory unit='parsec'>1</memory></thing>", ERR_INVALID_ARG,
          "unknown suffix 'parsec'");
    fails("<thing><name>x</name><memory unit='EiB'>9</memory></thing>", ERR_OVERFLOW,
          "value too large: 9EiB");
    fails("<thing><name>x</name><memory>99999999999999999999</memory></thing>", ERR_OVERFLOW,
          "value too large: 99999999999999999999");
    fails("<thing><name>x</name><memory>-9</memory></thing>", ERR_XML, "'memory': '-9'");
    fails("<thing><name>x</name><memory>9x</memory></thing>", ERR_XML, "'memory': '9x'");
    fails("<thing><name>x</name><memory>-1</memory></thing>", ERR_XML, "memory");
    fails("<thing><name>x</name><name>y</name></thing>", ERR_XML, "given twice");
    fails("<thing><name>x</name><one name='a'/><one name='b'/></thing>", ERR_XML, "given twice");
    fails("<thing><one name='a'/></thing>", ERR_XML, "missing element 'name'");
    fails("<thing><name>x</name><one/></thing>", ERR_XML, "missing attribute '@name'");
    fails("<thing><name>x</name>stray</thing>", ERR_XML, "unexpected text in element <thing>");
    fails("<other/>", ERR_XML, "unexpected root element <other>, expecting <thing>");
    fails("<thing>\n  <name>x</nam>\n</thing>", ERR_XML_DETAIL, "(test):2:");
    fails("", ERR_XML_DETAIL, "(test):1:1: ");
    fails("<!DOCTYPE a [<!ENTITY e 'x'>]><thing><name>&e;</name></thing>", ERR_XML,
          "document type declaration");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip), cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
