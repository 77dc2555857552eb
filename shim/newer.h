// SPDX-License-Identifier: AGPL-3.0-or-later
// Functions of a driver that is newer than the tables of hooked and passed-through functions.
#ifndef VGPU_SHIM_NEWER_H
#define VGPU_SHIM_NEWER_H

// Warns once, in one line, of functions that the loaded driver exports and no table names. Costs one driver call if the driver
// is not newer than the tables. Preserves errno.
void newer_report(void);

#endif
