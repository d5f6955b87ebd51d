"""How is the service set up on a cluster? What each replica is told, and what the cluster is.

Knows nothing about Ray but the words of its addresses.
"""

from typing import Self

from pydantic import Field, model_validator

from service.cluster.words import LOCAL
from service.devices import Device
from service.settings import Settings


class ClusterSettings(Settings):
    """Serve model bundles over HTTP as replicas of a Ray Serve application."""

    ray: str = Field(
        default=LOCAL,
        description="Which Ray: `local` starts one of this machine for as long as the command runs; `auto` or "
        "`HOST:6379` is a running cluster, which the command tells what to serve, and which serves it when the command "
        "has ended. Needs `sparsebert[cluster]`, on every machine.",
    )
    ray_replicas: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Replicas that there are at least.",
    )
    ray_max_replicas: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Replicas that there are at most, when there is much to do; 0 takes as many as --ray-replicas.",
    )
    ray_target_requests: float = Field(
        default=8.0,
        gt=0,
        le=10_000,
        description="Requests in flight that a replica should have. With more of them there will be more replicas, up "
        "to --ray-max-replicas. Choose what a replica answers in the time a client is ready to wait.",
    )
    ray_cpus: float = Field(
        default=1.0,
        gt=0,
        le=256,
        description="CPUs that a replica reserves; where --threads is 0 it computes as many batches at the same time.",
    )
    ray_gpus: float = Field(
        default=0.0, ge=0, le=64, description="GPUs that a replica reserves; 0.5 lets two replicas share one."
    )
    ray_per_variant: bool = Field(
        default=False,
        description="Give each variant replicas of its own, which are scaled by what is asked of it. The replicas in "
        "front of them load every variant too, for comparisons.",
    )

    @model_validator(mode="after")
    def _can_be_had_on_a_cluster(self) -> Self:
        if self.ray_max_replicas and self.ray_max_replicas < self.ray_replicas:
            raise ValueError(
                f"--ray-max-replicas is {self.ray_max_replicas}: it must be at least --ray-replicas, "
                f"{self.ray_replicas}, or 0"
            )
        if Device(self.device).on_gpu and not self.ray_gpus:
            raise ValueError(f"--device {self.device} needs GPUs, and --ray-gpus is 0; give a replica 1, or a part")
        if self.device_id:
            raise ValueError(f"--device-id is {self.device_id}, and Ray chooses the GPU of a replica; leave it out")
        if self.port == 0:
            raise ValueError("--port is 0: on a cluster every machine listens on the same one; choose it")
        if self.dry_run:
            raise ValueError("--dry-run tests this machine alone; leave --ray out")
        return self
