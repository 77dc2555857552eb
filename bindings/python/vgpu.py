# SPDX-License-Identifier: AGPL-3.0-or-later
"""Virtual GPUs inside one Python program: libvgpu.so through ctypes, in one file.

    import vgpu

    with vgpu.VirtualGPU("worker", memory=2 << 30, weight=200) as gpu:
        block = gpu.malloc(1 << 20)
        task = gpu.submit(lambda: launch_kernels(gpu.stream))
        task.wait()
        print(gpu.stats().launches)

Streams and device pointers are plain integers: what PyTorch, CuPy and Numba want. Every error is a VGPUError with the errno and one
line that says what went wrong. The man pages vgpu_create(3) and so on say what each call does.

LIBVGPU in the environment is the path of libvgpu.so.0, where the loader does not find it by itself.
"""

import contextlib
import ctypes as c
import errno
import itertools
import os

__all__ = ["VGPUError", "VirtualGPU", "Task", "Region", "Stats", "GPUStats", "each", "each_gpu", "version", "LOW", "NORMAL", "HIGH", "AUTO"]

LOW, NORMAL, HIGH = 1, 2, 3
AUTO = (1 << 64) - 1  # for quantum_us: chosen by the scheduler
_READONLY = 1


class _Sized(c.Structure):
    """A structure of the API: it begins with its own size."""

    def __init__(self, **fields):
        super().__init__(c.sizeof(self), **fields)

    def __repr__(self):
        fields = ((name, getattr(self, name)) for name, _ in self._fields_[1:])
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in fields)})"


class _Config(_Sized):
    _fields_ = [
        ("size", c.c_size_t),
        ("name", c.c_char_p),
        ("device_uuid", c.c_char_p),
        ("device", c.c_int32),
        ("weight", c.c_uint32),
        ("memory_bytes", c.c_uint64),
        ("quantum_us", c.c_uint64),
        ("limit_percent", c.c_uint32),
        ("priority", c.c_uint32),
        ("queue_tasks", c.c_uint32),
        ("concurrency", c.c_uint32),
    ]


class _Launch(_Sized):
    _fields_ = [
        ("size", c.c_size_t),
        ("function", c.c_void_p),
        ("host_function", c.c_void_p),
        ("grid", c.c_uint32 * 3),
        ("block", c.c_uint32 * 3),
        ("shared_bytes", c.c_uint32),
        ("reserved", c.c_uint32),
        ("stream", c.c_void_p),
        ("args", c.POINTER(c.c_void_p)),
    ]


class Stats(_Sized):
    """Figures of a virtual GPU, as struct vgpu_instance_stats has them. Texts are bytes."""

    _fields_ = [
        ("size", c.c_size_t),
        ("name", c.c_char * 64),
        ("device_uuid", c.c_char * 48),
        ("weight", c.c_uint32),
        ("limit_percent", c.c_uint32),
        ("priority", c.c_uint32),
        ("processes", c.c_uint32),
    ] + [
        (name, c.c_uint64)
        for name in (
            "quantum_us quota_bytes used_bytes peak_bytes refusals refused_bytes launches grants held_ns charged_ns waits waited_ns "
            "overruns heap_bytes live_bytes allocations tasks_waiting tasks_finished"
        ).split()
    ]


class GPUStats(_Sized):
    """Figures of a physical GPU, as struct vgpu_gpu_stats has them."""

    _fields_ = [
        ("size", c.c_size_t),
        ("name", c.c_char * 64),
        ("uuid", c.c_char * 48),
        ("total_bytes", c.c_uint64),
        ("reserved_bytes", c.c_uint64),
        ("open_bytes", c.c_uint64),
        ("context_bytes", c.c_uint64),
        ("virtual_gpus", c.c_uint32),
        ("reserved", c.c_uint32),
    ]


class VGPUError(OSError):
    """A call that failed: errno is positive, strerror the line of vgpu_detail or, for what only this module refuses, its own."""


_p, _out, _size, _u64 = c.c_void_p, c.POINTER(c.c_void_p), c.c_size_t, c.POINTER(c.c_uint64)
_TASK = c.CFUNCTYPE(c.c_int, _p, _p)
_VISIT = c.CFUNCTYPE(c.c_int, c.POINTER(Stats), _p)
_VISIT_GPU = c.CFUNCTYPE(c.c_int, c.POINTER(GPUStats), _p)

