"""The faults that a simulated device knows, and which of them are on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class FaultKind:
    """A fault that can be injected.

    Attributes:
        says: What it does and what its values mean: one sentence.
        values: Its values with what they are if not given; their types are those that are taken.
    """

    says: str
    values: Mapping[str, float | str] = field(default_factory=dict)


class Disturbances:
    """Which faults are on, with their values.

    Args:
        kinds: The faults that the device knows, by name.
    """

    def __init__(self, kinds: Mapping[str, FaultKind]) -> None:
        self._kinds = dict(kinds)
        self._on: dict[str, dict[str, float | str]] = {}

    def sentences(self) -> dict[str, str]:
        """What each fault does."""
        return {name: kind.says for name, kind in self._kinds.items()}

    def inject(self, fault: str, values: Mapping[str, float | str]) -> dict[str, float | str]:
        """Switch a fault on and return its values, those not given as they are by default.

        Raises:
            ValueError: a fault or value that is not known, or a value of another type.
        """
        kind = self._kinds.get(fault)
        if kind is None:
            raise ValueError(f"expected one of {', '.join(sorted(self._kinds))}; found {fault!r}")
        for name, value in values.items():
            if name not in kind.values:
                known = ", ".join(kind.values) or "none"
                raise ValueError(f"{fault}: the value {name!r} is not known (known: {known})")
            if isinstance(value, str) != isinstance(kind.values[name], str) or isinstance(value, bool):
                raise ValueError(f"{fault}.{name}: expected such as {kind.values[name]!r}, found {value!r}")
        self._on[fault] = {**kind.values, **values}
        return self._on[fault]

    def end(self, fault: str) -> None:
        """Switch one off: it was of a moment, or has run out."""
        self._on.pop(fault, None)

    def clear(self) -> None:
        """Switch all off."""
        self._on.clear()

    def __contains__(self, fault: str) -> bool:
        return fault in self._on

    def number(self, fault: str, value: str) -> float:
        """A value of a fault that is on."""
        return float(self._on[fault][value])
