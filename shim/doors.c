// SPDX-License-Identifier: AGPL-3.0-or-later
// The doors through which a program reaches a CUDA function, and who guards each:
//
//  a. direct link against libcuda               the exported wrapper of the same name comes first in the global scope
//  b. dynamic libcudart                         the same (runtime_*.c); its own way to the driver is c and d
//  c. dlsym, dlvsym                             the functions below
//  d. cuGetProcAddress, cuGetProcAddress_v2,    below, and in runtime_doors.c
//     cudaGetDriverEntryPoint[ByVersion]
//
// For c and d, the real resolver is asked first and its answer exchanged by address: which version and stream variant a name
// means is the resolver's business. Nothing is found that would not be found without this library.
//
// dlsym and dlvsym jump to the real function for every name that is not CUDA's or NVML's, so that RTLD_NEXT and RTLD_DEFAULT
// mean the caller's. A call would not do, since the dynamic linker knows the caller by the return address. Hence the trampoline
// in assembly.
#include "shim/hooks.h"

#include <dlfcn.h>
#include <string.h>

#include "shim/loader.h"
#include "shim/trampoline.h"

struct route dlsym_route(void *handle, const char *name, const void *caller) __attribute__((used, visibility("hidden")));
struct route dlvsym_route(void *handle, const char *name, const char *version, const void *caller)
    __attribute__((used, visibility("hidden")));

TRAMPOLINE(dlsym, THIRD_ARGUMENT);
TRAMPOLINE(dlvsym, FOURTH_ARGUMENT);

// Whether a name looks like a driver, runtime or NVML function: cuXxx, cudaXxx, nvmlXxx. Not cublasXxx or curl_xxx. By hand:
// see loader.h for who asks.
static bool is_cuda_name(const char *name)
{
    if (name[0] == 'c' && name[1] == 'u') {
        name += 2;
        if (name[0] == 'd' && name[1] == 'a')
            name += 2;
    } else if (name[0] == 'n' && name[1] == 'v' && name[2] == 'm' && name[3] == 'l') {
        name += 4;
    } else {
        return false;
    }
    return name[0] >= 'A' && name[0] <= 'Z';
}

static struct route jump_to(void *function)
{
    return (struct route){.jump = function};
}

static struct route answer(void *value)
{
    return (struct route){.value = value};
}

// The search found our own wrapper. Without this library it would have gone on: is there a real function behind it? RTLD_NEXT
// from here is the global scope behind us; `caller`, if the search began there, may see libraries that the global scope lacks.
static struct route own_wrapper(void *wrapper, const char *name, const char *version, const void *caller)
{
    if (loader_find(RTLD_NEXT, name))
        return answer(wrapper);
    if (caller && !loader_is_main(caller) && loader_find_from(caller, name))
        return answer(wrapper);
    return answer(loader_ask(RTLD_NEXT, name, version)); // NULL, and dlerror() says why
}

static struct route found(void *pointer, const char *name, const char *version, const void *caller)
{
    return hooks_is_wrapper(pointer) ? own_wrapper(pointer, name, version, caller)
                                     : answer(hooks_substitute_named(pointer, name));
}

// "The next one after the caller": only to the caller can the real function answer that.
static struct route route_next(void *real, const char *name, const char *version, const void *caller)
{
    if (!hooks_has_row(name))
        return jump_to(real);
    void *next = loader_find_after(caller, name);
    // To a caller in front of us, what only a library's own scope has is not there.
    if (next && loader_precedes_us(caller) && !loader_precedes_us(next) && !loader_find(RTLD_NEXT, name))
        next = NULL;
    // A library behind us that interposes the runtime is called by the wrapper, which would lead back to it.
    if (next && strncmp(name, "cuda", 4) == 0 && !loader_precedes_us(caller))
        return answer(next);
    if (next)
        return answer(hooks_substitute_named(next, name));
    // Nothing there. To a caller in front of us, the real function would answer with our wrapper.
    return loader_precedes_us(caller) ? answer(loader_ask(RTLD_NEXT, name, version)) : jump_to(real);
}

struct route dlsym_route(void *handle, const char *name, const void *caller)
{
    loader_dlsym *real = loader_next_dlsym();
    if (__builtin_expect(!is_cuda_name(name) || !real, 1))
        return jump_to((void *)real);
    if (handle == RTLD_NEXT)
        return route_next((void *)real, name, NULL, caller);
    void *pointer = real(handle, name);
    if (pointer)
        return found(pointer, name, NULL, handle == RTLD_DEFAULT ? caller : NULL);
    // RTLD_DEFAULT from here has not seen the caller's own scope. It holds no wrapper, or the global scope would have had it.
    return handle == RTLD_DEFAULT ? jump_to((void *)real) : answer(NULL);
}

struct route dlvsym_route(void *handle, const char *name, const char *version, const void *caller)
{
    loader_dlvsym *real = loader_next_dlvsym();
    if (__builtin_expect(!is_cuda_name(name) || !real, 1)) {
        // A library in front of us that also interposes dlsym asks this way for "the real one". Its next is this library, which
        // has no versions, so the real dlvsym would pass us over and its answer would bypass the hooks.
        if (handle == RTLD_NEXT && loader_is_same(name, "dlsym") && loader_precedes_us(caller))
            return answer((void *)dlsym);
        if (handle == RTLD_NEXT && loader_is_same(name, "dlvsym") && loader_precedes_us(caller))
            return answer((void *)dlvsym);
        return jump_to((void *)real);
    }
    if (handle == RTLD_NEXT)
        return route_next((void *)real, name, version, caller);
    void *pointer = real(handle, name, version);
    if (pointer)
        return found(pointer, name, version, handle == RTLD_DEFAULT ? caller : NULL);
    return handle == RTLD_DEFAULT ? jump_to((void *)real) : answer(NULL);
}

static CUresult substitute_entry(CUresult result, const char *symbol, void **entry)
{
    if (result == CUDA_SUCCESS && entry && *entry)
        *entry = hooks_substitute_named(*entry, symbol);
    return result;
}

CUresult cuGetProcAddress(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags)
{
    return substitute_entry(REAL(cuGetProcAddress)(symbol, pfn, cudaVersion, flags), symbol, pfn);
}

CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags,
                             CUdriverProcAddressQueryResult *symbolStatus)
{
    return substitute_entry(REAL(cuGetProcAddress_v2)(symbol, pfn, cudaVersion, flags, symbolStatus), symbol, pfn);
}
