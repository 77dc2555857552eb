// SPDX-License-Identifier: AGPL-3.0-or-later
// Asking the driver what a GPU is, and measuring what one context takes on it, once per pool and GPU.
//
// Two figures bound it. What is used on the GPU with one context, less what the pool's members hold, contains the context and also what
// programs outside the pool hold. What a second context adds is clean, but lacks what the first one alone costs (on the H100, 3.2 MiB
// taken by cuInit). So the second figure counts, and of the difference only as much as a first context can plausibly cost more.
#include "shim/attach.h"

#include <string.h>

#include "base/log.h"

#define FIRST_CONTEXT_EXTRA_BYTES (8ull << 20)
#define LEAST_BYTES (1ull << 20)

// CU_DEVICE_ATTRIBUTE_MPS_ENABLED, which older headers lack: the driver's own answer, true for clients of MPS: that a daemon
// runs, or a folder of one is there, says nothing about this process. An older driver does not know; then the cost of a switch is learned.
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

static bool free_bytes(uint64_t *available, uint64_t *total)
{
    size_t available_now, total_now;
    if (REAL(cuMemGetInfo_v2)(&available_now, &total_now) != CUDA_SUCCESS)
        return false;
    *available = available_now;
    *total = total_now;
    return true;
}

// With one context current. A context that is created becomes current, and one that is destroyed on its own thread no longer is.
static uint64_t measure(CUdevice ordinal, uint64_t held_bytes)
{
    uint64_t before, after, total;
    CUcontext second;
    if (!free_bytes(&before, &total) || REAL(cuCtxCreate_v2)(&second, 0, ordinal) != CUDA_SUCCESS)
        return 0;
    bool known = free_bytes(&after, &total);
    REAL(cuCtxDestroy_v2)(second);
    if (!known || after > before || before > total)
        return 0;
    uint64_t added = before - after;
    if (added < LEAST_BYTES || added > total / 4)
        return 0;
    uint64_t used = total - before > held_bytes ? total - before - held_bytes : 0;
    uint64_t extra = used > added ? used - added : 0;
    if (extra > FIRST_CONTEXT_EXTRA_BYTES)
        extra = FIRST_CONTEXT_EXTRA_BYTES;
    return holdings_round_up(added + extra, HOLDINGS_BLOCK_BYTES);
}

uint64_t calibrate_context(CUdevice ordinal, uint64_t held_bytes)
{
    unsigned int flags;
    int active;
    CUcontext primary;
    uint64_t bytes = 0;
    // A primary context that the program has already is not ours to retain and release.
    if (REAL(cuDevicePrimaryCtxGetState)(ordinal, &flags, &active) != CUDA_SUCCESS || active ||
        REAL(cuDevicePrimaryCtxRetain)(&primary, ordinal) != CUDA_SUCCESS)
        goto out;
    if (REAL(cuCtxPushCurrent_v2)(primary) == CUDA_SUCCESS) {
        bytes = measure(ordinal, held_bytes);
        REAL(cuCtxPopCurrent_v2)(&primary);
    }
    REAL(cuDevicePrimaryCtxRelease_v2)(ordinal);
out:
    log_debug("a context on GPU %d takes %llu bytes%s", ordinal, (unsigned long long)bytes,
              bytes ? "" : " (not measurable now)");
    return bytes;
}
