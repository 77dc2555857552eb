# SPDX-License-Identifier: AGPL-3.0-or-later
# Device libraries: a table written for each .cu file, compiled with the file, and linked with the code that runs blocks.

# g++ defines _GNU_SOURCE by itself.
device_cppflags = $(filter-out -D_GNU_SOURCE=,$(cppflags))
device_cxxflags = -std=c++17 -pthread -fPIC -fvisibility=hidden -ffunction-sections -fdata-sections $(warnings) $(CXXFLAGS)
device_runtime := $(patsubst %.cpp,$(sim)/obj/%.o,$(wildcard simgpu/device/*.cpp))
$(call stamp,device,$(strip $(CXX) $(device_cppflags) $(filter-out -Werror,$(device_cxxflags)) $(LDFLAGS) $(device_runtime)))

$(sim)/obj/simgpu/device/%.o: simgpu/device/%.cpp $(BUILD)/flags/device
	$(call say,CXX,$<)
	$(Q)mkdir -p $(@D) && $(CXX) $(device_cppflags) $(device_cxxflags) $(depflags) -c -o $@ $<

$(sim)/table/%.cpp: %.cu simgpu/device/register.sh
	$(call say,TABLE,$<)
	$(Q)mkdir -p $(@D) && bash simgpu/device/register.sh $< >$@

# The program's own main is not wanted; under another name the linker drops it and all of the host side that hangs on it.
$(sim)/obj/table/%.o: $(sim)/table/%.cpp $(BUILD)/flags/device
	$(call say,CXX,$*.cu [host])
	$(Q)mkdir -p $(@D) && $(CXX) $(device_cppflags) $(device_cxxflags) $(depflags) -Dmain=unused_main \
	    -include simgpu/device/builtins.hpp -c -o $@ $<

# -Bsymbolic: a kernel has the same name in the program that launches it. -z defs: nothing of the host side is left.
define device_library
$(sim)/device/%.so: $(sim)/obj/table/$(1)/%.o $(device_runtime) $(BUILD)/flags/device
	$$(call say,LINK,$$@)
	$$(Q)mkdir -p $$(@D) && $$(CXX) $$(CXXFLAGS) $$(LDFLAGS) -shared -Wl,-Bsymbolic -Wl,--gc-sections -Wl,-z,defs \
	    -o $$@ $$(filter %.o,$$^) $$(libc_libs)
endef
$(foreach d,$(sort $(patsubst %/,%,$(dir $(device_srcs)))),$(eval $(call device_library,$(d))))
