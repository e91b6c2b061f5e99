"""Which hard negatives teach a finder arcs rather than excess light? Writes docs/hard-negatives.md.

    python benchmarks/hard_negatives.py runs/prime/phase4p5/gen5_prime

For the same pairs of a finished paired run: the positive, its control, and every kind of hard negative. A small network
is trained with hosts left out on positives against controls, alone and with negatives of one kind or of all, and then
asked to tell positives from everything else. Training repeats with several seeds; the spread is shown.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dhs_gen.paired_controls import NegativeKind, shuffled_difference
from dhs_gen.streams import stream, unit_interval
from dhs_pipeline.config import Pairing, load_section
from dhs_pipeline.gates.cnn import fit, score
from dhs_pipeline.gates.data import PairSample
from dhs_pipeline.gates.pictures import noise_sigma, stretch
from dhs_pipeline.gates.probes import linear
from dhs_pipeline.gates.rerender import Rerenderer, open_rerenderer
from dhs_pipeline.gates.sample import read_sample
from dhs_pipeline.gates.scan import find_set, scan_here
from dhs_pipeline.gates.statistics import auc
from dhs_pipeline.storage import Location

Pictures = NDArray[np.float32]
SEEDS = (0, 1, 2)
PIXELS, ARC = NegativeKind.SHUFFLED_PIXELS.value, NegativeKind.SHUFFLED_ARC.value
KINDS = tuple(k.value for k in NegativeKind)
ARMS: Mapping[str, tuple[str, ...]] = {
    "controls alone": (),
    "and shuffled pixels": (PIXELS,),
    "and shuffled arcs": (ARC,),
    "and all kinds but shuffled pixels": tuple(k for k in KINDS if k != PIXELS),
    "and all kinds": KINDS,
}
"""What a finder is trained on beside positives and controls; a pair's negative is of one kind, dealt evenly."""

