"""The Open Inference Protocol v2, as values: names, tensors, requests and answers; the routes are `service.routes.v2`.

Knows nothing about HTTP.
"""
