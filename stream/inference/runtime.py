"""ONNX Runtime: which accelerator is really usable, and the only place that creates sessions.

ONNX Runtime falls back to the CPU silently, while `get_available_providers()` still names CUDA. So this module puts a
value on the device to find out, and checks which provider every session runs on.
"""

from __future__ import annotations

import contextlib
import io
from functools import cache
from importlib.metadata import distributions
from typing import Any, Final, Literal

import numpy as np
import onnxruntime as ort

from stream.core.errors import BundleError, MachineError, ProviderError, SettingsError
from stream.inference.machine_errors import NO_GPU_MEMORY, machine_fails, no_memory

Policy = Literal["cuda", "auto", "cpu"]
NAMES: Final = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


def runtimes() -> list[str]:
    """Return the names of the installed ONNX Runtime distributions. Two of them overwrite each other's files."""
    names = {(dist.metadata["Name"] or "").lower().replace("_", "-") for dist in distributions()}
    return sorted(name for name in names if name == "onnxruntime" or _variant(name))


def _variant(name: str) -> bool:
    tail = name.removeprefix("onnxruntime-")
    return tail != name and tail.split("-")[0] in {
        "gpu",
        "directml",
        "openvino",
        "qnn",
        "rocm",
        "migraphx",
        "cann",
        "training",
    }


def resolve(policy: Policy) -> str:
    """Return `cuda` or `cpu`. If CUDA is not usable, `auto` falls back to `cpu` (see `why_no_cuda`).

    Raises:
        ProviderError: CUDA is required and not usable.
        SettingsError: More than one ONNX Runtime is installed.
    """
    if len(found := runtimes()) > 1:
        raise SettingsError(f"more than one ONNX Runtime is installed ({', '.join(found)}): uninstall all but one")
    if policy == "cpu":
        return "cpu"
    why = why_no_cuda()
    if why and policy == "cuda":
        raise ProviderError(f"provider cuda: {why}")
    return "cpu" if why else "cuda"


@cache
def why_no_cuda() -> str:
    """Return "" if CUDA works, else the reason why not."""
    if NAMES["cuda"] not in ort.get_available_providers():
        return "this ONNX Runtime has no CUDA provider"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ort.preload_dlls()  # finds the CUDA libraries that came as wheels; prints, never raises
    ort.set_default_logger_severity(4)  # the probe's failure is reported below, in one line
    try:
        ort.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", 0)
        return ""
    except Exception as error:  # ONNX Runtime's errors have no common base
        detail = " ".join(str(error).split()).split("() ")[-1][:200]
        if no_memory(error):
            return f"{NO_GPU_MEMORY} ({detail})"
        return f"CUDA 13 with cuDNN 9 or the GPU is missing ({detail})"
    finally:
        ort.set_default_logger_severity(2)


def session(name: str, model: bytes, provider: str) -> Any:
    """Create an InferenceSession with one thread.

    intra_op = inter_op = 1, because several sessions and an event loop share few cores; one thread each had the best
    throughput and the best p99. TensorFloat-32 is off, so that a GPU agrees with the CPU to about 1e-6.

    Raises:
        BundleError: ONNX Runtime refuses the file, which the error names.
        ProviderError: ONNX Runtime has fallen back to another provider silently.
        MachineError: The machine fails: no memory, or a GPU.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    cuda = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
    wanted = [(NAMES["cuda"], cuda), NAMES["cpu"]] if provider == "cuda" else [NAMES["cpu"]]
    try:
        made = ort.InferenceSession(model, options, providers=wanted)
    except Exception as error:  # ONNX Runtime's errors have no common base
        if short := machine_fails(error):
            raise MachineError(f"{name}: {short}") from None
        raise BundleError(f"{name}: ONNX Runtime refuses it: {' '.join(str(error).split())[:300]}") from None
    if made.get_providers()[0] != NAMES[provider]:
        raise ProviderError(f"{name}: requested {provider}, runs on {made.get_providers()[0]}")
    return made


def check_signature(
    name: str, made: Any, inputs: dict[str, tuple[Any, ...]], outputs: dict[str, tuple[Any, ...]]
) -> None:
    """Check the names, types and fixed widths of a graph.

    Each value is (type, extent, ...); an extent of None is dynamic. Raises BundleError, which names the file and the
    input or output.
    """
    for side, expected, found in (("input", inputs, made.get_inputs()), ("output", outputs, made.get_outputs())):
        if [value.name for value in found] != list(expected):
            raise BundleError(f"{name}: {side}s {[value.name for value in found]}, expected {list(expected)}")
        for value in found:
            kind, *shape = expected[value.name]
            same = len(value.shape) == len(shape) and all(
                want is None or have == want for want, have in zip(shape, value.shape, strict=True)
            )
            fixed = side == "input" and any(
                want is None and isinstance(have, int) for want, have in zip(shape, value.shape, strict=False)
            )
            if value.type != f"tensor({kind})" or not same or fixed:
                raise BundleError(
                    f"{name}: {side} {value.name} is {value.type} {value.shape}, expected {kind} {shape} (None: any)"
                )
