// SPDX-License-Identifier: AGPL-3.0-or-later
// Asks the driver what a GPU is, and measures what one context takes on it, once per pool and GPU.
//
// A context grows after its creation: for good, with the first module whose kernels print or use the heap (on the H100 by 138
// MiB); and by the heap at the first launch of a kernel that uses malloc, which nothing announces. Both belong to its price
// from the start. What the first context of a GPU costs beyond that (on the H100, 3.2 MiB) is taken once, whoever uses the GPU,
// and charged to nobody.
#include "shim/calibrate.h"

#include <stdio.h>
#include <string.h>

#include "allocator/holdings.h"
#include "base/log.h"

#define LEAST_BYTES (1ull << 20)
#define ATTEMPTS 6

// CU_DEVICE_ATTRIBUTE_MPS_ENABLED, which older headers lack: the driver's own answer, true for clients of MPS. That a daemon
// runs, or has a folder, says nothing about this process. An older driver cannot tell; then the cost of a switch is learned.
#define ATTRIBUTE_MPS_ENABLED ((CUdevice_attribute)133)

static bool is_mps_client(CUdevice ordinal)
{
    int enabled = 0;
    return REAL(cuDeviceGetAttribute)(&enabled, ATTRIBUTE_MPS_ENABLED, ordinal) == CUDA_SUCCESS && enabled > 0;
}

CUresult identify(CUdevice ordinal, struct identity *identity)
{
    CUuuid uuid;
    size_t bytes = 0;
    char name[256] = "";
    CUresult rc = REAL(cuDeviceGetUuid_v2)(&uuid, ordinal);
    if (rc == CUDA_ERROR_NOT_FOUND)
        rc = REAL(cuDeviceGetUuid)(&uuid, ordinal);
    if (rc == CUDA_SUCCESS)
        rc = REAL(cuDeviceTotalMem_v2)(&bytes, ordinal);
    if (rc == CUDA_SUCCESS)
        rc = REAL(cuDeviceGetName)(name, sizeof name, ordinal);
    if (rc != CUDA_SUCCESS)
        return rc;
    *identity = (struct identity){.bytes = bytes, .mps = is_mps_client(ordinal)};
    memcpy(identity->uuid, uuid.bytes, sizeof identity->uuid);
    snprintf(identity->name, sizeof identity->name, "%s", name);
    return CUDA_SUCCESS;
}

// A module with one kernel that does nothing when launched with 0, but could print and use the heap: a context grows by what
// its kernels could need. In PTX, which the driver compiles for the GPU it finds.
static const char module_image[] =
    ".version 6.0\n"
    ".target sm_50\n"
    ".address_size 64\n"
    ".extern .func (.param .b64 block) malloc(.param .b64 bytes);\n"
    ".extern .func (.param .b32 count) vprintf(.param .b64 format, .param .b64 arguments);\n"
    ".visible .entry vgpu_calibration(.param .u64 bytes)\n"
    "{\n"
    "    .reg .pred %nothing;\n"
    "    .reg .b64 %bytes, %block;\n"
    "    ld.param.u64 %bytes, [bytes];\n"
    "    setp.eq.u64 %nothing, %bytes, 0;\n"
    "    @%nothing bra done;\n"
    "    { .param .b64 a; .param .b64 r; st.param.b64 [a], %bytes; call.uni (r), malloc, (a); ld.param.b64 %block, [r]; }\n"
    "    { .param .b64 f; .param .b64 a; .param .b32 r; st.param.b64 [f], %block; st.param.b64 [a], %block;\n"
    "      call.uni (r), vprintf, (f, a); }\n"
    "done:\n"
    "    ret;\n"
    "}\n";

