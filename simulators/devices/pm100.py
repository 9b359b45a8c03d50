"""Thorlabs power meters (PM100D, PM100USB) on their wire: SCPI (`simulators.devices.scpi`).

The sensor is a photodiode at the sample: its current grows with the wavelength, as each photon gives one electron
(constant quantum efficiency), so that a meter told the wrong wavelength shows the power times the ratio of the two. It
has a small dark current, which zeroing takes off, and noise, which averaging lessens.

Sources: Thorlabs' list of commands as client code uses it. Assumed: the sensor's dark current and noise, the time of a
measurement and of zeroing, and what is shown when the range is too small (9.9E37).
"""

from __future__ import annotations

import math
import random
from typing import Final, Literal

from cartoseq.simulators.devices.disturbances import Disturbances, FaultKind
from cartoseq.simulators.devices.scpi import ScpiError, ScpiInstrument, boolean, choice, number
from cartoseq.simulators.world import World

_OVER_RANGE: Final = 9.9e37
_DARK_W: Final = 5e-8
_NOISE_SHARE: Final = 0.002
_MEASURE_S: Final = 0.0003
_ZERO_S: Final = 2.0
_RANGES_W: Final = tuple(5e-6 * 10**step for step in range(6))
_NO_SENSOR: Final = -310
_FAULTS: Final = {
    "no_sensor": FaultKind("The sensor is pulled out."),
    "stray_light": FaultKind("Stray light of `power_mw` falls on the sensor.", {"power_mw": 1.0}),
    "gain_error": FaultKind("It shows the power times `factor`.", {"factor": 1.1}),
    "busy_for_ever": FaultKind("Its operations never end: neither `*OPC?` nor a measurement is answered."),
    "power_cycle": FaultKind("The power was off for a moment: settings are as delivered."),
}


