// SPDX-License-Identifier: AGPL-3.0-or-later
// heap_capture: prints what cuMemAlloc answers during a capture in global mode, with memory that was freed before it, and what becomes of
// the capture.
#include "driver.h"

int main(void)
{
    CUdeviceptr address;
    CUstream stream;
    CUgraph graph;
    start();
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuMemAlloc(&address, 4 * MIB));
    OK(cuMemFree(address));
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    CUresult rc = cuMemAlloc(&address, 4 * MIB);
    printf("cuMemAlloc %d, cuStreamEndCapture %d\n", (int)rc, (int)cuStreamEndCapture(stream, &graph));
    return 0;
}
