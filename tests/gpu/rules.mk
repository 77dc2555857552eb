# SPDX-License-Identifier: AGPL-3.0-or-later
# The programs that scripts/compat.sh runs. What needs a library that the toolkit lacks becomes a program that says so.

# Machine code and PTX for this architecture only, to keep them small: clusters and their like begin with 90.
GPU_TESTS_ARCH ?= 90
gpu_nvcc_flags = -std=c++17 -gencode arch=compute_$(GPU_TESTS_ARCH),code=[sm_$(GPU_TESTS_ARCH),compute_$(GPU_TESTS_ARCH)] $(NVCCFLAGS)
$(call stamp,gpu,$(strip $(NVCC) $(CUDA_VERSION) $(gpu_nvcc_flags)))

# These run on the simulated GPU too.
gpu_simulated := streams pools threads contexts vmm errors

# What one of them is compiled and linked with, beside the runtime.
gpu_flags_threads := --default-stream per-thread
gpu_flags_nested := -rdc=true
gpu_link_nested := -rdc=true -lcudadevrt
gpu_flags_device_launch := $(gpu_flags_nested)
gpu_link_device_launch := $(gpu_link_nested)
gpu_library_cublas := cublas
gpu_library_cublaslt := cublasLt
gpu_library_cudnn := cudnn
gpu_library_cufft := cufft
gpu_library_curand := curand
gpu_library_cusolver := cusolver
gpu_library_cusparse := cusparse
gpu_library_nccl := nccl
gpu_library_nvrtc := nvrtc

gpu_cu := $(patsubst tests/gpu/%.cu,%,$(wildcard tests/gpu/*.cu))
gpu_c := $(patsubst tests/gpu/%.c,%,$(wildcard tests/gpu/*.c))
# Its library, where the toolkit lacks it.
gpu_lacks = $(if $(gpu_library_$(1)),$(if $(wildcard $(CUDA_LIB)/lib$(gpu_library_$(1)).so),,lib$(gpu_library_$(1))))
gpu_lacks_thrust := $(if $(wildcard $(CUDA_INC)/thrust $(CUDA_INC)/cccl/thrust),,thrust)
gpu_missing = $(or $(call gpu_lacks,$(1)),$(gpu_lacks_$(1)))
gpu_programs := $(addprefix $(BUILD)/gpu/,$(gpu_cu) $(gpu_c) streams-static pools-static)

# gpu_program: name
define gpu_program
$(BUILD)/gpu/$(1):
	$$(call say,SKIP,$$@)
	$$(Q)mkdir -p $$(@D) && rm -f $$@ && printf '#!/bin/sh\necho "%s was missing when this was built"; exit 77\n' '$(call gpu_missing,$(1))' >$$@
	$$(Q)chmod +x $$@
endef
$(foreach n,$(gpu_cu) $(gpu_c),$(if $(call gpu_missing,$(n)),$(eval $(call gpu_program,$(n)))))

$(BUILD)/obj/gpu/%.o: tests/gpu/%.cu $(BUILD)/flags/gpu
	$(call say,NVCC,$<)
	$(Q)mkdir -p $(@D) && $(NVCC) $(gpu_nvcc_flags) $(gpu_flags_$*) -I. -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
$(BUILD)/gpu/%-static: $(BUILD)/obj/gpu/%.o
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D) && $(NVCC) -cudart static -o $@ $<
$(BUILD)/gpu/%: $(BUILD)/obj/gpu/%.o
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D) && $(NVCC) $(gpu_nvcc_flags) -cudart shared -o $@ $< $(gpu_link_$*) $(addprefix -l,$(gpu_library_$*))
$(BUILD)/gpu/%: $(BUILD)/obj/plain/tests/gpu/%.o $(stub) $(BUILD)/flags/link
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< -L$(BUILD)/stubs -lcuda -L$(CUDA_LIB) \
	    $(addprefix -l,$(gpu_library_$*)) $(libc_libs)

gpu-tests: $(gpu_programs)
tests: $(addprefix $(BUILD)/gpu/,$(gpu_simulated))
