# SPDX-License-Identifier: AGPL-3.0-or-later
# What single programs of this folder need beside the pattern rules of the Makefile.

# Speaks to the pool and to no driver.
$(BUILD)/tests/programs/pool_tenant: program_libs = $(BUILD)/libvgpu_core.a
$(BUILD)/tests/programs/pool_tenant: $(BUILD)/libvgpu_core.a

# These find the driver by themselves, or do without.
$(addprefix $(BUILD)/tests/programs/,door_dlsym door_default door_procaddress door_deepbind door_threads door_weak lookup next_caller): program_libs =
$(addprefix $(BUILD)/tests/programs/,libnext.so liblaunches.so libdlsym.so): program_libs =
$(BUILD)/tests/programs/door_variables: program_libs = -rdynamic
# A call that becomes a jump has its caller's caller as its own.
$(BUILD)/obj/plain/tests/programs/libnext.o: extra_cflags += -fno-optimize-sibling-calls

# A second runtime in one process, and drivers that are newer than the hooks. Each is opened under its soname.
$(addprefix $(BUILD)/tests/programs/,runtimes runtime_reload): program_libs =
$(BUILD)/tests/programs/libplugin_new.so: program_libs = -L$(sim) -lcudart
$(BUILD)/tests/programs/libplugin_new.so: $(sim)/libcudart.so
$(BUILD)/tests/programs/libruntime_old.so: program_libs = -Wl,-soname,libcudart.so.10.2
$(BUILD)/tests/programs/libplugin_old.so: program_libs = $(BUILD)/tests/programs/libruntime_old.so
$(BUILD)/tests/programs/libplugin_old.so: $(BUILD)/tests/programs/libruntime_old.so
$(addprefix $(BUILD)/tests/programs/,libcuda_newer.so libcuda_odd.so libcuda_future.so): program_libs = -Wl,-soname,libcuda.so.1 -Wl,-Bsymbolic

# As a developer would build a program to look for faults in it.
$(BUILD)/obj/plain/tests/programs/door_sanitized.o: extra_cflags += -fsanitize=address
$(BUILD)/tests/programs/door_sanitized: program_libs = -fsanitize=address -L$(BUILD)/stubs -lcuda

# Launches in every form there ever was.
$(BUILD)/obj/plain/tests/programs/launch_family.o: extra_cflags += -Wno-deprecated-declarations
# Those of the C API.
api_programs := $(addprefix $(BUILD)/tests/programs/,$(filter api_%,$(patsubst tests/programs/%.c,%,$(wildcard tests/programs/*.c))))
$(api_programs): program_libs = -L$(BUILD) -lvgpu -L$(BUILD)/stubs -lcuda
$(api_programs): $(BUILD)/libvgpu.so
