// NVML: who uses how much of a device.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// Protected: exported, and calls among ourselves stay here when a preloaded library defines the same names.
#pragma GCC visibility push(protected)
#include "simgpu/nvml/nvml.h"
#pragma GCC visibility pop
#include "simgpu/state/state.h"

static uint64_t used_bytes(unsigned index)
{
    uint64_t capacity = state_file()->capacity_bytes;

    state_sweep();
    uint64_t used = state_used(index);
    return used < capacity ? used : capacity;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    unsigned index;
    nvmlReturn_t rc = nvml_check(device, memory, &index);

    if (rc)
        return rc;
    uint64_t used = used_bytes(index), total = state_file()->capacity_bytes;
    *memory = (nvmlMemory_t){.total = total, .used = used, .free = total - used};
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    unsigned index;
    nvmlReturn_t rc = nvml_check(device, memory, &index);

    if (rc)
        return rc;
    if (memory->version != NVML_MEMORY_V2)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    uint64_t used = used_bytes(index), total = state_file()->capacity_bytes;
    *memory = (nvmlMemory_v2_t){.version = NVML_MEMORY_V2, .total = total, .used = used, .free = total - used};
    return NVML_SUCCESS;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

// Time that the engine was held so far, the present holder's turn included.
static uint64_t busy_ns(unsigned index, uint64_t now)
{
    struct state_engine *engine = &state_file()->engine[index];
    uint64_t busy = atomic_load(&engine->busy_ns), owner = atomic_load(&engine->owner), since = (owner >> 16) * 1000;

    return owner & 0xffff && now > since ? busy + (now - since) : busy;
}

// The share of time since the last question in this process; the first answer is 0, as there is nothing to compare with.
nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static uint64_t last_ns[STATE_MAX_DEVICES], last_busy_ns[STATE_MAX_DEVICES];
    unsigned index;
    nvmlReturn_t rc = nvml_check(device, utilization, &index);

    if (rc)
        return rc;
    pthread_mutex_lock(&lock);
    uint64_t now = now_ns(), busy = busy_ns(index, now), percent = 0;
    if (last_ns[index] && now > last_ns[index] && busy > last_busy_ns[index])
        percent = (busy - last_busy_ns[index]) * 100 / (now - last_ns[index]);
    last_ns[index] = now;
    last_busy_ns[index] = busy;
    pthread_mutex_unlock(&lock);
    uint64_t capacity = state_file()->capacity_bytes;
    *utilization = (nvmlUtilization_t){.gpu = percent < 100 ? (unsigned)percent : 100,
                                       .memory = (unsigned)(used_bytes(index) * 100 / capacity)};
    return NVML_SUCCESS;
}

// The processes with a context on a device, as far as `room` goes. Returns how many there are.
static unsigned list_processes(unsigned index, nvmlProcessInfo_v2_t *infos, unsigned room)
{
    unsigned found = 0;

    state_sweep();
    for (unsigned i = 0; i < STATE_MAX_SLOTS; i++) {
        struct state_slot *slot = &state_file()->slot[i];
        if (!atomic_load(&slot->live) || !atomic_load(&slot->device[index].contexts))
            continue;
        if (found < room)
            infos[found] = (nvmlProcessInfo_v2_t){.pid = atomic_load(&slot->pid),
                                                  .gpuInstanceId = UINT_MAX,
                                                  .usedGpuMemory = atomic_load(&slot->device[index].committed_bytes),
                                                  .computeInstanceId = UINT_MAX};
        found++;
    }
    return found;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_v2_t *infos)
{
    unsigned index;
    nvmlReturn_t rc = nvml_check(device, count, &index);

    if (rc)
        return rc;
    if (*count && !infos)
        return NVML_ERROR_INVALID_ARGUMENT;
    unsigned found = list_processes(index, infos, *count);
    rc = found > *count ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
    *count = found;
    return rc;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_v2_t *infos)
{
    return nvmlDeviceGetComputeRunningProcesses_v3(device, count, infos);
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_v1_t *infos)
{
    nvmlProcessInfo_v2_t wider[STATE_MAX_SLOTS];
    unsigned found = STATE_MAX_SLOTS;

    if (!count || (*count && !infos))
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t rc = nvmlDeviceGetComputeRunningProcesses_v3(device, &found, wider);
    if (rc)
        return rc;
    for (unsigned i = 0; i < found && i < *count; i++)
        infos[i] = (nvmlProcessInfo_v1_t){.pid = wider[i].pid, .usedGpuMemory = wider[i].usedGpuMemory};
    rc = found > *count ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
    *count = found;
    return rc;
}