// Makes the current context grow as it will in use. Returns what it will still grow by, since the kernel could not be launched.
static uint64_t use_context(void)
{
    CUmodule module; // ends with the context
    CUfunction function;
    uint64_t nothing = 0;
    void *params[] = {&nothing};
    size_t heap = 0;
    if (REAL(cuModuleLoadData)(&module, module_image) == CUDA_SUCCESS &&
        REAL(cuModuleGetFunction)(&function, module, "vgpu_calibration") == CUDA_SUCCESS &&
        REAL(cuLaunchKernel)(function, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL) == CUDA_SUCCESS)
        return 0;
    // The driver takes a block more than the heap's size (580).
    REAL(cuCtxGetLimit)(&heap, CU_LIMIT_MALLOC_HEAP_SIZE);
    return holdings_round_up(heap, HOLDINGS_BLOCK_BYTES) + HOLDINGS_BLOCK_BYTES;
}

static bool free_bytes(uint64_t *available, uint64_t *total)
{
    size_t available_now, total_now;
    if (REAL(cuMemGetInfo_v2)(&available_now, &total_now) != CUDA_SUCCESS)
        return false;
    *available = available_now;
    *total = total_now;
    return true;
}

// What one more context takes, with one current; 0 if that can't be told. A context becomes current when created, and stops
// being so when destroyed on its own thread. *alone: free memory came back to the byte, so it was probably all the context's.
static uint64_t measure_once(CUdevice ordinal, bool *alone)
{
    uint64_t before, between, after, total;
    CUcontext second;
    *alone = false;
    if (!free_bytes(&before, &total) || REAL(cuCtxCreate_v2)(&second, 0, ordinal) != CUDA_SUCCESS)
        return 0;
    uint64_t later = use_context();
    bool known = free_bytes(&between, &total);
    REAL(cuCtxDestroy_v2)(second);
    *alone = free_bytes(&after, &total) && after == before;
    if (!known || between > before || before - between < LEAST_BYTES || before - between > total / 4)
        return 0;
    return holdings_round_up(before - between, HOLDINGS_BLOCK_BYTES) + later;
}

// Programs outside the pool may take and give memory meanwhile, above all contexts of their own: one that is made and ends with
// ours is added to it, and free memory still comes back to the byte. So a figure counts when it is seen twice, or three times if
// free memory never came back to the byte with it. Where nobody disturbs and yet no two agree, the least is taken; else the next
// process of the pool measures again.
static uint64_t measure(CUdevice ordinal)
{
    struct {
        uint64_t bytes;
        bool alone;
    } seen[ATTEMPTS];
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < ATTEMPTS; i++) {
        int evidence = 0;
        seen[i].bytes = measure_once(ordinal, &seen[i].alone);
        for (int earlier = 0; earlier <= i; earlier++)
            if (seen[earlier].bytes == seen[i].bytes)
                evidence += seen[earlier].alone ? 2 : 1;
        if (evidence >= 3 && seen[i].bytes)
            return seen[i].bytes;
        if (!seen[i].alone)
            least = 0;
        else if (seen[i].bytes < least)
            least = seen[i].bytes;
    }
    return least;
}

uint64_t calibrate_context(CUdevice ordinal)
{
    unsigned int flags;
    int active;
    CUcontext primary;
    uint64_t bytes = 0;
    // A primary context that the program already has is not ours to retain and release.
    if (REAL(cuDevicePrimaryCtxGetState)(ordinal, &flags, &active) != CUDA_SUCCESS || active ||
        REAL(cuDevicePrimaryCtxRetain)(&primary, ordinal) != CUDA_SUCCESS)
        goto out;
    if (REAL(cuCtxPushCurrent_v2)(primary) == CUDA_SUCCESS) {
        bytes = measure(ordinal);
        REAL(cuCtxPopCurrent_v2)(&primary);
    }
    REAL(cuDevicePrimaryCtxRelease_v2)(ordinal);
out:
    log_debug("a context on GPU %d takes %llu bytes%s", ordinal, (unsigned long long)bytes,
              bytes ? "" : " (not measurable now)");
    return bytes;
}
