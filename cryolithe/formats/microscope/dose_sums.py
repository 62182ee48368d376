"""Doses before the images of an .mdoc, summed up as they were exposed: times and ZValue tell in what order.

A dose before an image cannot fall as time goes on, and is no other image's, as each is exposed. SerialEM's
PriorRecordDose begins anew where a series was gone on with in another session; sections that were taken out of a file
leave gaps of ZValue, and their images were exposed, too.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, pairwise
from pathlib import Path
from statistics import median

from cryolithe.formats.files import printable

# SerialEM's by version, then those of other programs.
_DATES = ("%d-%b-%Y", "%d-%b-%y", "%Y-%b-%d", "%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y")
_TIMES = tuple(f"{date} {time}" for date in _DATES for time in ("%H:%M:%S", "%I:%M:%S %p"))
_DATE_AND_TIME = re.compile(r"(?<=\d)T(?=\d)")
# Two images are never of one second, and all of a series are of one time zone.
_NOT_NEEDED = re.compile(r"(?<=:\d\d)([.,]\d+)?\s*(Z|[+-]\d\d:?\d\d)?(?=$|\s)")
# Programs round doses, e/Å².
_ROUNDING = 0.011
# Of the images: a tilt that was taken again may have the dose of the first time, which is one exposure off.
_MOST_REPEATED_SHARE = 0.1
_SHOWN = 8


@dataclass(frozen=True)
class Sums:
    """Doses before images, in the order of a file; none where there is a problem, told in a line."""

    doses: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""


def repeated(path: Path, name: str, doses: Sequence[float]) -> str:
    """Why doses are none before images, each of which was exposed: many are the same; empty where they may be."""
    twice = len(doses) - len({round(dose, 2) for dose in doses})
    if twice and twice == len(doses) - 1:  # what programs write that know the dose of an image alone
        return f"{path}: {name} is {doses[0]:g} for every image, which is no dose before it"
    if twice <= max(1.0, _MOST_REPEATED_SHARE * len(doses)):
        return ""
    return (
        f"{path}: {name} is the same before several images ({twice} of {len(doses)} repeat another's), though each was "
        "exposed; if it was counted anew in a second session, or tilts were taken again, add what was spent before, or "
        "give doses with --dose"
    )


def counted_anew(path: Path, before: Sequence[float], own: Sequence[float], texts: Sequence[str]) -> Sums | None:
    """Sums over the sessions of a series, where PriorRecordDose contradicts the times of its images; else None.

    Args:
        path: of the .mdoc.
        before: PriorRecordDose of each image, e/Å².
        own: ExposureDose of each image; empty where it is not told.
        texts: DateTime of each image.
    """
    times = moments(texts)
    if len(times) != len(before):
        return None
    turns = sorted(range(len(before)), key=lambda row: (times[row], before[row]))
    falls = [
        (a, b)
        for a, b in pairwise(turns)
        if before[b] < before[a] - _ROUNDING
        or (before[a] == before[b] == 0 and a < len(own) and own[a] and not _goes_on(before, own, turns, (a, b)))
    ]
    if not falls:
        return None
    exposed = len(own) == len(before) and all(own)
    anew = exposed and not any(before[b] >= own[a] / 2 or _goes_on(before, own, turns, (a, b)) for a, b in falls)
    if not anew or len(set(times)) != len(times):
        first, second = falls[0]
        return Sums(
            problem=f"{path}: PriorRecordDose falls from {before[first]:g} to {before[second]:g} e/Å² as time goes on "
            f"(DateTime {printable(texts[first])[:40]} and {printable(texts[second])[:40]}), which no dose before an "
            "image does, and what was spent is not certain; mend it, or give doses with --dose"
        )
    spent, sums, starts = 0.0, list(before), {b for _, b in falls}
    for last, row in pairwise((turns[0], *turns)):
        if row in starts:
            spent = sums[last] + own[last]
        sums[row] = spent + before[row]
    if repeated(path, "PriorRecordDose", sums):  # that of a session, say, or of its images alone
        return None
    told = (
        f"PriorRecordDose of {path.name} begins anew in the order of DateTime ({len(falls) + 1} sessions): what was "
        f"spent before is added, {min(sums):g} to {max(sums):g} e/Å² in all"
    )
    return Sums(tuple(sums), (told,))


def _goes_on(before: Sequence[float], own: Sequence[float], turns: Sequence[int], fall: tuple[int, int]) -> bool:
    """Whether the image after a fall counts what was spent before it: then one value is wrong, and no session began.

    Args:
        before: PriorRecordDose of each image, e/Å².
        own: ExposureDose of each image, e/Å².
        turns: images in the order of time.
        fall: the image before the fall and that after it.
    """
    last, first = fall
    turn = turns.index(first) + 1
    if turn == len(turns):
        return False
    following, anew = before[turns[turn]], before[first] + own[first]
    return abs(following - (before[last] + own[last] + own[first])) < abs(following - anew)


def summed_up(
    path: Path, own: Sequence[float], texts: Sequence[str], places: Sequence[int], angles_deg: Sequence[float]
) -> Sums:
    """The sums of ExposureDose in the order of DateTime; no doses where these are not told, or not in full.

    Args:
        path: of the .mdoc.
        own: ExposureDose of each image, e/Å².
        texts: DateTime of each image.
        places: ZValue of each image.
        angles_deg: TiltAngle of each image.
    """
    doses, times = [dose for dose in own if dose], moments(texts)
    if not places or len(doses) != len(places) or len(set(times)) != len(places):
        return Sums(problem=_why_no_sums(path, own, texts, times))
    turns = sorted(range(len(places)), key=times.__getitem__)
    begun = _begun_before([places[row] for row in turns], [angles_deg[row] for row in turns])
    gone, unknown = _not_in_file([places[row] for row in turns], [times[row] for row in turns], begun)
    usual, total, sums = median(doses), 0.0, [0.0] * len(places)
    for turn, row in enumerate(turns):
        total += usual * list(gone.values()).count(turn)
        sums[row], total = total, total + doses[row]
    notes = []
    if gone:
        notes.append(
            f"{path.name} has no ZValue {_named(gone)}: images that are not in the file are taken for exposed, too, "
            f"by {usual:g} e/Å² each"
        )
    if unknown:
        notes.append(
            f"Warning: {path.name} has no ZValue {_named(unknown)}, and nothing tells when these images were exposed, "
            f"if they were: their doses (about {usual:g} e/Å² each) are not counted; give doses with --dose"
        )
    return Sums(tuple(sums), tuple(notes))


def _begun_before(places: Sequence[int], angles_deg: Sequence[float]) -> bool:
    """Whether tilts tell that images before the first of a file were of this series: it may count from elsewhere.

    Where tilts go one way, those before the first lie within the range that the others reach on the other side.

    Args:
        places: ZValue of the images that are there, in the order of time.
        angles_deg: of these.
    """
    steps = [b - a for a, b in pairwise(angles_deg)]
    if not steps or not (all(step > 0 for step in steps) or all(step < 0 for step in steps)):
        return False
    step_deg = (angles_deg[-1] - angles_deg[0]) / max(1, places[-1] - places[0])
    return abs(angles_deg[0] - places[0] * step_deg) <= max(map(abs, angles_deg)) + abs(step_deg) / 2


def _not_in_file(places: Sequence[int], times: Sequence[datetime], begun: bool) -> tuple[dict[int, int], list[int]]:
    """Images that a file lacks: the turn before which each was exposed, by its ZValue; those of which nobody knows it.

    Where ZValue rises with time, or falls, it tells all turns. Else two images between which one is missing are those
    before and after it in time, too, if they are the next to each other and the pause between them is long enough.

    Args:
        places: ZValue of the images that are there, in the order of time.
        times: of these.
        begun: whether images before the first of the file, where ZValue rises, were of this series.
    """
    known, turn = sorted(places), {place: number for number, place in enumerate(places)}
    # As many as there are of others, or more, may be of another series.
    missing = list(islice((place for place in range(known[-1]) if place not in turn), len(places) + 1))
    if len(turn) < len(places) or not missing:
        return {}, []
    if len(missing) >= len(places) or (missing == [0] and known[0] == places[0]):  # which may count from 1
        return {}, missing
    in_order = known in (list(places), list(places)[::-1])
    usual = median((b - a).total_seconds() for a, b in pairwise(times))
    gone, unknown = dict[int, int](), []
    for place in missing:
        following = bisect(known, place)
        around = [turn[other] for other in known[max(0, following - 1) : following + 1]]
        if in_order and len(around) == 1:  # before the first of the file, which is the last in time where it falls
            if around == [0] and begun:
                gone[place] = 0
            elif around == [0]:
                unknown.append(place)
        elif in_order or _between(known[following] - known[following - 1], around, times, usual):
            gone[place] = max(around)
        else:
            unknown.append(place)
    return gone, unknown


def _between(steps: int, around: Sequence[int], times: Sequence[datetime], usual_s: float) -> bool:
    """Whether images were exposed between two others: these are next to each other in time, the pause long enough."""
    if len(around) < 2 or abs(around[0] - around[1]) != 1:
        return False
    return abs((times[around[1]] - times[around[0]]).total_seconds()) >= (steps - 0.5) * usual_s


def _named(places: Iterable[int]) -> str:
    shown = list(map(str, places))
    return ", ".join(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "")


def _why_no_sums(path: Path, own: Sequence[float], texts: Sequence[str], times: Sequence[datetime]) -> str:
    """Why the doses of the images cannot be summed up; empty where none are told."""
    if not own:
        return ""
    if not all(own):
        number = own.index(0.0) + 1
        return f"{path}: ExposureDose is 0 for image {number}, but not for all; give it its dose, or PriorRecordDose"
    count, missing = len(texts), sum(not text for text in texts)
    unread = [text for text in texts if text and not moments([text])]
    if missing:
        what = f"{missing} of them have no DateTime"
    elif unread:
        what = f"expected a DateTime such as 28-Nov-2026 14:05:09, found '{printable(unread[0])[:40]}'"
    elif len(times) < count:
        what = "their DateTime are written in several ways"
    else:
        what = "some of them have the same DateTime"
    return f"{path} tells the dose of each of {count} images (ExposureDose), but not their order: {what}"


def moments(texts: Iterable[str]) -> list[datetime]:
    """The times of images, in the one form that reads most: 03/11 and 13/11 are two days of one month."""
    plain = [" ".join(_NOT_NEEDED.sub("", _DATE_AND_TIME.sub(" ", text)).split()) for text in texts]
    return max(([moment for text in plain if (moment := _time(text, form))] for form in _TIMES), key=len)


def _time(text: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(text, form)
    except ValueError:
        return None
