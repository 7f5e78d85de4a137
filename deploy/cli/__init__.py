"""The `freshet` command (deploy.cli.main)."""
