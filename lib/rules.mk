# SPDX-License-Identifier: AGPL-3.0-or-later
# The API library libvgpu.so.0, its pkg-config file, and the examples. Included by the Makefile.

lib_soname := libvgpu.so.0
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

$(BUILD)/vgpu.pc: lib/vgpu.pc.in base/version.h lib/rules.mk $(BUILD)/flags/libdir
	$(Q)sed -e 's|@prefix@|$(prefix)|' -e 's|@libdir@|$(libdir)|' -e 's|@includedir@|$(includedir)|' \
	    -e 's|@version@|$(lib_version)|' $< >$@

examples := $(patsubst examples/%.c,$(BUILD)/examples/%,$(wildcard examples/*.c))
$(BUILD)/examples/%: examples/%.c $(BUILD)/libvgpu.so $(BUILD)/flags/c $(BUILD)/flags/link include/vgpu.h
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D) && $(CC) -std=c11 $(c_warnings) -Iinclude $(CFLAGS) $(LDFLAGS) -o $@ $< -L$(BUILD) -lvgpu

all: $(BUILD)/libvgpu.so $(BUILD)/vgpu.pc $(examples)
