// SPDX-License-Identifier: AGPL-3.0-or-later
// A module with kernels whose code is large: half a MiB each on an H100. On the simulated GPU code takes what SIMGPU_CODE says.
#ifndef LARGE_CODE_H
#define LARGE_CODE_H

#include <stdio.h>
#include <stdlib.h>

// The simulated GPU knows kernels of these names.
static const char *const large_code_names[] = {"fill_u32", "add_u32"};
#define LARGE_CODE_KERNELS 2
#define LARGE_CODE_STEPS 16000

// PTX, in memory that nobody frees; NULL: out of memory.
static inline char *large_code_image(void)
{
    char *image = NULL;
    size_t bytes;
    FILE *text = open_memstream(&image, &bytes);
    if (!text)
        return NULL;
    fprintf(text, ".version 7.0\n.target sm_70\n.address_size 64\n");
    for (unsigned k = 0; k < LARGE_CODE_KERNELS; k++) {
        fprintf(text, ".visible .entry %s(.param .u64 sum, .param .u32 count)\n{\n", large_code_names[k]);
        fprintf(text, "    .reg .b32 %%r<2>; .reg .b64 %%p<2>; ld.param.u32 %%r0, [count]; ld.param.u64 %%p0, [sum];\n");
        for (unsigned i = 0; i < LARGE_CODE_STEPS; i++)
            fprintf(text, "    xor.b32 %%r0, %%r0, %u; mul.lo.u32 %%r0, %%r0, %u;\n", 7919 * i + k + 1, 2 * i + 3);
        fprintf(text, "    cvta.to.global.u64 %%p0, %%p0; st.global.u32 [%%p0], %%r0; ret;\n}\n");
    }
    return fclose(text) ? NULL : image;
}

#endif
