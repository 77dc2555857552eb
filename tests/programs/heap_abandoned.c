// SPDX-License-Identifier: AGPL-3.0-or-later
// heap_abandoned [thread]: captures that are begun and never ended, because their stream, context or (with "thread") thread ends first.
// Afterwards nothing is being captured. Prints what cuIpcGetMemHandle says to memory allocated after each of them, which tells whose memory
// it is.
#include <pthread.h>

#include "driver.h"

static CUcontext primary;

static void begin(CUstream stream)
{
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
}

static void stream_ends(void)
{
    CUstream stream;
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    begin(stream);
    OK(cuStreamDestroy(stream));
}

static void *capture_in_thread(void *argument)
{
    OK(cuCtxSetCurrent(primary));
    begin(CU_STREAM_PER_THREAD);
    return argument;
}

static void thread_ends(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, capture_in_thread, NULL))
        fail("no thread");
    pthread_join(thread, NULL);
}

static void context_ends(void)
{
    CUcontext context;
    OK(create_context(&context, 0));
    begin(CU_STREAM_PER_THREAD);
    OK(cuCtxDestroy(context));
    OK(cuCtxSetCurrent(primary));
}

static void primary_ends(void)
{
    begin(CU_STREAM_PER_THREAD);
    OK(cuDevicePrimaryCtxReset(0));
    OK(cuDevicePrimaryCtxRetain(&primary, 0));
    OK(cuCtxSetCurrent(primary));
}

static void ordinary_end(void)
{
    CUgraph graph;
    begin(CU_STREAM_PER_THREAD);
    OK(cuStreamEndCapture(CU_STREAM_PER_THREAD, &graph));
    OK(cuGraphDestroy(graph));
}

static void print_handle(void)
{
    CUdeviceptr address;
    CUipcMemHandle handle;
    OK(cuMemAlloc(&address, 4 * MIB));
    printf("%d\n", (int)cuIpcGetMemHandle(&handle, address));
    OK(cuMemFree(address));
}

int main(int argc, char **argv)
{
    (void)argv;
    static void (*const ends[])(void) = {ordinary_end, stream_ends, context_ends, primary_ends};
    primary = start();
    for (size_t i = 0; argc == 1 && i < sizeof ends / sizeof ends[0]; i++) {
        ends[i]();
        print_handle();
    }
    if (argc > 1) {
        thread_ends();
        print_handle();
    }
    // One that is under way counts, whatever has ended before it.
    begin(CU_STREAM_PER_THREAD);
    print_handle();
    return 0;
}
