// What device code finds built in, for a .cu file that the host C++ compiler compiles. Included ahead of the file.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// Covered: index variables, shared memory, block barriers, atomics, sleeping, clocks, and the arithmetic that <cmath> lacks.
// Not covered, so that using it fails to compile: warp functions, textures, cooperative groups, kernel templates, `<<<>>>`.
#ifndef SIMGPU_DEVICE_BUILTINS_HPP
#define SIMGPU_DEVICE_BUILTINS_HPP

#include <cuda_runtime.h>

#include <cmath>
#include <stdint.h>
#include <string.h>

// A kernel keeps its symbol, because the name in the kernel table is read from it; two equal kernels must keep two.
#undef __global__
#ifdef __clang__
#define __global__ __attribute__((visibility("default"), noinline))
#else
#define __global__ __attribute__((visibility("default"), noinline, no_icf))
#endif

// One block at a time runs on an OS thread. Inside a function thread_local implies static; `extern __shared__ T name[]` becomes
// a declaration whose definition register.sh writes.
#undef __shared__
#define __shared__ thread_local

#undef __launch_bounds__
#define __launch_bounds__(...)

// What nvcc sees of a kernel and the host compiler does not tell: the local memory of a thread, and whether it uses malloc. A .cu file
// says so behind the kernel, where SIMGPU_KERNEL_TAKES is defined.
namespace simgpu
{
template <auto kernel> inline constexpr uint32_t frame_bytes = 0;
template <auto kernel> inline constexpr uint32_t uses_heap = 0;
} // namespace simgpu
#define SIMGPU_KERNEL_TAKES(kernel, frame, heap)                                                                               \
    template <> inline constexpr uint32_t simgpu::frame_bytes<&kernel> = frame;                                                \
    template <> inline constexpr uint32_t simgpu::uses_heap<&kernel> = heap;

// Trivial types in one library: the compiler looks up the thread's data once per function. A fixed offset from the thread
// pointer would be faster still, but the room for that in a library loaded by dlopen is small and shared with the program's
// own.
#define SIMGPU_INDEX extern __thread __attribute__((tls_model("local-dynamic"), visibility("hidden")))
SIMGPU_INDEX uint3 threadIdx;
SIMGPU_INDEX uint3 blockIdx;
SIMGPU_INDEX uint3 blockDim;
SIMGPU_INDEX uint3 gridDim;
#undef SIMGPU_INDEX

// Waits until every thread of the block that has not returned is here.
void __syncthreads();

// Lets GPU time pass; the other threads of the block run meanwhile.
void __nanosleep(unsigned ns);

// Nanoseconds of the clock that goes on while a kernel is switched out, as %globaltimer does.
uint64_t simgpu_global_timer_ns();
#define DEVICE_TIMER_NS() simgpu_global_timer_ns()

// The simulated GPU's clock: 1 GHz.
inline long long clock64()
{
    return static_cast<long long>(simgpu_global_timer_ns());
}

// Blocks of one device run one after the other, but the host and other devices may look at the same memory.
template <typename T> struct simgpu_same {
    using type = T;
};
#define SIMGPU_ATOMIC(name, builtin)                                                                                           \
    template <typename T> inline T name(T *address, typename simgpu_same<T>::type value)                                       \
    {                                                                                                                          \
        static_assert(sizeof(T) == 4 || sizeof(T) == 8, #name " is for 32-bit and 64-bit numbers");                            \
        return builtin(address, value, __ATOMIC_RELAXED);                                                                      \
    }
SIMGPU_ATOMIC(atomicAdd, __atomic_fetch_add)
SIMGPU_ATOMIC(atomicSub, __atomic_fetch_sub)
SIMGPU_ATOMIC(atomicAnd, __atomic_fetch_and)
SIMGPU_ATOMIC(atomicOr, __atomic_fetch_or)
SIMGPU_ATOMIC(atomicXor, __atomic_fetch_xor)
SIMGPU_ATOMIC(atomicExch, __atomic_exchange_n)
#undef SIMGPU_ATOMIC

template <typename T>
inline T atomicCAS(T *address, typename simgpu_same<T>::type expected, typename simgpu_same<T>::type value)
{
    __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}

template <typename T> inline T atomicMax(T *address, typename simgpu_same<T>::type value)
{
    T old = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (old < value && !__atomic_compare_exchange_n(address, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return old;
}

template <typename T> inline T atomicMin(T *address, typename simgpu_same<T>::type value)
{
    T old = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (value < old && !__atomic_compare_exchange_n(address, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return old;
}

// The compilers' fetch-and-add knows no floating-point numbers.
inline float atomicAdd(float *address, float value)
{
    float old, sum;
    __atomic_load(address, &old, __ATOMIC_RELAXED);
    do {
        sum = old + value;
    } while (!__atomic_compare_exchange(address, &old, &sum, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}

inline double atomicAdd(double *address, double value)
{
    double old, sum;
    __atomic_load(address, &old, __ATOMIC_RELAXED);
    do {
        sum = old + value;
    } while (!__atomic_compare_exchange(address, &old, &sum, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}

inline void __threadfence()
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

inline void __threadfence_block()
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

inline void __threadfence_system()
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

template <typename T> inline T __ldg(const T *address)
{
    return *address;
}

inline float rsqrtf(float x)
{
    return 1.0f / std::sqrt(x);
}

inline double rsqrt(double x)
{
    return 1.0 / std::sqrt(x);
}

inline unsigned __float_as_uint(float x)
{
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float __uint_as_float(unsigned bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

template <typename T> inline T min(T a, T b)
{
    return b < a ? b : a;
}

template <typename T> inline T max(T a, T b)
{
    return a < b ? b : a;
}

#endif
