"""`python -m ciod_cli` is the same as `ciod`."""

from ciod_cli.app import main

main()
