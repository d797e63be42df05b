/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * Runs single instructions on the processor itself, in a child process, for comparison with
 * an engine.  The child loads registers by returning from a signal handler and gets them
 * back from the next signal, so any register may have any value.
 */

/* Linear addresses that are the same in the guest and in the child. */
enum {
    TEST_CODE = 0x10000000,     /* one page, filled with int3 */
    TEST_AT = TEST_CODE + 0x800, /* the instruction */
    TEST_DATA = 0x10001000,     /* two pages; what follows is not mapped */
    TEST_DATA_END = 0x10003000,
    TEST_MIDDLE = TEST_DATA + 0x1000 - 0x300, /* compared: around the page boundary ... */
    TEST_MIDDLE_BYTES = 0x800,
    TEST_TAIL = TEST_DATA_END - 0x100, /* ... and before the end */
    TEST_TAIL_BYTES = 0x100,
    TEST_MEMORY = TEST_MIDDLE_BYTES + TEST_TAIL_BYTES,
    TEST_XSAVE = 832,
};

struct test_state {
    uint64_t gpr[16];
    uint64_t rip, rflags;
    int32_t vector;  /* exception, or 3: the int3 behind the instruction or at a target */
    uint32_t unused;
    uint8_t memory[TEST_MEMORY];
    uint8_t xsave[TEST_XSAVE] __attribute__((aligned(64)));
};

struct test_case {
    uint8_t code[16];
    uint8_t code_bytes; /* 8, 4, or 2: mode; with 2 all segments begin at TEST_CODE */
    struct test_state before, after;
};

/* Selectors of the 16-bit segments. */
enum { TEST_CS16 = 0x07, TEST_DS16 = 0x0f };

/* How many cases run at once. */
enum { TEST_BATCH = 256 };

/* Starts the child; NULL if that cannot be.  .cases is shared with it. */
struct native {
    struct test_case *cases;
    int to_child, from_child;
    int pid;
};
bool native_start(struct native *n);
/* Can there be 16-bit segments?  Some sandboxes forbid them. */
bool native_has_16_bit(void);
/* Fills .after of the first @count cases; false if the child died. */
bool native_run(struct native *n, unsigned count);
void native_stop(struct native *n);
