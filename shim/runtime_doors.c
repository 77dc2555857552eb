// SPDX-License-Identifier: AGPL-3.0-or-later
// Door d of the runtime: cudaGetDriverEntryPoint and its kin. See doors.c.
//
// The prototypes are here, not from the toolkit: CUDA 11 has three parameters where CUDA 12 has four (the fourth is passed on
// untouched; a CUDA 11 runtime ignores it), and only 12.5 and later have ByVersion. To the ABI an enum, cudaError_t or other,
// is an int.
#include "shim/runtime.h"

#pragma GCC visibility push(default)
int cudaGetDriverEntryPoint(const char *symbol, void **funcPtr, unsigned long long flags, int *driverStatus);
int cudaGetDriverEntryPoint_ptsz(const char *symbol, void **funcPtr, unsigned long long flags, int *driverStatus);
int cudaGetDriverEntryPointByVersion(const char *symbol, void **funcPtr, unsigned int cudaVersion, unsigned long long flags,
                                     int *driverStatus);
int cudaGetDriverEntryPointByVersion_ptsz(const char *symbol, void **funcPtr, unsigned int cudaVersion,
                                          unsigned long long flags, int *driverStatus);
#pragma GCC visibility pop

static int substitute_entry(int result, const char *symbol, void **entry)
{
    if (result == 0 && entry && *entry)
        *entry = hooks_substitute_named(*entry, symbol);
    return result;
}

int cudaGetDriverEntryPoint(const char *symbol, void **funcPtr, unsigned long long flags, int *driverStatus)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return substitute_entry(RUNTIME_REAL(runtime, cudaGetDriverEntryPoint)(symbol, funcPtr, flags, driverStatus), symbol,
                            funcPtr);
}

int cudaGetDriverEntryPoint_ptsz(const char *symbol, void **funcPtr, unsigned long long flags, int *driverStatus)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return substitute_entry(RUNTIME_REAL(runtime, cudaGetDriverEntryPoint_ptsz)(symbol, funcPtr, flags, driverStatus), symbol,
                            funcPtr);
}

int cudaGetDriverEntryPointByVersion(const char *symbol, void **funcPtr, unsigned int cudaVersion, unsigned long long flags,
                                     int *driverStatus)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return substitute_entry(RUNTIME_REAL(runtime, cudaGetDriverEntryPointByVersion)(symbol, funcPtr, cudaVersion, flags,
                                                                                    driverStatus),
                            symbol, funcPtr);
}

int cudaGetDriverEntryPointByVersion_ptsz(const char *symbol, void **funcPtr, unsigned int cudaVersion,
                                          unsigned long long flags, int *driverStatus)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return substitute_entry(RUNTIME_REAL(runtime, cudaGetDriverEntryPointByVersion_ptsz)(symbol, funcPtr, cudaVersion, flags,
                                                                                         driverStatus),
                            symbol, funcPtr);
}
