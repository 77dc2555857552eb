# SPDX-License-Identifier: AGPL-3.0-or-later
"""The pieces, in the order in which they run."""
from . import sharing

PIECES = {
    "tenants": sharing.EQUAL,
    "shares": sharing.SHARES,
    "many": sharing.MANY,
}
