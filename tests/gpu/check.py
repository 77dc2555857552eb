# SPDX-License-Identifier: AGPL-3.0-or-later
"""What check.h is for C: results that must be the same in every pass and every run, and the meeting of two programs."""
import hashlib
import importlib
import os
import pathlib
import sys
import time

_seen = {}


def need(*modules):
    """Imports modules, or ends the program as skipped. A row is skipped only if that is so in all its runs."""
    loaded = []
    for module in modules:
        try:
            loaded.append(importlib.import_module(module))
        except Exception as error:
            print(f"{module} does not load here: {error}")
            sys.exit(77)
    return loaded[0] if len(loaded) == 1 else loaded


def passes():
    """One pass, or as many as fit into COMPAT_SECONDS; the first begins when both programs are here."""
    here, there = os.environ.get("COMPAT_HERE"), os.environ.get("COMPAT_THERE")
    if here and there:
        pathlib.Path(here).touch()
        end = time.monotonic() + 60
        while not os.path.exists(there) and time.monotonic() < end:
            time.sleep(0.001)
    end = time.monotonic() + float(os.environ.get("COMPAT_SECONDS", 0))
    yield
    while time.monotonic() < end:
        yield


def result(name, value):
    """Prints the hash of an array (anything NumPy takes) or of a text, bit for bit."""
    import numpy

    if isinstance(value, str):
        data = value.encode()
    else:
        data = numpy.ascontiguousarray(value).tobytes()
    digest = hashlib.sha256(data).hexdigest()[:16]
    if name not in _seen:
        _seen[name] = digest
        print(name, digest, flush=True)
    elif _seen[name] != digest:
        sys.exit(f"{name}: {digest} in this pass, {_seen[name]} in the first")
