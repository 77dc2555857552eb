# SPDX-License-Identifier: AGPL-3.0-or-later
"""The benchmark: machine and arms, tenants, what their traces say, the pieces, and the report."""
