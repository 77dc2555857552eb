// What a program can ask about a device.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/registry.h"
#include "simgpu/runtime/runtime.h"

#include <string.h>

// Where an attribute goes in the properties. Sizes are size_t there and int in the driver.
static const struct {
    size_t offset;
    CUdevice_attribute attribute;
    bool is_size;
} properties[] = {
#define INT(field, attribute)                                                                                                  \
    {                                                                                                                          \
        offsetof(struct cudaDeviceProp, field), CU_DEVICE_ATTRIBUTE_##attribute, false                                         \
    }
#define SIZE(field, attribute)                                                                                                 \
    {                                                                                                                          \
        offsetof(struct cudaDeviceProp, field), CU_DEVICE_ATTRIBUTE_##attribute, true                                          \
    }
    SIZE(sharedMemPerBlock, MAX_SHARED_MEMORY_PER_BLOCK),
    INT(regsPerBlock, MAX_REGISTERS_PER_BLOCK),
    INT(warpSize, WARP_SIZE),
    SIZE(memPitch, MAX_PITCH),
    INT(maxThreadsPerBlock, MAX_THREADS_PER_BLOCK),
    INT(maxThreadsDim[0], MAX_BLOCK_DIM_X),
    INT(maxThreadsDim[1], MAX_BLOCK_DIM_Y),
    INT(maxThreadsDim[2], MAX_BLOCK_DIM_Z),
    INT(maxGridSize[0], MAX_GRID_DIM_X),
    INT(maxGridSize[1], MAX_GRID_DIM_Y),
    INT(maxGridSize[2], MAX_GRID_DIM_Z),
    SIZE(totalConstMem, TOTAL_CONSTANT_MEMORY),
    INT(major, COMPUTE_CAPABILITY_MAJOR),
    INT(minor, COMPUTE_CAPABILITY_MINOR),
    SIZE(textureAlignment, TEXTURE_ALIGNMENT),
    SIZE(texturePitchAlignment, TEXTURE_PITCH_ALIGNMENT),
    INT(multiProcessorCount, MULTIPROCESSOR_COUNT),
    INT(integrated, INTEGRATED),
    INT(canMapHostMemory, CAN_MAP_HOST_MEMORY),
    INT(maxTexture1D, MAXIMUM_TEXTURE1D_WIDTH),
    INT(maxTexture2D[0], MAXIMUM_TEXTURE2D_WIDTH),
    INT(maxTexture2D[1], MAXIMUM_TEXTURE2D_HEIGHT),
    INT(maxTexture3D[0], MAXIMUM_TEXTURE3D_WIDTH),
    INT(maxTexture3D[1], MAXIMUM_TEXTURE3D_HEIGHT),
    INT(maxTexture3D[2], MAXIMUM_TEXTURE3D_DEPTH),
    SIZE(surfaceAlignment, SURFACE_ALIGNMENT),
    INT(concurrentKernels, CONCURRENT_KERNELS),
    INT(ECCEnabled, ECC_ENABLED),
    INT(pciBusID, PCI_BUS_ID),
    INT(pciDeviceID, PCI_DEVICE_ID),
    INT(pciDomainID, PCI_DOMAIN_ID),
    INT(tccDriver, TCC_DRIVER),
    INT(asyncEngineCount, ASYNC_ENGINE_COUNT),
    INT(unifiedAddressing, UNIFIED_ADDRESSING),
    INT(memoryBusWidth, GLOBAL_MEMORY_BUS_WIDTH),
    INT(l2CacheSize, L2_CACHE_SIZE),
    INT(persistingL2CacheMaxSize, MAX_PERSISTING_L2_CACHE_SIZE),
    INT(maxThreadsPerMultiProcessor, MAX_THREADS_PER_MULTIPROCESSOR),
    INT(streamPrioritiesSupported, STREAM_PRIORITIES_SUPPORTED),
    INT(globalL1CacheSupported, GLOBAL_L1_CACHE_SUPPORTED),
    INT(localL1CacheSupported, LOCAL_L1_CACHE_SUPPORTED),
    SIZE(sharedMemPerMultiprocessor, MAX_SHARED_MEMORY_PER_MULTIPROCESSOR),
    INT(regsPerMultiprocessor, MAX_REGISTERS_PER_MULTIPROCESSOR),
    INT(managedMemory, MANAGED_MEMORY),
    INT(isMultiGpuBoard, MULTI_GPU_BOARD),
    INT(multiGpuBoardGroupID, MULTI_GPU_BOARD_GROUP_ID),
    INT(hostNativeAtomicSupported, HOST_NATIVE_ATOMIC_SUPPORTED),
    INT(pageableMemoryAccess, PAGEABLE_MEMORY_ACCESS),
    INT(concurrentManagedAccess, CONCURRENT_MANAGED_ACCESS),
    INT(computePreemptionSupported, COMPUTE_PREEMPTION_SUPPORTED),
    INT(canUseHostPointerForRegisteredMem, CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM),
    INT(cooperativeLaunch, COOPERATIVE_LAUNCH),
    SIZE(sharedMemPerBlockOptin, MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
    INT(pageableMemoryAccessUsesHostPageTables, PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES),
    INT(directManagedMemAccessFromHost, DIRECT_MANAGED_MEM_ACCESS_FROM_HOST),
    INT(maxBlocksPerMultiProcessor, MAX_BLOCKS_PER_MULTIPROCESSOR),
    INT(accessPolicyMaxWindowSize, MAX_ACCESS_POLICY_WINDOW_SIZE),
    SIZE(reservedSharedMemPerBlock, RESERVED_SHARED_MEMORY_PER_BLOCK),
    INT(hostRegisterSupported, HOST_REGISTER_SUPPORTED),
    INT(hostRegisterReadOnlySupported, READ_ONLY_HOST_REGISTER_SUPPORTED),
    INT(memoryPoolsSupported, MEMORY_POOLS_SUPPORTED),
    INT(gpuDirectRDMASupported, GPU_DIRECT_RDMA_SUPPORTED),
    INT(memoryPoolSupportedHandleTypes, MEMPOOL_SUPPORTED_HANDLE_TYPES),
    INT(ipcEventSupported, IPC_EVENT_SUPPORTED),
    INT(clusterLaunch, CLUSTER_LAUNCH),
    INT(unifiedFunctionPointers, UNIFIED_FUNCTION_POINTERS),
#if CUDART_VERSION < 13000
    INT(clockRate, CLOCK_RATE),
    INT(memoryClockRate, MEMORY_CLOCK_RATE),
    INT(computeMode, COMPUTE_MODE),
    INT(kernelExecTimeoutEnabled, KERNEL_EXEC_TIMEOUT),
#endif
#undef INT
#undef SIZE
};

static cudaError_t check_device(int device)
{
    cudaError_t error = runtime_init();
    return !error && (device < 0 || device >= context_device_count()) ? cudaErrorInvalidDevice : error;
}

static cudaError_t get_properties(struct cudaDeviceProp *p, int device)
{
    CUdevice handle;
    CUuuid uuid;
    int value;
    cudaError_t error = p ? check_device(device) : cudaErrorInvalidValue;

    if (!error)
        error = (cudaError_t)LEGACY->cuDeviceGet(&handle, device);
    if (error)
        return runtime_leave(error);
    memset(p, 0, sizeof *p);
    error = (cudaError_t)LEGACY->cuDeviceGetName(p->name, sizeof p->name, handle);
    if (!error)
        error = (cudaError_t)LEGACY->cuDeviceGetUuid(&uuid, handle);
    if (error)
        return runtime_leave(error);
    memcpy(&p->uuid, &uuid, sizeof uuid);
    p->totalGlobalMem = context_total_bytes(device);
    for (size_t i = 0; i < sizeof properties / sizeof *properties; i++) {
        // A driver that does not know an attribute does not have what it is about.
        if (LEGACY->cuDeviceGetAttribute(&value, properties[i].attribute, handle))
            value = 0;
        char *field = (char *)p + properties[i].offset;
        if (properties[i].is_size)
            *(size_t *)field = (size_t)value;
        else
            *(int *)field = value;
    }
    return cudaSuccess;
}

// The headers of CUDA 12 make this cudaGetDeviceProperties_v2.
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    return get_properties(p, device);
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    CUdevice handle;
    cudaError_t error = check_device(device);

    if (!error)
        error = (cudaError_t)LEGACY->cuDeviceGet(&handle, device);
    if (!error)
        error = (cudaError_t)LEGACY->cuDeviceGetAttribute(value, (CUdevice_attribute)attribute, handle);
    return runtime_leave(error);
}

