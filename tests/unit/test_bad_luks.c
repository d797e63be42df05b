/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/bad.h"

#include "host/image/cipher.h"
#include "host/image/secret.h"

static const char secret[] = "{\"key-secret\": \"s\"}";

/* aes-256-xts: the first key slot's record is at 208, its material at sector 8. */
static const struct bad rows[] = {
    {"magic", 0, 4, 0, "not in LUKS format"},
    {"version 2", 6, 2, 2, "LUKS version 2 is not supported"},
    {"unknown cipher", 8, 4, 0x61657378, "is not supported"},
    {"unknown mode", 40, 4, 0x78787878, "is not supported"},
    {"unknown hash", 72, 4, 0x78787878, "Hash algorithm 'xxxx56' is not supported"},
    {"payload 0", 104, 4, 0, "LUKS payload at sector 0"},
    {"payload in the header", 104, 4, 7, "LUKS payload at sector 7"},
    {"payload in a key slot", 104, 4, 4000, "overlapping with the encrypted payload"},
    {"payload past the end", 104, 4, UINT32_MAX, "behind the end of the file"},
    {"key of 0 bytes", 108, 4, 0, "key of 0 bytes"},
    {"key of 48 bytes", 108, 4, 48, "Invalid password"},
    {"key of 65 bytes", 108, 4, 65, "master key of 65 bytes"},
    {"key of 2^32 - 1 bytes", 108, 4, UINT32_MAX, "master key of 4294967295 bytes"},
    {"iteration count 0", 164, 4, 0, "LUKS key iteration count 0"},
    {"slot state", 208, 4, 0x12345678, "Keyslot 0 state 0x12345678"},
    {"slot iteration count 0", 212, 4, 0, "Keyslot 0 iteration count is zero"},
    {"slot in the header", 248, 4, 0, "Keyslot 0 at sector 0"},
    {"slot past the payload", 248, 4, 0x7fffffff, "Keyslot 0 at sector 2147483647"},
    {"slot 2^32 - 1", 248, 4, UINT32_MAX, "Keyslot 0 at sector 4294967295"},
    {"slots overlap", 296, 4, 100, "Keyslots 0 and 1 are overlapping"},
    {"stripes 0", 252, 4, 0, "Keyslot 0 is corrupted (stripes 0"},
    {"stripes 2^32 - 1", 252, 4, UINT32_MAX, "stripes 4294967295"},
    {"wrong digest", 112, 4, 0, "Invalid password"},
    {"wrong salt", 216, 4, 0, "Invalid password"},
    {"wrong material", 4096, 4, 0, "Invalid password"},
    {"no active slot", 208, 4, 0xdead, "Invalid password"},
    {"payload cut", 2000000, 0, 0, "payload"},
};

static bool add_secret(const char *text, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_parse(text, NULL, error);
    return kv && secret_add(kv, error) && keyval_done(kv, error);
}

static void bad_headers_are_refused(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    assert_works(add_secret("id=s,data=open", &error), error);
    GByteArray *good = good_image("luks", "key-secret=s,iter-time=1", 1 << 20, NULL);
    chain_close(open_bytes(good, "luks", secret, 0, &error));
    assert_null(error);
    TRY_ALL(good, "luks", secret, rows, true);
    static const struct bad slow = {"iterations for hours", 212, 4, UINT32_MAX, "too high"};
    GByteArray *copy = g_byte_array_new();
    g_byte_array_append(copy, good->data, good->len);
    put_field(copy, &slow, true);
    assert_fails(open_bytes(copy, "luks", secret, OPEN_UNTRUSTED, &error) != NULL, error, EINVAL);
    g_byte_array_unref(copy);
    g_byte_array_unref(good);
    assert_true(secret_remove("s"));
    assert_false(secret_remove("s"));
}

/* NIST SP 800-38A, "CBC-AES128.Decrypt", and IEEE Std 1619, annex B, vector 4 and 10. */
static void ciphers_give_what_the_standards_say(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    static const uint8_t key1[32] = {0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45, 0x23, 0x53, 0x60,
                                     0x28, 0x74, 0x71, 0x35, 0x26, 0x31, 0x41, 0x59, 0x26, 0x53, 0x58,
                                     0x97, 0x93, 0x23, 0x84, 0x62, 0x64, 0x33, 0x83, 0x27, 0x95};
    static const uint8_t want[16] = {0x27, 0xa7, 0x47, 0x9b, 0xef, 0xa1, 0xd4, 0x76,
                                     0x48, 0x9f, 0x30, 0x8c, 0xd4, 0xcf, 0xa6, 0xe2};
    uint8_t sector[1024], copy[1024];
    for (unsigned i = 0; i < sizeof(sector); i++) {
        sector[i] = (uint8_t)i;
    }
    memcpy(copy, sector, sizeof(copy));
    struct cipher *c = cipher_new("aes", "xts", "plain64", NULL, key1, sizeof(key1), &error);
    assert_works(c != NULL, error);
    assert_int_equal(cipher_encrypt(c, 0, sector, 512), 0);
    assert_memory_equal(sector, want, sizeof(want)); /* data unit sequence number 0 */
    assert_int_equal(cipher_decrypt(c, 0, sector, 512), 0);
    assert_memory_equal(sector, copy, sizeof(copy));
    /* Two sectors at once are as one by one. */
    assert_int_equal(cipher_encrypt(c, 1 << 20, sector, 1024), 0);
    assert_int_equal(cipher_encrypt(c, 1 << 20, copy, 512), 0);
    assert_int_equal(cipher_encrypt(c, (1 << 20) + 512, copy + 512, 512), 0);
    assert_memory_equal(sector, copy, sizeof(copy));
    cipher_free(c);
    assert_null(cipher_new("aes", "xts", "plain64", NULL, key1, 24, &error));
    g_clear_error(&error);
    assert_null(cipher_new("cast5", "xts", "plain64", NULL, key1, 32, &error));
    g_clear_error(&error);
    assert_null(cipher_new("aes", "cbc", "essiv", "md9", key1, 16, &error));
    g_clear_error(&error);
    assert_null(cipher_new("aes", "cbc", "random", NULL, key1, 16, &error));
}

static gpointer encrypt_much(gpointer cipher)
{
    uint8_t buf[4096] = {0};
    for (unsigned i = 0; i < 200; i++) {
        uint8_t copy[4096];
        memcpy(copy, buf, sizeof(buf));
        if (cipher_encrypt(cipher, i * 4096, buf, sizeof(buf)) ||
            cipher_decrypt(cipher, i * 4096, buf, sizeof(buf)) || memcmp(buf, copy, sizeof(buf))) {
            return cipher;
        }
        buf[i] = (uint8_t)i;
    }
    return NULL;
}

static void a_cipher_serves_many_threads(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    GThread *threads[8];
    static const uint8_t key[16] = {7};
    struct cipher *c = cipher_new("aes", "cbc", "essiv", "sha256", key, sizeof(key), &error);
    assert_works(c != NULL, error);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        threads[i] = g_thread_new("encrypt", encrypt_much, c);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        assert_null(g_thread_join(threads[i]));
    }
    cipher_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_headers_are_refused),
        cmocka_unit_test(ciphers_give_what_the_standards_say),
        cmocka_unit_test(a_cipher_serves_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
