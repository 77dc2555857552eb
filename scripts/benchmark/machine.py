# SPDX-License-Identifier: AGPL-3.0-or-later
"""This machine: its GPU, the build under test, versions, and the arms that can be measured here."""
import contextlib
import dataclasses
import datetime
import functools
import glob
import math
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# What figures depend on: the library, how it is built, and the programs that are timed. A commit that changes none of it is no other version.
MEASURED = ("Makefile", "allocator", "base", "include", "kernels", "lib", "options", "pool", "scheduler", "shim", "tests/programs/api_bench.c",
            "tests/programs/train.py", "tests/traces")


class BenchError(Exception):
    """Says in one line why something could not be measured."""


class NotHere(BenchError):
    """Says what this machine or this build lacks: nothing went wrong, there is nothing to measure."""


class TimeIsUp(Exception):
    """The call has used its minutes: what is running is ended, and its round is measured another time."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to share the GPU. `env` goes to every tenant; `per_tenant` is filled in with the tenant's weight and percent."""

    key: str
    label: str
    library: str = ""
    mps: bool = False
    env: tuple = ()
    per_tenant: tuple = ()

    @property
    def is_shim(self):
        return self.key.startswith("shim")


def first_line(command, pattern="(.*)"):
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(pattern, output)
    return found.group(1).strip() if found else ""


