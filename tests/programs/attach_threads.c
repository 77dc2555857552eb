// SPDX-License-Identifier: AGPL-3.0-or-later
// Threads whose first CUDA calls come at the same time, each as if it were alone.
#include <pthread.h>

#include "driver.h"

#define THREADS 16

static pthread_barrier_t barrier;

static void *use(void *argument)
{
    CUdeviceptr address;
    (void)argument;
    pthread_barrier_wait(&barrier);
    start();
    OK(cuMemAlloc(&address, 4 * MIB));
    OK(cuMemFree(address));
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, use, NULL))
            fail("no thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
