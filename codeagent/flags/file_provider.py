"""An OpenFeature provider that reads its flags from a file, JSON or YAML, and looks for changes by itself.

runs_submission:
  value: true
  rules:
    - {tenants: [ten_noisy], value: false}
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import yaml
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason
from openfeature.provider import AbstractProvider, Metadata
from pydantic import BaseModel, ConfigDict, Field, RootModel, StrictBool, ValidationError, model_validator

from codeagent.flags.features import FEATURES
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

LOOK_EVERY_SECONDS = 0.5
MOST_BYTES = 1 << 20
_Value = TypeVar("_Value")


class Rule(BaseModel):
    """Applies where everything that it names fits. `share` of the tenants, always the same ones for a flag."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: StrictBool
    tenants: frozenset[str] | None = None
    principals: frozenset[str] | None = None
    share: float = Field(default=1.0, ge=0, le=1)

    def fits(self, flag: str, tenant: str, principal: str) -> bool:
        return (
            (self.tenants is None or tenant in self.tenants)
            and (self.principals is None or principal in self.principals)
            and (self.share == 1.0 or _place(flag, tenant) < self.share)
        )


class Flag(BaseModel):
    """The value of the first rule that fits, else `value`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: StrictBool
    rules: tuple[Rule, ...] = Field(default=(), max_length=100)


class FlagFile(RootModel[dict[str, Flag]]):
    """A whole file. A flag that no feature has is refused: it would be a misspelt one."""

    @model_validator(mode="after")
    def _known(self) -> FlagFile:
        known = {feature.name for feature in FEATURES}
        if strangers := sorted(self.root.keys() - known):
            raise ValueError(f"there is no flag {strangers[0][:60]!r}; flags: {', '.join(sorted(known))}")
        return self


def load_flags(path: Path) -> Mapping[str, Flag]:
    """Raises `OSError`, and `ValueError` that says what is wrong with the file."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError("the file is too large")
    try:
        return FlagFile.model_validate(yaml.safe_load(content) or {}).root
    except yaml.YAMLError:
        raise ValueError("the file is neither JSON nor YAML") from None
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(": ".join(filter(None, (".".join(map(str, found["loc"])), found["msg"])))) from None


def _place(flag: str, tenant: str) -> float:
    """Where a tenant stands for a flag, in [0, 1)."""
    return int.from_bytes(sha256(f"{flag}/{tenant}".encode()).digest()[:6]) / (1 << 48)


class FileProvider(AbstractProvider):
    """Raises at the start what `load_flags` raises. Later a file that cannot be used leaves the flags as they were,
    and is logged."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._stamp = self._stat()
        self._flags = load_flags(path)
        self._looked = time.monotonic()

    def get_metadata(self) -> Metadata:
        return Metadata(name="codeagent-file")

    def _stat(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return 0, 0, 0
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _current(self) -> Mapping[str, Flag]:
        now = time.monotonic()
        if now - self._looked > LOOK_EVERY_SECONDS:
            self._looked = now
            stamp = self._stat()
            if stamp != self._stamp:
                self._stamp = stamp
                self._reload()
        return self._flags

    def _reload(self) -> None:
        try:
            self._flags = load_flags(self._path)
            log.info("flags.reloaded")
        except (OSError, ValueError) as error:
            log.error("flags.unreadable", error=type(error).__name__)

    def _resolve(
        self, flag_key: str, default_value: _Value, evaluation_context: EvaluationContext | None
    ) -> FlagResolutionDetails[_Value]:
        flag = self._current().get(flag_key)
        if flag is None:
            return FlagResolutionDetails(default_value, error_code=ErrorCode.FLAG_NOT_FOUND, reason=Reason.DEFAULT)
        context = evaluation_context or EvaluationContext()
        tenant = str(context.attributes.get("tenant_id", ""))
        principal = context.targeting_key or ""
        fitting = (rule.value for rule in flag.rules if rule.fits(flag_key, tenant, principal))
        value: Any = next(fitting, flag.value)
        if not isinstance(value, type(default_value)):
            return FlagResolutionDetails(default_value, error_code=ErrorCode.TYPE_MISMATCH, reason=Reason.ERROR)
        return FlagResolutionDetails(value, reason=Reason.TARGETING_MATCH if flag.rules else Reason.STATIC)

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        return self._resolve(flag_key, default_value, evaluation_context)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        return self._resolve(flag_key, default_value, evaluation_context)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        return self._resolve(flag_key, default_value, evaluation_context)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        return self._resolve(flag_key, default_value, evaluation_context)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        return self._resolve(flag_key, default_value, evaluation_context)
