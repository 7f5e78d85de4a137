"""`python -m deploy.cli` is the command `freshet`."""

from deploy.cli.main import main

main()