TEXT = """# Hard negatives: what each teaches

`python benchmarks/hard_negatives.py {set}` wrote this page: {n} pairs on {hosts} real hosts; a small network is
trained on half of the hosts and scored on the other half, both ways; mean ± standard deviation of {seeds} seeds. In
each line the network sees every pair's positive and control, and from the second line on one negative per pair.

## What a finder learns

AUC of positives against each kind of stamp (columns). 0.5 is blind.

{finder}

Controls alone teach excess light: the network does not tell an arc from the same light scrambled. Shuffled pixels teach
a texture: it knows them again, and of shuffled arcs, which have the same flux and profile without the texture, it knows
little. Shuffled arcs teach azimuthal structure, and what they teach holds for rings, spirals and shuffled pixels, but
not for neighbours and arcs about a wrong centre, which look *more* like arcs to it than arcs do: no kind stands for
another. So the pairing `prime` has all kinds but shuffled pixels, and most of shuffled arcs. The networks here have
seen 600 pairs; compare lines, not values.

## What the recipe leaves in the pixels

Control against transformed control: nothing but noise is shuffled, so nothing should be seen. *Shared noise*: positive
and control have the same sky noise (pairs of this package), and an arc of no flux; *own noise*: the positive has sky
noise of its own, as in a set whose controls are another exposure, or were resampled.

{texture}
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", help="stamps of a paired generation of a finished run")
    parser.add_argument("--pairs", type=int, default=1200)
    parser.add_argument("--out", default="docs/hard-negatives.md")
    args = parser.parse_args(argv)
    found = find_set(Location.of(args.set))
    sample, _ = read_sample(found, scan_here(found), args.pairs)
    rerender = open_rerenderer(found.stamps, None)
    width_pix = load_section(Pairing, "pairing", "prime").negatives.annulus_width_pix
    text = TEXT.format(
        set=args.set,
        n=len(sample),
        hosts=len(set(sample.host_ids)),
        seeds=len(SEEDS),
        finder=finder_table(sample, rerender),
        texture=texture_table(sample, rerender, width_pix),
    )
    Path(args.out).write_text(text, encoding="utf-8")
    print(text)


def finder_table(sample: PairSample, rerender: Rerenderer) -> str:
    """A row per training set, a column per kind of stamp that positives are told from."""
    pairs = sample.task_ids  # a positive's id is its pair's
    sigma = _sigma(sample)
    looks = {"positive": stretch(sample.positive, sigma), "control": stretch(sample.control, sigma)}
    looks |= {kind: stretch(rerender.negatives(pairs, kind), sigma) for kind in KINDS}
    half = _halves(sample.host_ids)
    lines = ["| trained on positives against | control | " + " | ".join(k.replace("_", " ") for k in KINDS) + " |"]
    lines.append("|---" * (2 + len(KINDS)) + "|")
    for arm, kinds in ARMS.items():
        values = np.array([_aucs(looks, kinds, half, seed) for seed in SEEDS])
        cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(values.mean(axis=0), values.std(axis=0, ddof=1), strict=True)]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def _aucs(looks: Mapping[str, Pictures], kinds: Sequence[str], half: NDArray[np.intp], seed: int) -> list[float]:
    """AUC of positives against controls and each kind of negative, hosts left out."""
    n = half.size
    scores = {name: np.empty(n) for name in looks}
    dealt = np.random.default_rng(seed).integers(0, max(len(kinds), 1), n)
    for part in (0, 1):
        train, test = np.flatnonzero(half != part), half == part
        groups = [looks["positive"][train], looks["control"][train]]
        groups += [looks[kind][train[dealt[train] == k]] for k, kind in enumerate(kinds)]
        labels = np.repeat([1] + [0] * (len(groups) - 1), [len(g) for g in groups])
        model = fit(np.concatenate(groups), labels, seed)
        for name, pictures in looks.items():
            scores[name][test] = score(model, pictures[test])
    ones = np.repeat([1, 0], [n, n])
    return [auc(ones, np.concatenate([scores["positive"], scores[name]])) for name in ("control", *KINDS)]


def texture_table(sample: PairSample, rerender: Rerenderer, width_pix: float) -> str:
    """How well probes tell controls from controls that went through each recipe."""
    pairs, sigma = sample.task_ids, _sigma(sample)
    plain = sample.control
    noisy, again = (_with_own_noise(sample, plain, exposure) for exposure in ("first", "second"))
    cases = {
        "shuffled pixels, shared noise": (plain, rerender.negatives(pairs, PIXELS, flux_factor=0.0)),
        "shuffled arc, shared noise": (plain, rerender.negatives(pairs, ARC, flux_factor=0.0)),
        "shuffled pixels, own noise": (noisy, _shuffled(sample, again, noisy, width_pix)),
        "shuffled arc, own noise": (noisy, again),
    }
    half = _halves(sample.host_ids)
    lines = ["| recipe | equal to the control bit for bit | linear probe | small network |", "|---|---|---|---|"]
    for name, (control, transformed) in cases.items():
        same = float((control == transformed).all(axis=(1, 2, 3)).mean())
        a, b = stretch(control, sigma), stretch(transformed, sigma)
        found = [_probe_auc(a, b, half, use_network) for use_network in (False, True)]
        lines.append(f"| {name} | {100 * same:.0f} % | " + " | ".join(f"{v:.3f}" for v in found) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def _probe_auc(a: Pictures, b: Pictures, half: NDArray[np.intp], use_network: bool) -> float:
    """AUC of one probe between two groups of pictures, hosts left out."""
    x, y = np.concatenate([a, b]), np.repeat([0, 1], [len(a), len(b)])
    part, scores = np.tile(half, 2), np.empty(len(a) + len(b))
    for k in (0, 1):
        train, test = part != k, part == k
        scores[test] = (
            score(fit(x[train], y[train], 0), x[test]) if use_network else linear(x[train], y[train], x[test], 0)
        )
    return auc(y, scores)


def _with_own_noise(sample: PairSample, images: Pictures, exposure: str) -> Pictures:
    """The images with the sky's noise once more, correlated between neighbours as coadds are (0.2)."""
    assert sample.control_invvar is not None
    out = images.copy()
    for i, pair in enumerate(sample.task_ids):
        white = stream(pair, "study_noise", salt=exposure).standard_normal(images.shape[1:])
        smooth = gaussian_filter(white, (0.0, 0.5, 0.5))
        noise = smooth / smooth.std() / np.sqrt(np.maximum(sample.control_invvar[i], 1e-12))
        out[i] += np.where(sample.control_invvar[i] > 0, noise, 0.0).astype(np.float32)
    return out


def _shuffled(sample: PairSample, positive: Pictures, control: Pictures, width_pix: float) -> Pictures:
    rows = zip(positive, control, sample.lens_xy_pix, sample.task_ids, strict=True)
    return np.stack([shuffled_difference(p, c, (x, y), width_pix, stream(t, "study")) for p, c, (x, y), t in rows])


def _sigma(sample: PairSample) -> NDArray[np.float64]:
    assert sample.control_invvar is not None
    return noise_sigma(sample.control_invvar)


def _halves(hosts: Sequence[str]) -> NDArray[np.intp]:
    """0 or 1 per row; a host is in one half, the halves have as many hosts."""
    order = sorted(set(hosts), key=lambda host: unit_interval(host, salt="study_half"))
    return np.array([order.index(host) % 2 for host in hosts], np.intp)


if __name__ == "__main__":
    main()
