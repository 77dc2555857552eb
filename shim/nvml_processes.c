// SPDX-License-Identifier: AGPL-3.0-or-later
// NVML's lists of running processes, in every version: only the tenant's own.
//
// The compute list is made from the pool, with what each process is charged: in many containers the driver's has numbers of
// another PID namespace, or nothing at all. The lists of graphics processes and of MPS clients keep the driver's entries for
// the tenant's processes.
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "shim/nvml.h"

// All versions of an entry begin alike. NVML takes in *count what fits into `entries`, and answers with what there is.
typedef int list_function(void *device, unsigned int *count, void *entries);

#define MARGIN 8 // processes that may appear between two questions

struct instance {
    unsigned int gpu, compute;
};

static struct instance instance_of(void *device)
{
    struct instance instance = {UINT_MAX, UINT_MAX};
    if (NVML_REAL(nvmlDeviceGetGpuInstanceId)(device, &instance.gpu) != NVML_SUCCESS ||
        NVML_REAL(nvmlDeviceGetComputeInstanceId)(device, &instance.compute) != NVML_SUCCESS)
        instance = (struct instance){UINT_MAX, UINT_MAX};
    return instance;
}

static bool is_member(const struct nvml_member *members, int member_count, unsigned int pid)
{
    for (int i = 0; i < member_count; i++)
        if (members[i].pid == pid)
            return true;
    return false;
}

unsigned int nvml_keep_members(const struct nvml_tenant *tenant, void *entries, unsigned int count, size_t bytes, size_t pid_at)
{
    struct nvml_member *members;
    int member_count = nvml_tenant_members(tenant, &members);
    unsigned int kept = 0;
    for (unsigned int i = 0; i < count; i++) {
        const char *entry = (const char *)entries + i * bytes;
        unsigned int pid;
        memcpy(&pid, entry + pid_at, sizeof pid);
        if (is_member(members, member_count, pid))
            memmove((char *)entries + kept++ * bytes, entry, bytes);
    }
    if (member_count >= 0)
        free(members);
    return kept;
}

// Hands out `found` entries as NVML does.
static int put(unsigned int *count, void *entries, const void *list, unsigned int found, size_t bytes)
{
    unsigned int room = *count;
    *count = found;
    if (found > room)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    if (found && !entries)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (found)
        memcpy(entries, list, found * bytes);
    return NVML_SUCCESS;
}

static int put_own(const struct nvml_tenant *tenant, void *device, unsigned int *count, void *entries, size_t bytes)
{
    struct nvml_member *members;
    struct instance instance = instance_of(device);
    int found = nvml_tenant_members(tenant, &members), result = NVML_ERROR_MEMORY;
    char *list = found >= 0 ? calloc((size_t)found + 1, bytes) : NULL;
    for (int i = 0; list && i < found; i++) {
        const struct nvml_process_v2 process = {members[i].pid, members[i].used_bytes, instance.gpu, instance.compute};
        memcpy(list + (size_t)i * bytes, &process, bytes < sizeof process ? bytes : sizeof process);
    }
    if (list)
        result = put(count, entries, list, (unsigned int)found, bytes);
    free(list);
    if (found >= 0)
        free(members);
    return result;
}

static int put_filtered(const struct nvml_tenant *tenant, list_function *real, void *device, unsigned int *count, void *entries,
                        size_t bytes)
{
    unsigned int there = 0;
    int result = real(device, &there, NULL);
    if (result != NVML_SUCCESS && result != NVML_ERROR_INSUFFICIENT_SIZE)
        return result;
    there += MARGIN;
    void *list = calloc(there, bytes);
    if (!list)
        return NVML_ERROR_MEMORY;
    result = real(device, &there, list);
    if (result == NVML_SUCCESS)
        result = put(count, entries, list, nvml_keep_members(tenant, list, there, bytes, 0), bytes);
    free(list);
    return result;
}

static int list(enum nvml_id id, bool compute, void *device, unsigned int *count, void *entries, size_t bytes)
{
    list_function *real = (list_function *)nvml_entry(id);
    struct nvml_tenant tenant;
    if (!count || !nvml_tenant_open(&tenant, device))
        return real(device, count, entries);
    int saved = errno, result;
    if (compute) {
        unsigned int none = 0;
        result = real(device, &none, NULL); // for its errors
        if (result == NVML_SUCCESS || result == NVML_ERROR_INSUFFICIENT_SIZE)
            result = put_own(&tenant, device, count, entries, bytes);
    } else {
        result = put_filtered(&tenant, real, device, count, entries, bytes);
    }
    nvml_tenant_close(&tenant);
    errno = saved;
    return result;
}

#define LIST(name, compute, type)                                                                                              \
    int name(void *device, unsigned int *count, struct type *processes)                                                        \
    {                                                                                                                          \
        return list(NVML_##name, compute, device, count, processes, sizeof *processes);                                        \
    }

LIST(nvmlDeviceGetComputeRunningProcesses, true, nvml_process_v1)
LIST(nvmlDeviceGetComputeRunningProcesses_v2, true, nvml_process_v2)
LIST(nvmlDeviceGetComputeRunningProcesses_v3, true, nvml_process_v2)
LIST(nvmlDeviceGetGraphicsRunningProcesses, false, nvml_process_v1)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, false, nvml_process_v2)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, false, nvml_process_v2)
LIST(nvmlDeviceGetMPSComputeRunningProcesses, false, nvml_process_v1)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2, false, nvml_process_v2)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, false, nvml_process_v2)

// The same for all lists in one function; room and entries are in a structure of the caller's.
int nvmlDeviceGetRunningProcessDetailList(void *device, struct nvml_process_details *details)
{
    struct nvml_tenant tenant;
    if (!details || !nvml_tenant_open(&tenant, device))
        return NVML_REAL(nvmlDeviceGetRunningProcessDetailList)(device, details);
    int saved = errno;
    struct nvml_process_details all = {.version = details->version, .mode = details->mode};
    int result = NVML_REAL(nvmlDeviceGetRunningProcessDetailList)(device, &all);
    if (result != NVML_SUCCESS && result != NVML_ERROR_INSUFFICIENT_SIZE)
        goto out;
    if (details->mode == NVML_PROCESS_COMPUTE) {
        result = put_own(&tenant, device, &details->count, details->processes, sizeof *details->processes);
        goto out;
    }
    all.count += MARGIN;
    all.processes = calloc(all.count, sizeof *all.processes);
    result = all.processes ? NVML_REAL(nvmlDeviceGetRunningProcessDetailList)(device, &all) : NVML_ERROR_MEMORY;
    if (result == NVML_SUCCESS)
        result = put(&details->count, details->processes, all.processes,
                     nvml_keep_members(&tenant, all.processes, all.count, sizeof *all.processes, 0), sizeof *all.processes);
    free(all.processes);
out:
    nvml_tenant_close(&tenant);
    errno = saved;
    return result;
}
