"""Registers the tissue pictures of a run to its chip: after they were taken, or again by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cartoseq.analysis.registration import RegisteredScan, register_scan
from cartoseq.analysis.runfolder import RunFolder
from cartoseq.analysis.tilefolder import TileFolder
from cartoseq.analysis.tissueimages import NUMBERS, PIXEL_UM, write_tissue_images
from cartoseq.streaming.errors import CartoseqError, InputError

Say = Callable[[str], None]


def register_run(
    run_folder: Path,
    say: Say,
    *,
    pixel_um: float = PIXEL_UM,
    mirrored: bool | None = None,
    quarter_turns: int | None = None,
    pitch_nm: int | None = None,
) -> RegisteredScan:
    """Register ``RUN/images/tissue`` and write picture, mask and numbers beside the tiles, which stay as they are.

    Whatever fails, what was written before stays. It takes seconds to minutes of computing: an event loop gives it a
    thread.

    Args:
        run_folder: The run.
        say: Told what goes on, and what came out.
        pixel_um: Size of a pixel of the registered picture.
        mirrored: Whether the chip lies mirrored; as the scan says if None.
        quarter_turns: By how many right angles it is turned; as the scan says if None.
        pitch_nm: Distance of its spots; as the scan says if None.

    Raises:
        InputError: there are no pictures, they cannot be read, or they do not fit the chip.
        OSError: the disk is full or refuses.
    """
    path = RunFolder(run_folder).tissue
    if not path.is_dir():
        problem = "this run has no pictures of its tissue: there is no folder images/tissue"
        raise InputError(run_folder, problem, remedy="Name the folder of a run whose recipe images the tissue.")
    folder = TileFolder(path)
    given = {"mirrored": mirrored, "quarter_turns": quarter_turns, "pitch_nm": pitch_nm}
    chip = folder.scan.chip.model_copy(update={key: value for key, value in given.items() if value is not None})
    scan = register_scan(folder, chip, say)
    say("writing the registered picture and the mask")
    mask = write_tissue_images(scan, pixel_um)
    for line in result_lines(scan):
        say(line)
    say(f"tissue: {mask.area_um2 / 1e6:.3g} mm², {mask.mask.mean():.1%} of the chip")
    say(f"written: {path / NUMBERS}")
    return scan


def register_imaged(run: RunFolder, say: Say) -> None:
    """Register the tissue of a run that took pictures of it, unless that was done since. What fails is said, no more.

    The recipe was done, and its pictures are safe: that they cannot be registered now ends no run. It can be done again
    by hand.

    Args:
        run: The run.
        say: Told what goes on, what came out, or why nothing did.
    """
    tiles, made = run.tissue / "tiles.json", run.tissue / NUMBERS
    try:
        if not tiles.is_file() or (made.is_file() and made.stat().st_mtime >= tiles.stat().st_mtime):
            return
        register_run(run.path, say)
    except (CartoseqError, OSError) as error:
        say(f"The tissue is not registered: {error}")


def result_lines(scan: RegisteredScan) -> list[str]:
    """What came out, for people."""
    qc, fit = scan.qc, scan.pose.fit
    faults = [
        text
        for passed, text in (
            (qc.track_cross_passed, f"only {qc.template_recall:.0%} of the crossings were found"),
            (qc.stitch_passed, f"only {qc.stitch_score:.0%} of the overlaps fit together"),
            (qc.clarity_passed, f"only {qc.clarity:.0%} of the tiles are sharp"),
        )
        if not passed
    ]
    moved = [
        f"{field.row},{field.column} by {field.moved_um[0]:+.1f}, {field.moved_um[1]:+.1f} um"
        for field in scan.fields
        if field.out_of_place
    ]
    return [
        f"chip: turned by {fit.rotation_deg:+.3f} degrees, scale {fit.scale:.5f}; fits to {fit.residual_um:.2f} um",
        f"{qc.good_fields} of {qc.fields} tiles show more than 3 track crossings; "
        f"{qc.template_recall:.1%} of the chip's crossings within the pictures found",
        *([f"tiles out of place, and put right: {'; '.join(moved)}"] if moved else []),
        f"image QC: {'passed' if not faults else 'not passed: ' + ', '.join(faults)}",
    ]
