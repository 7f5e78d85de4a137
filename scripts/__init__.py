"""What the Makefile runs before anything is installed: standard library only, each a module to be started with -m."""
