// The same as spin with the driver API alone: no runtime, a module from PTX, a kernel launched by name.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// A counter in device memory is written behind each kernel, in the order of the stream. Duration is checked from outside: so
// many kernels cannot have taken less time.
#include <cuda.h>

#include "kernels/options.h"

static struct workload workload = {
    .name = "driver_spin",
    .purpose = "Launches kernels of a fixed duration through the driver API, without the CUDA runtime.",
    .size_help = "blocks of a kernel, one thread each (default 1)",
    .size = 1,
    .least = 1,
    .most = 1024,
};

// extern "C" __global__ void spin_ns(uint64_t ns): sleeps until %globaltimer has advanced by ns. sm_75 is the oldest GPU that
// CUDA 13 knows; the driver compiles this for the one it finds.
static const char spin_ptx[] = ".version 6.4\n"
                               ".target sm_75\n"
                               ".address_size 64\n"
                               ".visible .entry spin_ns(.param .u64 spin_ns_param_0)\n"
                               "{\n"
                               "    .reg .pred %p<3>;\n"
                               "    .reg .b32 %r<2>;\n"
                               "    .reg .b64 %rd<6>;\n"
                               "    ld.param.u64 %rd1, [spin_ns_param_0];\n"
                               "    mov.u64 %rd2, %globaltimer;\n"
                               "    add.u64 %rd3, %rd2, %rd1;\n"
                               "again:\n"
                               "    mov.u64 %rd4, %globaltimer;\n"
                               "    setp.ge.u64 %p1, %rd4, %rd3;\n"
                               "    @%p1 bra done;\n"
                               "    sub.u64 %rd5, %rd3, %rd4;\n"
                               "    shr.u64 %rd5, %rd5, 1;\n"
                               "    min.u64 %rd5, %rd5, 100000;\n"
                               "    setp.lt.u64 %p2, %rd5, 1000;\n"
                               "    @%p2 bra again;\n"
                               "    cvt.u32.u64 %r1, %rd5;\n"
                               "    nanosleep.u32 %r1;\n"
                               "    bra again;\n"
                               "done:\n"
                               "    ret;\n"
                               "}\n";

#define CHECK(call) check(call, #call)

static void check(CUresult rc, const char *call)
{
    const char *name = NULL;

    if (rc == CUDA_SUCCESS)
        return;
    if (cuGetErrorName(rc, &name) != CUDA_SUCCESS || !name)
        name = "unknown error";
    fprintf(stderr, "%s: %.*s: %s\n", workload.name, (int)strcspn(call, "("), call, name);
    exit(STATUS_CUDA);
}

// Keeps up to `depth` kernels in the queue. Each is followed by a write into `counter`, in the order of the stream.
static void run(CUfunction spin, CUdeviceptr counter, uint64_t kernel_ns, uint64_t depth, bool sync_each, uint64_t think_us)
{
    CUevent *marks = calloc(depth, sizeof *marks);
    void *params[] = {&kernel_ns};
    uint64_t steps = 0;
    CUstream stream;

    if (!marks) {
        fprintf(stderr, "%s: no memory for %" PRIu64 " events\n", workload.name, depth);
        exit(STATUS_CUDA);
    }
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    for (uint64_t i = 0; i < depth; i++)
        CHECK(cuEventCreate(&marks[i], CU_EVENT_DISABLE_TIMING));
    for (work_begins(&workload); work_goes_on(&workload, steps); steps++) {
        if (think_us)
            sleep_seconds((double)think_us * 1e-6);
        if (!sync_each)
            CHECK(cuEventSynchronize(marks[steps % depth]));
        CHECK(cuLaunchKernel(spin, (unsigned)workload.size, 1, 1, 1, 1, 1, 0, stream, params, NULL));
        workload.kernels++;
        CHECK(cuMemsetD32Async(counter, (unsigned)workload.kernels, 1, stream));
        if (sync_each)
            CHECK(cuStreamSynchronize(stream));
        else
            CHECK(cuEventRecord(marks[steps % depth], stream));
    }
    CHECK(cuStreamSynchronize(stream));
    work_ended(&workload);
    for (uint64_t i = 0; i < depth; i++)
        CHECK(cuEventDestroy(marks[i]));
    CHECK(cuStreamDestroy(stream));
    free(marks);
}

int main(int argc, char **argv)
{
    uint64_t kernel_us = 500, depth = 16, think_us = 0;
    bool sync_each = false;
    char more[64];
    const struct option_row own[] = {
        {"kernel-us", OPTION_COUNT, &kernel_us, 1, 10000000, "microseconds that a kernel lasts (default 500)"},
        {"depth", OPTION_COUNT, &depth, 1, 4096, "most kernels in the queue (default 16)"},
        {"sync-each", OPTION_FLAG, &sync_each, 0, 0, "wait for each kernel before the next"},
        {"think-us", OPTION_COUNT, &think_us, 0, 10000000, "microseconds to sleep before each launch (default 0)"},
    };
    CUdevice device;
    CUcontext context;
    CUmodule module;
    CUfunction spin;
    CUdeviceptr counter;
    uint32_t counted;

    parse_options(&workload, own, 4, argc, argv);
    CHECK(cuInit(0));
    CHECK(cuDeviceGet(&device, 0));
    CHECK(cuDevicePrimaryCtxRetain(&context, device));
    CHECK(cuCtxSetCurrent(context));
    CHECK(cuModuleLoadData(&module, spin_ptx));
    CHECK(cuModuleGetFunction(&spin, module, "spin_ns"));
    CHECK(cuMemAlloc(&counter, sizeof counted));
    workload.bytes = sizeof counted;
    CHECK(cuMemsetD32(counter, 0, 1));
    run(spin, counter, kernel_us * 1000, depth, sync_each, think_us);
    CHECK(cuMemcpyDtoH(&counted, counter, sizeof counted));
    CHECK(cuMemFree(counter));
    CHECK(cuModuleUnload(module));
    CHECK(cuDevicePrimaryCtxRelease(device));

    bool right = counted == (uint32_t)workload.kernels;
    if (!right)
        fprintf(stderr, "%s: the counter is %u, expected %" PRIu64 "\n", workload.name, counted, workload.kernels);
    double least = (double)workload.kernels * (double)kernel_us * 1e-6;
    if (workload.stop - workload.start < least) {
        fprintf(stderr, "%s: all kernels took %.6f s, expected at least %.6f\n", workload.name, workload.stop - workload.start,
                least);
        right = false;
    }
    snprintf(more, sizeof more, " kernel_us=%" PRIu64, kernel_us);
    return report(&workload, right, checksum(CHECKSUM_SEED, &counted, sizeof counted), more);
}
