"""What the settings say to every sandbox driver, for a worker, for `codeagent doctor` and for single commands alike."""

from __future__ import annotations

from pathlib import Path

from codeagent.sandboxes.cluster import Cluster
from codeagent.sandboxes.offers import Containers, Host
from codeagent.settings import Settings
from codeagent.settings.problems import Misconfigured
from codeagent.settings.reading import inspect_settings

_TOLD = ("CODEAGENT_SANDBOX_IMAGE", "CODEAGENT_SANDBOX_ENGINE_", "CODEAGENT_SANDBOX_KUBERNETES_")


def host_of(settings: Settings, state_dir: Path) -> Host:
    return Host(
        state_dir,
        containers=Containers(
            settings.sandbox_image, settings.sandbox_engine_arguments, settings.sandbox_engine_runtime
        ),
        cluster=cluster_of(settings),
        images=settings.sandbox_images,
    )


def configured() -> Settings:
    """The settings, of which those that drivers are told are right: a stand-in for one might name another's namespace.
    What is wrong with the rest is another command's matter. Raises `Misconfigured`."""
    settings, problems = inspect_settings()
    if wrong := [problem for problem in problems if problem.variable.startswith(_TOLD)]:
        raise Misconfigured(wrong)
    return settings


def cluster_of(settings: Settings) -> Cluster:
    return Cluster(
        image=settings.sandbox_image,
        namespace=settings.sandbox_kubernetes_namespace,
        runtime_class=settings.sandbox_kubernetes_runtime_class,
        url=settings.sandbox_kubernetes_url,
        credentials=settings.sandbox_kubernetes_credentials,
    )
