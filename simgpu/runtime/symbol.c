// Device variables: where they are, and copies to and from them.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/runtime.h"

static cudaError_t locate(const void *symbol, size_t offset, size_t bytes, char **address)
{
    void *base;
    size_t size;
    cudaError_t error = registry_symbol(symbol, &base, &size);

    if (!error && (offset > size || bytes > size - offset))
        error = cudaErrorInvalidValue;
    if (!error)
        *address = (char *)base + offset;
    return runtime_leave(error);
}

cudaError_t cudaGetSymbolAddress(void **address, const void *symbol)
{
    size_t size;
    return runtime_leave(address ? registry_symbol(symbol, address, &size) : cudaErrorInvalidValue);
}

cudaError_t cudaGetSymbolSize(size_t *size, const void *symbol)
{
    void *address;
    return runtime_leave(size ? registry_symbol(symbol, &address, size) : cudaErrorInvalidValue);
}

cudaError_t cudaMemcpyToSymbol(const void *symbol, const void *src, size_t bytes, size_t offset, enum cudaMemcpyKind kind)
{
    char *address = NULL;
    cudaError_t error = locate(symbol, offset, bytes, &address);
    return error ? error : cudaMemcpy(address, src, bytes, kind);
}

cudaError_t cudaMemcpyToSymbol_ptds(const void *symbol, const void *src, size_t bytes, size_t offset, enum cudaMemcpyKind kind)
{
    char *address = NULL;
    cudaError_t error = locate(symbol, offset, bytes, &address);
    return error ? error : cudaMemcpy_ptds(address, src, bytes, kind);
}

cudaError_t cudaMemcpyFromSymbol(void *dst, const void *symbol, size_t bytes, size_t offset, enum cudaMemcpyKind kind)
{
    char *address = NULL;
    cudaError_t error = locate(symbol, offset, bytes, &address);
    return error ? error : cudaMemcpy(dst, address, bytes, kind);
}

cudaError_t cudaMemcpyFromSymbol_ptds(void *dst, const void *symbol, size_t bytes, size_t offset, enum cudaMemcpyKind kind)
{
    char *address = NULL;
    cudaError_t error = locate(symbol, offset, bytes, &address);
    return error ? error : cudaMemcpy_ptds(dst, address, bytes, kind);
}

cudaError_t cudaMemcpyToSymbolAsync(const void *symbol, const void *src, size_t bytes, size_t offset, enum cudaMemcpyKind kind,
                                    cudaStream_t stream)
{
    char *address = NULL;
    cudaError_t error = locate(symbol, offset, bytes, &address);
    return error ? error : cudaMemcpyAsync(address, src, bytes, kind, stream);
}

cudaError_t cudaMemcpyToSymbolAsync_ptsz(const void *symbol, const void *src, size_t bytes, size_t offset,
                                         enum cudaMemcpyKind kind, cudaStream_t stream)
{
    char *address = NULL;
    cudaError_t error = locate(symbol, offset, bytes, &address);
    return error ? error : cudaMemcpyAsync_ptsz(address, src, bytes, kind, stream);
}

cudaError_t cudaMemcpyFromSymbolAsync(void *dst, const void *symbol, size_t bytes, size_t offset, enum cudaMemcpyKind kind,
                                      cudaStream_t stream)
{
    char *address = NULL;
    cudaError_t error = locate(symbol, offset, bytes, &address);
    return error ? error : cudaMemcpyAsync(dst, address, bytes, kind, stream);
}

cudaError_t cudaMemcpyFromSymbolAsync_ptsz(void *dst, const void *symbol, size_t bytes, size_t offset, enum cudaMemcpyKind kind,
                                           cudaStream_t stream)
{
    char *address = NULL;
    cudaError_t error = locate(symbol, offset, bytes, &address);
    return error ? error : cudaMemcpyAsync_ptsz(dst, address, bytes, kind, stream);
}
