"""The fault matrix: every fault, on every device that it can befall, and what is expected of driver, engine and world.

Each row is run (`faultrun`) and held against what was seen (`test_faultmatrix`). ``docs/fault-matrix.md`` is made of
the same rows::

    .venv/bin/python -m tests.instrument.faultmatrix
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

PAGE: Final = Path(__file__).parents[2] / "docs" / "fault-matrix.md"


@dataclass(frozen=True)
class Outcome:
    """What is expected.

    Attributes:
        kinds: The driver's exceptions, as the journal's "fault" events name them, in order.
        held_by: Who held the run until the operator had mended the cause and resumed: "fault", or what was watched.
        reason: How the run ended; empty where it did not begin.
        told: The devices that the journal's "safe" event names, since they could not be reached.
        unsafe: Those of them that were truly not safe.
        open_ul: What the journal says that it could not account for.
        off_ul: How far the ledger is off, where it cannot know better.
        bad_tiles: How many tiles are reported as bad.
    """

    kinds: tuple[str, ...] = ()
    held_by: frozenset[str] = frozenset()
    reason: str = "completed"
    told: tuple[str, ...] = ()
    unsafe: tuple[str, ...] = ()
    open_ul: float = 0.0
    off_ul: float = 0.0
    bad_tiles: int = 0


@dataclass(frozen=True)
class Row:
    """One fault of one device, in one run.

    Attributes:
        fault: What happens, for people.
        device: Its name in the rig; "doors" are those of the whole bench.
        inject: What the simulator calls it; "pulled" is a line that is cut and does not open again, "noise" are
            bytes that the device hears and nobody sent.
        during: The action during which it happens: how its text begins; "opening" is before the run.
        values: Of the fault.
        after_s: How long after the action's beginning.
        of_line: Whether the fault is of the line, not of the device.
        lasts: Whether it falls on every reply until it is mended.
        watched: Whether the run is watched as `cartoseq run` does: temperature, safety circuits, devices.
        mended: Whether the operator takes the cause away and resumes; else the run is aborted.
        stage: Whose imaging stage the rig has.
        expected: What comes of it.
        note: What else there is to say.
    """

    fault: str
    device: str
    inject: str
    during: str
    values: Mapping[str, float | str] = field(default_factory=dict)
    after_s: float = 0.0
    of_line: bool = False
    lasts: bool = False
    watched: bool = False
    mended: bool = True
    stage: Literal["zaber", "prior"] = "zaber"
    expected: Outcome = field(default_factory=Outcome)
    note: str = ""

    @property
    def name(self) -> str:
        """Of the row's test."""
        stage = "prior-" if self.device == "stage" and self.stage == "prior" else ""
        ends = "always" * self.lasts or "aborted" * (not self.mended) or "watched" * self.watched
        values = "-".join(f"{value:g}" if isinstance(value, float) else str(value) for value in self.values.values())
        return "-".join(
            filter(None, [stage + self.device, self.inject, values, self.during, f"{self.after_s:g}s", ends])
        )


def _held(*kinds: str, by: tuple[str, ...] = ("fault",), **more: Any) -> Outcome:
    return Outcome(kinds, frozenset(by), **more)


def _ended(*kinds: str, told: str) -> Outcome:
    return Outcome(kinds, reason="device_fault", told=(told,))


#: The devices of the rig, and the action in which each is at work.
AT_WORK: Final = {
    "pump": "draw 100",
    "valve": "select wash",
    "tec": "wait for",
    "green": "green on",
    "red": "focus at",
    "stage": "image",
    "focus": "focus at",
}
MODELS: Final = {
    "pump": "pump (Cavro, DT)",
    "valve": "valve (VICI)",
    "tec": "heater (Meerstetter)",
    "green": "laser (OBIS)",
    "red": "laser (Cobolt)",
    "stage": "stage (Zaber)",
    "focus": "focus (ASI)",
    "camera": "camera",
    "doors": "doors",
}

# ------------------------------------------------------------------------------------------------------------ the line

