"""Scripts that the Makefile runs with -m. Those that it runs before anything is installed use the standard library
only."""
