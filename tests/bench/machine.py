"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from deploy.embedded_kafka.jars import VERSION

PACKAGES = ("faust-streaming", "aiokafka", "rocksdict", "onnxruntime-gpu", "onnxruntime", "numpy", "msgspec", "uvloop")


def describe() -> dict[str, object]:
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "kafka": f"{VERSION}, embedded, on the same machine",
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "load_average": load_average(),
    }


def load_average() -> float:
    """Of the last minute, everything on the machine counted."""
    return os.getloadavg()[0]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:
        return ""
