"""Keeps the model objects lately used: names come from users, so they may not all be kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from pydantic_ai.models import Model

_KEPT = 64


class Recent:
    """Builds a model object on first use and forgets the one unused for longest."""

    def __init__(self, build: Callable[[str], Model]) -> None:
        self._build = build
        self._models: OrderedDict[str, Model] = OrderedDict()

    def __call__(self, name: str) -> Model:
        model = self._models.pop(name, None) or self._build(name)
        self._models[name] = model
        while len(self._models) > _KEPT:
            self._models.popitem(last=False)
        return model