class Machine:
    def __init__(self, build, simulated):
        self.build = os.path.join(ROOT, build)
        self.simulated = simulated
        self.shim = self.path("libvgpu_shim.so")
        self.vgpu = self.path("vgpu")
        if not simulated and not glob.glob("/dev/nvidia[0-9]*"):
            raise BenchError("this machine has no NVIDIA GPU, or its driver is not installed; "
                             "BENCH_SIMULATED=1 tries it out on the simulated one")
        # Shared memory, where there is any: a pool needs a file system with O_TMPFILE, which not every /tmp is.
        self.work = tempfile.mkdtemp(prefix="vgpu-bench.", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("VGPU_", "SIMGPU_", "CUDA_MPS_")) and k != "LD_PRELOAD"}
        self.env["LC_ALL"] = "C"
        self.prepend_library_path(os.path.join(self.build, "simgpu") if simulated else self.cuda_libraries())
        if simulated:
            self.env["SIMGPU_STATE"] = os.path.join(self.work, "simgpu")
        self.options = first_line([self.vgpu, "help", "env"], "(?s)(.*)")
        self.arms = self._arms()
        self.daemon = contextlib.ExitStack()
        self.mps_env = {}
        self.until = math.inf # on time.monotonic(): when the call's minutes are used

    def path(self, name):
        path = os.path.join(self.build, name)
        if not os.path.exists(path):
            raise BenchError(f"{path} is missing: run make")
        return path

    def cuda_libraries(self):
        with contextlib.suppress(OSError), open(os.path.join(self.build, "cuda.mk"), encoding="utf-8") as file:
            found = re.search(r"^CUDA_LIB := (.*)$", file.read(), re.M)
            if found and os.path.isdir(found.group(1)):
                return found.group(1)
        return os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "lib64")

    def prepend_library_path(self, folder):
        self.env["LD_LIBRARY_PATH"] = ":".join(filter(None, [folder, self.env.get("LD_LIBRARY_PATH")]))

    def close(self):
        self.stop_mps()
        shutil.rmtree(self.work, ignore_errors=True)

    @staticmethod
    def own_arms(shim):
        weight = ("VGPU_WEIGHT={weight}",)
        return [
            Arm("native", "time slicing"),
            Arm("mps", "MPS", mps=True),
            Arm("mps-priority", "MPS, client priority", mps=True),
            Arm("shim", "vgpu-shim", shim, per_tenant=weight),
            Arm("shim-10ms", "vgpu-shim, 10 ms", shim, env=("VGPU_QUANTUM=10",), per_tenant=weight),
            Arm("shim-mps", "vgpu-shim, MPS", shim, mps=True, per_tenant=weight),
            Arm("shim-mps-2ms", "vgpu-shim, MPS, 2 ms", shim, mps=True, env=("VGPU_QUANTUM=2",), per_tenant=weight),
            Arm("shim-mps-company", "vgpu-shim, MPS, at the same time", shim, mps=True, env=("VGPU_CONCURRENCY=8",), per_tenant=weight),
        ]

    def _arms(self):
        arms = self.own_arms(self.shim)
        for variable, path in sorted(os.environ.items()):
            if variable.startswith("BENCH_PRELOAD_") and path:
                name = variable[len("BENCH_PRELOAD_"):]
                own = tuple(os.environ.get("BENCH_ENV_" + name, "").split())
                arms.append(Arm(name.lower(), name, path, per_tenant=own))
        return {arm.key: arm for arm in arms}

    def lacks(self, arm):
        """Why an arm cannot be measured here, or an empty string."""
        if arm.mps and self.simulated:
            return "the simulated GPU has no MPS"
        if arm.mps and not shutil.which("nvidia-cuda-mps-control"):
            return "nvidia-cuda-mps-control is not installed"
        if arm.library and not os.path.exists(arm.library):
            return f"{arm.library} does not exist"
        return ""

    def has_option(self, name):
        return name in self.options

    @functools.cached_property
    def version(self):
        """The library's, and the last commit that changed what is measured; of what was never committed, its checksum too, since there may be
        several."""
        version, revision = first_line([self.vgpu, "version"]), ""
        # An unpacked copy may lie in the folder of another repository.
        if os.path.exists(os.path.join(ROOT, ".git")):
            revision = first_line(["git", "-C", ROOT, "log", "-1", "--format=%h", "--", *MEASURED])
            changes = subprocess.run(["git", "-C", ROOT, "diff", "HEAD", "--", *MEASURED], capture_output=True, check=False).stdout
            if changes:
                revision += f"-dirty-{zlib.crc32(changes):08x}"
        if not revision:
            with open(self.shim, "rb") as file:
                revision = f"library {zlib.crc32(file.read()):08x}"
        return f"{version}, {revision}"

    @functools.cached_property
    def gpu(self):
        if self.simulated:
            return "the simulated GPU (its times mean nothing)"
        return first_line(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]) or "unknown GPU"

    def describe(self):
        """One line, so that figures of different machines and versions are never mixed unseen."""
        toolkit = ""
        with contextlib.suppress(OSError), open(os.path.join(self.build, "cuda.mk"), encoding="utf-8") as file:
            toolkit = (re.findall(r"^CUDA_VERSION := (.*)$", file.read(), re.M) or [""])[0]
        return ", ".join(filter(None, [
            self.gpu, self.version, f"CUDA {toolkit}" if toolkit else "", f"{os.cpu_count()} CPUs", f"Linux {platform.release()}",
            " ".join(platform.libc_ver()), f"Python {platform.python_version()}", datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")]))

    def seconds_left(self):
        """Of the call's minutes; None where they are not limited."""
        return None if math.isinf(self.until) else max(0.1, self.until - time.monotonic())

    def environment_of_mps(self):
        """Of the clients of a daemon, which serves one run after another: its start and end take longer than many a run."""
        if not self.mps_env:
            self.mps_env = self.daemon.enter_context(self.mps())
        return self.mps_env

    def stop_mps(self):
        """Before a run without MPS, and after one that failed: its end is all that a server in disorder is good for."""
        self.mps_env = {}
        self.daemon.close()

    @contextlib.contextmanager
    def mps(self):
        """An MPS daemon of our own, reached by its private folders, while the block lasts. The GPU's settings stay as they are."""
        folder = tempfile.mkdtemp(prefix="mps.", dir=self.work)
        env = dict(self.env, CUDA_MPS_PIPE_DIRECTORY=os.path.join(folder, "pipe"), CUDA_MPS_LOG_DIRECTORY=os.path.join(folder, "log"))
        for variable in ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"):
            os.mkdir(env[variable])
        subprocess.run(["nvidia-cuda-mps-control", "-d"], env=env, check=True, timeout=30, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL)
        try:
            yield {k: env[k] for k in ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")}
        finally:
            subprocess.run(["nvidia-cuda-mps-control"], env=env, input="quit\n", text=True, check=False, timeout=60,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            # The server outlives its daemon for a moment; the next arm must not meet it.
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline and glob.glob(os.path.join(env["CUDA_MPS_PIPE_DIRECTORY"], "*.pid")):
                time.sleep(0.05)


class OnPaper(Machine):
    """A machine to plan for: nothing is looked for, and nothing can be run."""

    def __init__(self, simulated=False): # pylint: disable=super-init-not-called
        self.simulated, self.shim = simulated, ""
        self.arms = self._arms()

    gpu, version = "no GPU", "no version"

    def lacks(self, _arm):
        return ""

    def close(self):
        pass
