# SPDX-License-Identifier: AGPL-3.0-or-later
"""The Python binding. usage: api_binding.py MODULE"""

import ctypes
import errno
import sys
import threading

import vgpu

MIB = 1 << 20
cuda = ctypes.CDLL("libcuda.so.1")


def kernel(path, name):
    context, module, function = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    assert cuda.cuInit(0) == 0
    assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    assert cuda.cuCtxSetCurrent(context) == 0
    assert cuda.cuModuleLoad(ctypes.byref(module), path.encode()) == 0
    assert cuda.cuModuleGetFunction(ctypes.byref(function), module, name.encode()) == 0
    return function.value


def refused(code, words, function, *arguments, **keywords):
    try:
        function(*arguments, **keywords)
    except vgpu.VGPUError as error:
        assert error.errno == code and words in error.strerror, error
    else:
        raise AssertionError(f"{function} was not refused")


def memory_and_launches(gpu, add):
    block = gpu.malloc(4000)
    gpu.fill(block, 0, 4000)
    for _ in range(3):
        gpu.launch(add, [ctypes.c_uint64(block), ctypes.c_uint32(7), ctypes.c_uint64(1000)])
    gpu.synchronize()
    assert gpu.read(block, 4000) == (21).to_bytes(4, "little") * 1000
    gpu.write(block, b"abc", offset=1)
    assert gpu.read(block, 5)[1:4] == b"abc"
    aligned = gpu.malloc(1, alignment=MIB)
    assert aligned % MIB == 0
    refused(errno.EFAULT, "inside an allocation", gpu.free, block + 256)
    gpu.free(aligned)
    gpu.free(block)
    refused(errno.EALREADY, "freed already", gpu.free, block)
    refused(errno.ENOMEM, "do not fit", gpu.malloc, 1 << 40)
    assert gpu.mem_info() == (64 * MIB, 64 * MIB)
    stream = gpu.stream_create()
    block = gpu.malloc(4096, stream=stream)
    gpu.fill(block, 1, 4096, stream=stream)
    gpu.synchronize(stream)
    gpu.free(block, stream=stream)
    refused(errno.ENOTSUP, "not both", gpu.malloc, 4096, alignment=MIB, stream=stream)
    refused(errno.ENOTSUP, "not both", gpu.malloc, 4096, alignment=MIB, stream=gpu.stream)
    gpu.stream_destroy(stream)


def tasks(gpu):
    order, go = [], threading.Event()
    first = gpu.submit(go.wait)
    later = [gpu.submit(order.append, i) for i in range(5)]
    dropped = gpu.submit(order.append, "dropped")
    dropped.cancel()
    refused(errno.ETIMEDOUT, "not done", later[0].wait, timeout=0.01)
    go.set()
    assert first.wait() is True
    later[4].wait(timeout=10)
    assert order == [0, 1, 2, 3, 4] and later[0].done()
    refused(errno.ECANCELED, "cancelled", dropped.wait)
    try:
        gpu.submit(lambda: 1 // 0).wait()
    except ZeroDivisionError:
        pass
    else:
        raise AssertionError("the task's exception was lost")
    for _ in range(2000):  # nobody keeps these, and nothing is kept of them
        gpu.submit(int)
    gpu.submit(int).wait()
    assert not vgpu.Task._queued


def main():
    with vgpu.VirtualGPU("python", memory=64 * MIB, weight=200) as gpu, vgpu.VirtualGPU(memory=64 * MIB) as other:
        add = kernel(sys.argv[1], "add_u32")
        memory_and_launches(gpu, add)
        tasks(gpu)
        with gpu.turn():
            refused(errno.EDEADLK, "another virtual GPU", other.turn().__enter__)
        with gpu.region_create("weights", 2 * MIB) as region, other.region_open("weights", readonly=True) as seen:
            gpu.fill(region.pointer, 5, 100)
            assert region.publish() == 1 and seen.wait(timeout=10) == 1
            assert other.read(seen.pointer, 100) == b"\5" * 100 and seen.bytes == 2 * MIB
            gpu.region_unlink("weights")
        gpu.change(weight=300, quantum_us=5000)
        assert gpu.stats().quantum_us == 5000
        gpu.change(quantum_us=vgpu.AUTO)
        stats = gpu.stats()
        assert stats.quantum_us == 0, stats
        assert (stats.name, stats.weight, stats.quota_bytes) == (b"python", 300, 64 * MIB), stats
        assert {b"python"} < {figures.name for figures in vgpu.each()}
        assert vgpu.each_gpu()[0].reserved_bytes == 128 * MIB
        with vgpu.VirtualGPU("python", existing=True) as joined:
            assert joined.stats().processes == 2
    refused(errno.EINVAL, "allowed is", vgpu.VirtualGPU, "not a name")
    assert vgpu.version()
    print("done")


main()
