// NVML: initialisation, versions, and identity of devices.
// SPDX-License-Identifier: AGPL-3.0-or-later
// Protected: exported, and calls among ourselves stay here when a preloaded library defines the same names.
#pragma GCC visibility push(protected)
#include "simgpu/nvml/nvml.h"
#pragma GCC visibility pop

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "simgpu/state/state.h"

#define DRIVER_VERSION "580.00.00"
#define NVML_VERSION "13.580.00.00"
#define CUDA_VERSION 13000
#define DEVICE_NAME "Simulated H100"

struct nvmlDevice_st {
    char unused;
};

static struct nvmlDevice_st devices[STATE_MAX_DEVICES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned users;

nvmlReturn_t nvmlInitWithFlags(unsigned flags)
{
    int rc = 0;

    (void)flags;
    pthread_mutex_lock(&lock);
    if (!state_file())
        rc = state_open(false);
    if (!rc)
        users++;
    pthread_mutex_unlock(&lock);
    return rc == -EPERM || rc == -EACCES ? NVML_ERROR_NO_PERMISSION : rc ? NVML_ERROR_DRIVER_NOT_LOADED : NVML_SUCCESS;
}

nvmlReturn_t nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

nvmlReturn_t nvmlInit(void)
{
    return nvmlInitWithFlags(0);
}

nvmlReturn_t nvmlShutdown(void)
{
    // The state stays mapped: another thread may still be reading it.
    pthread_mutex_lock(&lock);
    bool initialised = users != 0;
    if (initialised)
        users--;
    pthread_mutex_unlock(&lock);
    return initialised ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
}

static bool is_initialised(void)
{
    pthread_mutex_lock(&lock);
    bool initialised = users != 0;
    pthread_mutex_unlock(&lock);
    return initialised;
}

nvmlReturn_t nvml_check(nvmlDevice_t device, const void *out, unsigned *index)
{
    if (!is_initialised())
        return NVML_ERROR_UNINITIALIZED;
    if (!out || device < devices || device >= devices + state_file()->device_count)
        return NVML_ERROR_INVALID_ARGUMENT;
    *index = (unsigned)(device - devices);
    return NVML_SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t result)
{
    switch (result) {
    case NVML_SUCCESS:
        return "Success";
    case NVML_ERROR_UNINITIALIZED:
        return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT:
        return "Invalid Argument";
    case NVML_ERROR_NOT_SUPPORTED:
        return "Not Supported";
    case NVML_ERROR_NO_PERMISSION:
        return "Insufficient Permissions";
    case NVML_ERROR_NOT_FOUND:
        return "Not Found";
    case NVML_ERROR_INSUFFICIENT_SIZE:
        return "Insufficient Size";
    case NVML_ERROR_DRIVER_NOT_LOADED:
        return "Driver Not Loaded";
    case NVML_ERROR_ARGUMENT_VERSION_MISMATCH:
        return "Argument version mismatch";
    default:
        return "Unknown Error";
    }
}

static nvmlReturn_t put_text(char *out, unsigned length, const char *text)
{
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    size_t bytes = strlen(text) + 1;
    if (bytes > length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(out, text, bytes);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    return is_initialised() ? put_text(version, length, DRIVER_VERSION) : NVML_ERROR_UNINITIALIZED;
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned length)
{
    return put_text(version, length, NVML_VERSION);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    if (!version)
        return NVML_ERROR_INVALID_ARGUMENT;
    *version = CUDA_VERSION;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    return nvmlSystemGetCudaDriverVersion_v2(version);
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count)
{
    if (!is_initialised())
        return NVML_ERROR_UNINITIALIZED;
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = state_file()->device_count;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount(unsigned *count)
{
    return nvmlDeviceGetCount_v2(count);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device)
{
    if (!is_initialised())
        return NVML_ERROR_UNINITIALIZED;
    if (!device || index >= state_file()->device_count)
        return NVML_ERROR_INVALID_ARGUMENT;
    *device = &devices[index];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned length)
{
    char text[48];
    unsigned index;
    nvmlReturn_t rc = nvml_check(device, uuid, &index);

    if (rc)
        return rc;
    state_uuid_text(index, text, sizeof text);
    return put_text(uuid, length, text);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    char text[48];

    if (!is_initialised())
        return NVML_ERROR_UNINITIALIZED;
    if (!uuid || !device)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned i = 0; i < state_file()->device_count; i++) {
        if (nvmlDeviceGetUUID(&devices[i], text, sizeof text) == NVML_SUCCESS && !strcasecmp(text, uuid)) {
            *device = &devices[i];
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
    unsigned domain, bus, slot, function;

    if (!is_initialised())
        return NVML_ERROR_UNINITIALIZED;
    if (!bus_id || !device || sscanf(bus_id, "%x:%x:%x.%x", &domain, &bus, &slot, &function) < 3)
        return NVML_ERROR_INVALID_ARGUMENT;
    // Device n sits on bus n + 1, as the driver says too.
    if (domain || slot || bus == 0 || bus > state_file()->device_count)
        return NVML_ERROR_NOT_FOUND;
    *device = &devices[bus - 1];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *bus_id, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByPciBusId_v2(bus_id, device);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *info)
{
    unsigned index;
    nvmlReturn_t rc = nvml_check(device, info, &index);

    if (rc)
        return rc;
    *info = (nvmlPciInfo_t){.bus = index + 1, .pciDeviceId = 0x233010de};
    snprintf(info->busIdLegacy, sizeof info->busIdLegacy, "0000:%02X:00.0", index + 1);
    snprintf(info->busId, sizeof info->busId, "00000000:%02X:00.0", index + 1);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *index)
{
    unsigned found;
    nvmlReturn_t rc = nvml_check(device, index, &found);
    if (!rc)
        *index = found;
    return rc;
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length)
{
    unsigned index;
    nvmlReturn_t rc = nvml_check(device, name, &index);
    return rc ? rc : put_text(name, length, DEVICE_NAME);
}
