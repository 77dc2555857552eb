// SPDX-License-Identifier: AGPL-3.0-or-later
// Makes contexts until refused, destroys them, and makes as many again. Prints "contexts COUNT".
#include "driver.h"

#define MOST 64

static int fill(CUdevice device, CUcontext *contexts)
{
    int count = 0;
    CUresult rc = CUDA_SUCCESS;
    while (count < MOST && rc == CUDA_SUCCESS) {
        rc = create_context(&contexts[count], device);
        count += rc == CUDA_SUCCESS;
    }
    expect(rc, CUDA_ERROR_OUT_OF_MEMORY, "the last context");
    return count;
}

int main(void)
{
    static CUcontext contexts[MOST];
    CUdevice device;
    OK(cuInit(0));
    OK(cuDeviceGet(&device, 0));
    int first = fill(device, contexts);
    for (int i = 0; i < first; i++)
        OK(cuCtxDestroy(contexts[i]));
    int second = fill(device, contexts);
    if (first != second)
        fail("%d contexts fitted at first and %d again", first, second);
    printf("contexts %d\n", first);
    return 0;
}
