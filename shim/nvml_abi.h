// SPDX-License-Identifier: AGPL-3.0-or-later
// The part of NVML's binary interface that the hooks touch. The toolkit need not have nvml.h. nvmlDevice_t is an opaque
// pointer; an enum is an int to the ABI.
#ifndef VGPU_SHIM_NVML_ABI_H
#define VGPU_SHIM_NVML_ABI_H

#include <stddef.h>

enum nvml_return {
    NVML_SUCCESS = 0,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_LIBRARY_NOT_FOUND = 12,
    NVML_ERROR_FUNCTION_NOT_FOUND = 13,
    NVML_ERROR_MEMORY = 20,
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

struct nvml_utilization {
    unsigned int gpu, memory; // percent
};

// A running process. The second form has all fields of the first at the same offsets, and the third those of the second.
struct nvml_process_v1 {
    unsigned int pid;
    unsigned long long used_bytes;
};

struct nvml_process_v2 { // also the third version's
    unsigned int pid;
    unsigned long long used_bytes;
    unsigned int gpu_instance, compute_instance; // UINT_MAX outside MIG
};

struct nvml_process_detail {
    unsigned int pid;
    unsigned long long used_bytes;
    unsigned int gpu_instance, compute_instance;
    unsigned long long used_protected_bytes;
};

enum nvml_process_mode { NVML_PROCESS_COMPUTE, NVML_PROCESS_GRAPHICS, NVML_PROCESS_MPS };

struct nvml_process_details {
    unsigned int version;
    unsigned int mode;
    unsigned int count; // in: room, out: entries
    struct nvml_process_detail *processes;
};

// What a process did during one sample.
struct nvml_process_sample {
    unsigned int pid;
    unsigned long long timestamp_us;
    unsigned int sm, memory, encoder, decoder; // percent
};

struct nvml_process_usage {
    unsigned long long timestamp_us;
    unsigned int pid;
    unsigned int sm, memory, encoder, decoder, jpeg, optical_flow; // percent
};

struct nvml_process_usages {
    unsigned int version;
    unsigned int count; // in: room, out: entries
    unsigned long long last_seen_us;
    struct nvml_process_usage *usages;
};

_Static_assert(sizeof(struct nvml_memory) == 24, "nvmlMemory_t");
_Static_assert(sizeof(struct nvml_memory_v2) == 40 && offsetof(struct nvml_memory_v2, used) == 32, "nvmlMemory_v2_t");
_Static_assert(sizeof(struct nvml_utilization) == 8, "nvmlUtilization_t");
_Static_assert(sizeof(struct nvml_process_v1) == 16, "nvmlProcessInfo_v1_t");
_Static_assert(sizeof(struct nvml_process_v2) == 24 && offsetof(struct nvml_process_v2, gpu_instance) == 16,
               "nvmlProcessInfo_v2_t");
_Static_assert(sizeof(struct nvml_process_detail) == 32, "nvmlProcessDetail_v1_t");
_Static_assert(sizeof(struct nvml_process_details) == 24, "nvmlProcessDetailList_v1_t");
_Static_assert(sizeof(struct nvml_process_sample) == 32 && offsetof(struct nvml_process_sample, sm) == 16,
               "nvmlProcessUtilizationSample_t");
_Static_assert(sizeof(struct nvml_process_usage) == 40 && offsetof(struct nvml_process_usage, pid) == 8,
               "nvmlProcessUtilizationInfo_v1_t");
_Static_assert(sizeof(struct nvml_process_usages) == 24, "nvmlProcessesUtilizationInfo_v1_t");

#define NVML_UUID_BYTES 96 // NVML_DEVICE_UUID_V2_BUFFER_SIZE

// Used, not hooked.
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int length);
int nvmlDeviceGetIndex(void *device, unsigned int *index);
int nvmlDeviceGetGpuInstanceId(void *device, unsigned int *id);
int nvmlDeviceGetComputeInstanceId(void *device, unsigned int *id);

#pragma GCC visibility push(default)
int nvmlDeviceGetMemoryInfo(void *device, struct nvml_memory *memory);
int nvmlDeviceGetMemoryInfo_v2(void *device, struct nvml_memory_v2 *memory);
int nvmlDeviceGetUtilizationRates(void *device, struct nvml_utilization *utilization);
int nvmlDeviceGetProcessUtilization(void *device, struct nvml_process_sample *samples, unsigned int *count,
                                    unsigned long long last_seen_us);
int nvmlDeviceGetProcessesUtilizationInfo(void *device, struct nvml_process_usages *usages);
int nvmlDeviceGetRunningProcessDetailList(void *device, struct nvml_process_details *details);
int nvmlDeviceGetComputeRunningProcesses(void *device, unsigned int *count, struct nvml_process_v1 *processes);
int nvmlDeviceGetComputeRunningProcesses_v2(void *device, unsigned int *count, struct nvml_process_v2 *processes);
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count, struct nvml_process_v2 *processes);
int nvmlDeviceGetGraphicsRunningProcesses(void *device, unsigned int *count, struct nvml_process_v1 *processes);
int nvmlDeviceGetGraphicsRunningProcesses_v2(void *device, unsigned int *count, struct nvml_process_v2 *processes);
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned int *count, struct nvml_process_v2 *processes);
int nvmlDeviceGetMPSComputeRunningProcesses(void *device, unsigned int *count, struct nvml_process_v1 *processes);
int nvmlDeviceGetMPSComputeRunningProcesses_v2(void *device, unsigned int *count, struct nvml_process_v2 *processes);
int nvmlDeviceGetMPSComputeRunningProcesses_v3(void *device, unsigned int *count, struct nvml_process_v2 *processes);
#pragma GCC visibility pop

#endif
