// SPDX-License-Identifier: AGPL-3.0-or-later
// Threads that all ask for the same function at once, as their first CUDA call. Prints how many different answers there were.
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

#define THREADS 16

static pthread_barrier_t barrier;
static void *library;
static void *answers[THREADS];

static void *ask(void *argument)
{
    pthread_barrier_wait(&barrier);
    *(void **)argument = dlsym(library, "cuMemAlloc_v2");
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    int different = 0;
    library = dlopen("libcuda.so.1", RTLD_NOW);
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, ask, &answers[i]) != 0)
            return 1;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        int seen = 0;
        for (int j = 0; j < i; j++)
            seen |= answers[j] == answers[i];
        different += !seen;
    }
    Dl_info info;
    printf("%d %s\n", different, answers[0] && dladdr(answers[0], &info) ? info.dli_fname : "nowhere");
    return 0;
}
