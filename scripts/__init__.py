"""Scripts that the Makefile runs with -m. Those that run before anything is installed use only the standard library."""
