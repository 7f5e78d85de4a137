"""The life of the worker process: how it is asked to stop, how it notices that it hangs, and how it ends."""