# Arguments; all of these return 0 or -errno.
_CALLS = {
    "create": [c.POINTER(_Config), _out],
    "open": [c.POINTER(_Config), _out],
    "change": [_p, c.POINTER(_Config)],
    "destroy": [_p],
    "stream_create": [_p, _out],
    "stream_destroy": [_p, _p],
    "synchronize": [_p, _p],
    "malloc": [_p, _size, _out],
    "malloc_aligned": [_p, _size, _size, _out],
    "malloc_async": [_p, _size, _p, _out],
    "free": [_p, _p],
    "free_async": [_p, _p, _p],
    "mem_info": [_p, c.POINTER(_size), c.POINTER(_size)],
    "memcpy": [_p, _p, _p, _size],
    "memcpy_async": [_p, _p, _p, _size, _p],
    "memset": [_p, _p, c.c_int, _size],
    "memset_async": [_p, _p, c.c_int, _size, _p],
    "launch": [_p, c.POINTER(_Launch)],
    "enter": [_p],
    "leave": [_p],
    "submit": [_p, _TASK, _p, _out],
    "task_wait": [_p, c.c_int64, c.POINTER(c.c_int)],
    "task_cancel": [_p],
    "region_create": [_p, c.c_char_p, _size, _out],
    "region_open": [_p, c.c_char_p, c.c_uint, _out],
    "region_close": [_p],
    "region_unlink": [_p, c.c_char_p],
    "region_publish": [_p, _p, _u64],
    "region_await": [_p, _p, c.c_uint64, c.c_int64, _u64],
    "stats": [_p, c.POINTER(Stats)],
    "each": [_VISIT, _p],
    "each_gpu": [_VISIT_GPU, _p],
}
# And those that return something else.
_OTHERS = {
    "own_stream": ([_p], _p),
    "task_release": ([_p], None),
    "region_pointer": ([_p], _p),
    "region_bytes": ([_p], _size),
    "detail": ([], c.c_char_p),
    "version": ([], c.c_char_p),
}

_library = c.CDLL(os.environ.get("LIBVGPU", "libvgpu.so.0"))
for _name, _arguments in _CALLS.items():
    getattr(_library, "vgpu_" + _name).argtypes = _arguments
for _name, (_arguments, _result) in _OTHERS.items():
    getattr(_library, "vgpu_" + _name).argtypes = _arguments
    getattr(_library, "vgpu_" + _name).restype = _result


def _call(name, *arguments):
    code = getattr(_library, "vgpu_" + name)(*arguments)
    if code < 0:
        raise VGPUError(-code, _library.vgpu_detail().decode())
    return code


def _made(name, *arguments):
    result = c.c_void_p()
    _call(name, *arguments, c.byref(result))
    return result.value


def _ns(seconds):
    return -1 if seconds is None else int(seconds * 1e9)


def _text(value):
    return None if value is None else value.encode()


def version():
    """The library's version."""
    return _library.vgpu_version().decode()


def _copies(name, visit_type, kind):
    found = []

    def visit(figures, _):
        found.append(kind.from_buffer_copy(figures.contents))
        return 0

    _call(name, visit_type(visit), None)
    return found


def each():
    """Figures of every virtual GPU in the pool: a list of Stats."""
    return _copies("each", _VISIT, Stats)


def each_gpu():
    """Figures of every physical GPU in the pool: a list of GPUStats."""
    return _copies("each_gpu", _VISIT_GPU, GPUStats)


class Task:
    """A queued Python function. wait() returns what it returned, or raises what it raised."""

    _queued = {}  # by key, until the task has run or was cancelled: the library knows keys only
    _keys = itertools.count(1)

    def __init__(self, gpu, function):
        self._handle = None
        self._function = function
        self._outcome = None
        self._key = next(self._keys)
        self._queued[self._key] = self
        try:
            self._handle = _made("submit", gpu._handle, _run_task, self._key)
        except VGPUError:
            del self._queued[self._key]
            raise

    def wait(self, timeout=None):
        """Waits for `timeout` seconds, or for as long as it takes. VGPUError with ETIMEDOUT or ECANCELED."""
        _call("task_wait", self._handle, _ns(timeout), None)
        value, error = self._outcome
        if error is not None:
            raise error
        return value

    def done(self):
        """Whether it has run to its end."""
        return self._outcome is not None

    def cancel(self):
        """Takes it back before it begins; VGPUError with EBUSY or EALREADY if it is too late."""
        _call("task_cancel", self._handle)
        self._queued.pop(self._key, None)

    def __del__(self):
        if getattr(self, "_handle", None):
            _library.vgpu_task_release(self._handle)


@_TASK
def _run_task(_gpu, key):
    task = Task._queued.pop(key)
    try:
        task._outcome = (task._function(), None)
    except BaseException as error:  # it has no other way out of a foreign thread
        task._outcome = (None, error)
    return 0


