# SPDX-License-Identifier: AGPL-3.0-or-later
unit_srcs_test_calibrate := shim/calibrate.c