static nvmlReturn_t no_processes(nvmlDevice_t device, unsigned *count, const void *infos)
{
    unsigned index;
    nvmlReturn_t rc = nvml_check(device, count, &index);
    if (!rc && *count && !infos)
        rc = NVML_ERROR_INVALID_ARGUMENT;
    if (!rc)
        *count = 0;
    return rc;
}

static bool under_mps(void)
{
    const char *mps = getenv("SIMGPU_MPS");
    return mps && strcmp(mps, "1") == 0;
}

// No graphics. Under MPS all processes are its clients.
#define LISTS(version, type)                                                                                                   \
    nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses##version(nvmlDevice_t device, unsigned *count, type *infos)             \
    {                                                                                                                          \
        return no_processes(device, count, infos);                                                                             \
    }                                                                                                                          \
    nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses##version(nvmlDevice_t device, unsigned *count, type *infos)           \
    {                                                                                                                          \
        return under_mps() ? nvmlDeviceGetComputeRunningProcesses##version(device, count, infos)                               \
                           : no_processes(device, count, infos);                                                               \
    }

LISTS(, nvmlProcessInfo_v1_t)
LISTS(_v2, nvmlProcessInfo_v2_t)
LISTS(_v3, nvmlProcessInfo_v2_t)

nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_v1_t *list)
{
    nvmlProcessInfo_v2_t infos[STATE_MAX_SLOTS];
    unsigned index;
    nvmlReturn_t rc = nvml_check(device, list, &index);

    if (rc)
        return rc;
    if (list->version != NVML_PROCESS_DETAIL_LIST_V1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    bool any = list->mode == 0 || (list->mode == 2 && under_mps());
    unsigned found = any ? list_processes(index, infos, STATE_MAX_SLOTS) : 0, room = list->numProcArrayEntries;
    list->numProcArrayEntries = found;
    if (found > room)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < found; i++)
        list->procArray[i] = (nvmlProcessDetail_v1_t){.pid = infos[i].pid,
                                                      .usedGpuMemory = infos[i].usedGpuMemory,
                                                      .gpuInstanceId = UINT_MAX,
                                                      .computeInstanceId = UINT_MAX};
    return NVML_SUCCESS;
}

// One sample of each process. Who computed how much is not known.
nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device, nvmlProcessesUtilizationInfo_v1_t *info)
{
    nvmlProcessInfo_v2_t infos[STATE_MAX_SLOTS];
    unsigned index;
    nvmlReturn_t rc = nvml_check(device, info, &index);

    if (rc)
        return rc;
    if (info->version != NVML_PROCESSES_UTILIZATION_INFO_V1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    unsigned found = list_processes(index, infos, STATE_MAX_SLOTS), room = info->processSamplesCount;
    info->processSamplesCount = found;
    if (!found)
        return NVML_ERROR_NOT_FOUND;
    if (found > room)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < found; i++)
        info->procUtilArray[i] = (nvmlProcessUtilizationInfo_v1_t){.timeStamp = now_ns() / 1000, .pid = infos[i].pid};
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *samples, unsigned *count,
                                             unsigned long long since)
{
    nvmlProcessInfo_v2_t infos[STATE_MAX_SLOTS];
    unsigned index;
    nvmlReturn_t rc = nvml_check(device, count, &index);

    (void)since;
    if (rc)
        return rc;
    unsigned found = list_processes(index, infos, STATE_MAX_SLOTS), room = *count;
    *count = found;
    if (!found)
        return NVML_ERROR_NOT_FOUND;
    if (!samples || found > room)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < found; i++)
        samples[i] = (nvmlProcessUtilizationSample_t){.timeStamp = now_ns() / 1000, .pid = infos[i].pid};
    return NVML_SUCCESS;
}
