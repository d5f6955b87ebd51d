"""`python -m service` is `sparsebert serve`."""

from sparsebert.cli import run_stage

run_stage("serve")
