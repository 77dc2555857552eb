// SPDX-License-Identifier: AGPL-3.0-or-later
// attach_clone MODULE [clone|clone_all|vfork]: a child made by a bare system call runs no fork handlers. Launches and memory fail in it
// as they do in any child, it ends as it means to, with the exit handlers of its parent, and its parent goes on undisturbed. clone_all:
// so does everything else; not on NVIDIA's driver, which does not notice such a child itself, and hangs. A child on its parent's address
// space (vfork) asks for nothing.
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

static void launch(CUresult expected)
{
    uint64_t ns = 1000;
    void *params[] = {&ns};
    EXPECT(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, stream, params, NULL), expected);
}

// What takes memory or gives the GPU work.
static void take_in_child(void)
{
    const CUresult no = CUDA_ERROR_NOT_INITIALIZED;
    CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUmemGenericAllocationHandle handle;
    CUdeviceptr other;
    launch(no);
    EXPECT(cuMemAlloc(&other, MIB), no);
    EXPECT(cuMemAllocAsync(&other, MIB, stream), no);
    EXPECT(cuMemCreate(&handle, 2 * MIB, &properties, 0), no);
}

static void ask_in_child(void)
{
    const CUresult no = CUDA_ERROR_NOT_INITIALIZED;
    CUstream another;
    size_t available, total;
    EXPECT(cuMemGetInfo(&available, &total), no);
    EXPECT(cuMemFree(words), no);
    EXPECT(cuMemFreeAsync(pooled, stream), no);
    EXPECT(cuStreamCreate(&another, 0), no);
    EXPECT(cuStreamSynchronize(stream), no);
    EXPECT(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED), no);
    EXPECT(cuCtxSynchronize(), no);
    EXPECT(cuCtxDestroy(context), no);
    EXPECT(cuDevicePrimaryCtxRelease(0), no);
    EXPECT(cuInit(0), no);
    launch(no);
}

int main(int argc, char **argv)
{
    CUmodule module;
    int status;
    if (argc < 2)
        fail("usage: attach_clone MODULE [clone|clone_all|vfork]");
    const char *how = argc > 2 ? argv[2] : "clone";
    start();
    OK(cuModuleLoad(&module, argv[1]));
    OK(cuModuleGetFunction(&spin, module, "spin_ns"));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuMemAlloc(&words, 4 * MIB));
    OK(cuMemAllocAsync(&pooled, 4 * MIB, stream));
    OK(cuCtxGetCurrent(&context));
    launch(CUDA_SUCCESS);
    pid_t child;
    if (strcmp(how, "vfork") == 0) {
        child = vfork();
        if (child == 0)
            _exit(3);
    } else {
        child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    }
    if (child == 0) {
        take_in_child();
        if (strcmp(how, "clone_all") == 0)
            ask_in_child();
        exit(3);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        fail("no child");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 3)
        fail("the child ended with status %#x", (unsigned)status);
    launch(CUDA_SUCCESS);
    OK(cuMemFreeAsync(pooled, stream));
    OK(cuMemFree(words));
    OK(cuCtxSynchronize());
    return 0;
}
