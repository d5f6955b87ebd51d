"""`python -m export` is `sparsebert export`."""

from sparsebert.cli import run_stage

run_stage("export")
