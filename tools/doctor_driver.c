// SPDX-License-Identifier: AGPL-3.0-or-later
// The driver as programs find it without the library: its version, its GPUs and their modes, and what it exports.
#include <cuda.h>
#include <dlfcn.h>

#include "pool/layout.h"
#include "tools/doctor.h"

#define OLDEST_CUDA 11080

// NVML's, for which a toolkit need not have a header.
typedef struct nvmlDevice_st *nvml_device;
enum { NVML_SUCCESS = 0, NVML_FEATURE_DISABLED = 0, NVML_FEATURE_ENABLED = 1 };

// --- NVML ---

// Persistence and partitioning of one GPU, by its name on the bus: NVML knows all GPUs of the machine, CUDA the visible ones.
static void check_modes(void *nvml, const char *bus_id, int ordinal)
{
    int (*find)(const char *, nvml_device *) =
        (int (*)(const char *, nvml_device *))dlsym(nvml, "nvmlDeviceGetHandleByPciBusId_v2");
    int (*persistence)(nvml_device, int *) = (int (*)(nvml_device, int *))dlsym(nvml, "nvmlDeviceGetPersistenceMode");
    int (*mig)(nvml_device, unsigned *, unsigned *) =
        (int (*)(nvml_device, unsigned *, unsigned *))dlsym(nvml, "nvmlDeviceGetMigMode");
    nvml_device device;
    int mode;
    unsigned current, pending;
    if (!find || find(bus_id, &device) != NVML_SUCCESS)
        return;
    if (persistence && persistence(device, &mode) == NVML_SUCCESS && mode == NVML_FEATURE_DISABLED)
        doctor_say(DOCTOR_WARN, "persistence",
                   "off for GPU %d: the first program after a pause waits until the driver has set it up (nvidia-smi -pm 1)",
                   ordinal);
    if (mig && mig(device, &current, &pending) == NVML_SUCCESS && current == NVML_FEATURE_ENABLED)
        doctor_say(DOCTOR_WARN, "mig",
                   "on for GPU %d: each instance is a GPU of its own, and NVML's figures are not the tenant's", ordinal);
}

static void *open_nvml(void)
{
    void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!nvml) {
        doctor_say(DOCTOR_WARN, "nvml", "%s: nvidia-smi and other tools will not work", dlerror());
        return NULL;
    }
    int (*init)(void) = (int (*)(void))dlsym(nvml, "nvmlInit_v2");
    int (*version)(char *, unsigned) = (int (*)(char *, unsigned))dlsym(nvml, "nvmlSystemGetDriverVersion");
    char text[80] = "";
    int rc = init ? init() : -1;
    if (rc == NVML_SUCCESS && version && version(text, sizeof text) == NVML_SUCCESS) {
        doctor_say(DOCTOR_OK, "nvml", "driver %s", text);
        return nvml;
    }
    doctor_say(DOCTOR_WARN, "nvml", "does not start (error %d): are its kernel module and its library of the same version?",
               rc);
    return NULL;
}

// --- the GPUs ---

#define DRIVER_FUNCTIONS(row)                                                                                                  \
    row(cuInit) row(cuDriverGetVersion) row(cuDeviceGetCount) row(cuDeviceGetName) row(cuDeviceTotalMem_v2)                    \
        row(cuDeviceGetAttribute) row(cuDeviceGetPCIBusId)

static struct {
#define MEMBER(name) __typeof__(name) *(name);
    DRIVER_FUNCTIONS(MEMBER)
} driver;

// Finds them all; returns the name of one that is missing, or NULL.
static const char *resolve(void *library)
{
#define FIND(name)                                                                                                             \
    driver.name = (__typeof__(name) *)dlsym(library, #name);                                                                   \
    if (!driver.name)                                                                                                          \
        return #name;
    DRIVER_FUNCTIONS(FIND)
    return NULL;
}

static void check_gpu(CUdevice device, void *nvml)
{
    char name[128] = "?", bus_id[32] = "";
    size_t bytes = 0;
    int mode = CU_COMPUTEMODE_DEFAULT;
    driver.cuDeviceGetName(name, sizeof name, device);
    driver.cuDeviceTotalMem_v2(&bytes, device);
    driver.cuDeviceGetAttribute(&mode, CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, device);
    doctor_say(DOCTOR_OK, "gpu", "%d: %s, %.1f GiB", device, name, (double)bytes / (1ull << 30));
    if (mode == CU_COMPUTEMODE_PROHIBITED)
        doctor_say(DOCTOR_FAIL, "compute mode", "GPU %d is closed to all programs: nvidia-smi -i %d -c DEFAULT", device,
                   device);
    else if (mode != CU_COMPUTEMODE_DEFAULT)
        doctor_say(DOCTOR_FAIL, "compute mode", "GPU %d takes one program at a time: nvidia-smi -i %d -c DEFAULT, or use MPS",
                   device, device);
    if (nvml && driver.cuDeviceGetPCIBusId(bus_id, sizeof bus_id, device) == CUDA_SUCCESS)
        check_modes(nvml, bus_id, device);
}

// An error of cuInit in words.
static const char *advice(CUresult rc)
{
    switch ((int)rc) {
    case CUDA_ERROR_NO_DEVICE:
        return "no GPU is visible: is CUDA_VISIBLE_DEVICES right, and does this container have a GPU?";
    case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:
        return "libcuda and the kernel module have different versions: restart, or mount the running driver into this container";
    case CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE:
        return "a forward-compatibility libcuda that does not serve this GPU: take it off LD_LIBRARY_PATH";
    case CUDA_ERROR_SYSTEM_NOT_READY:
        return "the system is not ready: is nvidia-fabricmanager running, if this machine needs it?";
    case CUDA_ERROR_OPERATING_SYSTEM:
        return "the operating system refuses: are the device files there, and is there an MPS daemon that does not answer?";
    default:
        return "look at the kernel's log (dmesg | grep -i nvrm)";
    }
}

static void check_gpus(void *nvml)
{
    int version = 0, count = 0;
    driver.cuDriverGetVersion(&version);
    doctor_say(version >= OLDEST_CUDA ? DOCTOR_OK : DOCTOR_FAIL, "driver", "CUDA %d.%d%s", version / 1000, version % 1000 / 10,
               version >= OLDEST_CUDA ? "" : ", and 11.8 is the oldest that is supported: install a newer driver");
    CUresult rc = driver.cuInit(0);
    if (rc == CUDA_SUCCESS)
        rc = driver.cuDeviceGetCount(&count);
    if (rc != CUDA_SUCCESS || count == 0) {
        doctor_say(DOCTOR_FAIL, "gpu", "the driver does not start (error %d): %s", (int)rc,
                   advice(rc == CUDA_SUCCESS ? CUDA_ERROR_NO_DEVICE : rc));
        return;
    }
    if (count > (int)POOL_MAX_GPUS)
        doctor_say(DOCTOR_FAIL, "gpu", "%d are visible and %u are supported: set CUDA_VISIBLE_DEVICES", count, POOL_MAX_GPUS);
    for (CUdevice device = 0; device < count; device++)
        check_gpu(device, nvml);
}

void doctor_driver(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        doctor_say(DOCTOR_FAIL, "driver",
                   "%s: install NVIDIA's driver, or start this container with the driver's libraries (docker run --gpus all)",
                   dlerror());
        return;
    }
    const char *missing = resolve(library);
    if (missing) {
        doctor_say(DOCTOR_FAIL, "driver", "libcuda.so.1 has no %s: it is not NVIDIA's, or damaged", missing);
        return;
    }
    check_gpus(open_nvml());
    doctor_coverage(library);
}