_LINE: Final[dict[str, tuple[str, Mapping[str, float]]]] = {
    "drop": ("reply lost", {}),
    "delay": ("reply 0.2 s late, within the host's patience", {"by_s": 0.2}),
    "late": ("reply 5 s late, after the host's patience", {"by_s": 5.0}),
    "duplicate": ("reply said twice", {}),
    "truncate": ("reply cut after 2 bytes", {"bytes": 2}),
    "flip": ("a bit of the reply flipped", {"bit": 0}),
    "split": ("reply in 3 pieces", {"chunks": 3}),
    "garbage": ("a byte of garbage before the reply", {"byte": 255}),
    "swap": ("two replies change places", {}),
}
_SILENT: Final = _held("ReplyTimeout", "ReplyTimeout")
_ANOTHER: Final = _held("ReplyTimeout", "DeviceFault")
_STAGE: Final = {"drop": _SILENT, "late": _SILENT, "truncate": _ANOTHER, "flip": _ANOTHER}
_MUTE: Final = dict.fromkeys(("drop", "late", "truncate", "flip"), _SILENT)
_OBIS_ANOTHER: Final = _ended("ReplyTimeout", "DeviceFault", told="green")
_COBOLT_MUTE: Final = _ended("ReplyTimeout", "ReplyTimeout", told="red")
#: What comes of a fault that falls on every reply; where nothing stands here, the run goes on.
_LASTING: Final[dict[str, dict[str, Outcome]]] = {
    "pump": dict.fromkeys(("drop", "late", "truncate", "flip"), _held("ReplyTimeout")),
    "valve": _MUTE,
    "tec": _MUTE,
    "green": {
        **dict.fromkeys(("drop", "late", "flip", "swap"), _OBIS_ANOTHER),
        "truncate": _ended("ReplyTimeout", "ReplyTimeout", told="green"),
        "duplicate": _ended("FramingError", "FramingError", told="green"),
        "garbage": _ended("ReplyTimeout", "FramingError", told="green"),
    },
    "red": {
        **dict.fromkeys(("drop", "late", "truncate"), _COBOLT_MUTE),
        **dict.fromkeys(("flip", "garbage"), _ended("ReplyTimeout", "FramingError", told="red")),
        "duplicate": _ended("FramingError", "FramingError", told="red"),
        "swap": _held("DeviceFault"),
    },
    "stage": _STAGE,
    "focus": _STAGE,
}
_PULLED_NOTES: Final = {
    "pump": "It ends the stroke that it was given, and stands; asked again, its plunger tells what was moved.",
    "valve": "It is safe where it stands.",
    "tec": "It goes on regulating to its last target, within the limits that it keeps itself.",
    "green": "It emits until its key or its safety circuit puts it out.",
    "red": "It was dark.",
    "stage": "It ends its move, and stands.",
    "focus": "It ends its move, and stands.",
}


def line_rows() -> Iterator[Row]:
    """Every fault of the line on every device."""
    for device, during in AT_WORK.items():
        for inject, (fault, values) in _LINE.items():
            yield Row(fault, device, inject, during, values, of_line=True)
            outcome = _LASTING[device].get(inject, Outcome())
            yield Row(f"{fault}, always", device, inject, during, values, of_line=True, lasts=True, expected=outcome)
        cut = _held("Disconnected") if device == "pump" else Outcome(("Disconnected",))
        note = "A stroke is never tried again by itself." if device == "pump" else ""
        row = Row("line cut, and there again", device, "disconnect", during, of_line=True, expected=cut, note=note)
        yield row
        yield replace(row, fault="line cut after 3 bytes, and there again", values={"bytes": 3})
        shut = Outcome(("Disconnected",), reason="")
        yield Row("port does not open", device, "refuse", "opening", of_line=True, expected=shut)
        yield from _pulled_rows(device, during)


def _pulled_rows(device: str, during: str) -> Iterator[Row]:
    once = ("Disconnected",) if device == "pump" else ("Disconnected", "Disconnected")
    row = Row("line cut, port gone", device, "pulled", during, after_s=0.2, of_line=True, note=_PULLED_NOTES[device])
    if device in ("green", "red"):
        unsafe = ("green",) if device == "green" else ()
        yield replace(row, expected=Outcome(once, reason="device_fault", told=(device,), unsafe=unsafe))
        return
    yield replace(row, expected=_held(*once))
    told = () if device == "valve" else (device,)
    unsafe = ("tec",) if device == "tec" else ()
    open_ul = 100.0 if device == "pump" else 0.0
    aborted = Outcome(once, reason="aborted_by_user", told=told, unsafe=unsafe, open_ul=open_ul, off_ul=open_ul)
    yield replace(row, mended=False, expected=aborted)


