// The attributes of the simulated device: those of an H100, as far as a program is likely to ask.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/device.h"

#include <string.h>

struct attribute {
    CUdevice_attribute name;
    int value;
};

// clang-format off
#define YES(attribute) {CU_DEVICE_ATTRIBUTE_##attribute, 1}
#define IS(attribute, number) {CU_DEVICE_ATTRIBUTE_##attribute, number}
// clang-format on

// Whatever is not listed is 0, which is the truthful answer for everything that the simulator does not have.
static const struct attribute attributes[] = {
    IS(MAX_THREADS_PER_BLOCK, DEVICE_MAX_THREADS_PER_BLOCK),
    IS(MAX_BLOCK_DIM_X, 1024),
    IS(MAX_BLOCK_DIM_Y, 1024),
    IS(MAX_BLOCK_DIM_Z, 64),
    IS(MAX_GRID_DIM_X, INT32_MAX),
    IS(MAX_GRID_DIM_Y, 65535),
    IS(MAX_GRID_DIM_Z, 65535),
    IS(MAX_SHARED_MEMORY_PER_BLOCK, DEVICE_SHARED_PER_BLOCK),
    IS(MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, DEVICE_SHARED_PER_BLOCK_OPTIN),
    IS(MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, DEVICE_SHARED_PER_SM),
    IS(RESERVED_SHARED_MEMORY_PER_BLOCK, 1024),
    IS(TOTAL_CONSTANT_MEMORY, 65536),
    IS(WARP_SIZE, 32),
    IS(MAX_PITCH, INT32_MAX),
    IS(MAX_REGISTERS_PER_BLOCK, 65536),
    IS(MAX_REGISTERS_PER_MULTIPROCESSOR, 65536),
    IS(CLOCK_RATE, 1980000),
    IS(MEMORY_CLOCK_RATE, 2619000),
    IS(GLOBAL_MEMORY_BUS_WIDTH, 5120),
    IS(L2_CACHE_SIZE, 52428800),
    IS(TEXTURE_ALIGNMENT, 512),
    IS(TEXTURE_PITCH_ALIGNMENT, 32),
    IS(SURFACE_ALIGNMENT, 512),
    IS(MULTIPROCESSOR_COUNT, DEVICE_SM_COUNT),
    IS(MAX_THREADS_PER_MULTIPROCESSOR, DEVICE_THREADS_PER_SM),
    IS(MAX_BLOCKS_PER_MULTIPROCESSOR, DEVICE_BLOCKS_PER_SM),
    IS(ASYNC_ENGINE_COUNT, 3),
    IS(COMPUTE_CAPABILITY_MAJOR, 9),
    IS(COMPUTE_CAPABILITY_MINOR, 0),
    IS(COMPUTE_MODE, CU_COMPUTEMODE_DEFAULT),
    IS(SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO, 2),
    IS(MEMPOOL_SUPPORTED_HANDLE_TYPES, CU_MEM_HANDLE_TYPE_NONE),
    IS(MAXIMUM_TEXTURE1D_WIDTH, 131072),
    IS(MAXIMUM_TEXTURE2D_WIDTH, 131072),
    IS(MAXIMUM_TEXTURE2D_HEIGHT, 65536),
    IS(MAXIMUM_TEXTURE3D_WIDTH, 16384),
    IS(MAXIMUM_TEXTURE3D_HEIGHT, 16384),
    IS(MAXIMUM_TEXTURE3D_DEPTH, 16384),
    YES(GPU_OVERLAP),
    YES(CAN_MAP_HOST_MEMORY),
    YES(CONCURRENT_KERNELS),
    YES(UNIFIED_ADDRESSING),
    YES(STREAM_PRIORITIES_SUPPORTED),
    YES(GLOBAL_L1_CACHE_SUPPORTED),
    YES(LOCAL_L1_CACHE_SUPPORTED),
    YES(MANAGED_MEMORY),
    YES(CONCURRENT_MANAGED_ACCESS),
    YES(COMPUTE_PREEMPTION_SUPPORTED),
    YES(CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM),
    YES(COOPERATIVE_LAUNCH),
    YES(HOST_REGISTER_SUPPORTED),
    YES(VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED),
    YES(HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED),
    YES(MEMORY_POOLS_SUPPORTED),
    YES(CAN_USE_64_BIT_STREAM_MEM_OPS_V1),
    YES(CAN_USE_64_BIT_STREAM_MEM_OPS),
    YES(CAN_USE_STREAM_WAIT_VALUE_NOR_V1),
    YES(CAN_USE_STREAM_WAIT_VALUE_NOR),
};

#define MPS_ENABLED ((CUdevice_attribute)133) // which older headers lack

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute name, CUdevice dev)
{
    if (!api_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!value || (int)name < 1 || name >= CU_DEVICE_ATTRIBUTE_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    if (!device_get(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    *value = name == CU_DEVICE_ATTRIBUTE_PCI_BUS_ID ? dev + 1 : 0;
    const char *mps = getenv("SIMGPU_MPS");
    if (name == MPS_ENABLED && mps)
        *value = strcmp(mps, "1") == 0;
    for (size_t i = 0; i < sizeof attributes / sizeof attributes[0]; i++)
        if (attributes[i].name == name)
            *value = attributes[i].value;
    return CUDA_SUCCESS;
}
