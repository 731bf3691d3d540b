"""How good units are: how much they say about phones, and how many a second there are.

    python unit_quality.py --units units.tsv --kmeans kmeans.npz --phones phones.tsv --out report.json

Measures of Hsu et al. 2021 (HuBERT, section IV-C), from how often phone y and unit z meet in a frame of 20 ms:
phone purity, the share of frames whose phone is the likeliest one of their unit; cluster purity, the share of frames
whose unit is the likeliest one of their phone; PNMI, the mutual information I(y; z) over the entropy H(y): the share of
the uncertainty about the phone that knowing the unit removes. More units always give a higher phone purity.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from scripts.files import write_text
from scripts.speech.speech_synthesis import read_table
from scripts.units.phones_table import REPORT, read_phones
from scripts.units.units import UnitModel, remove_repeats

FRAMES_PER_SECOND = 50


@dataclass(frozen=True)
class PhoneAgreement:
    """Shares between 0 and 1, and the number of frames (of 20 ms) that they come from."""

    phone_purity: float
    cluster_purity: float
    pnmi: float
    frames: int


@dataclass(frozen=True)
class UnitRates:
    """Units a second before and after repeats are removed, units that occur at all, and seconds of speech."""

    units_per_second: float
    units_per_second_without_repeats: float
    used_units: int
    seconds: float


def phone_agreement(pairs: Iterable[tuple[list[str], np.ndarray]]) -> PhoneAgreement:
    """Compare phones and units of each utterance; what one has beyond the other is left out.

    Raises:
        ValueError: there are no frames to compare.
    """
    counts: Counter[tuple[str, int]] = Counter()
    for phones, units in pairs:
        counts.update(zip(phones, units.tolist(), strict=False))
    if not counts:
        raise ValueError("there is no frame with both a phone and a unit")
    phone_ids = {phone: index for index, phone in enumerate(sorted({phone for phone, _ in counts}))}
    unit_ids = {unit: index for index, unit in enumerate(sorted({unit for _, unit in counts}))}
    joint = np.zeros((len(phone_ids), len(unit_ids)))  # (phones, units)
    for (phone, unit), count in counts.items():
        joint[phone_ids[phone], unit_ids[unit]] = count
    frames = int(joint.sum())
    joint /= frames
    phone, unit = joint.sum(1), joint.sum(0)
    entropy = -(phone * np.log(phone)).sum()
    met = joint > 0
    information = (joint[met] * np.log(joint[met] / np.outer(phone, unit)[met])).sum()
    # With one phone only there is nothing to know.
    pnmi = information / entropy if entropy > 0 else 1.0
    return PhoneAgreement(float(joint.max(0).sum()), float(joint.max(1).sum()), float(pnmi), frames)


def unit_rates(utterances: Iterable[np.ndarray]) -> UnitRates:
    """Rates over all utterances, one unit being 20 ms.

    Raises:
        ValueError: there is no unit.
    """
    total = reduced = 0
    used: set[int] = set()
    for units in utterances:
        total += len(units)
        reduced += len(remove_repeats(units))
        used.update(units.tolist())
    if not total:
        raise ValueError("there is no unit")
    return UnitRates(
        float(FRAMES_PER_SECOND), FRAMES_PER_SECOND * reduced / total, len(used), total / FRAMES_PER_SECOND
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Report how good units are.")
    parser.add_argument("--units", type=Path, required=True, help="table with the columns id and units")
    parser.add_argument("--kmeans", type=Path, help="clusters (.npz) of the units, to tell how many of them are used")
    parser.add_argument("--phones", type=Path, help="alignments; without them only rates are reported")
    parser.add_argument("--out", type=Path, help="JSON file to write as well")
    args = parser.parse_args()
    units = {row["id"]: np.array(row["units"].split(), int) for row in read_table(args.units, "units")}
    try:
        clusters = f" of {UnitModel.load(args.kmeans).num_units}" if args.kmeans else ""
        rates = unit_rates(units.values())
        report = asdict(rates)
        print(
            f"rate: {rates.units_per_second:.1f} a second, {rates.units_per_second_without_repeats:.1f} without "
            f"repeats; {rates.used_units}{clusters} units occur in {rates.seconds / 60:.1f} min"
        )
        if args.phones:
            phones = read_phones(args.phones, REPORT)
            both = [(phones[name], units[name]) for name in phones if name in units]
            agreement = phone_agreement(both)
            report |= asdict(agreement)
            print(
                f"phones: purity {agreement.phone_purity:.3f}, cluster purity {agreement.cluster_purity:.3f}, PNMI "
                f"{agreement.pnmi:.3f} ({len(both)} recordings, {agreement.frames} frames)"
            )
    except ValueError as error:
        raise SystemExit(f"error: {args.units}: {error}") from error
    if args.out:
        write_text(args.out, json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
