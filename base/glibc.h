// SPDX-License-Identifier: AGPL-3.0-or-later
// Binaries for every glibc since 2.31, whatever glibc they are built with. The build includes this header ahead of each source.
//
// glibc 2.32 to 2.34 moved the functions of libpthread and libdl into libc and gave the moved ones a new version beside the old
// one, and glibc 2.33 gave stat and fstat symbols of their own. A program linked there asks for the new versions and does not
// start on an older glibc. Both versions are the same code, so every reference here asks for the old one. libpthread and libdl,
// if an older glibc has them, must be linked by name (`portable_libs` in the Makefile).
//
// tests/versions.bats finds a function that is missing here. Two things are elsewhere: __libc_start_main, which the C library's
// own start files call (tools/start.c), and dlclose, dlsym and dlvsym, which the preload library defines; the command uses the
// last two (tools/doctor.h).
#ifndef VGPU_BASE_GLIBC_H
#define VGPU_BASE_GLIBC_H

#include <features.h>

// glibc 2.38 has separate functions for C23's numbers that begin with 0b; none are read here.
#undef __GLIBC_USE_C2X_STRTOL // its name in 2.38 and 2.39
#define __GLIBC_USE_C2X_STRTOL 0
#undef __GLIBC_USE_C23_STRTOL
#define __GLIBC_USE_C23_STRTOL 0

#if defined(__x86_64__)
#define GLIBC_OLD(name, x86_64_version) __asm__(".symver " #name "," #name "@GLIBC_" x86_64_version);
#define GLIBC_STAT_VERSION 1
#elif defined(__aarch64__)
// The first version of the port; all of these functions have had it from the start.
#define GLIBC_OLD(name, x86_64_version) __asm__(".symver " #name "," #name "@GLIBC_2.17");
#define GLIBC_STAT_VERSION 0
#else
#error "CUDA runs on x86-64 and aarch64 Linux only"
#endif

GLIBC_OLD(dladdr, "2.2.5")
GLIBC_OLD(dladdr1, "2.3.3")
GLIBC_OLD(dlerror, "2.2.5")
GLIBC_OLD(dlinfo, "2.3.3")
GLIBC_OLD(dlopen, "2.2.5")
GLIBC_OLD(pthread_attr_setstacksize, "2.2.5")
GLIBC_OLD(pthread_create, "2.2.5")
GLIBC_OLD(pthread_join, "2.2.5")
GLIBC_OLD(pthread_key_create, "2.2.5")
GLIBC_OLD(pthread_mutex_trylock, "2.2.5")
GLIBC_OLD(pthread_once, "2.2.5")
GLIBC_OLD(pthread_rwlock_init, "2.2.5")
GLIBC_OLD(pthread_rwlock_rdlock, "2.2.5")
GLIBC_OLD(pthread_rwlock_unlock, "2.2.5")
GLIBC_OLD(pthread_rwlock_wrlock, "2.2.5")
GLIBC_OLD(pthread_setname_np, "2.12")
GLIBC_OLD(pthread_sigmask, "2.2.5")
GLIBC_OLD(pthread_timedjoin_np, "2.3.3")

// Newer than either port, so of the same version on both.
__asm__(".symver pthread_mutex_clocklock,pthread_mutex_clocklock@GLIBC_2.30");

// Before 2.33 the header's own stat and fstat call these.
#if __GLIBC_PREREQ(2, 33)
#include <sys/stat.h>

GLIBC_OLD(__xstat, "2.2.5")
GLIBC_OLD(__fxstat, "2.2.5")
int __xstat(int version, const char *path, struct stat *status);
int __fxstat(int version, int fd, struct stat *status);
#define stat(path, status) __xstat(GLIBC_STAT_VERSION, path, status)
#define fstat(fd, status) __fxstat(GLIBC_STAT_VERSION, fd, status)
#endif

#endif
