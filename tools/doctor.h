// SPDX-License-Identifier: AGPL-3.0-or-later
// vgpu doctor: a list of checks. Each prints a line that says what was found and, if that is wrong, what to do.
//
// Invariants
//  - Nothing on the machine is changed, and no tenant disturbed: a check that must try something does so in a pool of its own.
//  - Code that loads the driver or the preload library runs in a child, so that its crash is a finding like any other.
//  - A check that does not apply is left out or says so with "ok". "warn" is for what works at a cost; "FAIL" is for what keeps
//    programs from running on virtual GPUs, or lets them exceed their limits.
#ifndef VGPU_TOOLS_DOCTOR_H
#define VGPU_TOOLS_DOCTOR_H

#include "base/glibc.h"

GLIBC_OLD(dlsym, "2.2.5")
GLIBC_OLD(dlvsym, "2.2.5")

enum doctor_status { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };

// Adds a line to the report. In a child it goes to the parent.
void doctor_say(enum doctor_status status, const char *check, const char *format, ...) __attribute__((format(printf, 3, 4)));

// The checks in this process, by what they examine.
void doctor_machine(void);
void doctor_options(void);
void doctor_pool(void);

// The checks in a child: the driver without the library, and the doors under it.
void doctor_driver(void);
void doctor_doors(void);

// Part of doctor_driver: which functions of the driver, as returned by dlopen, the library does not know.
void doctor_coverage(void *library);

#endif