# --------------------------------------------------------------------------------------------------------- the devices


def device_rows() -> Iterator[Row]:
    """Every fault of a device on every device that knows it, in a run that is watched."""
    for row in (*_PUMP, *_VALVE, *_HEATER, *_LASERS, *_stages(), *_FOCUS, *_CAMERA):
        yield replace(row, watched=True)
    for fault, device in (("safety circuit opens, not watched", "green"), ("safety circuit opens, not watched", "red")):
        yield Row(fault, device, "interlock_open", AT_WORK[device], after_s=0.5, expected=_held("InterlockOpen"))


_COUNTER: Final = "Its counter begins at 0 where it stands, and nothing tells it from a rightful one."

_SAW: Final = "Its counter saw it; the next move is right."
_HOMED: Final = "Resuming homes it."

_PUMP: Final = (
    Row(
        "line cut, port gone, in a stroke",
        "pump",
        "pulled",
        "push 70",
        after_s=0.5,
        of_line=True,
        expected=_held("Disconnected", by=("fault", "device")),
        note=_PULLED_NOTES["pump"],
    ),
    Row(
        "busy for ever",
        "pump",
        "busy_for_ever",
        "draw 100",
        after_s=1,
        expected=_held("DeviceFault"),
        note="The plunger is asked where it is; it stood.",
    ),
    Row(
        "plunger stalls at 50 ul",
        "pump",
        "stall",
        "draw 100",
        {"at_ul": 50.0},
        expected=_held("StallError", by=("fault", "device")),
        note="The rest is drawn after its initialisation.",
    ),
    Row("plunger stalls at 90 ul", "pump", "stall", "push 30", {"at_ul": 90.0}, expected=_held("StallError")),
    Row(
        "plunger stalls at 40 ul",
        "pump",
        "stall",
        "push 70",
        {"at_ul": 40.0},
        expected=_held("StallError", by=("fault", "device")),
    ),
    Row("its valve sticks", "pump", "valve_stuck", "draw 100", expected=_held("StallError", by=("fault", "device"))),
    Row(
        "power lost for a moment, in a stroke",
        "pump",
        "power_cycle",
        "draw 100",
        after_s=2,
        expected=_held("StallError"),
    ),
    Row(
        "power lost for a moment, between strokes",
        "pump",
        "power_cycle",
        "select wash",
        expected=_held("NotInitialized", by=("fault", "device")),
    ),
    Row(
        "power lost", "pump", "power_off", "draw 100", after_s=2, expected=_held("ReplyTimeout", by=("fault", "device"))
    ),
    Row(
        "counter jumps by 17 ul, in a stroke",
        "pump",
        "position_jump",
        "draw 100",
        {"steps": 100.0},
        after_s=2,
        expected=_held("PositionError"),
    ),
    Row(
        "counter jumps by 17 ul, between strokes",
        "pump",
        "position_jump",
        "focus at",
        {"steps": 100.0},
        note="Strokes are relative: the volumes are right, and the next initialisation finds zero.",
    ),
    Row(
        "counter jumps by 17 ul, pushing",
        "pump",
        "position_jump",
        "push 30",
        {"steps": 100.0},
        after_s=0.5,
        expected=_held("StallError", off_ul=16.7),
        note="The pump has no second reading of its place: the ledger has 16.7 ul in waste that went to the flow cell.",
    ),
    Row("300 bytes of noise before a command", "pump", "noise", "draw 100"),
)
_VALVE: Final = (
    Row("does not turn", "valve", "stuck", "select wash", expected=_held("PositionError")),
    Row(
        "stops one port off",
        "valve",
        "one_off",
        "select wash",
        expected=_held("PositionError"),
        note="Nothing is drawn from the wrong bottle.",
    ),
    Row(
        "stops between two ports",
        "valve",
        "positioning_error",
        "select wash",
        expected=_held("PositionError", by=("fault", "device")),
    ),
    Row("turns 8 times slower", "valve", "slow", "select wash", {"times": 8.0}, expected=_held("PositionError")),
    Row("power lost for a moment", "valve", "power_cycle", "select wash"),
    Row(
        "power lost",
        "valve",
        "power_off",
        "select wash",
        expected=_held("ReplyTimeout", "ReplyTimeout", by=("fault", "device")),
    ),
    Row(
        "300 bytes of noise before a command",
        "valve",
        "noise",
        "select wash",
        expected=_held("DeviceFault"),
        note="It answers that it does not know such a command.",
    ),
)
_HEATER: Final = (
    Row(
        "line cut, port gone, between its actions",
        "tec",
        "pulled",
        "draw 100",
        of_line=True,
        expected=_held(by=("temperature",)),
        note="Found by who watches.",
    ),
    Row(
        "plate 90 K too hot",
        "tec",
        "over_temperature",
        "wait for",
        {"degrees": 90.0},
        after_s=1,
        expected=_held("OverTemperature", by=("fault", "device")),
        note="Its output is off by itself; resuming restarts it, as often as needed until it has cooled.",
    ),
    Row(
        "plate 90 K too hot",
        "tec",
        "over_temperature",
        "draw 100",
        {"degrees": 90.0},
        expected=_held(by=("temperature", "device")),
        note="Its output is off by itself; resuming restarts it.",
    ),
    Row(
        "sensor open",
        "tec",
        "sensor_open",
        "wait for",
        expected=_held("DeviceFault", by=("fault", "temperature", "device")),
        note="Its output is off by itself; resuming restarts it.",
    ),
    Row(
        "sensor open",
        "tec",
        "sensor_open",
        "draw 100",
        expected=_held(by=("temperature", "device")),
        note="Its output is off by itself; resuming restarts it.",
    ),
    Row("cannot reach its target (5 % of its current)", "tec", "weak", "wait for", expected=_held("DeviceFault")),
    Row("fan stands", "tec", "fan_off", "wait for", note="At 30 C the sink bears it."),
    Row("sensor wrong by 1 K", "tec", "sensor_drift", "wait for", note="Nothing tells it from a rightful reading."),
    Row("one wrong checksum", "tec", "wrong_checksum", "wait for"),
    Row(
        "100 wrong checksums",
        "tec",
        "wrong_checksum",
        "wait for",
        {"answers": 100.0},
        expected=_held("ChecksumError", "ChecksumError", by=("fault", "temperature", "device")),
    ),
    Row(
        "100 wrong sequence numbers",
        "tec",
        "wrong_sequence",
        "wait for",
        {"answers": 100.0},
        expected=_held("ReplyTimeout", "ReplyTimeout", by=("fault", "temperature", "device")),
    ),
    Row("100 answers said twice", "tec", "twice", "wait for", {"answers": 100.0}),
    Row("busy for ever", "tec", "busy", "wait for", expected=_held("Busy", by=("fault", "temperature", "device"))),
    Row(
        "restarts by itself",
        "tec",
        "power_cycle",
        "wait for",
        after_s=1,
        expected=_held("DeviceFault", by=("fault", "device")),
        note="Resuming sets its target again.",
    ),
    Row(
        "restarts by itself",
        "tec",
        "power_cycle",
        "draw 100",
        expected=_held(by=("device",)),
        note="Resuming sets its target again.",
    ),
    Row("300 bytes of noise before a command", "tec", "noise", "wait for"),
)
_LASERS: Final = (
    Row(
        "line cut, port gone, lit",
        "green",
        "pulled",
        "draw 100",
        of_line=True,
        expected=Outcome(reason="device_fault", told=("green",), unsafe=("green",)),
        note=f"Found by who watches. {_PULLED_NOTES['green']}",
    ),
    Row(
        "emits 5 s after it was switched on (CDRH)",
        "green",
        "none",
        "green on",
        note="The driver waits for the light, not for the OK.",
    ),
    Row(
        "base plate too hot",
        "green",
        "base_plate_temperature",
        "green on",
        after_s=1,
        expected=_held("OverTemperature", by=("fault", "device")),
    ),
    Row(
        "diode too hot",
        "green",
        "diode_temperature",
        "green on",
        after_s=1,
        expected=_held("OverTemperature", by=("fault", "device")),
    ),
    Row(
        "over-current",
        "green",
        "over_current",
        "green on",
        after_s=1,
        expected=_held("DeviceFault", by=("fault", "device")),
    ),
    Row(
        "fails to reach its power",
        "green",
        "fails_to_reach_power",
        "green on",
        after_s=1,
        expected=_held("DeviceFault", by=("fault", "device")),
    ),
    Row("base plate too hot, lit", "green", "base_plate_temperature", "draw 100", expected=_held(by=("device",))),
    Row(
        "safety circuit opens",
        "green",
        "interlock_open",
        "green on",
        after_s=1,
        expected=_held(by=("interlock", "device")),
    ),
    Row("safety circuit opens, lit", "green", "interlock_open", "draw 100", expected=_held(by=("interlock", "device"))),
    Row(
        "power drifts by 20 % an hour",
        "green",
        "power_drift",
        "draw 100",
        note="The head does not measure it as a fault; a power meter does.",
    ),
    Row("error queue full", "green", "queue_full", "green on"),
    Row(
        "goes out and does not notice",
        "green",
        "no_light",
        "green on",
        after_s=1,
        note="The head says that it emits; a power meter, or the pictures, tell.",
    ),
    Row("restarts by itself", "green", "power_cycle", "green on", after_s=1, expected=_held("DeviceFault")),
    Row(
        "restarts by itself, lit",
        "green",
        "power_cycle",
        "draw 100",
        note="It stays dark, which nobody notices before it is switched next.",
    ),
    Row(
        "300 bytes of noise before a command",
        "green",
        "noise",
        "green on",
        expected=_held("DeviceFault"),
        note="It answers that it does not know such a command.",
    ),
    Row(
        "too hot",
        "red",
        "over_temperature",
        "focus at",
        after_s=0.5,
        expected=_held("OverTemperature", by=("fault", "device")),
    ),
    Row(
        "current at its limit without the power",
        "red",
        "power_not_reached",
        "focus at",
        after_s=0.5,
        expected=_held("DeviceFault", by=("fault", "device")),
    ),
    Row(
        "safety circuit opens",
        "red",
        "interlock_open",
        "focus at",
        after_s=0.5,
        expected=_held("InterlockOpen", by=("fault", "interlock", "device")),
        note="It keeps the fault until it is cleared, which resuming does.",
    ),
    Row("key turned off", "red", "key_off", "focus at", after_s=0.5, expected=_held("InterlockOpen")),
    Row(
        "power drifts by 20 % an hour",
        "red",
        "power_drift",
        "focus at",
        after_s=0.5,
        note="The head does not measure it as a fault; a power meter does.",
    ),
    Row("one empty reply", "red", "empty_reply", "focus at"),
    Row("a stray 1 for a power", "red", "stray_one", "focus at"),
    Row("restarts by itself", "red", "power_cycle", "focus at", after_s=0.5, note="Each picture switches it anew."),
    Row(
        "300 bytes of noise before a command",
        "red",
        "noise",
        "focus at",
        expected=_held("DeviceFault"),
        note="It answers that it does not know such a command.",
    ),
    Row(
        "a door opens, a laser lit",
        "doors",
        "open",
        "draw 100",
        expected=_held(by=("interlock", "device")),
        note="The circuits put the lasers out by themselves.",
    ),
    Row(
        "a door opens, a picture under way",
        "doors",
        "open",
        "focus at",
        after_s=0.3,
        expected=_held("InterlockOpen", by=("fault", "interlock", "device")),
        note="The circuits put the lasers out by themselves.",
    ),
    Row(
        "a door is open when a laser is switched on",
        "doors",
        "open",
        "green on",
        expected=_held("InterlockOpen", by=("fault", "interlock", "device")),
    ),
)


