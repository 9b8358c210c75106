"""Examples per second of training on an accelerator: the registry's networks on Keras' JAX backend, and the same
networks in PyTorch, in float32 (TensorFloat-32 where the chip has it) and in mixed bfloat16.

    python benchmarks/accelerator.py     (needs jax and torch; a minute and a half on a GPU)

A step is forward, backward and optimizer on one batch that stays on the device. JAX compiles it as a whole; PyTorch
runs it eagerly, without `torch.compile`. Both take turns within one process.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory too
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import keras
import numpy as np
import torch
from common import interleaved, ratios, write_results
from jax import numpy as jnp
from torch import nn
from torch.nn import functional

import zoo

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # by the name of Keras' policy
# Dense operations per second of the SXM form: NVIDIA, "H100 Tensor Core GPU" and "H200 Tensor Core GPU" data sheets.
PEAKS = {"H100": {"float32": 494.7e12, "bfloat16": 989.4e12}, "H200": {"float32": 494.7e12, "bfloat16": 989.4e12}}


class Airbench(nn.Sequential):
    """`airbench94`; whitening and initial weights, which take no part in the speed, are left out."""

    def __init__(self) -> None:
        whiten = nn.Conv2d(3, 24, 2)
        whiten.weight.requires_grad = False
        layers: list[nn.Module] = [whiten, nn.GELU()]
        for before, width in ((24, 64), (64, 256), (256, 256)):
            norms = [nn.BatchNorm2d(width, eps=1e-12, momentum=0.4) for _ in range(2)]
            for norm in norms:
                norm.weight.requires_grad = False
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.MaxPool2d(2), norms[0], nn.GELU()]
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), norms[1], nn.GELU()]
        super().__init__(*layers, nn.MaxPool2d(3), nn.Flatten(), nn.Linear(256, 10, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / 9


def lenet5() -> nn.Module:
    first = (nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(
        *first, nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)
    )


class UNet(nn.Module):
    """`unet_satellite`."""

    def __init__(self, bands: int = 20, classes: int = 4, width: int = 16, depth: int = 4) -> None:
        super().__init__()

        def block(before: int, channels: int) -> nn.Module:
            layers: list[nn.Module] = []
            for inputs in (before, channels):
                layers += [nn.Conv2d(inputs, channels, 3, padding=1, bias=False)]
                layers += [nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03), nn.ReLU()]
            return nn.Sequential(*layers)

        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(block(*pair) for pair in zip([bands, *widths], widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * channels, channels, 2, 2) for channels in widths[:-1])
        self.joined = nn.ModuleList(block(2 * channels, channels) for channels in widths[:-1])
        self.output = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level in self.down[:-1]:
            skips.append(level(x))
            x = functional.max_pool2d(skips[-1], 2)
        x = self.down[-1](x)
        for skip, up, joined in zip(reversed(skips), reversed(self.up), reversed(self.joined), strict=True):
            x = joined(torch.cat([up(x), skip], 1))
        return self.output(x)


class CharacterLSTM(nn.Module):
    """`lstm_char`; PyTorch's LSTM has a second bias for each gate."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(65, 64), nn.Linear(384, 65)
        self.lstm = nn.LSTM(64, 384, 2, batch_first=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.output(self.lstm(self.embedding(tokens))[0])


@dataclass(frozen=True)
class Case:
    """A network's batch.

    Args:
        model: name in the registry.
        network: makes the same network in PyTorch.
        shape: of a batch of inputs; of token ids without a last axis for channels.
        targets: shape of a batch of targets: class numbers, or masks like the logits where `masks` is set.
        unit: what the speed counts.
        optimizer: `sgd` with Nesterov's momentum, or `adam`.
    """

    model: str
    network: Callable[[], nn.Module]
    shape: tuple[int, ...]
    targets: tuple[int, ...]
    unit: str = "images"
    optimizer: str = "adam"
    masks: bool = False

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(0)
        x = random.random(self.shape, np.float32) if len(self.shape) > 2 else random.integers(0, 65, self.shape)
        y = random.integers(0, 2 if self.masks else 10, self.targets)
        return x.astype(np.float32 if len(self.shape) > 2 else np.int32), y.astype(np.int32)

    def count(self) -> int:
        """Examples of a batch: tokens of a text, images otherwise."""
        return int(np.prod(self.shape)) if self.unit == "tokens" else self.shape[0]


def cases(share: int) -> tuple[Case, ...]:
    """The measured batches, divided by `share`."""
    large, small, text = 1024 // share, 8 // min(share, 8), 64 // min(share, 64)
    return (
        Case("airbench94", Airbench, (large, 32, 32, 3), (large,), optimizer="sgd"),
        Case("lenet5_modern", lenet5, (large, 28, 28, 1), (large,)),
        Case("unet_satellite", UNet, (small, 128, 128, 20), (small, 128, 128, 4), masks=True),
        Case("lstm_char", CharacterLSTM, (text, 64), (text, 64), unit="tokens"),
    )


def jax_steps(case: Case, precision: str) -> tuple[Callable[[int], None], dict[str, Any]]:
    """A function that takes that many steps, and the network's parameters and operations of a step."""
    keras.config.set_dtype_policy(PRECISIONS[precision])
    model = zoo.get_spec(case.model).build()
    if case.optimizer == "sgd":
        optimizer: Any = keras.optimizers.SGD(0.01, momentum=0.85, nesterov=True)
    else:
        optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)
    x, y = (jnp.asarray(array) for array in case.batch())
    given = x
    if len(model.inputs) > 1:  # states, zero at first
        given = {one.name: x if one.name == "tokens" else jnp.zeros((len(x), one.shape[-1])) for one in model.inputs}

    def loss(trained: list[jax.Array], others: list[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
        outputs, others = model.stateless_call(trained, others, given, training=True)
        logits = (outputs["logits"] if isinstance(outputs, dict) else outputs).astype(jnp.float32)
        if case.masks:
            return (jax.nn.softplus(logits) - logits * y).mean(), others
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], -1).mean(), others

    def step(trained: list[jax.Array], others: list[jax.Array], slots: list[jax.Array]) -> tuple:
        (value, others), gradients = jax.value_and_grad(loss, has_aux=True)(trained, others)
        trained, slots = optimizer.stateless_apply(slots, gradients, trained)
        return (trained, others, slots), value

    variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    state = tuple([jnp.copy(one.value) for one in group] for group in variables)
    lowered = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*state)
    compiled = lowered.compile()
    parameters = sum(int(np.prod(one.shape)) for one in model.trainable_variables)
    # Counted before compilation, which may put calls to a library in place of convolutions. Of a loop the analysis
    # counts one pass: there, two operations a weight and token, and twice as many backward.
    operations = 6 * parameters * case.count() if case.unit == "tokens" else lowered.cost_analysis()["flops"]

    def run(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, value = compiled(*state)
        value.block_until_ready()

    return run, {"parameters": parameters, "operations": float(operations)}


def torch_steps(case: Case, precision: str) -> tuple[Callable[[int], None], int]:
    """A function that takes that many steps, and the number of trained parameters."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = case.network().to(device)
    x, y = (torch.as_tensor(array, device=device) for array in case.batch())
    if x.ndim == 4:
        network, x = (
            network.to(memory_format=torch.channels_last),
            x.permute(0, 3, 1, 2),
        )  # channels stay last in memory
    targets = y.permute(0, 3, 1, 2).float() if case.masks else y.long()
    trained = [one for one in network.parameters() if one.requires_grad]
    if case.optimizer == "sgd":
        optimizer: Any = torch.optim.SGD(trained, 0.01, momentum=0.85, nesterov=True, fused=True)
    else:
        optimizer = torch.optim.Adam(trained, 1e-3, fused=True)

    def run(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                logits = network(x)
            logits = logits.float()
            if case.masks:
                loss = functional.binary_cross_entropy_with_logits(logits, targets)
            else:
                loss = functional.cross_entropy(logits.flatten(0, -2), targets.flatten())
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run, sum(one.numel() for one in trained)


def speed(run: Callable[[int], None], count: int, seconds: float, at_once: int) -> float:
    """Examples per second, `count` a step, in that time or longer, waiting for the device after `at_once` steps."""
    begin, steps = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < seconds or not steps:
        run(at_once)
        steps += at_once
    return steps * count / passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement in each of three rounds")
    parser.add_argument("--limit", type=float, default=90, help="seconds after which no other network is begun")
    parser.add_argument("--quick", action="store_true", help="small batches and a moment of each; nothing is written")
    arguments = parser.parse_args()
    seconds, at_once = (0.01, 1) if arguments.quick else (arguments.seconds, 20)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True  # the fastest algorithm of each convolution, as XLA chooses it
    begin, device, results = time.perf_counter(), jax.devices()[0].device_kind, {}
    peaks = next((peaks for chip, peaks in PEAKS.items() if chip in device), {})
    print(f"{device}\n{'':29}{'JAX':>12} {'PyTorch':>12}  ratio  of the peak (JAX)")
    for case in cases(512 if arguments.quick else 1):
        for precision in PRECISIONS:
            if time.perf_counter() - begin > arguments.limit and not arguments.quick:
                print(f"{case.model} {precision}: left out after {arguments.limit:.0f} seconds")
                continue
            ours, facts = jax_steps(case, precision)
            theirs, parameters = torch_steps(case, precision)
            runs = {"jax": ours, "torch": theirs}
            speeds = {name: partial(speed, run, case.count(), seconds, at_once) for name, run in runs.items()}
            try:
                measured = interleaved(speeds, 1 if arguments.quick else 3)
            except RuntimeError as error:  # PyTorch's LSTM on some CPUs has no bfloat16
                print(f"{case.model} {precision}: {str(error).splitlines()[0]}")
                continue
            ratio = ratios(measured, "jax", "torch")
            rates = {name: facts["operations"] * one["median"] / case.count() for name, one in measured.items()}
            shares = {name: rate / peaks[precision] for name, rate in rates.items()} if peaks else {}
            results[f"{case.model} {precision}"] = {
                "unit": f"{case.unit}/s",
                "batch": case.shape,
                **facts,
                "torch_parameters": parameters,
                **measured,
                "ratio": ratio,
                "operations_per_second": rates,
                "share_of_peak": shares,
            }
            values = f"{measured['jax']['median']:12,.0f} {measured['torch']['median']:12,.0f}"
            share = f"{shares['jax']:.1%}" if shares else "-"
            name = f"{case.model} {precision}"
            print(f"{name:29}{values}  {ratio['median']:5.2f}  {share:>6}  {case.unit}/s", flush=True)
    if not arguments.quick:
        found = {"device": device, "peaks": peaks, "results": results}
        print(f"wrote {write_results('accelerator', found, packages=('jax', 'torch', 'keras', 'numpy'))}")


if __name__ == "__main__":
    main()
