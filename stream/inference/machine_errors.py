"""What a message of ONNX Runtime says of the machine: it tells the process's memory and a GPU that fail by their text alone."""

from __future__ import annotations

from typing import Final

NO_MEMORY: Final = (
    "out of memory", "failed to allocate memory", "bad allocation", "bad_alloc", "cannot allocate memory", "alloc_failed",
    "resource allocation failed",
)  # fmt: skip
"""What a message has, in small letters, where memory could not be had: the process's, or a GPU's."""
ACCELERATOR: Final = ("cuda failure", "cuda error", "cublas", "cudnn")
"""What it has where a GPU fails."""
NO_GPU_MEMORY: Final = "the GPU is out of memory: free some of it (nvidia-smi says who holds it), or lower micro_batch"


def no_memory(error: BaseException) -> bool:
    """Memory could not be had, the process's or a GPU's."""
    low = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in low for sign in NO_MEMORY)


def machine_fails(error: BaseException) -> str:
    """The line for an error that is the machine's, whatever was computed: no memory, a GPU that fails; "" for another."""
    text = " ".join(str(error).split())
    accelerator = any(sign in text.lower() for sign in ACCELERATOR)
    if no_memory(error):
        said = (  # the arena's message is the same for both
            NO_GPU_MEMORY
            if accelerator
            else "out of memory: give the process (or the GPU) more, or lower micro_batch, held_events or comment_cache"
        )
        return f"{said} ({text})" if text else said
    return f"the accelerator fails: {text}" if accelerator else ""