class Pm100Sim:
    """One power meter with its sensor at the sample.

    Args:
        name: What it is called in the rack.
        world: The bench whose light it sees.
        model: PM100D or PM100USB.
        sensor: The sensor's name.
        low_nm: Least wavelength of the sensor.
        high_nm: Greatest wavelength of the sensor.
        most_mw: Greatest power of the sensor.
        seed: Of the noise.
    """

    def __init__(
        self,
        name: str,
        world: World,
        *,
        model: Literal["PM100D", "PM100USB"] = "PM100D",
        sensor: str = "S120C",
        low_nm: float = 400.0,
        high_nm: float = 1100.0,
        most_mw: float = 500.0,
        seed: int = 1,
    ) -> None:
        if not 0 < low_nm < high_nm:
            raise ValueError(f"{name}: expected a range of wavelengths, found {low_nm} to {high_nm} nm")
        self.name = name
        self.world = world
        self.disturbances = Disturbances(_FAULTS)
        self.faults = self.disturbances.sentences()
        self._sensor = sensor
        self._low_nm, self._high_nm = low_nm, high_nm
        self._most_w = most_mw / 1000
        self._noise = random.Random(seed)
        self._scpi = ScpiInstrument(f"Thorlabs,{model},P0012345,2.7.0", reset=self._reset)
        self._zero_w = 0.0
        self._last_w = 0.0
        self._reset()
        self._add_commands()

    def receive(self, data: bytes, now_s: float) -> None:
        """Take bytes from the host."""
        self.world.advance(now_s)
        self._scpi.receive(data, now_s)

    def due_s(self) -> float | None:
        """When the next answer is due."""
        return self._scpi.due_s()

    def messages(self, now_s: float) -> list[bytes]:
        """Answers that are due by now."""
        self.world.advance(now_s)
        return self._scpi.messages(now_s)

    # -------------------------------------------------------------------------------------------------------- commands

    def _add_commands(self) -> None:
        scpi = self._scpi
        scpi.query("SYSTem:SENSor:IDN", lambda _: self._sensor_identity())
        scpi.command("SENSe:CORRection:WAVelength", self._set_wavelength, most=1)
        scpi.query(
            "SENSe:CORRection:WAVelength", lambda values: self._limit(values, self._wavelength_nm, *self._nm()), most=1
        )
        scpi.command("SENSe:CORRection:COLLect:ZERO:[INITiate]", lambda _: self._begin_zeroing())
        scpi.query("SENSe:CORRection:COLLect:ZERO:STATe", lambda _: str(int(scpi.now_s < scpi.busy_until_s)))
        scpi.query("SENSe:CORRection:COLLect:ZERO:MAGNitude", lambda _: f"{self._zero_w:.6E}")
        scpi.command("SENSe:[POWer]:[DC]:RANGe:AUTO", self._set_auto, most=1)
        scpi.query("SENSe:[POWer]:[DC]:RANGe:AUTO", lambda _: str(int(self._auto)))
        scpi.command("SENSe:[POWer]:[DC]:RANGe:[UPPer]", self._set_range, most=1)
        scpi.query(
            "SENSe:[POWer]:[DC]:RANGe:[UPPer]",
            lambda values: self._limit(values, self._range_w, _RANGES_W[0], self._most_w),
            most=1,
        )
        scpi.command("SENSe:POWer:[DC]:UNIT", self._set_unit, most=1)
        scpi.query("SENSe:POWer:[DC]:UNIT", lambda _: self._unit)
        scpi.command("SENSe:AVERage:[COUNt]", self._set_count, most=1)
        scpi.query("SENSe:AVERage:[COUNt]", lambda values: self._limit(values, self._count, 1, 3000), most=1)
        scpi.command("CONFigure:[SCALar]:[POWer]", lambda _: None)
        scpi.query("CONFigure", lambda _: "POW")
        scpi.command("INITiate:[IMMediate]", lambda _: self._begin_measuring())
        scpi.command("ABORt", lambda _: None)
        scpi.query("FETCh", lambda _: self._shown(self._last_w))
        scpi.query("READ", lambda _: self._measure())
        scpi.query("MEASure:[SCALar]:[POWer]", lambda _: self._measure())

    def _nm(self) -> tuple[float, float]:
        return self._low_nm, self._high_nm

    @staticmethod
    def _limit(values: list[str], value: float, low: float, high: float) -> str:
        """The value that is set, or with `MIN` or `MAX` one of its limits."""
        return f"{number(values[0], low, high) if values else value:.6E}"

    def _sensor_identity(self) -> str:
        if "no_sensor" in self.disturbances:
            return "no sensor,,,0,0,0"
        return f"{self._sensor},12345678,10-Jan-2024,1,1,33"

    def _set_wavelength(self, values: list[str]) -> None:
        self._wavelength_nm = number(values[0], self._low_nm, self._high_nm, 635.0)

    def _set_auto(self, values: list[str]) -> None:
        self._auto = boolean(values[0])

    def _set_range(self, values: list[str]) -> None:
        wanted_w = number(values[0], 0.0, self._most_w)
        self._range_w = next((upper for upper in _RANGES_W if upper >= wanted_w), self._most_w)
        self._auto = False

    def _set_unit(self, values: list[str]) -> None:
        self._unit = choice(values[0], ("W", "DBM"))

    def _set_count(self, values: list[str]) -> None:
        self._count = int(number(values[0], 1, 3000, 1))

    # -------------------------------------------------------------------------------------------------------- measuring

    def _reset(self) -> None:
        self._wavelength_nm = min(self._high_nm, max(self._low_nm, 635.0))
        self._auto = True
        self._range_w = _RANGES_W[-1]
        self._unit = "W"
        self._count = 1

    def _signal_w(self) -> float:
        """What the diode's current is taken for at the wavelength that is set, without noise."""
        by_nm = self.world.optics.at_sample_mw(self.world.now_s)
        if "stray_light" in self.disturbances:
            stray_mw = self.disturbances.number("stray_light", "power_mw")
            by_nm[self._wavelength_nm] = by_nm.get(self._wavelength_nm, 0.0) + stray_mw
        light_w = sum(
            mw / 1000 * nm / self._wavelength_nm for nm, mw in by_nm.items() if self._low_nm <= nm <= self._high_nm
        )
        gain = self.disturbances.number("gain_error", "factor") if "gain_error" in self.disturbances else 1.0
        return light_w * gain + _DARK_W

    def _begin_measuring(self) -> None:
        """Measure; the value is there once the averages are taken."""
        if "no_sensor" in self.disturbances:
            raise ScpiError(_NO_SENSOR)
        signal_w = self._signal_w()
        noise_w = self._noise.gauss(0.0, (_NOISE_SHARE * signal_w + _DARK_W / 10) / math.sqrt(self._count))
        upper_w = self._most_w if self._auto else self._range_w
        self._last_w = signal_w - self._zero_w + noise_w if signal_w <= upper_w else _OVER_RANGE
        self._occupy(_MEASURE_S * self._count)

    def _measure(self) -> str:
        self._begin_measuring()
        self._scpi.answers_from_s = self._scpi.busy_until_s
        return self._shown(self._last_w)

    def _shown(self, power_w: float) -> str:
        if self._unit == "DBM" and power_w != _OVER_RANGE:
            return f"{10 * math.log10(max(power_w, 1e-12) * 1000):.6E}"
        return f"{power_w:.6E}"

    def _begin_zeroing(self) -> None:
        self._zero_w = self._signal_w()
        self._occupy(_ZERO_S)

    def _occupy(self, duration_s: float) -> None:
        for_ever = "busy_for_ever" in self.disturbances
        self._scpi.busy_until_s = math.inf if for_ever else self._scpi.now_s + duration_s

    # ---------------------------------------------------------------------------------------------------------- faults

    def inject(self, fault: str, now_s: float, **values: float | str) -> None:
        """Disturb it. Raises `ValueError` for a fault or value that it does not know."""
        self.world.advance(now_s)
        self.disturbances.inject(fault, values)
        if fault == "power_cycle":
            self._scpi.power_on()
            self._zero_w = 0.0
            self._reset()
            self.disturbances.end(fault)

    def clear(self, now_s: float) -> None:
        """Take back every disturbance."""
        self.world.advance(now_s)
        self.disturbances.clear()
        if math.isinf(self._scpi.busy_until_s):
            self._scpi.release(now_s)

    def inspect(self, now_s: float) -> dict[str, float | str | bool]:
        """What is true of it now."""
        self.world.advance(now_s)
        at_sample = self.world.optics.at_sample_mw(now_s)
        return {
            "light_mw": sum(at_sample.values()),
            "wavelength_nm": self._wavelength_nm,
            "zero_mw": self._zero_w * 1000,
            "busy": now_s < self._scpi.busy_until_s,
        }