def _stages() -> Iterator[Row]:
    zaber, prior = {"axis": "1"}, {"axis": "X"}
    fault, lost = _held("DeviceFault"), _held("NotInitialized")
    stalls = _held("StallError", by=("fault", "device"))
    yield Row("busy for ever", "stage", "busy_for_ever", "image", expected=fault)
    yield Row("stalls on its way", "stage", "stall", "image", {**zaber, "position_um": 10_050.0}, expected=stalls)
    at_limit = _held("DeviceFault", by=("fault", "device"))
    yield Row(
        "runs into a limit switch", "stage", "limit", "image", {**zaber, "position_um": 10_050.0}, expected=at_limit
    )
    yield Row(
        "a hand displaces it by 40 um", "stage", "jump", "image", {**zaber, "by_um": 40.0}, after_s=0.5, note=_SAW
    )
    yield Row("power lost for 1 s, moving", "stage", "power_cycle", "image", after_s=0.1, expected=lost, note=_HOMED)
    yield Row("power lost for 1 s, at rest", "stage", "power_cycle", "draw 100", expected=lost, note=_HOMED)
    yield Row("restarts by itself", "stage", "reset", "draw 100", expected=lost, note=_HOMED)
    off = _held("ReplyTimeout", "ReplyTimeout", "NotInitialized", by=("fault", "device"))
    yield Row("power lost", "stage", "power_off", "image", expected=off, note=_HOMED)
    yield Row("300 bytes of noise before a command", "stage", "noise", "image")
    yield Row("queue full", "stage", "reject", "image", {"reason": "FULL"}, expected=_held("Busy"))
    yield Row("stalls and says so (FS)", "stage", "warning", "image", {"flag": "FS"}, expected=stalls)

    def on_prior(row: Row) -> Row:
        return replace(row, stage="prior")

    yield on_prior(
        Row(
            "line cut, and there again",
            "stage",
            "disconnect",
            "image",
            of_line=True,
            expected=Outcome(("Disconnected",)),
        )
    )
    yield on_prior(Row("busy for ever", "stage", "busy_for_ever", "image", expected=fault))
    stall = _held("StallError")
    yield on_prior(
        Row("stalls on its way", "stage", "stall", "image", {**prior, "position_um": 10_050.0}, expected=stall)
    )
    limit = {**prior, "position_um": 10_050.0}
    yield on_prior(Row("runs into a limit switch", "stage", "limit", "image", limit, expected=stalls))
    hand = Row(
        "a hand displaces it by 40 um", "stage", "jump", "image", {**prior, "by_um": 40.0}, after_s=0.5, note=_SAW
    )
    yield on_prior(hand)
    yield on_prior(Row("power lost for 1 s, moving", "stage", "power_cycle", "image", after_s=0.1, note=_COUNTER))
    yield on_prior(Row("power lost for 1 s, at rest", "stage", "power_cycle", "draw 100", note=_COUNTER))
    yield on_prior(Row("restarts by itself", "stage", "reset", "draw 100", note=_COUNTER))
    off = _held("ReplyTimeout", "ReplyTimeout", by=("fault", "device"))
    yield on_prior(Row("power lost", "stage", "power_off", "image", expected=off, note=_COUNTER))
    yield on_prior(Row("300 bytes of noise before a command", "stage", "noise", "image", expected=fault))
    yield on_prior(Row("queue full", "stage", "queue_full", "image", expected=_held("Busy")))


