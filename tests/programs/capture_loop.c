// SPDX-License-Identifier: AGPL-3.0-or-later
// capture_loop MODULE SECONDS [global|thread|relaxed [THREADS [first|first_ptsz|ptsz]]]: captures graphs, in so many threads and by that
// form of the calls, then slowly, launches them and checks what they computed, while another thread launches work of its own into another
// stream. No capture may be disturbed. Prints "captures COUNT".
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "driver.h"

#define NODES 16
#define WORDS 4096ull

// Forms that the header knows under one name only.
CUresult begin_first(CUstream stream) __asm__("cuStreamBeginCapture");
CUresult begin_first_ptsz(CUstream stream) __asm__("cuStreamBeginCapture_ptsz");
__typeof__(cuStreamBeginCapture) cuStreamBeginCapture_v2_ptsz;
__typeof__(cuStreamEndCapture) cuStreamEndCapture_ptsz;

static CUcontext context;
static CUfunction add, fill;
static _Atomic bool over;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void launch(CUfunction function, CUdeviceptr words, uint32_t value, CUstream stream)
{
    uint64_t count = WORDS;
    void *params[] = {&words, &value, &count};
    OK(cuLaunchKernel(function, 4, 1, 1, 128, 1, 1, 0, stream, params, NULL));
}

static void *other_work(void *argument)
{
    CUstream stream;
    CUdeviceptr words = *(CUdeviceptr *)argument;
    OK(cuCtxSetCurrent(context));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    while (!atomic_load(&over))
        launch(add, words, 1, stream);
    return NULL;
}

static const char *form = "";

static CUresult begin_capture(CUstream stream, CUstreamCaptureMode mode)
{
    return strcmp(form, "first") == 0        ? begin_first(stream)
           : strcmp(form, "first_ptsz") == 0 ? begin_first_ptsz(stream)
           : strcmp(form, "ptsz") == 0       ? cuStreamBeginCapture_v2_ptsz(stream, mode)
                                             : cuStreamBeginCapture(stream, mode);
}

static void capture_once(CUstreamCaptureMode mode, CUdeviceptr words)
{
    uint32_t result[WORDS];
    CUstream stream;
    CUgraph graph;
    CUgraphExec executable;
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    launch(fill, words, 5, stream);
    OK(begin_capture(stream, mode));
    for (uint32_t i = 0; i < NODES; i++) {
        launch(add, words, i, stream);
        if (*form)
            usleep(2000); // so that the token is likely to change hands meanwhile
    }
    OK((strstr(form, "ptsz") ? cuStreamEndCapture_ptsz : cuStreamEndCapture)(stream, &graph));
    OK(cuGraphInstantiate(&executable, graph, 0));
    OK(cuGraphLaunch(executable, stream));
    OK(cuStreamSynchronize(stream));
    OK(cuMemcpyDtoH(result, words, sizeof result));
    uint32_t expected = 5 + NODES * (NODES - 1) / 2;
    for (uint64_t i = 0; i < WORDS; i++)
        if (result[i] != expected)
            fail("word %llu is %u where %u is expected", (unsigned long long)i, result[i], expected);
    OK(cuGraphExecDestroy(executable));
    OK(cuGraphDestroy(graph));
    OK(cuStreamDestroy(stream));
}

static CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
static double end;
static _Atomic unsigned captures;

static void *captures_in_thread(void *words)
{
    OK(cuCtxSetCurrent(context));
    while (now() < end) {
        capture_once(mode, *(CUdeviceptr *)words);
        atomic_fetch_add(&captures, 1);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    CUmodule module;
    CUdeviceptr words[8], others;
    pthread_t thread, capturing[8];
    int threads = argc > 4 ? atoi(argv[4]) : 1;
    if (argc > 5)
        form = argv[5];
    if (argc < 3)
        fail("usage: capture_loop MODULE SECONDS [MODE]");
    if (threads < 1 || threads > 8)
        fail("1 to 8 threads");
    if (argc > 3 && strcmp(argv[3], "thread") == 0)
        mode = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    if (argc > 3 && strcmp(argv[3], "relaxed") == 0)
        mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    context = start();
    OK(cuModuleLoad(&module, argv[1]));
    OK(cuModuleGetFunction(&add, module, "add_u32"));
    OK(cuModuleGetFunction(&fill, module, "fill_u32"));
    for (int i = 0; i < threads; i++)
        OK(cuMemAlloc(&words[i], WORDS * 4));
    OK(cuMemAlloc(&others, WORDS * 4));
    if (pthread_create(&thread, NULL, other_work, &others))
        fail("no thread");
    end = now() + atof(argv[2]);
    for (int i = 0; i < threads; i++)
        if (pthread_create(&capturing[i], NULL, captures_in_thread, &words[i]))
            fail("no thread");
    for (int i = 0; i < threads; i++)
        pthread_join(capturing[i], NULL);
    atomic_store(&over, true);
    pthread_join(thread, NULL);
    printf("captures %u\n", atomic_load(&captures));
    return 0;
}
