"""Faults of the line, and when faults of the line or of a device happen.

A `FaultyLine` stands between a byte server and its host, and spoils what passes. A `Schedule` says when: at a time, at
the nth command, with a probability at each command from a seed, so that the same script does the same every time.
A script is a list of tables, one for each fault, as they stand in a rack file::

    {fault = "drop", on_command = 3}
    {fault = "delay", at_s = 12.5, by_s = 0.8}
    {fault = "flip", probability = 0.01, seed = 7, bit = 12}
    {fault = "stall", at_s = 60.0, axis = "X", position_um = 1500.0}

A fault of a reply falls on the next message that the line carries after the moment. Commands are counted where they
end; a fault of the device at the nth command is there when that command is obeyed.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cartoseq.simulators.wire import ByteServer, Outbox, SimulatedDevice

Value = float | str

#: What can happen to the line, with its values. Those of a message fall on the next one.
LINK_FAULTS: Final[Mapping[str, str]] = {
    "drop": "The next message is lost.",
    "delay": "The line stalls before the next message for by_s seconds; what comes after it waits too.",
    "late": "The next message comes by_s seconds late, after the host's patience; what comes after it passes it.",
    "duplicate": "The next message comes twice, gap_s seconds apart.",
    "truncate": "Of the next message only the first `bytes` bytes come.",
    "flip": "One bit of the next message is flipped: bit 0 is the lowest of its first byte.",
    "split": "The next message comes in `chunks` pieces, gap_s seconds apart.",
    "garbage": "A byte of the value `byte` comes before the next message.",
    "swap": "The next two messages change places: the first waits for the second.",
    "disconnect": "The line is cut: at once, or after `bytes` more bytes to the host.",
    "refuse": "The port does not open, for for_s seconds, or with 0 until the fault is cleared; a terminal goes away.",
}
_LINK_VALUES: Final[Mapping[str, Mapping[str, float]]] = {
    "drop": {},
    "delay": {"by_s": 0.5},
    "late": {"by_s": 5.0},
    "duplicate": {"gap_s": 0.0},
    "truncate": {"bytes": 1},
    "flip": {"bit": 0},
    "split": {"chunks": 2, "gap_s": 0.01},
    "garbage": {"byte": 0},
    "swap": {},
    "disconnect": {"bytes": 0},
    "refuse": {"for_s": 0.0},
}
_WHOLE: Final = {"bytes": (0, 1 << 20), "bit": (0, 1 << 20), "chunks": (1, 1 << 20), "byte": (0, 255)}
_WHEN: Final = ("at_s", "on_command", "probability")


# -------------------------------------------------------------------------------------------------------------- when


@dataclass
class Rule:
    """A fault and when it happens; the functions `at`, `on_nth_command` and `with_probability` make it.

    Attributes:
        fault: Its name.
        values: Its values.
        at_s: Seconds after the schedule's beginning.
        command: The command that it falls on, from 1.
        probability: Of each command.
        seed: Of the dice.
        times: How often it may happen; None for any number.
        device: The device that it is of, where several on the line know it.
    """

    fault: str
    values: dict[str, Value]
    at_s: float | None = None
    command: int | None = None
    probability: float = 0.0
    seed: int = 0
    times: int | None = 1
    device: str = ""
    dice: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def falls_on(self, command: int) -> bool:
        """Whether it happens at a command; throws the dice once for each."""
        if self.times == 0:
            return False
        happens = command == self.command or (self.probability > 0 and self.dice.random() < self.probability)
        if happens and self.times is not None:
            self.times -= 1
        return happens


def at(at_s: float, fault: str, **values: Value) -> Rule:
    """Let a fault happen at a time, in seconds after the beginning."""
    return Rule(fault, values, at_s=at_s)


def on_nth_command(number: int, fault: str, **values: Value) -> Rule:
    """Let a fault happen at a command, counted from 1."""
    return Rule(fault, values, command=number)


def with_probability(probability: float, seed: int, fault: str, *, times: int | None = None, **values: Value) -> Rule:
    """Let a fault happen with a probability at each command, at most so often."""
    return Rule(fault, values, probability=probability, seed=seed, times=times)


def read_script(tables: Sequence[Mapping[str, object]]) -> list[Rule]:
    """Read rules from tables; see the module's examples.

    `times` limits how often a probable fault happens; `device` names one of several devices on the line.

    Raises:
        ValueError: a table is not understood; the message begins with its number, from 1.
    """
    return [_read_rule(table, f"fault {number}") for number, table in enumerate(tables, 1)]


def _read_rule(table: object, place: str) -> Rule:
    if not isinstance(table, Mapping):
        raise ValueError(f"{place}: expected a table, found {table!r}")
    rest = dict(table)
    fault = rest.pop("fault", None)
    if not isinstance(fault, str):
        raise ValueError(f"{place}: expected fault = NAME, found {fault!r}")
    place = f"{place} ({fault})"
    when = [key for key in _WHEN if key in rest]
    if len(when) != 1:
        raise ValueError(f"{place}: expected one of {', '.join(_WHEN)}, found {' and '.join(when) or 'none'}")
    moment = rest.pop(when[0])
    seed, times, device = rest.pop("seed", None), rest.pop("times", None), rest.pop("device", "")
    if not isinstance(device, str):
        raise ValueError(f"{place}: device is a name, found {device!r}")
    if when[0] != "probability" and (seed is not None or times is not None):
        raise ValueError(f"{place}: seed and times belong to probability")
    if when[0] == "at_s" and not _is_number(moment, 0, math.inf):
        raise ValueError(f"{place}: at_s is a time from 0 on, found {moment!r}")
    if when[0] == "on_command" and not _is_whole(moment, 1):
        raise ValueError(f"{place}: on_command is a number from 1 on, found {moment!r}")
    if when[0] == "probability":
        if not _is_number(moment, 0, 1):
            raise ValueError(f"{place}: probability is 0 to 1, found {moment!r}")
        if not _is_whole(seed, 0):
            raise ValueError(f"{place}: probability needs a seed, a number from 0 on, found {seed!r}")
        if times is not None and not _is_whole(times, 1):
            raise ValueError(f"{place}: times is a number from 1 on, found {times!r}")
    for key, value in rest.items():
        if not isinstance(value, int | float | str) or isinstance(value, bool):
            raise ValueError(f"{place}: {key} is a number or a text, found {value!r}")
    if when[0] == "at_s":
        rule = at(moment, fault, **rest)
    elif when[0] == "on_command":
        rule = on_nth_command(moment, fault, **rest)
    else:
        rule = with_probability(moment, seed or 0, fault, times=times, **rest)
    rule.device = device
    return rule


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high and value < math.inf


def _is_whole(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


class Schedule:
    """Rules, and how far they have come.

    Args:
        rules: In any order.
        start_s: The time from which `at_s` counts.
    """

    def __init__(self, rules: Sequence[Rule], start_s: float = 0.0) -> None:
        timed = [(start_s + rule.at_s, rule) for rule in rules if rule.at_s is not None]
        self._timed = sorted(timed, key=lambda entry: entry[0])
        self._others = [rule for rule in rules if rule.at_s is None]
        self._commands = 0

    @property
    def counts(self) -> bool:
        """Whether any rule falls on commands."""
        return bool(self._others)

    def due_s(self) -> float | None:
        """When the next rule with a time is due."""
        return self._timed[0][0] if self._timed else None

    def due(self, now_s: float) -> list[Rule]:
        """Rules whose time has come; each is given once."""
        taken = []
        while self._timed and self._timed[0][0] <= now_s:
            taken.append(self._timed.pop(0)[1])
        return taken

    def at_command(self) -> list[Rule]:
        """Count a command, and return the rules that fall on it."""
        self._commands += 1
        return [rule for rule in self._others if rule.falls_on(self._commands)]


# ---------------------------------------------------------------------------------------------------------- the line


class FaultyLine:
    """A byte server around a byte server, that can lose, spoil and hold back what it says, and cut the line.

    Args:
        server: The device, or the devices.
        schedule: What happens by itself; its device faults go to `devices`.
        start_s: The time from which the schedule counts.
        devices: Devices on the line; the schedule's faults that are not the line's go to the one that knows them.
        command_ends: Bytes that end a command, for counting; an empty command is none.
        answers: The line that carries the replies, where that is another one: faults of the line go to it.

    Raises:
        ValueError: a rule names a fault or value that neither the line nor one of the devices knows, or two do.
    """

    def __init__(
        self,
        server: ByteServer,
        *,
        schedule: Sequence[Rule] = (),
        start_s: float = 0.0,
        devices: Sequence[SimulatedDevice] = (),
        command_ends: bytes = b"\r\n",
        answers: FaultyLine | None = None,
    ) -> None:
        self.server = server
        self.faults = dict(LINK_FAULTS)
        self.devices = tuple(devices)
        self._ends = command_ends
        self._answers = answers or self
        self._schedule = Schedule(())
        self._within_command = False
        self._out = Outbox()
        self._next: list[tuple[str, dict[str, Value]]] = []
        self._held: bytes | None = None
        self._stalled_until_s = -math.inf
        self._bytes_to_cut: int | None = None
        self._cut = False
        self._refuses_until_s = -math.inf
        self.schedule(schedule, start_s)

    # ------------------------------------------------------------------------------------------------- as a byte server

    def receive(self, data: bytes, now_s: float) -> None:
        """Pass bytes on to the server; faults at a command happen before its last byte."""
        self._keep_time(now_s)
        begin = 0
        if not self._schedule.counts:
            self._within_command = data[-1] not in self._ends if data else self._within_command
        else:
            for at_byte, byte in enumerate(data):
                if byte not in self._ends:
                    self._within_command = True
                elif self._within_command:
                    self._within_command = False
                    self.server.receive(data[begin:at_byte], now_s)
                    begin = at_byte
                    for rule in self._schedule.at_command():
                        self._happen(rule, now_s)
        self.server.receive(data[begin:], now_s)

    def due_s(self) -> float | None:
        """When there will next be something to send, or to happen."""
        due_s = self.server.due_s()
        for other_s in (self._out.due_s(), self._schedule.due_s()):
            if other_s is not None and (due_s is None or other_s < due_s):
                due_s = other_s
        return due_s

    def messages(self, now_s: float) -> list[bytes]:
        """What reaches the host by now."""
        self._keep_time(now_s)
        for message in self.server.messages(now_s):
            self._carry(message, now_s)
        return [part for message in self._out.take(now_s) if (part := self._until_cut(message))]

    def take_cut(self) -> bool:
        """Whether the line is cut now; said once, after `messages`."""
        cut, self._cut = self._cut, False
        return cut

    def refuses(self, now_s: float) -> bool:
        """Whether the port does not open."""
        self._keep_time(now_s)
        return now_s < self._refuses_until_s

    # ---------------------------------------------------------------------------------------------------------- faults

    def inject(self, fault: str, now_s: float, **values: Value) -> None:
        """Let a fault of the line happen: now, or to the next message.

        Raises:
            ValueError: there is no such fault, or a value does not fit.
        """
        checked = check_link_fault(fault, values)
        if fault == "refuse":
            self._refuses_until_s = now_s + checked["for_s"] if checked["for_s"] else math.inf
        elif fault == "disconnect":
            self._bytes_to_cut = int(checked["bytes"])
            if self._bytes_to_cut == 0:
                self._cut_now()
        else:
            self._next.append((fault, dict(checked)))

    def clear(self, now_s: float) -> None:
        """Take back what has not happened yet, and the schedule; what is held back is let go."""
        self._next.clear()
        self._schedule = Schedule(())
        self._bytes_to_cut = None
        self._refuses_until_s = -math.inf
        self._stalled_until_s = -math.inf
        if self._held is not None:
            self._out.put(now_s, self._held)
            self._held = None

    def schedule(self, rules: Sequence[Rule], start_s: float) -> None:
        """Replace the schedule.

        Raises:
            ValueError: a rule names a fault or value that is not known; the old schedule stays.
        """
        for number, rule in enumerate(rules, 1):
            try:
                self.check(rule)
            except ValueError as error:
                raise ValueError(f"fault {number} ({rule.fault}): {error}") from None
        self._schedule = Schedule(rules, start_s)

    def check(self, rule: Rule) -> None:
        """See whether a rule's fault is known and its values fit: a schedule must not fail when it is due.

        Raises:
            ValueError: it is not, or they do not.
        """
        device = self._device(rule)
        if device is None:
            check_link_fault(rule.fault, rule.values)
        else:
            copy.deepcopy(device).inject(rule.fault, 0.0, **rule.values)

    def _device(self, rule: Rule) -> SimulatedDevice | None:
        """Whose fault a rule's is; none if it is the line's."""
        if rule.fault in LINK_FAULTS:
            return None
        named = [device for device in self.devices if rule.device in ("", device.name)]
        knowing = [device for device in named if rule.fault in device.faults]
        if len(knowing) > 1:
            raise ValueError(f"name the device: {', '.join(device.name for device in knowing)} know it")
        if not knowing:
            known = sorted({*LINK_FAULTS, *(fault for device in named for fault in device.faults)})
            raise ValueError(f"no such fault; there are {', '.join(known)}")
        return knowing[0]

    def _happen(self, rule: Rule, now_s: float) -> None:
        device = self._device(rule)
        (self._answers if device is None else device).inject(rule.fault, now_s, **rule.values)

    def _keep_time(self, now_s: float) -> None:
        for rule in self._schedule.due(now_s):
            self._happen(rule, now_s)

    # ------------------------------------------------------------------------------------------------------ messages

    def _carry(self, message: bytes, now_s: float) -> None:
        """Put a message on the line, with the faults that fall on it."""
        if message and not self._next and self._held is None:
            self._out.put(max(now_s, self._stalled_until_s), message)
            return
        at_s, times, gap_s, pieces, passes = now_s, 1, 0.0, 1, False
        falling, self._next = self._next, []
        hold = False
        for fault, values in falling:
            number = {name: float(value) for name, value in values.items()}
            match fault:
                case "drop":
                    times = 0
                case "delay":
                    self._stalled_until_s = max(self._stalled_until_s, now_s + number["by_s"])
                case "late":
                    at_s, passes = now_s + number["by_s"], True
                case "duplicate":
                    times, gap_s = times * 2, number["gap_s"]
                case "truncate":
                    message = message[: int(number["bytes"])]
                case "flip":
                    message = flip_bit(message, int(number["bit"]))
                case "garbage":
                    message = bytes([int(number["byte"])]) + message
                case "split":
                    pieces, gap_s = int(number["chunks"]), number["gap_s"]
                case "swap":
                    hold = True
        if not message or not times:
            return
        if hold and self._held is None:
            self._held = message
            return
        if not passes:
            at_s = max(at_s, self._stalled_until_s)
        for piece_s, piece in _spread(message, times, pieces, gap_s):
            self._out.put(at_s + piece_s, piece)
            if not passes:
                self._stalled_until_s = max(self._stalled_until_s, at_s + piece_s)
        if self._held is not None:
            held, self._held = self._held, None
            self._out.put(max(at_s, self._stalled_until_s), held)

    def _until_cut(self, message: bytes) -> bytes:
        if self._cut:
            return b""
        if self._bytes_to_cut is not None:
            message = message[: self._bytes_to_cut]
            self._bytes_to_cut -= len(message)
            if self._bytes_to_cut == 0:
                self._cut_now()
        return message

    def _cut_now(self) -> None:
        self._cut, self._bytes_to_cut, self._held = True, None, None
        self._out.clear()


def flip_bit(message: bytes, bit: int) -> bytes:
    """Return a message with one bit flipped; bits beyond its end begin again at its first byte."""
    bit %= 8 * len(message) or 1
    spoiled = bytearray(message)
    if spoiled:
        spoiled[bit // 8] ^= 1 << bit % 8
    return bytes(spoiled)


def check_link_fault(fault: str, values: Mapping[str, Value]) -> dict[str, float]:
    """Return the values of a fault of the line, with those that were not given.

    Raises:
        ValueError: there is no such fault, or a value does not fit.
    """
    if fault not in LINK_FAULTS:
        raise ValueError(f"the line knows no fault {fault!r}; it knows {', '.join(LINK_FAULTS)}")
    known = _LINK_VALUES[fault]
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"it takes no {name}; it takes {', '.join(known) or 'nothing'}")
        if name in _WHOLE:
            low, high = _WHOLE[name]
            if not _is_whole(value, low) or float(value) > high:
                raise ValueError(f"{name} is a whole number, {low} to {high}, found {value!r}")
        elif not _is_number(value, 0, math.inf):
            raise ValueError(f"{name} is a number of seconds from 0 on, found {value!r}")
    return {**known, **{name: float(value) for name, value in values.items()}}


def _spread(message: bytes, times: int, pieces: int, gap_s: float) -> list[tuple[float, bytes]]:
    """When the pieces of a message come, after its beginning; a piece has at least a byte."""
    size = max(1, math.ceil(len(message) / pieces))
    parts = [message[begin : begin + size] for begin in range(0, len(message), size)]
    return [(number * gap_s, part) for number, part in enumerate(parts * times)]
