# SPDX-License-Identifier: AGPL-3.0-or-later
# vgpu-shim. `make help` lists the targets. Everything made goes into $(BUILD); sources are found by wildcard.
#
# CC, CXX, CPPFLAGS, CFLAGS, CXXFLAGS, LDFLAGS and NVCCFLAGS are the user's; what the build itself needs is added to them.

# Only from the command line: `make clean` must not remove what a BUILD in the environment happens to mean.
BUILD := build
prefix ?= /usr/local
bindir ?= $(prefix)/bin
libdir ?= $(prefix)/lib
includedir ?= $(prefix)/include
mandir ?= $(prefix)/share/man
DESTDIR ?=

ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
CFLAGS ?= -O2 -g
CXXFLAGS ?= -O2 -g
NVCCFLAGS ?= -O2
# Machine code for these GPUs; CUDA_PTX is what the driver compiles for all others.
CUDA_ARCH ?= 80 90
CUDA_PTX ?= 75
# 1: warnings are errors, as in `make test`.
WERROR ?= 0

.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),@:,@printf '  %-8s %s\n' $(1) '$(2)')
parallel = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc))

.PHONY: all tests gpu-tests demo test test-gpu compat bench install uninstall clean distclean help format check-format lint exports
all: ## build everything but the tests (the default)

# These work without a toolkit, and must not leave marks that `make all` would take for changed flags.
no_build := demo test test-gpu compat bench uninstall clean distclean help format check-format exports
ifneq ($(filter-out $(no_build),$(or $(MAKECMDGOALS),all)),)

# --- the CUDA Toolkit -------------------------------------------------------------------------------------------------------------

ifneq ($(shell scripts/cuda.sh make $(BUILD)/cuda.mk && echo found),found)
$(error CUDA Toolkit not found)
endif
include $(BUILD)/cuda.mk

# --- flags ------------------------------------------------------------------------------------------------------------------------

comma := ,
warnings := -Wall -Wextra -Wshadow $(if $(filter 1,$(WERROR)),-Werror)
c_warnings := $(warnings) -Wstrict-prototypes -Wmissing-prototypes
# -D_GNU_SOURCE= has the value of a plain #define, so that a source may say it too.
cppflags = -D_GNU_SOURCE= -I. -isystem $(CUDA_INC) $(CPPFLAGS)
cflags = -std=gnu11 -pthread -fPIC -fno-strict-aliasing $(c_warnings) $(CFLAGS)
depflags = -MMD -MP
# Initial-exec: a lookup of thread-local data inside a hook must not call the dynamic linker.
hidden := -fvisibility=hidden -ftls-model=initial-exec
asan := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
tsan := -fsanitize=thread -fno-omit-frame-pointer
# C libraries before glibc 2.34 have these apart.
libc_libs := -Wl,--as-needed -lpthread -ldl -lrt -Wl,--no-as-needed
# The library and the command run also with a glibc older than the one they are linked with: base/glibc.h.
portable := -include base/glibc.h
portable_libs := -Wl,--no-as-needed -l:libpthread.so.0 -l:libdl.so.2
# Bsymbolic: a program that exports something named like a hook does not change which wrapper the library means.
shim_ldflags := -shared -Wl,-soname,libvgpu_shim.so -Wl,-z,defs -Wl,-z,now -Wl,-z,relro -Wl,-Bsymbolic \
    $(addprefix -Wl$(comma)--version-script=,$(wildcard shim/exports.map))
nvcc_arch := $(foreach a,$(CUDA_ARCH),-gencode arch=compute_$(a),code=sm_$(a)) \
    $(foreach a,$(CUDA_PTX),-gencode arch=compute_$(a),code=compute_$(a))
nvcc_flags = -std=c++17 $(nvcc_arch) $(NVCCFLAGS)

# Each file in $(BUILD)/flags holds the flags that the objects depending on it were made with; a change makes it newer.
same = $(and $(findstring x$(1)x,x$(2)x),$(findstring x$(2)x,x$(1)x))
stamp = $(if $(call same,$(file <$(BUILD)/flags/$(1)),$(2)),,$(file >$(BUILD)/flags/$(1),$(2)))
$(shell mkdir -p $(BUILD)/flags)
# Whether warnings are errors changes no object.
$(call stamp,c,$(strip $(CC) $(cppflags) $(filter-out -Werror,$(cflags)) $(hidden) $(portable)))
$(call stamp,cxx,$(strip $(CXX) $(CPPFLAGS) $(CXXFLAGS) $(filter-out -Werror,$(warnings))))
$(call stamp,nvcc,$(strip $(NVCC) $(CUDA_VERSION) $(nvcc_flags)))
$(call stamp,libdir,$(libdir))

