// SPDX-License-Identifier: AGPL-3.0-or-later
// Depends on the runtime that the programs are built with.
int cudaDeviceSynchronize(void);
int plugin_call(void);

int plugin_call(void)
{
    int result = cudaDeviceSynchronize();
    __asm__ volatile(""); // a jump would make the caller the plugin's caller
    return result;
}
