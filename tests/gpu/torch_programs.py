# SPDX-License-Identifier: AGPL-3.0-or-later
"""PyTorch, one part of it per run, see PARTS."""
import os
import sys

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS
from check import need, passes, result  # noqa: E402

torch = need("torch")
torch.use_deterministic_algorithms(True)
torch.backends.cudnn.benchmark = False


def bits(tensor):
    """The tensor's bytes; NumPy has no bfloat16."""
    return tensor.detach().reshape(-1).view(torch.uint8).cpu().numpy()


def network():
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 3, padding=1, stride=2), torch.nn.GELU(), torch.nn.Flatten(), torch.nn.Linear(64 * 64, 256),
        torch.nn.LayerNorm(256), torch.nn.Linear(256, 10),
    ).cuda()


def pictures(count=128):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 3, 16, 16, generator=generator), torch.randint(10, (count,), generator=generator)


def eager():
    for _ in passes():
        torch.manual_seed(3)
        a, b = torch.randn(1024, 1024, device="cuda"), torch.randn(1024, 1024, device="cuda", dtype=torch.float16)
        result("matmul", bits(a @ a))
        result("half", bits(b @ b.T))
        result("softmax", bits(torch.softmax(a, 1)))
        result("sort", bits(torch.sort(a, 1).values))
        result("fft", bits(torch.view_as_real(torch.fft.rfft2(a))))
        result("solve", bits(torch.linalg.solve(a[:256, :256].double() + 256 * torch.eye(256, device="cuda").double(),
                                                a[:256, :8].double())))
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            c = a.to("cpu", non_blocking=True).pin_memory().to("cuda", non_blocking=True) * 2
        torch.cuda.current_stream().wait_stream(side)
        result("streams", bits(c))
        # Many sizes, so that the allocator splits, keeps, and gives back.
        total = sum(float(torch.full((1 << (k % 14 + 10),), k, device="cuda", dtype=torch.float64).sum()) for k in range(200))
        result("allocations", str(total))
        torch.cuda.empty_cache()


def train():
    for _ in passes():
        model = network()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        scaler = torch.amp.GradScaler("cuda")
        inputs, labels = (tensor.cuda() for tensor in pictures())
        for _ in range(20):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", dtype=torch.float16):
                loss = torch.nn.functional.cross_entropy(model(inputs), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        result("loss", bits(loss))
        for name, parameter in model.named_parameters():
            result(name, bits(parameter))


def compiled():
    from torch._inductor import config

    # Which of several kernels is fastest must not change the result.
    if hasattr(config, "deterministic"):
        config.deterministic = True

    @torch.compile
    def step(x, w):
        return torch.nn.functional.gelu(x @ w).square().mean(1) + torch.softmax(x, 1).amax(1)

    for _ in passes():
        torch.manual_seed(4)
        x, w = torch.randn(512, 512, device="cuda"), torch.randn(512, 512, device="cuda", requires_grad=True)
        y = step(x, w)
        y.sum().backward()
        result("forward", bits(y))
        result("backward", bits(w.grad))


def replayed():
    """Compiled code that PyTorch captures by itself and replays."""
    @torch.compile(mode="reduce-overhead")
    def step(x, w):
        return torch.softmax(torch.nn.functional.gelu(x @ w), 1)

    with torch.no_grad():
        for _ in passes():
            torch.manual_seed(5)
            x, w = torch.randn(256, 256, device="cuda"), torch.randn(256, 256, device="cuda")
            for _ in range(5):
                torch.compiler.cudagraph_mark_step_begin()
                x = step(x, w).clone()
            result("output", bits(x))


def profiled():
    """The kernels that the profiler has seen; it hooks into the driver by CUPTI."""
    from torch.profiler import ProfilerActivity, profile

    a = torch.randn(512, 512, device="cuda")
    torch.sort(a @ a, 1)  # what is done once is done before
    for _ in passes():
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            torch.sort(a @ a, 1)
            torch.cuda.synchronize()
        names = sorted({event.name for event in profiler.events()
                        if event.device_type == torch.autograd.DeviceType.CUDA and "Sync" not in event.name})
        if not names:
            print("the profiler sees no kernels here")
            sys.exit(77)
        result("kernels", "\n".join(names))


def distributed():
    """Training in a group of one: NCCL, its own memory and its threads."""
    import tempfile

    group = torch.distributed
    if not group.is_available() or not group.is_nccl_available():
        print("PyTorch has no NCCL here")
        sys.exit(77)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    inputs, labels = (tensor.cuda() for tensor in pictures())
    with tempfile.TemporaryDirectory() as folder:
        group.init_process_group("nccl", init_method=f"file://{folder}/meeting", rank=0, world_size=1)
        for _ in passes():
            model = torch.nn.parallel.DistributedDataParallel(network(), device_ids=[0])
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
            for _ in range(10):
                optimizer.zero_grad(set_to_none=True)
                loss = torch.nn.functional.cross_entropy(model(inputs), labels)
                loss.backward()
                optimizer.step()
            total = torch.stack([parameter.double().sum() for parameter in model.parameters()])
            group.all_reduce(total)
            result("loss", bits(loss))
            result("weights", bits(total))
        group.destroy_process_group()


class CapturedTraining:
    """A training step as a graph."""

    def __init__(self):
        inputs, labels = (tensor.cuda() for tensor in pictures())
        self.model = network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)

        def step():
            self.optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(self.model(inputs), labels)
            loss.backward()
            self.optimizer.step()
            return loss

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        self.start = [parameter.detach().clone() for parameter in self.model.parameters()]
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = step()

    @torch.no_grad()
    def run(self):
        for parameter, start in zip(self.model.parameters(), self.start):
            parameter.copy_(start)
            self.optimizer.state[parameter]["momentum_buffer"].zero_()
        for _ in range(50):
            self.graph.replay()
        result("loss", bits(self.loss))
        result("weights", bits(self.model[0].weight))


def graphs():
    training = CapturedTraining()
    for _ in passes():
        training.run()


def recapture():
    for _ in passes():
        CapturedTraining().run()


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 512

    def __getitem__(self, index):
        return torch.full((64,), float(index % 31)), index


def loader(method):
    from torch.utils.data import DataLoader

    torch.zeros(1, device="cuda")  # the workers start while CUDA is in use here
    for _ in passes():
        sums = torch.zeros(64, device="cuda")
        for batch, indices in DataLoader(Numbers(), batch_size=32, num_workers=2, pin_memory=True,
                                         multiprocessing_context=method):
            sums = sums * 0.5 + (batch.cuda(non_blocking=True) * indices.cuda(non_blocking=True)[:, None]).sum(0)
        result("loaded", bits(sums))


PARTS = {"eager": eager, "train": train, "compile": compiled, "replayed": replayed, "profiled": profiled,
         "distributed": distributed, "graphs": graphs, "recapture": recapture,
         "fork": lambda: loader("fork"), "spawn": lambda: loader("spawn")}

if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU")
    PARTS[sys.argv[1]]()
