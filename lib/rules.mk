# SPDX-License-Identifier: AGPL-3.0-or-later
# The API library libvgpu.so.0, its pkg-config file, and the examples. Included by the Makefile.

lib_soname := libvgpu.so.0
lib_files := $(BUILD)/$(lib_soname) $(BUILD)/vgpu.pc
lib_version := $(shell sed -n 's/^\#define VGPU_VERSION "\(.*\)"/\1/p' base/version.h)
# It stays loaded once it is: its agent thread has code of it on its stack.
lib_ldflags := -shared -Wl,-soname,$(lib_soname) -Wl,-z,defs -Wl,-z,now -Wl,-z,relro -Wl,-z,nodelete \
    -Wl,--version-script=lib/libvgpu.map

$(BUILD)/$(lib_soname): $(call objects,plain,$(lib_srcs)) $(BUILD)/libvgpu_core.a $(BUILD)/flags/link lib/libvgpu.map lib/rules.mk \
    scripts/check-elf.sh
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $(lib_ldflags) -o $@.new $(filter %.o %.a,$^) $(libc_libs)
	$(Q)sed -n 's/^ *\(vgpu_[a-z_]*\);.*/\1/p' lib/libvgpu.map >$(BUILD)/libvgpu.exports
	$(Q)scripts/check-elf.sh $@.new $(BUILD)/libvgpu.exports
	$(Q)mv $@.new $@
$(BUILD)/libvgpu.so: $(BUILD)/$(lib_soname)
	$(Q)ln -sf $(<F) $@

$(call stamp,prefix,$(prefix) $(libdir) $(includedir))
$(BUILD)/vgpu.pc: lib/vgpu.pc.in base/version.h lib/rules.mk $(BUILD)/flags/prefix
	$(Q)sed -e 's|@prefix@|$(prefix)|' -e 's|@libdir@|$(libdir)|' -e 's|@includedir@|$(includedir)|' \
	    -e 's|@version@|$(lib_version)|' $< >$@

# Built as a user would build them, against the header and the library alone.
examples := $(patsubst examples/%,$(BUILD)/examples/%,$(basename $(wildcard examples/*.c examples/*.cu)))
$(BUILD)/examples/%: examples/%.c $(BUILD)/libvgpu.so $(BUILD)/flags/c $(BUILD)/flags/link include/vgpu.h
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D) && $(CC) -std=c11 $(c_warnings) -Iinclude $(CFLAGS) $(LDFLAGS) -o $@ $< -L$(BUILD) -lvgpu
$(BUILD)/examples/%: examples/%.cu $(BUILD)/libvgpu.so $(BUILD)/flags/nvcc include/vgpu.h
	$(call say,NVCC,$<)
	$(Q)mkdir -p $(@D) && $(NVCC) $(nvcc_flags) -cudart shared -Iinclude -o $@ $< -L$(BUILD) -lvgpu
$(sim)/obj/table/examples/%.o: device_cppflags += -Iinclude
device_srcs += $(if $(driver_srcs),$(wildcard examples/*.cu))

$(BUILD)/libtorch_allocator.so: bindings/python/torch_allocator.cpp $(BUILD)/libvgpu.so $(BUILD)/flags/cxx include/vgpu.h
	$(call say,LINK,$@)
	$(Q)$(CXX) -std=c++17 -fPIC -shared $(warnings) -Iinclude $(CPPFLAGS) $(CXXFLAGS) $(LDFLAGS) -o $@ $< -L$(BUILD) -lvgpu -ldl
tests: $(BUILD)/libtorch_allocator.so

all: $(BUILD)/libvgpu.so $(BUILD)/vgpu.pc $(examples)

# The programs that test it once more, with all of the library in them, under the sanitizers.
# sanitized: variant, sanitizer flags, program
define sanitized
$(BUILD)/$(1)/tests/programs/$(3): $(call objects,$(1),tests/programs/$(3).c $(lib_srcs)) $(BUILD)/$(1)/libvgpu_core.a $(stub) \
    $(BUILD)/flags/link
	$$(call say,LINK,$$@)
	$$(Q)mkdir -p $$(@D) && $$(CC) $$(CFLAGS) $(2) $$(LDFLAGS) -o $$@ $$(filter %.o %.a,$$^) -L$(BUILD)/stubs -lcuda $$(libc_libs)
tests: $(BUILD)/$(1)/tests/programs/$(3)
endef
$(foreach p,api_instance api_tasks api_stats api_region,$(eval $(call sanitized,asan,$(asan),$(p)))$(eval $(call sanitized,tsan,$(tsan),$(p))))
