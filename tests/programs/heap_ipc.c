// SPDX-License-Identifier: AGPL-3.0-or-later
// heap_ipc: prints what cuIpcGetMemHandle answers for memory from cuMemAlloc, twice.
#include "driver.h"

int main(void)
{
    CUdeviceptr address;
    CUipcMemHandle handle;
    start();
    OK(cuMemAlloc(&address, 4 * MIB));
    CUresult first = cuIpcGetMemHandle(&handle, address);
    printf("%d %d\n", (int)first, (int)cuIpcGetMemHandle(&handle, address));
    OK(cuMemFree(address));
    return 0;
}
