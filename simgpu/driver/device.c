// Devices: how many, which, and how large.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "simgpu/driver/context.h"
#include "simgpu/driver/pool.h"
#include "simgpu/state/state.h"

#define DEVICE_NAME "Simulated H100"

static struct device devices[STATE_MAX_DEVICES];
static uint32_t device_count;

// The device that an entry of CUDA_VISIBLE_DEVICES names, by number or by as much of its UUID as is given; -1: none.
static int device_named(const char *name, size_t length)
{
    char *end, text[48];
    long number = strtol(name, &end, 10);

    if (length && end == name + length)
        return number >= 0 && number < (long)state_file()->device_count ? (int)number : -1;
    for (uint32_t i = 0; length > 4 && i < state_file()->device_count; i++) {
        state_uuid_text(i, text, sizeof text);
        if (!strncasecmp(name, text, length))
            return (int)i;
    }
    return -1;
}

// The index of the device that the program shall see as `ordinal`; -1: it shall see no more.
static int visible_index(uint32_t ordinal)
{
    const char *list = getenv("CUDA_VISIBLE_DEVICES");

    if (!list)
        return ordinal < state_file()->device_count ? (int)ordinal : -1;
    for (uint32_t i = 0; *list; i++) {
        size_t length = strcspn(list, ",");
        int index = device_named(list, length);
        if (index < 0 || i == ordinal) // an entry that means nothing ends the list
            return index;
        list += length + (list[length] == ',');
    }
    return -1;
}

void device_init(void)
{
    for (uint32_t i = 0; i < STATE_MAX_DEVICES; i++) {
        struct device *device = &devices[i];
        int index = visible_index(i);
        if (index < 0)
            return;
        device->index = (uint32_t)index;
        device->ordinal = (CUdevice)i;
        device->primary = context_new(device, true);
        device->default_pool = device->current_pool = pool_new(device);
        if (!device->primary || !device->default_pool)
            return;
        device_count = i + 1;
    }
}

struct device *device_get(CUdevice ordinal)
{
    return ordinal >= 0 && (uint32_t)ordinal < device_count ? &devices[ordinal] : NULL;
}

// The checks of all device queries: initialised, somewhere to write, a device there.
static CUresult check(const void *out, CUdevice dev)
{
    if (!api_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    return device_get(dev) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGet(CUdevice *out, int ordinal)
{
    CUresult rc = check(out, ordinal);
    if (!rc)
        *out = ordinal;
    return rc;
}

CUresult cuDeviceGetCount(int *count)
{
    if (!api_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    *count = (int)device_count;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice dev)
{
    CUresult rc = check(name, dev);

    if (!rc && length <= 0)
        rc = CUDA_ERROR_INVALID_VALUE;
    if (!rc)
        snprintf(name, (size_t)length, "%s", DEVICE_NAME);
    return rc;
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev)
{
    uint8_t bytes[16];
    CUresult rc = check(uuid, dev);

    if (rc)
        return rc;
    state_uuid(devices[dev].index, bytes);
    memcpy(uuid->bytes, bytes, sizeof uuid->bytes);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice dev)
{
    return cuDeviceGetUuid_v2(uuid, dev);
}

CUresult cuDeviceGetLuid(char *luid, unsigned *mask, CUdevice dev)
{
    CUresult rc = check(luid, dev);

    (void)mask;
    return rc ? rc : CUDA_ERROR_NOT_SUPPORTED; // a notion of Windows
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
{
    CUresult rc = check(bytes, dev);
    if (!rc)
        *bytes = state_file()->capacity_bytes;
    return rc;
}

CUresult cuDeviceGetPCIBusId(char *text, int length, CUdevice dev)
{
    CUresult rc = check(text, dev);

    if (rc)
        return rc;
    if (length <= 0 || snprintf(text, (size_t)length, "0000:%02X:00.0", devices[dev].index + 1) >= length)
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetByPCIBusId(CUdevice *out, const char *text)
{
    unsigned domain = 0, bus, slot = 0, function = 0;

    if (!api_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!out || !text ||
        (sscanf(text, "%x:%x:%x.%x", &domain, &bus, &slot, &function) < 3 &&
         sscanf(text, "%x:%x.%x", &bus, &slot, &function) != 3))
        return CUDA_ERROR_INVALID_VALUE;
    for (uint32_t i = 0; !(domain || slot || function) && i < device_count; i++) {
        if (devices[i].index + 1 == bus) {
            *out = (CUdevice)i;
            return CUDA_SUCCESS;
        }
    }
    return CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceCanAccessPeer(int *can, CUdevice dev, CUdevice other)
{
    CUresult rc = check(can, dev);

    if (!rc)
        rc = check(can, other);
    if (!rc)
        *can = dev != other;
    return rc;
}

CUresult cuDeviceGetP2PAttribute(int *value, CUdevice_P2PAttribute attribute, CUdevice dev, CUdevice other)
{
    CUresult rc = check(value, dev);

    if (!rc)
        rc = check(value, other);
    if (!rc && dev == other)
        rc = CUDA_ERROR_INVALID_DEVICE;
    if (rc)
        return rc;
    switch (attribute) {
    case CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK:
        *value = 0;
        return CUDA_SUCCESS;
    case CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED:
    case CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED:
        *value = 1;
        return CUDA_SUCCESS;
    case CU_DEVICE_P2P_ATTRIBUTE_CUDA_ARRAY_ACCESS_SUPPORTED:
        *value = 0;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice dev)
{
    CUresult rc = check(major, dev);

    if (!rc && !minor)
        rc = CUDA_ERROR_INVALID_VALUE;
    if (!rc) {
        *major = 9;
        *minor = 0;
    }
    return rc;
}

CUresult cuDeviceGetExecAffinitySupport(int *supported, CUexecAffinityType type, CUdevice dev)
{
    CUresult rc = check(supported, dev);

    (void)type;
    if (!rc)
        *supported = 0;
    return rc;
}

CUresult cuDeviceGetProperties(CUdevprop *properties, CUdevice dev)
{
    CUresult rc = check(properties, dev);

    if (!rc)
        *properties = (CUdevprop){.maxThreadsPerBlock = DEVICE_MAX_THREADS_PER_BLOCK,
                                  .maxThreadsDim = {1024, 1024, 64},
                                  .maxGridSize = {INT32_MAX, 65535, 65535},
                                  .sharedMemPerBlock = DEVICE_SHARED_PER_BLOCK,
                                  .totalConstantMemory = 65536,
                                  .SIMDWidth = 32,
                                  .memPitch = INT32_MAX,
                                  .regsPerBlock = 65536,
                                  .clockRate = 1980000,
                                  .textureAlign = 512};
    return rc;
}

// Peer access costs nothing here: all devices live in the same address space.
static CUresult check_peer(CUcontext peer)
{
    struct CUctx_st *ctx, *other;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    rc = peer ? context_from_handle(peer, &other) : CUDA_ERROR_INVALID_CONTEXT;
    if (!rc && other == ctx)
        rc = CUDA_ERROR_INVALID_CONTEXT;
    return api_leave(rc);
}

CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned flags)
{
    return flags ? CUDA_ERROR_INVALID_VALUE : check_peer(peer);
}

CUresult cuCtxDisablePeerAccess(CUcontext peer)
{
    return check_peer(peer);
}
