"""The routes of the Open Inference Protocol v2, a file each; `service.oip` knows what is in requests and answers."""

from service.routes.v2 import infer, models, repository, server, statistics

# `/v2/models/stats` before `/v2/models/{model}`.
ROUTERS = (server.router, statistics.router, models.router, infer.router, repository.router)
PATHS = (
    ("GET", "/v2"), ("GET", "/v2/health/live"), ("GET", "/v2/health/ready"), ("GET", "/v2/models/stats"),
    ("GET", "/v2/models/{model}"), ("GET", "/v2/models/{model}/ready"), ("GET", "/v2/models/{model}/stats"),
    ("POST", "/v2/models/{model}/infer"), ("GET", "/v2/models/{model}/versions/{version}"),
    ("GET", "/v2/models/{model}/versions/{version}/ready"), ("GET", "/v2/models/{model}/versions/{version}/stats"),
    ("POST", "/v2/models/{model}/versions/{version}/infer"), ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/{model}/load"), ("POST", "/v2/repository/models/{model}/unload"),
)  # fmt: skip
