"""`python -m sparsebert` is the `sparsebert` command."""

from sparsebert.cli import main

main()
