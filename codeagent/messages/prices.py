"""By which prices a model call was counted."""

from __future__ import annotations

from typing import Literal

from codeagent.messages.conversation import Data


class PriceTold(Data):
    """The operator's own prices, with the day from which on they hold as their `version`, the bundled list of vendors'
    prices at a version of it, or a model that is free. `digest` is of the figures themselves."""

    source: Literal["operator", "list", "free"]
    version: str
    digest: str