// The device whose properties come closest: the first, because all that matter are alike.
cudaError_t cudaChooseDevice(int *device, const struct cudaDeviceProp *wanted)
{
    cudaError_t error = device && wanted ? runtime_init() : cudaErrorInvalidValue;
    if (!error)
        *device = 0;
    return runtime_leave(error);
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int length, int device)
{
    cudaError_t error = check_device(device);
    return runtime_leave(error ? error : (cudaError_t)LEGACY->cuDeviceGetPCIBusId(id, length, device));
}

cudaError_t cudaDeviceGetByPCIBusId(int *device, const char *id)
{
    CUdevice handle;
    cudaError_t error = device ? runtime_init() : cudaErrorInvalidValue;

    if (!error)
        error = (cudaError_t)LEGACY->cuDeviceGetByPCIBusId(&handle, id);
    if (!error)
        *device = handle;
    return runtime_leave(error);
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    cudaError_t error = check_device(device) ?: check_device(peer);
    return runtime_leave(error ? error : (cudaError_t)LEGACY->cuDeviceCanAccessPeer(can, device, peer));
}

cudaError_t cudaDeviceGetP2PAttribute(int *value, enum cudaDeviceP2PAttr attribute, int device, int peer)
{
    cudaError_t error = check_device(device) ?: check_device(peer);
    return runtime_leave(
        error ? error : (cudaError_t)LEGACY->cuDeviceGetP2PAttribute(value, (CUdevice_P2PAttribute)attribute, device, peer));
}