class Region:
    """Named memory that virtual GPUs of several programs map."""

    def __init__(self, handle):
        self._handle = handle

    @property
    def pointer(self):
        return _library.vgpu_region_pointer(self._handle)

    @property
    def bytes(self):
        return _library.vgpu_region_bytes(self._handle)

    def publish(self, stream=None):
        """Raises the generation on behalf of the work submitted to `stream` until now, and returns it."""
        generation = c.c_uint64()
        _call("region_publish", self._handle, stream, c.byref(generation))
        return generation.value

    def wait(self, seen=0, timeout=None, stream=None):
        """vgpu_region_await: waits, `timeout` seconds at most, for a generation above `seen`, and returns the newest."""
        generation = c.c_uint64()
        _call("region_await", self._handle, stream, seen, _ns(timeout), c.byref(generation))
        return generation.value

    def close(self):
        if self._handle:
            _call("region_close", self._handle)
            self._handle = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class VirtualGPU:
    """A virtual GPU: a new one, or with existing=True one of that name, whatever program made it."""

    def __init__(
        self,
        name=None,
        *,
        memory=0,
        weight=0,
        device=0,
        device_uuid=None,
        quantum_us=0,
        limit_percent=0,
        priority=0,
        queue_tasks=0,
        concurrency=0,
        existing=False,
    ):
        self._handle = None
        config = _Config(
            name=_text(name),
            device_uuid=_text(device_uuid),
            device=device,
            weight=weight,
            memory_bytes=memory,
            quantum_us=quantum_us,
            limit_percent=limit_percent,
            priority=priority,
            queue_tasks=queue_tasks,
            concurrency=concurrency,
        )
        self._handle = _made("open" if existing else "create", c.byref(config))

    def close(self):
        """Runs the queued tasks, waits for the work and gives everything back."""
        if self._handle:
            _call("destroy", self._handle)
            self._handle = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def change(self, *, memory=0, weight=0, quantum_us=0, limit_percent=0, priority=0, concurrency=0):
        """Changes what is not 0, for all members; quantum_us=AUTO leaves the quantum to the scheduler again."""
        config = _Config(
            memory_bytes=memory,
            weight=weight,
            quantum_us=quantum_us,
            limit_percent=limit_percent,
            priority=priority,
            concurrency=concurrency,
        )
        _call("change", self._handle, c.byref(config))

    @property
    def handle(self):
        """The struct vgpu *, for C functions."""
        return self._handle

    @property
    def stream(self):
        """Its own stream: a CUstream, cudaStream_t, as an integer."""
        return _library.vgpu_own_stream(self._handle)

    def stream_create(self):
        """One more stream, as an integer; up to 64 in all."""
        return _made("stream_create", self._handle)

    def stream_destroy(self, stream):
        _call("stream_destroy", self._handle, stream)

    def synchronize(self, stream=None):
        """Waits for the work on `stream`, or on all of its streams."""
        _call("synchronize", self._handle, stream)

    def malloc(self, size, alignment=0, stream=None):
        """Device memory, as an integer address, aligned to 256 bytes; with `stream`, for work of that stream and in its order.

        `alignment` is a power of two up to 2 MiB, and not for memory of a stream: ENOTSUP.
        """
        if stream is not None and alignment:
            raise VGPUError(errno.ENOTSUP, "memory is allocated with an alignment or on a stream, not both")
        if stream is not None:
            return _made("malloc_async", self._handle, size, stream)
        return _made("malloc_aligned", self._handle, size, alignment)

    def free(self, pointer, stream=None):
        """Frees memory; with `stream`, in the order of that stream."""
        if stream is not None:
            _call("free_async", self._handle, pointer, stream)
        else:
            _call("free", self._handle, pointer)

    def mem_info(self):
        """(free, total) in bytes."""
        free, total = c.c_size_t(), c.c_size_t()
        _call("mem_info", self._handle, c.byref(free), c.byref(total))
        return free.value, total.value

    def write(self, pointer, data, offset=0):
        """Copies a bytes-like object to the device."""
        data = bytes(data)
        _call("memcpy", self._handle, pointer + offset, data, len(data))

    def read(self, pointer, size):
        """Copies `size` bytes from the device."""
        buffer = c.create_string_buffer(size)
        _call("memcpy", self._handle, c.addressof(buffer), pointer, size)
        return buffer.raw

    def fill(self, pointer, value, size, stream=None):
        """Sets `size` bytes to `value`, and waits unless given a `stream`."""
        if stream is not None:
            _call("memset_async", self._handle, pointer, value, size, stream)
        else:
            _call("memset", self._handle, pointer, value, size)

    def launch(self, function, args=(), grid=(1, 1, 1), block=(1, 1, 1), shared_bytes=0, stream=None):
        """Launches a CUfunction (an integer); `args` are ctypes values."""
        pointers = (c.c_void_p * max(1, len(args)))(*(c.addressof(value) for value in args))
        launch = _Launch(
            function=function, grid=tuple(grid), block=tuple(block), shared_bytes=shared_bytes, stream=stream, args=pointers
        )
        _call("launch", self._handle, c.byref(launch))

    @contextlib.contextmanager
    def turn(self):
        """Inside, what this thread launches on the virtual GPU's streams, by whatever library, runs in its turn."""
        _call("enter", self._handle)
        try:
            yield self
        finally:
            _call("leave", self._handle)

    def submit(self, function, *arguments):
        """Queues function(*arguments) to run in the virtual GPU's turn, on its worker thread. Returns a Task."""
        return Task(self, lambda: function(*arguments))

    def region_create(self, name, size):
        """Makes a Region, which must be closed before the virtual GPU."""
        return Region(_made("region_create", self._handle, name.encode(), size))

    def region_open(self, name, readonly=False):
        """Maps a Region that some program has made."""
        return Region(_made("region_open", self._handle, name.encode(), _READONLY if readonly else 0))

    def region_unlink(self, name):
        """Removes the name; mappings stay."""
        _call("region_unlink", self._handle, name.encode())

    def stats(self):
        stats = Stats()
        _call("stats", self._handle, c.byref(stats))
        return stats
