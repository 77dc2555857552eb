// SPDX-License-Identifier: AGPL-3.0-or-later
// busy MODULE MICROSECONDS [DEVICE]: keeps a GPU busy with kernels of that length until killed. Prints "busy" after the first.
#include <stdint.h>

#include "driver.h"

int main(int argc, char **argv)
{
    CUmodule module;
    CUfunction spin;
    if (argc < 3)
        fail("usage: busy MODULE MICROSECONDS");
    uint64_t ns = strtoull(argv[2], NULL, 10) * 1000;
    void *params[] = {&ns};
    CUcontext context;
    start();
    if (argc > 3) {
        OK(cuDevicePrimaryCtxRetain(&context, atoi(argv[3])));
        OK(cuCtxSetCurrent(context));
    }
    OK(cuModuleLoad(&module, argv[1]));
    OK(cuModuleGetFunction(&spin, module, "spin_ns"));
    for (unsigned long round = 0;; round++) {
        OK(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
        if (round == 0) {
            OK(cuCtxSynchronize());
            puts("busy");
            fflush(stdout);
        }
    }
}
