"""A run of an instrument in words: its state, and those of its events that a person wants to know of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cartoseq.controller.progress import duration

_ENDINGS = {
    "completed": "completed",
    "stopped_by_user": "stopped by the operator",
    "aborted_by_user": "aborted by the operator",
    "device_fault": "a device failed",
    "interlock": "a laser's safety circuit is open",
    "temperature_out_of_range": "the temperature is out of range",
    "disk_full": "the disk is full",
    "data_path_stalled": "base calls could not be taken away",
    "controller_error": "the program failed",
}


def ending(reason: str, why: str = "") -> str:
    """Why a run ended."""
    words = _ENDINGS.get(reason, reason)
    return f"{words}: {why}" if why and why.rstrip(".") != words else words


def doing(status: Mapping[str, Any]) -> str:
    """What is being done, on one line."""
    state, what = status["state"], str(status["doing"])
    if state == "paused":
        return f"PAUSED: {what}"
    if state in ("stopping", "aborting"):
        return f"{state}: {what}" if what != state else state
    if state == "running" and status["step"]:
        return f"{status['step']:,} of {status['steps']:,}: {what}"
    return what


def left(status: Mapping[str, Any]) -> str:
    """How long it will take, by the plan."""
    return f"{duration(status['left_s'])} left"


def fraction(status: Mapping[str, Any]) -> float:
    """The share of the plan's time that has gone by, 0 to 1."""
    whole_s = float(status["elapsed_s"]) + float(status["left_s"])
    return float(status["elapsed_s"]) / whole_s if whole_s else 0.0


def status_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """The whole of a status, a fact a line."""
    yield f"state    {status['state']}"
    if status["step"]:
        yield f"step     {status['step']:,} of {status['steps']:,}: {status['action']}"
        yield f"where    {status['place']}"
    for name, why in status["holds"].items():
        yield f"held by  {name}: {why}"
    yield f"time     {duration(status['elapsed_s'])} done, {left(status)}, by the plan"


def event_line(event: Mapping[str, Any]) -> str:
    """What an event says to a person; empty for one that only the journal needs."""
    match event["event"]:
        case "taken up":
            return f"Taken up again: {event['done']:,} actions were done."
        case "fault":
            return f"Fault: {event['device']}: {event['problem']}"
        case "suspender":
            if event["why"]:
                return f"Held by {event['name']}: {event['why']}"
            return f"Well again: {event['name']}"
        case "state" if event["state"] == "paused":
            return f"Paused: {'; '.join(event.get('why', []))}"
        case "pause asked for":
            return "A pause was asked for: it comes at the next checkpoint."
        case "overrun":
            took, planned = duration(event["lasted_s"]), duration(event["planned_s"])
            return f"An incubation lasted {took} instead of {planned}."
        case "focused":
            return f"Focus found at {event['points']} points, within {event['rms_um']:g} um of a plane."
        case "imaged":
            bad = f", {len(event['bad'])} of them bad" if event["bad"] else ""
            again = f", {event['taken_again']} taken again" if event["taken_again"] else ""
            return f"Imaged {event['folder']}: {event['tiles']} tiles{again}{bad}"
        case "safe" if event["failures"]:
            failed = "; ".join(f"{device}: {failure}" for device, failure in event["failures"].items())
            return f"NOT KNOWN TO BE SAFE: {failed}"
        case "safe":
            return "Every device is safe."
    return ""


def told_by_journal(events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the journal says of a run that no program does now."""
    last = {event["event"]: event for event in events}
    started, ended = last.get("started"), last.get("ended")
    sessions = [event for event in events if event["event"] == "opened"]
    if ended is not None and not any(event["number"] > ended["number"] for event in sessions):
        yield f"ended    {ending(ended['reason'], ended['why'])}"
        yield f"when     {ended['time']}"
    elif sessions:
        yield "ended    killed, or its machine went down: it did not end by itself"
        yield f"last     {events[-1]['time']}: {events[-1]['event']}"
    else:
        yield "ended    it never began: no device was opened"
    done = sum(event["event"] == "done" for event in events)
    if started is not None:
        yield f"done     {done:,} of {started['steps']:,} actions of {started['recipe']}"
    if (step := last.get("step")) is not None and done < (started or {"steps": 0})["steps"]:
        yield f"at       {step['action']} ({step['place']})"
