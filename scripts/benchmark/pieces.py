# SPDX-License-Identifier: AGPL-3.0-or-later
"""The pieces, in the order in which they run and are reported."""
from . import accounting, alloc, alone, api, company, requests, sharing, training

PIECES = {
    "launch": alone.LAUNCH,
    "gate": alone.GATE,
    "tenants": sharing.EQUAL,
    "shares": sharing.SHARES,
    "shares30": sharing.CLAIM,
    "company": company.COMPANY,
    "small": requests.SMALL,
    "latency": requests.LATENCY,
    "idle": requests.IDLE,
    "caps": accounting.CAPS,
    "many": sharing.MANY,
    "cpu": accounting.CPU,
    "drain": accounting.DRAIN,
    "pytorch": training.PYTORCH,
    "start": alone.START,
    "memory": alone.MEMORY,
    "alloc": alloc.ALLOC,
    "api": api.API,
}
