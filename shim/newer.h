// SPDX-License-Identifier: AGPL-3.0-or-later
// Functions of a driver that is newer than the tables of hooks and of what passes through.
#ifndef VGPU_SHIM_NEWER_H
#define VGPU_SHIM_NEWER_H

// Warns once, in one line, of what the loaded driver exports and no table names. Costs one driver call where the driver is not newer
// than the tables. Does not change errno.
void newer_report(void);

#endif
