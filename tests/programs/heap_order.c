// SPDX-License-Identifier: AGPL-3.0-or-later
// heap_order MODULE [capture]: memory that queued work still uses is freed, and allocated and used again at once. The old work never
// shows in the new memory. Prints in how many rounds the new memory was another: "moved COUNT". With `capture` all of it happens while another stream is captured, which that survives.
#include <stdint.h>
#include <string.h>

#include "driver.h"

#define ROUNDS 20
#define WORDS (MIB / 2) // a whole chunk, so that nothing else fits beside it

static CUfunction spin, add;

// After a while, one more to every word.
static void work(CUdeviceptr words, CUstream stream)
{
    uint64_t ns = 5000000, count = WORDS;
    uint32_t value = 1;
    void *spin_params[] = {&ns}, *add_params[] = {&words, &value, &count};
    OK(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, stream, spin_params, NULL));
    OK(cuLaunchKernel(add, 64, 1, 1, 128, 1, 1, 0, stream, add_params, NULL));
}

int main(int argc, char **argv)
{
    static uint32_t result[WORDS];
    CUdeviceptr words;
    CUmodule module;
    CUstream stream, other, captured;
    CUgraph graph = NULL;
    int moved = 0;
    if (argc < 2)
        fail("usage: heap_order MODULE [capture]");
    start();
    OK(cuModuleLoad(&module, argv[1]));
    OK(cuModuleGetFunction(&spin, module, "spin_ns"));
    OK(cuModuleGetFunction(&add, module, "add_u32"));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    OK(cuStreamCreate(&captured, CU_STREAM_NON_BLOCKING));
    size_t whole = told_free();
    OK(cuMemAlloc(&words, WORDS * 4));
    if (argc > 2)
        OK(cuStreamBeginCapture(captured, CU_STREAM_CAPTURE_MODE_RELAXED));
    for (int round = 0; round < ROUNDS; round++) {
        OK(cuMemsetD32Async(words, 7, WORDS, other));
        OK(cuStreamSynchronize(other));
        work(words, stream);
        CUdeviceptr before = words;
        OK(cuMemFree(words));
        OK(cuMemAlloc(&words, WORDS * 4));
        moved += words != before;
        OK(cuMemsetD32Async(words, (unsigned)round, WORDS, other));
        OK(cuStreamSynchronize(other));
        OK(cuStreamSynchronize(stream));
        OK(cuMemcpyDtoHAsync(result, words, sizeof result, other));
        OK(cuStreamSynchronize(other));
        for (uint64_t i = 0; i < WORDS; i++)
            if (result[i] != (uint32_t)round)
                fail("round %d: word %llu is %u", round, (unsigned long long)i, result[i]);
    }
    if (argc > 2) {
        OK(cuStreamEndCapture(captured, &graph));
        if (!graph)
            fail("the capture was lost");
        OK(cuGraphDestroy(graph));
    }
    OK(cuMemFree(words));
    expect_free(whole, "after freeing");
    printf("moved %d\n", moved);
    return 0;
}
