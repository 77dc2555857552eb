// SPDX-License-Identifier: AGPL-3.0-or-later
// A malloc and calloc that can be told to fail, for a test that compiles the code under test into its own file.
#ifndef VGPU_TESTS_FAILING_MALLOC_H
#define VGPU_TESTS_FAILING_MALLOC_H

#include <stdbool.h>
#include <stdlib.h>

static int fail_after = -1; // allocations that still succeed; -1: all

static bool may_allocate(void)
{
    return fail_after < 0 || fail_after-- > 0;
}

static void *failing_malloc(size_t bytes)
{
    return may_allocate() ? malloc(bytes) : NULL;
}

static void *failing_calloc(size_t count, size_t bytes)
{
    return may_allocate() ? calloc(count, bytes) : NULL;
}

#endif
