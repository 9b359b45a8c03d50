"""`cartoseq devices`: which devices there are, whether they answer, and one moved by hand within its limits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from serial.tools import list_ports

from cartoseq.controller.bench import SAFE_DEADLINE_S
from cartoseq.controller.instrument import Instrument
from cartoseq.drivers.arm9chem import Arm9Switch
from cartoseq.drivers.capabilities import (
    Camera,
    Device,
    FocusStage,
    Laser,
    PowerMeter,
    SelectorValve,
    SyringePump,
    TemperatureController,
    XYStage,
)
from cartoseq.drivers.errors import DeviceError
from cartoseq.streaming.errors import CartoseqError, InputError

Say = Callable[[str], None]

_TRUE: Final = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}
_KEYS: Final[tuple[tuple[type, tuple[str, ...]], ...]] = (
    (SyringePump, ("initialize", "aspirate_ul", "dispense_ul", "port", "flow_ul_per_s")),
    (SelectorValve, ("port",)),
    (XYStage, ("home", "x_um", "y_um")),
    (FocusStage, ("home", "z_um")),
    (TemperatureController, ("target_c", "off")),
    (Laser, ("power_mw", "emission")),
    (Arm9Switch, ("on",)),
)
_SWITCHES: Final = {"initialize", "home", "off", "emission", "on"}


# ---------------------------------------------------------------------------------------------------------------- list


def list_devices(instrument: Instrument, say: Say, simulators: Mapping[str, str] | None = None) -> None:
    """Say which serial ports this machine has, and which devices the instrument file describes.

    Args:
        instrument: The instrument.
        say: Is told each line.
        simulators: What simulates each device, by its name, for an instrument that is simulated: no port counts then.
    """
    if simulators is None:
        ports = sorted(list_ports.comports(), key=lambda port: str(port.device))
        say("serial ports" if ports else "no serial ports found")
        for port in ports:
            say(f"  {port.device:<16}{port.description}")
        say("")
    roles = {name: ".".join(map(str, key)) for key, _, name in instrument.roles.filled()}
    rows = []
    for name, device in instrument.device.items():
        lines = [instrument.line[plug.line] for plug in device.plugs()]
        addresses = [address for line in lines for address in (line.address, line.answer_address) if address]
        where = ", ".join(addresses) or getattr(device, "resource", None) or "Micro-Manager"
        if simulators is not None:
            where = simulators[name]
        rows.append((name, device.driver, roles.get(name, "-"), where))
    _say_table(("device", "driver", "role", "where" if simulators is None else "simulated by"), rows, say)


def _say_table(head: Sequence[str], rows: Sequence[Sequence[str]], say: Say) -> None:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        say("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


# --------------------------------------------------------------------------------------------------------------- check


async def check_devices(instrument: Instrument, devices: Mapping[str, Device], say: Say) -> None:
    """Open each device and say who it is, how it stands, and what it complains of; nothing is set in motion.

    Args:
        instrument: The instrument.
        devices: Its drivers, by name; not open.
        say: Is told each line.

    Raises:
        DeviceError: one failed, or has a severe fault; each has been told of by then.
    """
    opened: list[Device] = []
    failed = 0
    try:
        for name, device in devices.items():
            try:
                identity = await device.open()
                opened.append(device)
                who = " ".join(filter(None, (identity.maker, identity.model, identity.serial_number)))
                say(f"{name}: {who}" + (f", firmware {identity.firmware}" if identity.firmware else ""))
                if identity.notice:
                    say(f"  note   {identity.notice}")
                say(f"  state  {await state_of(device)}")
                faults = await device.read_faults()
                for fault in faults:
                    say(f"  {'fault' if fault.severe else 'warns'}  {fault.code}: {fault.text}")
                failed += any(fault.severe for fault in faults)
            except CartoseqError as error:
                failed += 1
                say(f"{name}: does not work")
                say(f"  error  {error}")
    finally:
        for device in opened:
            with contextlib.suppress(DeviceError):
                await device.close()
    if failed:
        raise DeviceError(
            instrument.name,
            f"{failed} of {len(devices)} devices {'is' if failed == 1 else 'are'} not well",
            remedy="What is wrong with each is told above.",
        )
    say(f"All {len(devices)} devices are well.")


async def state_of(device: Device) -> str:
    """How a device stands, in a few words.

    Raises:
        DeviceError: it does not say.
    """
    match device:
        case SyringePump():
            return f"{await device.plunger_ul():.1f} of {device.barrel_ul:g} ul in the syringe"
        case SelectorValve():
            return f"port {await device.port()} of {device.n_ports}"
        case XYStage():
            place, limits = await device.position(), device.limits
            return (
                f"at x {place.x_um:.1f} um ({limits.x_um.low:g} to {limits.x_um.high:g}), "
                f"y {place.y_um:.1f} um ({limits.y_um.low:g} to {limits.y_um.high:g})"
            )
        case FocusStage():
            limits_um = device.limits_um
            return f"at z {await device.position_um():.2f} um ({limits_um.low:g} to {limits_um.high:g})"
        case TemperatureController():
            return f"{await device.temperature_c():.2f} C (targets {device.limits_c.low:g} to {device.limits_c.high:g})"
        case Laser():
            light = f"emits {await device.power_mw():.2f} mW" if await device.is_emitting() else "off"
            circuit = "closed" if await device.interlock_ok() else "OPEN"
            limits_mw = device.power_limits_mw
            return f"{light} ({limits_mw.low:g} to {limits_mw.high:g} mW), safety circuit {circuit}"
        case Camera():
            return f"{device.width_px} x {device.height_px} pixels of {device.bit_depth} bits"
        case PowerMeter():
            return f"measures {await device.power_mw():.4f} mW"
        case Arm9Switch() if device.part == "shutoff":
            return "open" if await device.is_open() else "shut"
        case _:
            return "answers"


# ---------------------------------------------------------------------------------------------------------------- move


async def move_device(
    instrument: Instrument, devices: Mapping[str, Device], name: str, settings: Sequence[str], say: Say
) -> None:
    """Move one device by hand, within its limits, and say how it stands then; if that fails, make it safe.

    Args:
        instrument: The instrument.
        devices: Its drivers, by name; not open.
        name: Of the device.
        settings: Each as ``key=value``; see docs/instrument.md.
        say: Is told how it stands.

    Raises:
        InputError: there is no such device, or it knows no such setting.
        DeviceError: it refuses or fails.
    """
    if name not in devices:
        raise InputError(name, "there is no such device", remedy=f"The file has: {', '.join(devices)}.")
    device = devices[name]
    values = read_settings(name, device, settings)
    to_do = actions(instrument, device, values)
    await device.open()
    try:
        for action in to_do:
            await action()
        say(f"{name}: {await state_of(device)}")
        if values.get("emission") or "target_c" in values:
            say("It stays so when this command has ended.")
    except BaseException:
        with contextlib.suppress(DeviceError, TimeoutError):
            async with asyncio.timeout(SAFE_DEADLINE_S):
                await device.make_safe()
        raise
    finally:
        await device.close()


def read_settings(name: str, device: Device, settings: Sequence[str]) -> dict[str, float | str | bool]:
    """Read what was typed: switches are yes or no, ports of a pump are names, all else is a number.

    Raises:
        InputError: the device knows no such setting, or it has no such value.
    """
    known = next((keys for kind, keys in _KEYS if isinstance(device, kind)), ())
    if not hasattr(device, "home"):
        known = tuple(key for key in known if key != "home")
    if not known:
        raise InputError(name, "this device cannot be moved by hand")
    remedy = f"It takes: {', '.join(f'{key}=...' for key in known)}."
    if not settings:
        raise InputError(name, "nothing says what it should do", remedy=remedy)
    values: dict[str, float | str | bool] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or key not in known:
            raise InputError(name, f"does not know {setting!r}", remedy=remedy)
        if key in _SWITCHES:
            if text.lower() not in _TRUE:
                raise InputError(name, f"expected {key}=yes or {key}=no, found {setting!r}")
            values[key] = _TRUE[text.lower()]
        elif key == "port" and isinstance(device, SyringePump):
            values[key] = text
        else:
            try:
                values[key] = int(text) if key == "port" else float(text)
            except ValueError:
                raise InputError(name, f"expected a number, found {setting!r}") from None
    return values


def actions(
    instrument: Instrument, device: Device, values: dict[str, float | str | bool]
) -> list[Callable[[], Awaitable[None]]]:
    """What the settings come to, in the order in which it is done: first home or zero, then the rest.

    Raises:
        InputError: they come to nothing, or leave something open.
    """
    found: list[Callable[[], Awaitable[None]]] = []

    def number(key: str) -> float:
        return float(values[key])

    if values.get("home"):
        found.append(device.home)  # type: ignore[attr-defined]
    match device:
        case SyringePump():
            fluidics = instrument.fluidics
            if "aspirate_ul" in values and "flow_ul_per_s" not in values:
                raise InputError(device.name, "how fast is not said", remedy="Add flow_ul_per_s=... .")
            flow_ul_per_s = float(values.get("flow_ul_per_s", fluidics.waste_flow_ul_per_s))
            if values.get("initialize"):
                found.append(device.initialize)
            if "aspirate_ul" in values:
                inlet = str(values.get("port", fluidics.flow_cell_port))
                found.append(lambda: device.aspirate(number("aspirate_ul"), inlet, flow_ul_per_s))
            if "dispense_ul" in values:
                outlet = str(values.get("port", fluidics.waste_port))
                found.append(lambda: device.dispense(number("dispense_ul"), outlet, flow_ul_per_s))
        case SelectorValve():
            found.append(lambda: device.select(int(values["port"])))
        case XYStage():
            if values.keys() & {"x_um", "y_um"}:

                async def go() -> None:
                    place = await device.position()
                    await device.move_to(float(values.get("x_um", place.x_um)), float(values.get("y_um", place.y_um)))

                found.append(go)
        case FocusStage():
            if "z_um" in values:
                found.append(lambda: device.move_to_um(number("z_um")))
        case TemperatureController():
            if values.get("off"):
                found.append(device.disable)
            if "target_c" in values:
                found.append(lambda: device.set_target_c(number("target_c")))
        case Laser():
            if "power_mw" in values:
                found.append(lambda: device.set_power_mw(number("power_mw")))
            if "emission" in values:
                found.append(lambda: device.set_emission(bool(values["emission"])))
        case Arm9Switch():
            found.append(lambda: device.set_on(bool(values["on"])))
    if not found:
        raise InputError(device.name, "nothing says what it should do", remedy="Say yes to something.")
    return found
