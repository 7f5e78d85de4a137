"""The `freshet` command (deploy.cli.main)."""

from deploy.cli import signals as signals  # before any other import: see there
