// SPDX-License-Identifier: AGPL-3.0-or-later
// pool_threads: threads that allocate in stream order all the time, a quarter of a GiB at most at once, are refused nothing where there is more
// than twice as much.
#include <pthread.h>

#include "driver.h"

#define THREADS 8
#define ROUNDS 2000
#define BYTES (32 * MIB)

static CUcontext context;

static void *allocate_and_free(void *unused)
{
    CUstream stream;
    CUdeviceptr memory;
    (void)unused;
    OK(cuCtxSetCurrent(context));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    for (int i = 0; i < ROUNDS; i++) {
        OK(cuMemAllocAsync(&memory, BYTES, stream));
        OK(cuMemFreeAsync(memory, stream));
    }
    OK(cuStreamSynchronize(stream));
    OK(cuStreamDestroy(stream));
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    context = start();
    size_t whole = told_free();
    if (whole < 2 * THREADS * BYTES)
        fail("only %zu bytes are free", whole);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, allocate_and_free, NULL))
            fail("no thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    OK(cuCtxSynchronize());
    expect_free(whole, "in the end");
    return 0;
}
