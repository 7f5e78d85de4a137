"""Run the `freshet` command with `python -m deploy.cli`."""

from deploy.cli.main import main

main()