# --- sources ----------------------------------------------------------------------------------------------------------------------

objects = $(patsubst %.c,$(BUILD)/obj/$(1)/%.o,$(2))
core_srcs := $(wildcard base/*.c options/*.c pool/*.c allocator/*.c scheduler/*.c)
shim_srcs := $(wildcard shim/*.c)
tool_srcs := $(wildcard tools/*.c)
# The API library has some of the shim's and the command's objects: what asks the driver about a GPU, and what reads the pool.
lib_srcs := $(wildcard lib/*.c) shim/calibrate.c tools/snapshot.c
state_srcs := $(wildcard simgpu/state/*.c)
# The simulated GPU has the ABI of a CUDA 13 driver and needs headers that know it; the rest builds with older ones as well.
ifeq ($(shell printf '%s\n' 12.8 '$(CUDA_VERSION)' | sort -V | head -n1),12.8)
driver_srcs := $(wildcard simgpu/driver/*.c)
nvml_srcs := $(wildcard simgpu/nvml/*.c)
runtime_srcs := $(wildcard simgpu/runtime/*.c)
else
$(info simgpu/ is left out: it needs the headers of CUDA 12.8 or newer, and $(CUDA_HOME) has $(CUDA_VERSION))
endif
# The sources are named too: what was linked from one that is gone must be linked again.
$(call stamp,link,$(strip $(LDFLAGS) $(shim_ldflags) $(core_srcs) $(shim_srcs) $(tool_srcs) $(lib_srcs) $(state_srcs) \
    $(driver_srcs) $(nvml_srcs) $(runtime_srcs)))
unit_names := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/*.c))

# --- the library and the command --------------------------------------------------------------------------------------------------

$(call objects,plain,$(core_srcs) $(shim_srcs) $(tool_srcs)): extra_cflags = $(portable)
$(BUILD)/obj/plain/%.o: %.c $(BUILD)/flags/c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D) && $(CC) $(cppflags) $(cflags) $(hidden) $(extra_cflags) $(depflags) -c -o $@ $<

$(BUILD)/libvgpu_core.a: $(call objects,plain,$(core_srcs)) $(BUILD)/flags/link
$(BUILD)/asan/libvgpu_core.a: $(call objects,asan,$(core_srcs)) $(BUILD)/flags/link
$(BUILD)/tsan/libvgpu_core.a: $(call objects,tsan,$(core_srcs)) $(BUILD)/flags/link
%/libvgpu_core.a:
	$(call say,AR,$@)
	$(Q)mkdir -p $(@D) && rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

# Linked under another name and checked first: a library that breaks the rules never stands where somebody could preload it.
$(BUILD)/libvgpu_shim.so: $(call objects,plain,$(shim_srcs)) $(BUILD)/libvgpu_core.a $(BUILD)/flags/link \
    $(wildcard shim/exports.map shim/exports.list) scripts/check-elf.sh
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $(shim_ldflags) -o $@.new $(filter %.o %.a,$^) $(portable_libs)
	$(Q)scripts/check-elf.sh $@.new $(filter %/exports.list,$^)
	$(Q)mv $@.new $@

$(call objects,plain,$(tool_srcs)): extra_cflags += -DVGPU_LIBDIR='"$(libdir)"'
$(call objects,plain,$(tool_srcs)): $(BUILD)/flags/libdir
$(BUILD)/vgpu: $(call objects,plain,$(tool_srcs)) $(BUILD)/libvgpu_core.a $(BUILD)/flags/link
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -Wl,--wrap=__libc_start_main -o $@ $(filter %.o %.a,$^) -lcjson $(portable_libs)

all: $(if $(shim_srcs),$(BUILD)/libvgpu_shim.so) $(if $(tool_srcs),$(BUILD)/vgpu)


# --- CUDA programs ----------------------------------------------------------------------------------------------------------------

# What programs link as libcuda; at run time the driver's or the simulated one takes its place.
stub := $(BUILD)/stubs/libcuda.so
$(stub): scripts/libcuda-stub.sh $(BUILD)/cuda.mk
	$(call say,STUB,$@)
	$(Q)mkdir -p $(@D) && CC='$(CC)' scripts/libcuda-stub.sh $(CUDA_INC) >$(@D)/libcuda.c
	$(Q)$(CC) -shared -fPIC -w -fno-builtin -Wl,-soname,libcuda.so.1 -o $@ $(@D)/libcuda.c

$(BUILD)/obj/nvcc/%.o: %.cu $(BUILD)/flags/nvcc
	$(call say,NVCC,$<)
	$(Q)mkdir -p $(@D) && $(NVCC) $(nvcc_flags) -I. -MMD -MP -MF $(@:.o=.d) -c -o $@ $<

# Each CUDA program twice, with the shared and with the static runtime; both reach the driver in their own way.
kernel_names := $(patsubst kernels/%.cu,%,$(wildcard kernels/*.cu))
kernels := $(addprefix $(BUILD)/kernels/,$(kernel_names) $(patsubst kernels/%.c,%,$(wildcard kernels/*.c))) \
    $(addprefix $(BUILD)/kernels-static/,$(kernel_names))
nvcc_link = $(Q)mkdir -p $(@D) && $(NVCC) -cudart $(1) -o $@ $<
$(BUILD)/kernels/%: $(BUILD)/obj/nvcc/kernels/%.o
	$(call say,LINK,$@)
	$(call nvcc_link,shared)
$(BUILD)/kernels-static/%: $(BUILD)/obj/nvcc/kernels/%.o
	$(call say,LINK,$@)
	$(call nvcc_link,static)
$(BUILD)/kernels/%: $(BUILD)/obj/plain/kernels/%.o $(stub) $(BUILD)/flags/link
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< -L$(BUILD)/stubs -lcuda -lm $(libc_libs)

# Kernels for tests that load a module through the driver API. PTX: the driver compiles it for the GPU it finds.
test_ptx := $(patsubst simgpu/device/%.cu,$(BUILD)/kernels/%.ptx,$(wildcard simgpu/device/*kernels.cu))
$(BUILD)/kernels/%.ptx: simgpu/device/%.cu $(BUILD)/flags/nvcc
	$(call say,PTX,$<)
	$(Q)mkdir -p $(@D) && $(NVCC) -std=c++17 -arch=compute_$(lastword $(CUDA_PTX)) -I. -ptx -o $@ $<

all: $(kernels) $(test_ptx)

# Programs for a real GPU, whose results are compared with and without the library.
-include tests/gpu/rules.mk

# --- the simulated GPU ------------------------------------------------------------------------------------------------------------

sim := $(BUILD)/simgpu

include lib/rules.mk

# Calls inside a simulated library stay inside, as in the real ones; otherwise a preloaded hook would see the driver call itself.
sim_link = $(Q)mkdir -p $(@D) && $(CC) $(CFLAGS) $(LDFLAGS) -shared -Wl,-Bsymbolic -Wl,-z,defs -Wl,-soname,$(@F) -o $@ \
    $(filter %.o,$^) $(addprefix -Wl$(comma)--version-script=,$(filter %.map,$^)) -lm $(libc_libs)

# What the real ones export, these export: default visibility, narrowed by the version scripts.
$(BUILD)/obj/plain/simgpu/%.o: extra_cflags = -fvisibility=default -DSIMGPU_CUDART_SONAME='"$(CUDART_SONAME)"'

$(sim)/unimplemented.c: simgpu/driver/unimplemented.sh $(stub) $(call objects,plain,$(driver_srcs))
	$(call say,GEN,$@)
	$(Q)mkdir -p $(@D) && bash $< $(stub) $(filter %.o,$^) >$@
$(sim)/unimplemented.o: $(sim)/unimplemented.c
	$(Q)$(CC) $(cppflags) -std=gnu11 -fPIC $(CFLAGS) -c -o $@ $<

$(sim)/libcuda.so.1: $(call objects,plain,$(state_srcs) $(driver_srcs)) $(BUILD)/flags/link \
    $(if $(wildcard simgpu/driver/unimplemented.sh),$(sim)/unimplemented.o) $(wildcard simgpu/driver/libcuda.map)
	$(call say,LINK,$@)
	$(sim_link)
$(sim)/libnvidia-ml.so.1: $(call objects,plain,$(state_srcs) $(nvml_srcs)) simgpu/nvml/libnvidia-ml.map $(BUILD)/flags/link
	$(call say,LINK,$@)
	$(sim_link)
# The real runtime's symbols carry its soname as their version.
$(sim)/libcudart.map: $(BUILD)/cuda.mk
	$(Q)mkdir -p $(@D) && echo '$(CUDART_SONAME) { global: cuda*; __cuda*; local: *; };' >$@
$(sim)/$(CUDART_SONAME): $(call objects,plain,$(runtime_srcs)) $(sim)/libcudart.map $(BUILD)/flags/link
	$(call say,LINK,$@)
	$(sim_link)
$(sim)/libcuda.so $(sim)/libnvidia-ml.so: %.so: %.so.1
	$(Q)ln -sf $(<F) $@
$(sim)/libcudart.so: $(sim)/$(CUDART_SONAME)
	$(Q)ln -sf $(<F) $@

all: $(if $(driver_srcs),$(sim)/libcuda.so) $(if $(nvml_srcs),$(sim)/libnvidia-ml.so) $(if $(runtime_srcs),$(sim)/libcudart.so)

# Every CUDA source again, compiled for the host: what the simulated GPU runs.
device_srcs += $(if $(driver_srcs),$(wildcard kernels/*.cu simgpu/device/*kernels.cu tests/programs/*.cu \
    $(addsuffix .cu,$(addprefix tests/gpu/,$(gpu_simulated)))))
device_libs := $(patsubst %.cu,$(sim)/device/%.so,$(notdir $(device_srcs)))
-include simgpu/device/rules.mk
all: $(device_libs)

# --- man pages --------------------------------------------------------------------------------------------------------------------

# Without scdoc there are none; nothing else depends on them.
man_pages := $(if $(shell command -v scdoc),$(patsubst docs/%.scd,$(BUILD)/man/%,$(wildcard docs/*.scd)))
$(BUILD)/man/%: docs/%.scd
	$(call say,SCDOC,$<)
	$(Q)mkdir -p $(@D) && scdoc <$< >$@
# A page of several functions is found under each: alias:page.
man_aliases := $(if $(man_pages),$(shell sed -n 's/^\(vgpu_[a-z_]*\), \(.*\) - .*/\1 \2/p' docs/*.3.scd | tr -d , | \
    awk '{ for (i = 2; i <= NF; i++) print $$i ":" $$1 }'))
man_alias = $(BUILD)/man/$(word 1,$(subst :, ,$(1))).3
define alias_page
$(call man_alias,$(1)): docs/$(word 2,$(subst :, ,$(1))).3.scd
	$$(Q)mkdir -p $$(@D) && echo '.so man3/$(word 2,$(subst :, ,$(1))).3' >$$@
endef
$(foreach a,$(man_aliases),$(eval $(call alias_page,$(a))))
man_pages += $(foreach a,$(man_aliases),$(call man_alias,$(a)))
all: $(man_pages)

# --- tests ------------------------------------------------------------------------------------------------------------------------

$(BUILD)/obj/asan/%.o: %.c $(BUILD)/flags/c
	$(call say,CC,$< [asan])
	$(Q)mkdir -p $(@D) && $(CC) $(cppflags) $(cflags) $(hidden) $(asan) $(depflags) -c -o $@ $<
$(BUILD)/obj/tsan/%.o: %.c $(BUILD)/flags/c
	$(call say,CC,$< [tsan])
	$(Q)mkdir -p $(@D) && $(CC) $(cppflags) $(cflags) $(hidden) $(tsan) $(depflags) -c -o $@ $<

# unit_srcs_NAME in tests/unit/rules.mk: sources outside the core that the unit test NAME links too.
-include tests/unit/rules.mk
# unit_test: variant, directory, sanitizer flags, name
define unit_test
$(2)/tests/unit/$(4): $(call objects,$(1),tests/unit/$(4).c $(unit_srcs_$(4))) $(2)/libvgpu_core.a $(BUILD)/flags/link
	$$(call say,LINK,$$@)
	$$(Q)mkdir -p $$(@D) && $$(CC) $$(CFLAGS) $(3) $$(LDFLAGS) -o $$@ $$(filter %.o %.a,$$^) -lm $$(libc_libs)
tests: $(2)/tests/unit/$(4)
endef
$(foreach n,$(unit_names),$(eval $(call unit_test,plain,$(BUILD),,$(n))))
$(foreach n,$(unit_names),$(eval $(call unit_test,asan,$(BUILD)/asan,$(asan),$(n))))
$(foreach n,$(unit_names),$(eval $(call unit_test,tsan,$(BUILD)/tsan,$(tsan),$(n))))

# Small programs that the suites run. program_libs is what one links; tests/programs/rules.mk may set it for a target.
# A source named lib*.c becomes a shared library.
program_libs = -L$(BUILD)/stubs -lcuda
-include tests/programs/rules.mk
program_c := $(patsubst tests/programs/%.c,%,$(wildcard tests/programs/*.c))
program_cu := $(patsubst tests/programs/%.cu,%,$(wildcard tests/programs/*.cu))
program_so := $(filter lib%,$(program_c))
$(BUILD)/tests/programs/lib%.so: $(BUILD)/obj/plain/tests/programs/lib%.o $(stub) $(BUILD)/flags/link
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS) $(LDFLAGS) -shared -o $@ $< $(program_libs) $(libc_libs)
$(BUILD)/obj/plain/tests/programs/lib%.o: extra_cflags = -fvisibility=default
$(BUILD)/tests/programs/%: $(BUILD)/obj/plain/tests/programs/%.o $(stub) $(BUILD)/flags/link
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(program_libs) -lm $(libc_libs)
$(BUILD)/tests/programs/%: $(BUILD)/obj/nvcc/tests/programs/%.o
	$(call say,LINK,$@)
	$(call nvcc_link,shared)
$(BUILD)/tests/programs-static/%: $(BUILD)/obj/nvcc/tests/programs/%.o
	$(call say,LINK,$@)
	$(call nvcc_link,static)
tests: $(addprefix $(BUILD)/tests/programs/,$(filter-out $(program_so),$(program_c)) $(program_so:=.so) $(program_cu)) \
    $(addprefix $(BUILD)/tests/programs-static/,$(program_cu))

# --- install ----------------------------------------------------------------------------------------------------------------------

install: $(BUILD)/libvgpu_shim.so $(BUILD)/vgpu $(lib_files) $(man_pages) ## install libraries, vgpu, header and man pages (DESTDIR, prefix)
	$(Q)install -d '$(DESTDIR)$(libdir)' '$(DESTDIR)$(bindir)'
	$(Q)install -m 644 $(BUILD)/libvgpu_shim.so '$(DESTDIR)$(libdir)/'
	$(Q)install -m 755 $(BUILD)/vgpu '$(DESTDIR)$(bindir)/'
	$(Q)install -m 644 $(BUILD)/$(lib_soname) '$(DESTDIR)$(libdir)/' && ln -sf $(lib_soname) '$(DESTDIR)$(libdir)/libvgpu.so'
	$(Q)install -D -m 644 $(BUILD)/vgpu.pc '$(DESTDIR)$(libdir)/pkgconfig/vgpu.pc'
	$(Q)for page in $(man_pages); do \
	    install -D -m 644 "$$page" "$(DESTDIR)$(mandir)/man$${page##*.}/$${page##*/}" || exit; done
	$(Q)install -D -m 644 include/vgpu.h '$(DESTDIR)$(includedir)/vgpu.h'

# --- lint -------------------------------------------------------------------------------------------------------------------------

# What cppcheck cannot follow is suppressed: values that come through pointers to functions or out of a macro's loop.
lint: ## run clang-tidy and cppcheck over the C sources (scripts/deps.sh dev sets them up)
	$(Q)printf '%s\n' $(core_srcs) $(shim_srcs) $(tool_srcs) $(wildcard lib/*.c) $(state_srcs) $(driver_srcs) $(nvml_srcs) $(runtime_srcs) | \
	    xargs -P "$$(nproc)" -I FILE clang-tidy --quiet FILE -- \
	    $(cppflags) -std=gnu11 -DVGPU_LIBDIR='"$(libdir)"' -DSIMGPU_CUDART_SONAME='"$(CUDART_SONAME)"'
	$(Q)cppcheck --quiet --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=1 \
	    --suppress=missingIncludeSystem $(foreach id,uninitvar ctuuninitvar returnDanglingLifetime arrayIndexOutOfBoundsCond,--suppress=$(id)) -I. $(core_srcs) $(shim_srcs) $(tool_srcs) $(wildcard lib/*.c)

# Objects are kept, also those that only a chain of pattern rules names.
.SECONDARY:
-include $(shell find $(BUILD)/obj $(sim) -name '*.d' 2>/dev/null)

endif # no_build

# --- targets that need no toolkit -------------------------------------------------------------------------------------------------

demo: ## set up, build, and run three programs that share one GPU
	$(Q)scripts/deps.sh build
	+$(Q)$(MAKE) $(parallel) all
	$(Q)BUILD='$(BUILD)' scripts/demo.sh

test: ## set up, build, and run every automatic test on the simulated GPU
	$(Q)scripts/deps.sh test
	+$(Q)$(MAKE) $(parallel) WERROR=1 all tests
	$(Q)BUILD='$(BUILD)' scripts/test.sh

test-gpu: ## run the behaviour suites on the real GPU
	$(Q)scripts/deps.sh test
	+$(Q)$(MAKE) $(parallel) all tests
	$(Q)BUILD='$(BUILD)' scripts/test-gpu.sh

compat: ## compare programs with and without the library on the real GPU, and write docs/compatibility.md
	$(Q)scripts/deps.sh build
	+$(Q)$(MAKE) $(parallel) all gpu-tests
	$(Q)BUILD='$(BUILD)' scripts/compat.sh >$(BUILD)/compatibility.md; rc=$$?; [ ! -s $(BUILD)/compatibility.md ] || cp $(BUILD)/compatibility.md docs/; exit $$rc

bench: ## measure on the real GPU (BENCH_SIMULATED=1: try it out on the simulated one)
	$(Q)scripts/deps.sh build
	+$(Q)$(MAKE) $(parallel) all tests
	$(Q)BUILD='$(BUILD)' scripts/bench.py

uninstall: ## remove what install put there
	$(Q)rm -f '$(DESTDIR)$(libdir)/libvgpu_shim.so' '$(DESTDIR)$(libdir)/libvgpu.so.0' '$(DESTDIR)$(libdir)/libvgpu.so' \
	    '$(DESTDIR)$(libdir)/pkgconfig/vgpu.pc' '$(DESTDIR)$(bindir)/vgpu' '$(DESTDIR)$(includedir)/vgpu.h' \
	    $(foreach p,$(notdir $(basename $(wildcard docs/*.scd))),'$(DESTDIR)$(mandir)/man$(subst .,,$(suffix $(p)))/$(p)') \
    '$(DESTDIR)$(mandir)'/man3/vgpu_*.3

clean: ## remove the build folder
# `make clean all` has read these two by the time it cleans.
	$(Q)$(if $(filter-out $(no_build),$(MAKECMDGOALS)),find $(BUILD) -mindepth 1 -maxdepth 1 ! -name cuda.mk ! -name flags \
	    -exec rm -rf {} +,rm -rf $(BUILD))

distclean: clean ## remove also what scripts/deps.sh fetched
	$(Q)rm -rf .cuda .tools

exports: ## rewrite shim/exports.list from the hook table
	$(Q)printf '%s\n' '# Every symbol that the library exports. `make exports` writes it from shim/hooks.def.' >shim/exports.list
	$(Q)printf '%s\n' '#define DRIVER_HOOK(name) name' '#define RUNTIME_HOOK(name) name' '#define NVML_HOOK(name) name' \
	    '#include "shim/hooks.def"' dlclose dlsym dlvsym vgpu_shim_door_1 | $(CC) -E -P -I. - | tr -s ' ' '\n' | LC_ALL=C sort >>shim/exports.list

clang_format = $(shell command -v clang-format-14 || command -v clang-format)
formatted = $(wildcard $(shell git ls-files --cached --others --exclude-standard '*.c' '*.h' '*.cu' '*.cpp'))
format: ## lay the sources out with clang-format
	$(Q)$(clang_format) -i $(formatted)
check-format: ## say where the layout differs from .clang-format
	$(Q)$(clang_format) --dry-run -Werror $(formatted)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile
	@echo; echo '  V=1 shows commands. CC, CFLAGS, CUDA_HOME, CUDA_ARCH, BUILD, DESTDIR and prefix may be set.'

tests: ## build the test programs
gpu-tests: ## build the programs that scripts/compat.sh runs
