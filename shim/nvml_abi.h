// SPDX-License-Identifier: AGPL-3.0-or-later
// The part of NVML's binary interface that the hooks touch. The toolkit need not have nvml.h.
#ifndef VGPU_SHIM_NVML_ABI_H
#define VGPU_SHIM_NVML_ABI_H

#include <stddef.h>

enum nvml_return {
    NVML_SUCCESS = 0,
    NVML_ERROR_LIBRARY_NOT_FOUND = 12,
    NVML_ERROR_FUNCTION_NOT_FOUND = 13,
};

struct nvml_memory {
    unsigned long long total;
    unsigned long long free;
    unsigned long long used;
};

struct nvml_memory_v2 {
    unsigned int version; // size of the structure, and the version in the top byte
    unsigned long long total;
    unsigned long long reserved; // by the driver, for the device as a whole
    unsigned long long free;
    unsigned long long used;
};

_Static_assert(sizeof(struct nvml_memory) == 24, "nvmlMemory_t");
_Static_assert(sizeof(struct nvml_memory_v2) == 40 && offsetof(struct nvml_memory_v2, used) == 32, "nvmlMemory_v2_t");

#define NVML_UUID_BYTES 96 // NVML_DEVICE_UUID_V2_BUFFER_SIZE

// nvmlDevice_t is a pointer that only NVML looks behind.
#pragma GCC visibility push(default)
int nvmlDeviceGetMemoryInfo(void *device, struct nvml_memory *memory);
int nvmlDeviceGetMemoryInfo_v2(void *device, struct nvml_memory_v2 *memory);
#pragma GCC visibility pop

typedef int nvml_device_get_uuid(void *device, char *uuid, unsigned int length);

#endif
