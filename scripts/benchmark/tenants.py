# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tenants: unmodified programs that begin to launch at the same moment, under one arm."""
import contextlib
import dataclasses
import os
import shutil
import subprocess
import tempfile
import time

from .machine import BenchError, TimeIsUp
from .traces import Trace, read_numbers

READY_SECONDS = 90


@dataclasses.dataclass
class Tenant:
    """`work` is for the program timeline, whose options come from the rest; another program is a whole command."""

    work: int = 0
    weight: int = 100
    expected_ns: int = 0        # of one kernel, to know how many records to keep
    options: tuple = ()
    env: dict = dataclasses.field(default_factory=dict)
    command: tuple = ()
    percent: int = None         # what BENCH_ENV_NAME is told; by default the weight's part


@dataclasses.dataclass
class Result:
    values: dict                # of the result line
    trace: Trace = None
    latencies_ns: list = None
    text: str = ""              # standard output


def environment(machine, arm, tenant, weights):
    """The environment of one tenant under an arm."""
    env = dict(machine.env)
    if arm.library:
        env["LD_PRELOAD"] = arm.library
    if arm.is_shim:
        # A context takes another amount of memory under MPS, and a pool measures it once.
        env.update(VGPU_POOL=os.path.join(machine.work, "pool" + ("-mps" if arm.mps else "")), VGPU_LOG="error")
    percent = tenant.percent or round(100 * tenant.weight / weights)
    for assignment in arm.env + arm.per_tenant:
        name, _, value = assignment.partition("=")
        env[name] = value.format(weight=tenant.weight, percent=percent)
    env.update(tenant.env)
    return env


def result_line(text):
    for line in text.splitlines():
        if line.startswith("result "):
            return dict(field.split("=", 1) for field in line.split()[1:])
    return {}


def last_words(path):
    """The last two lines: a library's reason comes before the program's error."""
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    return "; ".join(lines[-2:]) or "it said nothing"


class Run:
    """The processes of one run. Whatever happens, they are gone at the end."""

    def __init__(self, machine, seconds):
        self.machine, self.seconds = machine, seconds
        self.folder = tempfile.mkdtemp(prefix="run.", dir=machine.work)
        self.processes = []

    def spawn(self, arm, tenants, mps_env):
        weights = sum(tenant.weight for tenant in tenants)
        for number, tenant in enumerate(tenants):
            env = environment(self.machine, arm, tenant, weights)
            env.update(mps_env)
            with open(self.file(number, "out"), "wb") as out, open(self.file(number, "err"), "wb") as err:
                self.processes.append(subprocess.Popen(self.command(number, tenant), env=env, stdin=subprocess.PIPE, stdout=out, stderr=err,
                                                       start_new_session=True))

    def file(self, number, kind):
        return os.path.join(self.folder, f"{number}.{kind}")

    def command(self, number, tenant):
        if tenant.command:
            return list(tenant.command)
        # Three times what is expected: a kernel's length is set by a measurement too.
        records = int(self.seconds * 3e9 / max(1000, tenant.expected_ns)) + 1000
        command = [self.machine.path("kernels/timeline"), "--work", str(tenant.work), "--seconds", str(self.seconds), "--start-on-input",
                   "--records", str(records), "--trace", self.file(number, "trace"), "--latencies", self.file(number, "latencies")]
        # Few threads for the simulated GPU, which is one core of this machine.
        return command + (["--size", "16"] if self.machine.simulated else []) + list(tenant.options)

    def wait_until_ready(self):
        deadline = time.monotonic() + READY_SECONDS
        for number, process in enumerate(self.processes):
            while True:
                with open(self.file(number, "err"), "rb") as err:
                    if any(line.startswith(b"ready ") for line in err):
                        break
                if time.monotonic() > self.machine.until:
                    raise TimeIsUp
                if process.poll() is not None or time.monotonic() > deadline:
                    raise BenchError(f"a tenant did not get ready: {last_words(self.file(number, 'err'))}")
                time.sleep(0.01)

    def start(self):
        at = f"{time.monotonic() + 0.05:.6f}\n".encode()
        for process in self.processes:
            process.stdin.write(at)
            process.stdin.close()

    def results(self):
        results = []
        deadline = time.monotonic() + 2 * self.seconds + READY_SECONDS
        for number, process in enumerate(self.processes):
            try:
                status = process.wait(max(0.1, min(deadline, self.machine.until) - time.monotonic()))
            except subprocess.TimeoutExpired:
                if time.monotonic() > self.machine.until:
                    raise TimeIsUp from None
                raise BenchError("a tenant does not end") from None
            with open(self.file(number, "out"), encoding="utf-8") as out:
                text = out.read()
            if status:
                raise BenchError(f"a tenant exited with {status}: {last_words(self.file(number, 'err'))}")
            result = Result(result_line(text), text=text)
            if os.path.exists(self.file(number, "trace")):
                result.trace = Trace.read(self.file(number, "trace"))
                if int(result.values["recorded"]) + 1 < int(result.values["kernels"]):
                    raise BenchError("a tenant launched more kernels than it kept records of")
            if os.path.exists(self.file(number, "latencies")):
                result.latencies_ns = read_numbers(self.file(number, "latencies"))
            results.append(result)
        return results

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
            with contextlib.suppress(OSError):
                process.stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def run(machine, arm, tenants, seconds, observe=None):
    """Runs the tenants side by side and returns their results. `observe(pids)` is called once they have begun, and has to return before
    they end."""
    with contextlib.ExitStack() as failed:
        failed.callback(machine.stop_mps)
        if not arm.mps:
            machine.stop_mps()
        mps_env = machine.environment_of_mps() if arm.mps else {}
        with contextlib.ExitStack() as stack:
            this = Run(machine, seconds)
            stack.callback(this.end)
            this.spawn(arm, tenants, mps_env)
            if not any(tenant.command for tenant in tenants):
                this.wait_until_ready()
                this.start()
            if observe:
                observe([process.pid for process in this.processes])
            results = this.results()
        failed.pop_all()
        return results
