"""Whether a driver can give what a workspace is to be worked in with."""

from __future__ import annotations

from collections.abc import Container

from codeagent.sandboxes.protocol import DEFAULT_IMAGE, SandboxFailure, Toolchain


def check_toolchain(driver: str, toolchain: Toolchain, images: Container[str] = (), *, dependencies: bool) -> None:
    """`images`: those beside the default one; `dependencies`: whether it can show any. Raises `SandboxFailure`."""
    check_image(driver, toolchain.image, images)
    if toolchain.dependencies is not None and not dependencies:
        detail = f"{driver} shows no dependencies"
        raise SandboxFailure(detail, reason="dependencies_unsupported", retryable=False)


def check_image(driver: str, image: str | None, images: Container[str]) -> None:
    """As `check_toolchain`, of an image alone; None for the default one."""
    if image not in (None, DEFAULT_IMAGE) and image not in images:
        raise SandboxFailure(f"{driver} has no image {image} here", reason="image_unsupported", retryable=False)