_FOCUS: Final = (
    Row("busy for ever", "focus", "busy_for_ever", "focus at", after_s=1, expected=_held("DeviceFault")),
    Row(
        "stalls on its way",
        "focus",
        "stall",
        "focus at",
        {"axis": "Z", "position_um": -5.0},
        expected=_held("StallError"),
    ),
    Row(
        "runs into a limit switch",
        "focus",
        "limit",
        "focus at",
        {"axis": "Z", "position_um": -5.0},
        expected=_held("StallError", by=("fault", "device")),
    ),
    Row(
        "a hand displaces it by 40 um",
        "focus",
        "jump",
        "focus at",
        {"axis": "Z", "by_um": -40.0},
        after_s=1,
        note="Its counter saw it; the next move is right.",
    ),
    Row("refuses a command", "focus", "refuse", "focus at", expected=_held("DeviceFault")),
    Row("power lost for 1 s, moving", "focus", "power_cycle", "focus at", after_s=1, note=_COUNTER),
    Row("restarts by itself", "focus", "reset", "draw 100", note=_COUNTER),
    Row(
        "power lost",
        "focus",
        "power_off",
        "focus at",
        expected=_held("ReplyTimeout", "ReplyTimeout", by=("fault", "device")),
    ),
    Row("300 bytes of noise before a command", "focus", "noise", "focus at", expected=_held("DeviceFault")),
)
_CAMERA: Final = (
    Row(
        "a frame dropped", "camera", "dropped", "image", expected=_held("DeviceFault"), note="The tiles are taken anew."
    ),
    Row(
        "every frame dropped",
        "camera",
        "dropped",
        "image",
        {"pictures": 100.0},
        mended=False,
        expected=Outcome(("DeviceFault",), reason="aborted_by_user"),
    ),
    Row("a frame 1 s late", "camera", "late", "image"),
    Row(
        "a frame too late",
        "camera",
        "very late",
        "image",
        expected=_held("DeviceFault"),
        note="The tiles are taken anew.",
    ),
    Row("a frame saturated", "camera", "saturated", "image", note="The tile is taken again."),
    Row(
        "every frame saturated",
        "camera",
        "saturated",
        "image",
        {"pictures": 100.0},
        expected=Outcome(bad_tiles=2),
        note="The tiles are reported as bad.",
    ),
)

