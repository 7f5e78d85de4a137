"""Recognizes machine errors of ONNX Runtime. Only their text shows that memory is exhausted or a GPU fails."""

from __future__ import annotations

from typing import Final

NO_MEMORY: Final = (
    "out of memory", "failed to allocate memory", "bad allocation", "bad_alloc", "cannot allocate memory", "alloc_failed",
    "resource allocation failed",
)  # fmt: skip
"""Texts in a lower-cased message if memory could not be allocated, in the process or on a GPU."""
ACCELERATOR: Final = ("cuda failure", "cuda error", "cublas", "cudnn")
"""Texts in a lower-cased message if a GPU fails."""
NO_GPU_MEMORY: Final = "the GPU is out of memory: free some of it (nvidia-smi shows who holds it), or lower micro_batch"


def no_memory(error: BaseException) -> bool:
    """Return whether the error means that memory could not be allocated, in the process or on a GPU."""
    low = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in low for sign in NO_MEMORY)


def machine_fails(error: BaseException) -> str:
    """Return the line for an error of the machine (no memory, or a failing GPU); "" for any other error."""
    text = " ".join(str(error).split())
    accelerator = any(sign in text.lower() for sign in ACCELERATOR)
    if no_memory(error):
        message = (  # the arena's message is the same for the process and a GPU
            NO_GPU_MEMORY
            if accelerator
            else "out of memory: give the process (or the GPU) more, or lower micro_batch, held_events or comment_cache"
        )
        return f"{message} ({text})" if text else message
    return f"the accelerator fails: {text}" if accelerator else ""
