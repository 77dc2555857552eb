// SPDX-License-Identifier: AGPL-3.0-or-later
// Threads that allocate and free at once, beyond what is there: in the end everything is free again.
#include <pthread.h>

#include "driver.h"

#define THREADS 8
#define ROUNDS 300
#define HELD 8

static CUcontext context;

static void *churn(void *argument)
{
    unsigned seed = (unsigned)(size_t)argument + 1;
    CUdeviceptr held[HELD] = {0};
    CUstream stream;
    OK(cuCtxSetCurrent(context));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    for (int round = 0; round < ROUNDS; round++) {
        CUdeviceptr *slot = &held[(unsigned)rand_r(&seed) % HELD];
        bool async = (size_t)argument % 2;
        if (*slot)
            OK(async ? cuMemFreeAsync(*slot, stream) : cuMemFree(*slot));
        size_t bytes = (size_t)(rand_r(&seed) % 96 + 1) << (rand_r(&seed) % 2 ? 12 : 20);
        *slot = 0;
        CUresult rc = async ? cuMemAllocAsync(slot, bytes, stream) : cuMemAlloc(slot, bytes);
        if (rc != CUDA_SUCCESS) {
            expect(rc, CUDA_ERROR_OUT_OF_MEMORY, "a refusal");
            *slot = 0;
        }
    }
    for (int i = 0; i < HELD; i++)
        if (held[i])
            OK(cuMemFree(held[i]));
    OK(cuStreamDestroy(stream));
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    CUmemoryPool pool;
    context = start();
    size_t whole = told_free();
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, churn, (void *)i))
            fail("no thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    OK(cuCtxSynchronize());
    // The driver keeps some of what was freed by cuMemFree in the pool, beyond a synchronisation.
    OK(cuDeviceGetDefaultMemPool(&pool, 0));
    OK(cuMemPoolTrimTo(pool, 0));
    expect_free(whole, "after all threads");
    return 0;
}