#: The whole matrix.
ROWS: Final = (*line_rows(), *device_rows())

# ------------------------------------------------------------------------------------------------------------ the page

_HEAD: Final = """\
# The fault matrix

Each line is a run of a short recipe (light, heat, a flow, focus, two tiles, a push back, a wash) in virtual time, on
drivers that talk to simulated devices byte by byte, with one fault in it. The line says what is *expected*, and a test
of the suite holds the run to it: `tests/instrument/test_faultmatrix.py`. This page is made from the same data
(`tests/instrument/faultmatrix.py`), and a test fails where they differ.

Held in every run, beside what the line says:

* while the run is held, no laser emits and nothing moves, by the simulated world and not by what a driver says;
* at the end no laser emits, nothing moves and the heater is off, but for the devices that the line names;
* a device that could not be reached is named in the journal's "safe" event: nothing can make it safe, and whoever
  reads the journal must know;
* the ledger is true to the simulated bottles and to the waste within 1 ul, unless the line says how far it is off.

*Found* are the exceptions of the driver (`drivers/errors.py`), as the journal's "fault" events name them, and who
watches: "temperature", "interlock" and "device" are what `cartoseq run` watches. Where it says "nothing", the drivers
bear it, or nobody can tell. *Held* means that the run waited, in the dark, for an operator who took the cause away and
resumed. Steps of the recipe hold on a fault (`on_fault = "pause"`) and are tried twice where that is harmless
(`tries = 2`); a stroke of the pump is never tried again by itself.

Where a line to a device is lost for good, what holds it is the device's own: a laser goes out with its safety circuit
(doors, key), which does not pass through the computer; a heater keeps its own limits; a pump or a stage ends the one
move that it was given. The camera of these runs is a stand-in that raises what the driver of a camera raises.
"""


