# shellcheck shell=bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# The rows of scripts/compat.sh, which sets $build, $lib (the toolkit's libraries) and $gpu (real or sim).
#
#   row [OPTION]... NAME TEXT COMMAND...
#
# COMMAND must print the same on stdout whenever it runs right; see tests/gpu/check.h. Options: -s: also on the simulated GPU;
# -m: under an MPS daemon, made for the row; -v WHY: it prints a verdict only, since its results differ from run to run for the reason WHY.

program=(env "LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")
python=(env "PYTHONPATH=$root/tests/gpu" PYTHONDONTWRITEBYTECODE=1 "${PYTHON:-python3}")

# Frameworks bring their own CUDA runtime and libraries.
torch() { # NAME TEXT PART
    row "$1" "$2" "${python[@]}" tests/gpu/torch_programs.py "$3"
}
torch torch-compile "PyTorch: torch.compile, forwards and backwards" compile
torch torch-eager "PyTorch: tensors, streams, linear algebra, the caching allocator" eager
torch torch-train "PyTorch: autograd training with AMP and a gradient scaler" train
torch torch-graphs "PyTorch: a training step as a CUDA graph, captured once" graphs
torch torch-recapture "PyTorch: the same, captured again and again" recapture
torch torch-replayed "PyTorch: torch.compile that captures and replays by itself (reduce-overhead)" replayed
torch torch-profiled "PyTorch: the profiler, by CUPTI: the kernels that it has seen" profiled
torch torch-distributed "PyTorch: DistributedDataParallel over NCCL, in a group of one" distributed
torch torch-fork "PyTorch: DataLoader workers by fork, pinned memory" fork
torch torch-spawn "PyTorch: DataLoader workers by spawn, pinned memory" spawn
row torch-expandable "PyTorch: training with expandable_segments:True" \
    env PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True "${python[@]}" tests/gpu/torch_programs.py train
row torch-async "PyTorch: training with the cudaMallocAsync backend" \
    env PYTORCH_CUDA_ALLOC_CONF=backend:cudaMallocAsync "${python[@]}" tests/gpu/torch_programs.py train
row torch-async-graphs "PyTorch: a CUDA graph with the cudaMallocAsync backend" \
    env PYTORCH_CUDA_ALLOC_CONF=backend:cudaMallocAsync "${python[@]}" tests/gpu/torch_programs.py graphs
row torch-chunk "PyTorch: training with VGPU_ALLOCATOR=chunk" \
    env VGPU_ALLOCATOR=chunk "${python[@]}" tests/gpu/torch_programs.py train
row transformer "Hugging Face transformers: a model with random weights generates tokens" \
    "${python[@]}" tests/gpu/transformer.py
row triton "Triton: autotuned kernels" "${python[@]}" tests/gpu/triton_program.py
# A quarter: without the library it is of the whole GPU, which other rows share.
row jax-preallocated "JAX: jit, gradients, loops, with memory preallocated" \
    env XLA_PYTHON_CLIENT_MEM_FRACTION=.25 "${python[@]}" tests/gpu/jax_program.py
row jax-on-demand "JAX: the same, with memory on demand" \
    env XLA_PYTHON_CLIENT_PREALLOCATE=false "${python[@]}" tests/gpu/jax_program.py
row cupy-pool "CuPy: kernels, sorting, FFT, products, with its own pool" "${python[@]}" tests/gpu/cupy_program.py pool
row cupy-async "CuPy: the same, with malloc_async" "${python[@]}" tests/gpu/cupy_program.py async
row numba "Numba: a compiled kernel" "${python[@]}" tests/gpu/numba_program.py

cuda() { # NAME TEXT: a program of tests/gpu
    row "$1" "$2" "${program[@]}" "$build/gpu/$1"
}
cuda cublas "cuBLAS: sgemm, hgemm on tensor cores, batches, sgemv"
cuda cublaslt "cuBLASLt: product with bias and ReLU"
cuda cudnn "cuDNN: convolution, forwards and backwards"
cuda cufft "cuFFT: real, complex and two-dimensional transforms"
cuda cusolver "cuSOLVER: Cholesky, LU, eigenvalues"
cuda cusparse "cuSPARSE: sparse matrix times vector and matrix"
cuda curand "cuRAND: four generators, and one inside a kernel"
cuda thrust "Thrust: sort by key, scan, reduce"
cuda nccl "NCCL: all-reduce, send and receive between two GPUs"
cuda nvrtc "NVRTC: compiled at run time, launched through the driver API"
cuda graphs "CUDA graphs: captured, updated, memory nodes, conditional nodes"
cuda nested "dynamic parallelism"
cuda device_launch "CUDA graphs launched by the device"
cuda grid_sync "cooperative launch with a grid-wide barrier"
cuda clusters "thread-block clusters through cudaLaunchKernelExC"
cuda dependent "programmatic dependent launch"
cuda ipc "CUDA IPC: memory and event of another process"
cuda textures "textures, surfaces, layered and mipmapped arrays"
cuda managed "unified memory with prefetching"
row -s streams "streams: priorities, events, host functions, callbacks" "${program[@]}" "$build/gpu/streams"
row -s pools "stream-ordered memory: default and own pools" "${program[@]}" "$build/gpu/pools"
row -s threads "per-thread default streams" "${program[@]}" "$build/gpu/threads"
row -s vmm "virtual memory management: memory exported to another process" "${program[@]}" "$build/gpu/vmm"
row -s contexts "driver API: three contexts in one process" \
    "${program[@]}" "$build/gpu/contexts" "$build/kernels/testkernels.ptx"
# A kernel that goes astray would end the simulated GPU's process.
astray=(astray)
[[ $gpu == real ]] || astray=()
row -s errors "driver API: error codes without a context, of wrong sizes, arguments, launches, captures, and of a kernel that goes astray" \
    "${program[@]}" "$build/gpu/errors" "$build/kernels/testkernels.ptx" "${astray[@]}"
row -s errors-chunk "driver API: error codes with VGPU_ALLOCATOR=chunk, but for the kernel that goes astray" \
    env VGPU_ALLOCATOR=chunk "${program[@]}" "$build/gpu/errors" "$build/kernels/testkernels.ptx"
row streams-static "streams, with the static CUDA runtime" "$build/gpu/streams-static"
row pools-static "stream-ordered memory, with the static CUDA runtime" "$build/gpu/pools-static"

# The passes of what is profiled must be counted.
row sanitizer "compute-sanitizer: memcheck of streams" env COMPAT_SECONDS=0 "${program[@]}" tests/gpu/sanitizer.sh "$build/gpu/streams"
row ncu "ncu: instructions executed by every kernel of streams" env COMPAT_SECONDS=0 "${program[@]}" tests/gpu/ncu.sh "$build/gpu/streams"
row -m mps-streams "a client of MPS: streams" "${program[@]}" "$build/gpu/streams"
row -m mps-pools "a client of MPS: stream-ordered memory, static runtime" "$build/gpu/pools-static"
