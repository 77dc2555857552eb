// SPDX-License-Identifier: AGPL-3.0-or-later
// A thread makes contexts and destroys them, while another makes contexts, which may get the handles of those just destroyed, and
// allocates in them: what it has allocated is charged while it is there, and in the end nothing is.
#include <pthread.h>
#include <stdatomic.h>

#include "driver.h"

#define ROUNDS 1000
#define BYTES (64 * MIB)

static _Atomic bool done;

static CUcontext create(void)
{
    CUcontext context;
    OK(create_context(&context, 0));
    return context;
}

static void *come_and_go(void *argument)
{
    while (!done)
        OK(cuCtxDestroy(create()));
    return argument;
}

int main(void)
{
    pthread_t thread;
    CUdeviceptr address;
    CUcontext primary = start();
    size_t whole = told_free();
    CUcontext context = create();
    size_t one = whole - told_free();
    OK(cuCtxDestroy(context));
    OK(cuCtxSetCurrent(primary));
    if (pthread_create(&thread, NULL, come_and_go, NULL))
        fail("no thread");
    for (int round = 0; round < ROUNDS; round++) {
        context = create();
        OK(cuMemAlloc(&address, BYTES));
        for (int look = 0; look < 10; look++) {
            size_t used = whole - told_free();
            if (used != one + BYTES && used != 2 * one + BYTES)
                fail("%zu bytes are used where a context takes %zu and its allocation %llu", used, one, BYTES);
        }
        OK(cuCtxDestroy(context));
        OK(cuCtxSetCurrent(primary));
    }
    done = true;
    pthread_join(thread, NULL);
    expect_free(whole, "after all contexts");
    return 0;
}
