// SPDX-License-Identifier: AGPL-3.0-or-later
// A driver with one thing wrong, which ODD_DRIVER says: crash, old, exclusive, mismatch, many; and its NVML, with one more: sleepy, divided.
// Otherwise one GPU of 1 GiB. It has a function that no table knows.
#include <cuda.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is(const char *what)
{
    const char *odd = getenv("ODD_DRIVER");
    return odd && strcmp(odd, what) == 0;
}

CUresult cuInit(unsigned int flags)
{
    (void)flags;
    if (is("crash")) {
        fputs("about to fall over\n", stderr);
        raise(SIGSEGV);
    }
    return is("mismatch") ? CUDA_ERROR_SYSTEM_DRIVER_MISMATCH : CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int *version)
{
    *version = is("old") ? 11040 : 13000;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count)
{
    *count = is("many") ? 17 : 1;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device)
{
    snprintf(name, (size_t)length, "Odd GPU %d", device);
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    (void)device;
    *bytes = 1ull << 30;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    (void)device;
    *value = is("exclusive") && attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_MODE ? CU_COMPUTEMODE_EXCLUSIVE_PROCESS : 0;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetPCIBusId(char *id, int length, CUdevice device)
{
    (void)device;
    snprintf(id, (size_t)length, "0000:00:00.0");
    return CUDA_SUCCESS;
}

CUresult cuFutureAlloc(void);
CUresult cuFutureAlloc(void)
{
    return CUDA_ERROR_NOT_SUPPORTED;
}

int nvmlInit_v2(void);
int nvmlInit_v2(void)
{
    return 0;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length);
int nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    snprintf(version, length, "1.2.3");
    return 0;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **device);
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **device)
{
    *device = NULL;
    return strcmp(id, "0000:00:00.0") != 0;
}

int nvmlDeviceGetPersistenceMode(void *device, int *mode);
int nvmlDeviceGetPersistenceMode(void *device, int *mode)
{
    (void)device;
    *mode = !is("sleepy");
    return 0;
}

int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending);
int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending)
{
    (void)device;
    *current = *pending = is("divided");
    return 0;
}
