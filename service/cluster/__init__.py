"""The service as replicas of a Ray Serve application; only `on_ray` knows Ray."""