def page() -> str:
    """Return the page."""
    sections = {
        "Faults of the line": line_rows(),
        "Faults of a device, in a run that is watched": device_rows(),
    }
    tables = [line for title, rows in sections.items() for line in _table(title, rows)]
    return "\n".join([_HEAD, *tables])


def _table(title: str, rows: Iterator[Row]) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| device | fault | during | found | the run | ledger | safe | |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        cells = (_device(row), row.fault, _moment(row), _found(row), _course(row), _ledger(row), _safe(row), row.note)
        yield f"| {' | '.join(cells)} |"
    yield ""


def _device(row: Row) -> str:
    return "stage (Prior)" if row.device == "stage" and row.stage == "prior" else MODELS[row.device]


def _moment(row: Row) -> str:
    return f"{row.during}, after {row.after_s:g} s" if row.after_s else row.during


def _found(row: Row) -> str:
    found = [f"`{kind}`" for kind in dict.fromkeys(row.expected.kinds)]
    found += sorted(row.expected.held_by - {"fault"})
    return ", ".join(found) or "nothing"


def _course(row: Row) -> str:
    expected = row.expected
    if not expected.reason:
        return "does not begin"
    if expected.reason != "completed":
        return "held, then aborted" if not row.mended else f"ends: {expected.reason}"
    if expected.held_by:
        return "held, resumed, completed"
    return "tried again, completed" if expected.kinds else "goes on"


def _ledger(row: Row) -> str:
    if row.expected.open_ul:
        return f"says that {row.expected.open_ul:g} ul are not known"
    return f"off by {row.expected.off_ul:g} ul" if row.expected.off_ul else "true"


def _safe(row: Row) -> str:
    expected = row.expected
    if expected.unsafe:
        return f"all but {', '.join(expected.unsafe)}, which the journal names"
    return f"all; the journal names {', '.join(expected.told)}" if expected.told else "all"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
