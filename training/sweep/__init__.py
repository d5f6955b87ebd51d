"""`sparsebert sweep`: a grid of training runs, of which no finished one is ever done twice or lost.

`grid` and `plan` are pure: words become points and points become jobs. `runner` says what a runner is, `local` and
`cluster` are the two, `child` is one process of either. `receipts` knows what is finished, `results` writes it
down, `conduct` is the story and `cli` its command line.
"""
