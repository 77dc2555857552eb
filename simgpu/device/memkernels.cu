// Kernels that make their context take memory when they are launched.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define FRAME_WORDS 512

// Has a frame of 2 KiB in every thread.
extern "C" __global__ void large_frame(uint32_t *sum, uint32_t count)
{
    volatile uint32_t frame[FRAME_WORDS];
    for (uint32_t i = 0; i < FRAME_WORDS; i++)
        frame[i] = i;
    uint32_t total = 0;
    for (uint32_t i = 0; i < count; i++)
        total += frame[i % FRAME_WORDS];
    *sum = total;
}

// Takes and gives back memory of the device's heap, and could print: what a context takes for kernels that can.
extern "C" __global__ void heap_user(uint32_t *sum, uint32_t count)
{
    volatile uint32_t *words = static_cast<volatile uint32_t *>(malloc(count * sizeof *words));
    *sum = words != nullptr;
    if (!words)
        printf("the heap is full\n");
    free(const_cast<uint32_t *>(words));
}

#ifdef SIMGPU_KERNEL_TAKES
SIMGPU_KERNEL_TAKES(large_frame, FRAME_WORDS * sizeof(uint32_t), false)
SIMGPU_KERNEL_TAKES(heap_user, 0, true)
#endif
