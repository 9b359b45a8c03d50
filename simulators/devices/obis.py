"""Coherent OBIS lasers (LS, LX) on their wire.

Commands are SCPI-like lines; keywords may be short or long, in any case. With the handshake on, ``OK`` follows every
command and the value of every query; an error is said *instead* of it, and kept in a queue.

Switching the light on is accepted at once and may take effect much later: after the warm-up, and after five seconds
where the regulation (CDRH) asks for a delay. Opening the safety circuit ends the light, and it does not come back by
itself.

Sources: client code of two kinds, which agree on the bits. The status words are those seen on a real box (warming
CE000100, emitting C8001002, interlock CC000008, fault C8001001). Assumed: that a box without light shows C8001004.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cartoseq.simulators.devices.disturbances import Disturbances, FaultKind
from cartoseq.simulators.devices.scpi import is_word
from cartoseq.simulators.wire import Outbox
from cartoseq.simulators.world import World

UNRECOGNIZED, MISSING_PARAMETER, EXECUTION, INVALID_PARAMETER, QUEUE_FULL = -100, -109, -200, -220, -350
FAULT: Final = -310
CDRH_DELAY_S: Final = 5.0
_LATENCY_S: Final = 0.003
_LONGEST: Final = 512
_QUEUE: Final = 20
_EXTERNAL: Final = ("DIG", "ANALOG", "MIXED", "DIGSO", "MIXSO")
_TEXTS: Final = {
    UNRECOGNIZED: "Unrecognized command/query",
    MISSING_PARAMETER: "Missing parameter",
    EXECUTION: "Execution error",
    INVALID_PARAMETER: "Invalid parameter",
    QUEUE_FULL: "Error queue full",
    FAULT: "System fault",
}
#: Bits of `SYST:FAUL?` that a fault sets.
_FAULT_BITS: Final = {
    "base_plate_temperature": 1 << 0,
    "diode_temperature": 1 << 1,
    "over_current": 1 << 5,
    "fails_to_reach_power": 1 << 13,
    "over_power": 1 << 20,
}
_FAULTS: Final = {
    **{
        name: FaultKind(f"Bit {bit.bit_length() - 1} of the fault word is set: the light goes out.")
        for name, bit in _FAULT_BITS.items()
    },
    "interlock_open": FaultKind("The laser's own safety circuit is open: the light goes out and does not come back."),
    "power_drift": FaultKind("The power changes by this share of it per hour.", {"share_per_hour": -0.2}),
    "queue_full": FaultKind("The error queue is full already."),
    "power_cycle": FaultKind("The power was off for a moment: it warms up anew, with the light as autostart says."),
    "no_light": FaultKind("The light goes out, and the box does not notice."),
}


@dataclass(frozen=True)
class _Entry:
    """One header: its keywords, whether it asks, whether it takes a value, and what it does."""

    keywords: tuple[str, ...]
    asks: bool
    takes: bool
    does: Callable[[str], str | None]


class _ObisError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class ObisSim:
    """One laser behind its remote.

    Args:
        name: What it is called in the rack.
        world: The bench that it acts on.
        head: The laser head.
        low_mw: Least power that can be set.
        warm_up_s: From power-on until it can emit.
        cdrh: Whether emission begins five seconds after it is switched on.
        handshake: Whether `OK` is said after power-on.
        index: Of a box with several lasers: the number after `SYST` and `SOUR`; 0 for none.
        serial_number: As it says it.
    """

    def __init__(
        self,
        name: str,
        world: World,
        *,
        head: str,
        low_mw: float = 1.0,
        warm_up_s: float = 30.0,
        cdrh: bool = True,
        handshake: bool = True,
        index: int = 0,
        serial_number: str = "VL0812A001",
    ) -> None:
        if head not in world.optics.heads:
            raise ValueError(f"{name}: there is no laser head {head!r}")
        self.name = name
        self.world = world
        self.disturbances = Disturbances(_FAULTS)
        self.faults = self.disturbances.sentences()
        self._head = world.optics.heads[head]
        self._low_mw = low_mw
        self._warm_up_s = warm_up_s
        self._index = str(index) if index else ""
        self._serial_number = serial_number
        self._defaults = (cdrh, handshake)
        self._buffer = b""
        self._out = Outbox()
        self._autostart = False
        self._entries = self._table()
        self._on_since_s = 0.0
        self._asked = self._has_begun = False
        self._lit_s = 0.0
        self._lit_since_s: float | None = None
        self._planned_s = -1.0
        world.optics.door_watchers.append(self._update)
        self._power_on(0.0)

    # ------------------------------------------------------------------------------------------------------------ wire

    def receive(self, data: bytes, now_s: float) -> None:
        """Take bytes from the host."""
        self._advance(now_s)
        self._buffer = (self._buffer + data)[-_LONGEST:]
        while (end := re.search(rb"[\r\n]", self._buffer)) is not None:
            line, self._buffer = self._buffer[: end.start()], self._buffer[end.end() :]
            text = line.decode("latin-1").strip()
            if text:
                self._hear(text, now_s)

    def due_s(self) -> float | None:
        """When the next line is due."""
        return self._out.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        """Lines that are due by now."""
        return self._out.take(now_s)

    def _say(self, text: str, now_s: float) -> None:
        self._out.put(now_s + _LATENCY_S, text.encode("latin-1", "replace") + b"\r\n")

    def _hear(self, text: str, now_s: float) -> None:
        header, _, value = text.partition(" ")
        try:
            answer = self._entry(header.upper(), value.strip()).does(value.strip().upper())
        except _ObisError as error:
            self._queue_error(error.code)
            self._say(f"ERR{error.code}", now_s)
            return
        if header.endswith("?"):
            self._say(answer or "", now_s)
        self._update()
        if self._handshake:
            self._say("OK", now_s)

    def _entry(self, header: str, value: str) -> _Entry:
        asks = header.endswith("?")
        words = header.rstrip("?").lstrip(":").split(":")
        for entry in self._entries:
            if entry.asks == asks and len(words) == len(entry.keywords) and all(map(_matches, words, entry.keywords)):
                if entry.takes and not value:
                    raise _ObisError(MISSING_PARAMETER)
                if value and not entry.takes:
                    raise _ObisError(INVALID_PARAMETER)
                return entry
        raise _ObisError(UNRECOGNIZED)

    def _queue_error(self, code: int) -> None:
        if len(self._errors) < _QUEUE and "queue_full" not in self.disturbances:
            self._errors.append(code)
        elif self._errors:
            self._errors[-1] = QUEUE_FULL
        else:
            self._errors.append(QUEUE_FULL)

    # -------------------------------------------------------------------------------------------------------- commands

    def _table(self) -> list[_Entry]:
        def ask(header: str, does: Callable[[], str]) -> _Entry:
            return _Entry(self._words(header), True, False, lambda _: does())

        def put(header: str, does: Callable[[str], None]) -> _Entry:
            return _Entry(self._words(header), False, True, does)

        def do(header: str, does: Callable[[], None]) -> _Entry:
            return _Entry(self._words(header), False, False, lambda _: does())

        def switch(header: str, attribute: str) -> list[_Entry]:
            return [
                put(header, lambda value: setattr(self, attribute, _is_on(value))),
                ask(header, lambda: "ON" if getattr(self, attribute) else "OFF"),
            ]

        head = self._head
        model = f"OBIS {head.wavelength_nm:.0f}nm {head.rated_mw:.0f}mW"
        return [
            ask("*IDN", lambda: f"Coherent, Inc - {model} - V1.4 - {self._serial_number}"),
            ask("*TST", lambda: "0"),
            do("*RST", lambda: self._power_on(self.world.now_s)),
            *switch("SYSTem:COMMunicate:HANDshaking", "_handshake"),
            *switch("SYSTem:COMMunicate:PROMpt", "_prompt"),
            *switch("SYSTem:CDRH", "_cdrh"),
            *switch("SYSTem:AUTostart", "_autostart"),
            *switch("SOURce:TEMPerature:APRobe", "_tec"),
            put("SOURce:AM:STATe", self._switch_light),
            ask("SOURce:AM:STATe", lambda: "ON" if self._asked else "OFF"),
            put("SOURce:AM:INTernal", lambda value: self._set_mode(value, ("CWP", "CWC"))),
            put("SOURce:AM:EXTernal", lambda value: self._set_mode(value, _EXTERNAL)),
            ask("SOURce:AM:SOURce", lambda: self._mode),
            put("SOURce:POWer:LEVel:IMMediate:AMPLitude", self._set_power),
            ask("SOURce:POWer:LEVel:IMMediate:AMPLitude", lambda: f"{self._set_mw / 1000:.5f}"),
            ask("SOURce:POWer:LEVel", lambda: f"{head.power_mw(self.world.now_s) / 1000:.5f}"),
            ask("SOURce:POWer:LIMit:LOW", lambda: f"{self._low_mw / 1000:.5f}"),
            ask("SOURce:POWer:LIMit:HIGH", lambda: f"{head.rated_mw * 1.1 / 1000:.5f}"),
            ask("SOURce:POWer:NOMinal", lambda: f"{head.rated_mw / 1000:.5f}"),
            ask("SOURce:TEMPerature:BASeplate", lambda: f"{self._base_c():.1f}C"),
            ask("SYSTem:STATus", lambda: f"{self._status():08X}"),
            ask("SYSTem:FAULt", lambda: f"{self._fault_word():08X}"),
            ask("SYSTem:LOCK", lambda: "ON" if self._interlock_closed() else "OFF"),
            ask("SYSTem:ERRor:COUNt", lambda: str(len(self._errors))),
            ask("SYSTem:ERRor:NEXT", self._next_error),
            do("SYSTem:ERRor:CLEar", lambda: self._errors.clear()),
            ask("SYSTem:INFormation:MODel", lambda: model),
            ask("SYSTem:INFormation:SNUMber", lambda: self._serial_number),
            ask("SYSTem:INFormation:WAVelength", lambda: f"{head.wavelength_nm:.0f}"),
            ask("SYSTem:INFormation:TYPe", lambda: "DDL"),
            ask("SYSTem:INFormation:FVERsion", lambda: "V1.4"),
            ask("SYSTem:DIODe:HOURs", lambda: f"{self._diode_s() / 3600:.2f}"),
        ]

    def _words(self, header: str) -> tuple[str, ...]:
        first, *others = header.split(":")
        return (first if first.startswith("*") else first + "#" + self._index, *others)

    def _set_power(self, value: str) -> None:
        try:
            power_mw = float(value) * 1000
        except ValueError as error:
            raise _ObisError(INVALID_PARAMETER) from error
        if not self._low_mw <= power_mw <= self._head.rated_mw * 1.1:
            raise _ObisError(INVALID_PARAMETER)
        self._set_mw = self._head.set_mw = power_mw

    def _set_mode(self, value: str, modes: tuple[str, ...]) -> None:
        if value not in modes:
            raise _ObisError(INVALID_PARAMETER)
        if self._asked:
            raise _ObisError(EXECUTION)
        self._mode = value

    def _switch_light(self, value: str) -> None:
        on = _is_on(value)
        if on and (not self._interlock_closed() or self._fault_word()):
            raise _ObisError(EXECUTION)
        if on and not self._asked:
            self._asked_s = self.world.now_s
        self._asked = on

    def _next_error(self) -> str:
        code = self._errors.popleft() if self._errors else 0
        return f'{code},"{_TEXTS.get(code, "No error")}"'

    # ----------------------------------------------------------------------------------------------------------- light

    def _advance(self, now_s: float) -> None:
        """Bring the world and the light up to a time."""
        if not self._has_begun:
            self._has_begun = True
            self._on_since_s = now_s
        self.world.advance(now_s)
        self._update()

    def _update(self) -> None:
        """Let there be light or not, as of now; what comes later by itself is planned."""
        now_s, head = self.world.now_s, self._head
        if self._asked and (not self._interlock_closed() or self._fault_word()):
            self._asked = False
        begins_s = self._begins_s()
        shines = self._asked and now_s >= begins_s and "no_light" not in self.disturbances
        if shines != head.emitting:
            if head.emitting and self._lit_since_s is not None:
                self._lit_s += now_s - self._lit_since_s
            self._lit_since_s = now_s if shines else None
            head.emit(shines, now_s)
        elif self._asked and now_s < begins_s != self._planned_s:
            self._planned_s = begins_s
            self.world.at(begins_s, lambda at_s: self._update())

    def _begins_s(self) -> float:
        """When the light that was asked for begins."""
        ready_s = max(self._asked_s, self._on_since_s + self._warm_up_s)
        return ready_s + (CDRH_DELAY_S if self._cdrh else 0.0)

    def _interlock_closed(self) -> bool:
        return self.world.optics.doors_closed and "interlock_open" not in self.disturbances

    def _fault_word(self) -> int:
        return sum(bit for name, bit in _FAULT_BITS.items() if name in self.disturbances)

    def _status(self) -> int:
        now_s = self.world.now_s
        warming = now_s < self._on_since_s + self._warm_up_s
        if not self._interlock_closed():
            word = 0xCC000008
        elif self._fault_word():
            word = 0xC8001001
        elif warming:
            word = 0xCE000100
        elif self._asked and now_s < self._begins_s():
            word = 0xC8001010
        elif self._asked:
            word = 0xC8001002
        else:
            word = 0xC8001004
        if self._errors:
            word |= 1 << 6
        if self._mode not in ("CWP", "CWC"):
            word |= 1 << 10
        return word

    def _base_c(self) -> float:
        warm = min(1.0, (self.world.now_s - self._on_since_s) / max(1.0, self._warm_up_s))
        return (60.0 if "base_plate_temperature" in self.disturbances else 22.0) + 3.3 * warm

    def _diode_s(self) -> float:
        lit_s = self.world.now_s - self._lit_since_s if self._lit_since_s is not None else 0.0
        return self._lit_s + lit_s

    def _power_on(self, now_s: float) -> None:
        self._on_since_s = self._asked_s = now_s
        self._cdrh, self._handshake = self._defaults
        self._prompt = False
        self._tec = True
        self._mode = "CWP"
        self._errors: deque[int] = deque()
        self._set_mw = self._head.set_mw = self._head.rated_mw
        self._asked = self._autostart

    # ---------------------------------------------------------------------------------------------------------- faults

    def inject(self, fault: str, now_s: float, **values: float | str) -> None:
        """Disturb it. Raises `ValueError` for a fault or value that it does not know."""
        self._advance(now_s)
        given = self.disturbances.inject(fault, values)
        if fault == "power_drift":
            self._head.drift_per_hour, self._head.drift_since_s = float(given["share_per_hour"]), now_s
        elif fault == "power_cycle":
            self._out.clear()
            self._buffer = b""
            self._power_on(now_s)
            self.disturbances.end(fault)
        self._update()

    def clear(self, now_s: float) -> None:
        """Take back every disturbance; a light that went out stays out."""
        self._advance(now_s)
        self.disturbances.clear()
        self._head.drift_per_hour = 0.0
        self._update()

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it now."""
        self._advance(now_s)
        return {
            "emitting": self._head.emitting,
            "power_mw": self._head.power_mw(now_s),
            "set_mw": self._set_mw,
            "asked_for_light": self._asked,
            "interlock_closed": self._interlock_closed(),
            "status": f"{self._status():08X}",
        }


def _matches(word: str, keyword: str) -> bool:
    """Whether a word is a keyword, with the box's number after it where it has one."""
    keyword, _, box = keyword.partition("#")
    return word.endswith(box) and is_word(word.removesuffix(box), keyword)


def _is_on(value: str) -> bool:
    if value not in ("ON", "OFF", "1", "0"):
        raise _ObisError(INVALID_PARAMETER)
    return value in ("ON", "1")
