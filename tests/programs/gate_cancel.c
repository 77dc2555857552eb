// SPDX-License-Identifier: AGPL-3.0-or-later
// gate_cancel MODULE ROUNDS: threads that do nothing but launch are cancelled. A launch is no cancellation point, so each must end
// between two launches.
#include <pthread.h>
#include <stdint.h>
#include <unistd.h>

#include "driver.h"

static CUcontext context;
static CUfunction spin;
static unsigned long begun, ended;

static void *launch(void *unused)
{
    uint64_t ns = 300000;
    void *params[] = {&ns};
    (void)unused;
    OK(cuCtxSetCurrent(context));
    for (;;) {
        begun++;
        OK(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
        ended++;
        pthread_testcancel();
    }
    return NULL;
}

int main(int argc, char **argv)
{
    CUmodule module;
    if (argc < 3)
        fail("usage: gate_cancel MODULE ROUNDS");
    context = start();
    OK(cuModuleLoad(&module, argv[1]));
    OK(cuModuleGetFunction(&spin, module, "spin_ns"));
    for (int round = 0; round < atoi(argv[2]); round++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, launch, NULL))
            fail("no thread");
        usleep((useconds_t)(10000 + round * 700));
        pthread_cancel(thread);
        pthread_join(thread, NULL);
        if (begun != ended)
            fail("round %d: %lu launches were begun and %lu ended", round, begun, ended);
    }
    OK(cuCtxSynchronize());
    puts("done");
    return 0;
}
