// cuGetProcAddress: the entry point for a name, a version and a default-stream flavour.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <string.h>

#include "simgpu/driver/api.h"

#pragma GCC visibility push(protected)
#include <cudaProfiler.h>
#pragma GCC visibility pop

struct entry {
    const char *name;
    int version;
    bool per_thread;
    void *address;
};

// A wrong version or suffix in a row would hand out a function of another type, which nobody would notice before it crashed.
#define ENTRY(name, version, suffix, twin)                                                                                     \
    _Static_assert(__builtin_types_compatible_p(__typeof__(&name##suffix##twin), PFN_##name##_v##version##twin),               \
                   "type of " #name #suffix #twin);
#include "simgpu/driver/versions.def"
#undef ENTRY

#define ENTRY(name, version, suffix, twin) {#name, version, sizeof #twin > 1, (void *)name##suffix##twin},
static const struct entry entries[] = {
#include "simgpu/driver/versions.def"
    // Instantiation with flags took over the plain name in 12.0; the typedefs know it by the long name only.
    {"cuGraphInstantiate", 12000, false, (void *)cuGraphInstantiateWithFlags},
    {"cuProfilerInitialize", 4000, false, (void *)cuProfilerInitialize},
    {"cuProfilerStart", 4000, false, (void *)cuProfilerStart},
    {"cuProfilerStop", 4000, false, (void *)cuProfilerStop},
};
#undef ENTRY

#define FLAVOURS (CU_GET_PROC_ADDRESS_LEGACY_STREAM | CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)

CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult *status)
{
    bool per_thread = flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM, known = false, found_twin = false;
    void *found = NULL;

    if (!symbol || !*symbol || !pfn || flags & ~(cuuint64_t)FLAVOURS || flags == FLAVOURS)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        const struct entry *entry = &entries[i];
        if (strcmp(entry->name, symbol) || (entry->per_thread && !per_thread))
            continue;
        known = true;
        // Names without a twin have one function for both flavours. Rows are in order, so that a later match is a newer one.
        if (entry->version <= version && (entry->per_thread || !found_twin)) {
            found = entry->address;
            found_twin = entry->per_thread;
        }
    }
    *pfn = found;
    if (status)
        *status = found   ? CU_GET_PROC_ADDRESS_SUCCESS
                  : known ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                          : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return found ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuGetProcAddress(const char *symbol, void **pfn, int version, cuuint64_t flags)
{
    return cuGetProcAddress_v2(symbol, pfn, version, flags, NULL);
}

// The real tables are undocumented structures of functions for NVIDIA's own libraries. None exists here, and a caller is told
// so as the driver tells it about an unknown table.
CUresult cuGetExportTable(const void **table, const CUuuid *id)
{
    if (!table || !id)
        return CUDA_ERROR_INVALID_VALUE;
    *table = NULL;
    return CUDA_ERROR_NOT_FOUND;
}

CUresult cuProfilerInitialize(const char *config, const char *output, CUoutput_mode mode)
{
    (void)config;
    (void)output;
    (void)mode;
    return CUDA_ERROR_NOT_SUPPORTED;
}

// There is nothing to profile; starting and stopping is what programs do around regions of interest.
CUresult cuProfilerStart(void)
{
    return CUDA_SUCCESS;
}

CUresult cuProfilerStop(void)
{
    return CUDA_SUCCESS;
}
