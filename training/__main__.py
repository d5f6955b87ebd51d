"""`python -m training` is `sparsebert train`."""

from sparsebert.cli import run_stage

run_stage("train")
