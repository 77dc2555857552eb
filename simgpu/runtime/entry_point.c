// The runtime's door to the driver's functions.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/runtime.h"

// Asks for the variant of the wanted version; `per_thread` is what the caller was compiled for and decides where flags do not.
static cudaError_t resolve(bool per_thread, const char *symbol, void **function, unsigned version, unsigned long long flags,
                           enum cudaDriverEntryPointQueryResult *status)
{
    CUdriverProcAddressQueryResult found = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    cudaError_t error = runtime_init();

    if (!error && (!symbol || !function))
        error = cudaErrorInvalidValue;
    if (error)
        return runtime_leave(error);
    if (flags == cudaEnableDefault)
        flags = per_thread ? CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM : CU_GET_PROC_ADDRESS_LEGACY_STREAM;
    error = (cudaError_t)driver_resolve(symbol, function, (int)version, flags, &found);
    if (status)
        *status = (enum cudaDriverEntryPointQueryResult)found;
    // A function that is not there is an answer, told by the status, to those who ask for one.
    if (error == cudaErrorSymbolNotFound && status) {
        *function = NULL;
        return cudaSuccess;
    }
    return runtime_leave(error);
}

#if CUDART_VERSION >= 12050
cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *status)
{
    return resolve(false, symbol, function, version, flags, status);
}

cudaError_t cudaGetDriverEntryPointByVersion_ptsz(const char *symbol, void **function, unsigned version,
                                                  unsigned long long flags, enum cudaDriverEntryPointQueryResult *status)
{
    return resolve(true, symbol, function, version, flags, status);
}
#endif

cudaError_t cudaGetDriverEntryPoint(const char *symbol, void **function, unsigned long long flags,
                                    enum cudaDriverEntryPointQueryResult *status)
{
    return resolve(false, symbol, function, CUDART_VERSION, flags, status);
}

cudaError_t cudaGetDriverEntryPoint_ptsz(const char *symbol, void **function, unsigned long long flags,
                                         enum cudaDriverEntryPointQueryResult *status)
{
    return resolve(true, symbol, function, CUDART_VERSION, flags, status);
}
