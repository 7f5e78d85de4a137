"""The life of the worker process: how it is asked to stop, how it detects that it hangs, and how it ends."""
