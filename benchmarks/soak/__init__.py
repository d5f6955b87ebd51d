"""A hundred thousand requests, good and bad, against a real process: does it answer them all and stay as it was?"""