cudaError_t cudaDeviceGetLimit(size_t *value, enum cudaLimit limit)
{
    return DRIVER(LEGACY, cuCtxGetLimit, value, (CUlimit)limit);
}

cudaError_t cudaDeviceSetLimit(enum cudaLimit limit, size_t value)
{
    return DRIVER(LEGACY, cuCtxSetLimit, (CUlimit)limit, value);
}

cudaError_t cudaDeviceGetCacheConfig(enum cudaFuncCache *config)
{
    return DRIVER(LEGACY, cuCtxGetCacheConfig, (CUfunc_cache *)config);
}

cudaError_t cudaDeviceSetCacheConfig(enum cudaFuncCache config)
{
    return DRIVER(LEGACY, cuCtxSetCacheConfig, (CUfunc_cache)config);
}

cudaError_t cudaDeviceGetSharedMemConfig(enum cudaSharedMemConfig *config)
{
    return DRIVER(LEGACY, cuCtxGetSharedMemConfig, (CUsharedconfig *)config);
}

cudaError_t cudaDeviceSetSharedMemConfig(enum cudaSharedMemConfig config)
{
    return DRIVER(LEGACY, cuCtxSetSharedMemConfig, (CUsharedconfig)config);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    return DRIVER(LEGACY, cuCtxGetStreamPriorityRange, least, greatest);
}

cudaError_t cudaCtxResetPersistingL2Cache(void)
{
    return DRIVER(LEGACY, cuCtxResetPersistingL2Cache);
}

// Profilers see nothing of a simulation.
cudaError_t cudaProfilerStart(void)
{
    return runtime_leave(runtime_init());
}

cudaError_t cudaProfilerStop(void)
{
    return runtime_leave(runtime_init());
}
