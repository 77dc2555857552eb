// SPDX-License-Identifier: AGPL-3.0-or-later
// attach_clone MODULE [clone|vfork]: a child made by a bare system call runs no fork handlers. It asks the driver for something of each
// family and ends with the exit handlers of its parent, and its parent goes on; what each call returned is printed. A child on its
// parent's address space (vfork) asks for nothing.
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver.h"

static CUfunction spin;
static CUdeviceptr words, pooled;
static CUstream stream;
static CUcontext context;

#define SAY(call) (printf("%d %s\n", (int)(call), #call), fflush(stdout))

static CUresult launch(void)
{
    uint64_t ns = 1000;
    void *params[] = {&ns};
    return cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, stream, params, NULL);
}

// One call of each family.
static void ask_in_child(void)
{
    CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUmemGenericAllocationHandle handle;
    CUdeviceptr other;
    CUstream another;
    SAY(launch());
    SAY(cuMemAlloc(&other, MIB));
    SAY(cuMemAllocAsync(&other, MIB, stream));
    SAY(cuMemCreate(&handle, 2 * MIB, &properties, 0));
    SAY(cuMemFree(words));
    SAY(cuMemFreeAsync(pooled, stream));
    SAY(cuStreamCreate(&another, 0));
    SAY(cuStreamSynchronize(stream));
    SAY(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    SAY(cuCtxSynchronize());
    SAY(cuCtxDestroy(context));
    SAY(cuDevicePrimaryCtxRelease(0));
    SAY(cuInit(0));
    SAY(launch());
}

int main(int argc, char **argv)
{
    CUmodule module;
    int status;
    if (argc < 2)
        fail("usage: attach_clone MODULE [clone|vfork]");
    const char *how = argc > 2 ? argv[2] : "clone";
    start();
    OK(cuModuleLoad(&module, argv[1]));
    OK(cuModuleGetFunction(&spin, module, "spin_ns"));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuMemAlloc(&words, 4 * MIB));
    OK(cuMemAllocAsync(&pooled, 4 * MIB, stream));
    OK(cuCtxGetCurrent(&context));
    OK(launch());
    pid_t child;
    if (strcmp(how, "vfork") == 0) {
        child = vfork();
        if (child == 0)
            _exit(3);
    } else {
        child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    }
    if (child == 0) {
        ask_in_child();
        exit(3);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        fail("no child");
    printf("child %#x\n", (unsigned)status);
    SAY(launch());
    SAY(cuMemFreeAsync(pooled, stream));
    SAY(cuMemFree(words));
    SAY(cuCtxSynchronize());
    return 0;
}
