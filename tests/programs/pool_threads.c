// SPDX-License-Identifier: AGPL-3.0-or-later
// pool_threads: threads that allocate in stream order all the time, a quarter of a GiB at most at once, are refused nothing where there is more
// than twice as much, and hardly anything where there is just enough.
#include <pthread.h>
#include <stdatomic.h>

#include "driver.h"

#define THREADS 4
#define ROUNDS 4000
#define BYTES (64 * MIB)

static CUcontext context;
static atomic_int refused;

static void *allocate_and_free(void *unused)
{
    CUstream stream;
    CUdeviceptr memory;
    (void)unused;
    OK(cuCtxSetCurrent(context));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    for (int i = 0; i < ROUNDS; i++) {
        CUresult rc = cuMemAllocAsync(&memory, BYTES, stream);
        if (rc == CUDA_SUCCESS)
            rc = cuMemFreeAsync(memory, stream);
        if (rc == CUDA_ERROR_OUT_OF_MEMORY)
            atomic_fetch_add(&refused, 1);
        else
            OK(rc);
    }
    OK(cuStreamSynchronize(stream));
    OK(cuStreamDestroy(stream));
    return NULL;
}

static void expect_refused(int most, const char *when)
{
    pthread_t threads[THREADS];
    atomic_store(&refused, 0);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, allocate_and_free, NULL))
            fail("no thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    if (refused > most)
        fail("%s: %d of %d allocations are refused", when, refused, THREADS * ROUNDS);
}

int main(void)
{
    CUdeviceptr rest;
    context = start();
    size_t whole = told_free();
    if (whole < 3 * THREADS * BYTES)
        fail("only %zu bytes are free", whole);
    expect_refused(0, "where there is enough");
    OK(cuCtxSynchronize());
    expect_free(whole, "afterwards");
    OK(cuMemAlloc(&rest, whole - THREADS * BYTES));
    // One whose neighbours stand still in the middle of theirs is refused, on a busy machine.
    expect_refused(THREADS * ROUNDS / 20, "where there is just enough");
    OK(cuMemFree(rest));
    OK(cuCtxSynchronize());
    expect_free(whole, "in the end");
    return 0;
}
