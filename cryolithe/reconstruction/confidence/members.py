"""The same network on parts and mirror images of one series: runs that differ in noise, or in nothing at all.

Even and odd tilts share no image, so that their noise is independent. A series mirrored along x (with the signs of its
angles) or along y shows the mirrored specimen: what the mirrored volume differs by, once it is turned back, is the
network's own inconsistency. For filtered back-projection both mirrors are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.errors import InputError
from cryolithe.reconstruction.images.prepared_stack import PreparedStack, ReadRows
from cryolithe.reconstruction.jobs.job import ResolvedJob

# Of fewer tilts, half of them are no series.
FEWEST_TILTS = 10
# Runs of an ensemble beside that of the series itself.
MEMBERS = 4


@dataclass(frozen=True)
class Member:
    """One run of the ensemble.

    Attributes:
        name: what it is called in the plan and in the working folder.
        tilts: indices of its images in the order of the stack.
        mirror: the axis along which the series is mirrored, "x" or "y"; empty for none.
    """

    name: str
    tilts: tuple[int, ...]
    mirror: str = ""

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes of a volume ``(z, y, x)`` to be turned round so that it lies as that of the series does."""
        return tuple({"y": 1, "x": 2}[axis] for axis in self.mirror)


def choose_members(angles_deg: Sequence[float]) -> tuple[Member, ...]:
    """Even and odd tilts in the order of their angles, and the whole series mirrored along x and along y.

    Raises:
        InputError: if there are too few tilts.
    """
    count = len(angles_deg)
    if count < FEWEST_TILTS:
        raise InputError(
            f"--confidence compares halves of the tilts: {count} tilts are too few, at least {FEWEST_TILTS} are "
            "needed; leave it out"
        )
    order = np.argsort(np.asarray(angles_deg), kind="stable")
    even, odd = (tuple(sorted(int(number) for number in order[first::2])) for first in (0, 1))
    every = tuple(range(count))
    return (
        Member("even", even),
        Member("odd", odd),
        Member("mirror_x", every, "x"),
        Member("mirror_y", every, "y"),
    )


@dataclass(frozen=True, kw_only=True)
class MemberStack(PreparedStack):
    """Some of the images of a prepared stack, or all of them mirrored; nothing is copied.

    Attributes:
        whole: the stack.
        member: which images, and how.
    """

    whole: PreparedStack
    member: Member

    def read_rows(self, first_row: int, rows: int) -> torch.Tensor:
        """See `PreparedStack`."""
        return self.rows_of_base(self.whole.read_rows, first_row, rows)

    @property
    def base(self) -> PreparedStack:
        """See `PreparedStack`."""
        return self.whole

    def rows_of_base(self, read: ReadRows, first_row: int, rows: int) -> torch.Tensor:
        """See `PreparedStack`."""
        return self._of_member(read(self._first_of_whole(first_row, rows), rows))

    def slow_rows(self, first_row: int, rows: int) -> torch.Tensor | None:
        """See `PreparedStack`."""
        slow = self.whole.slow_rows(self._first_of_whole(first_row, rows), rows)
        return None if slow is None else self._of_member(slow)

    def _first_of_whole(self, first_row: int, rows: int) -> int:
        return self.geometry.image_shape[0] - first_row - rows if "y" in self.member.mirror else first_row

    def _of_member(self, read: torch.Tensor) -> torch.Tensor:
        if len(self.member.tilts) < read.shape[0]:
            read = read[torch.tensor(self.member.tilts)]
        axes = self.member.axes
        return read.flip(axes) if axes else read


def stack_of(whole: PreparedStack, member: Member) -> MemberStack:
    """The stack of a member: sigma and the level of defects are those of the whole."""
    geometry = whole.geometry.select(np.array(member.tilts))
    if member.mirror:
        geometry = geometry.mirrored(member.mirror)
    return MemberStack(
        pixels=whole.pixels,
        geometry=geometry,
        sigma=whole.sigma,
        clip_level=whole.clip_level,
        slow=whole.slow,
        whole=whole,
        member=member,
    )


def known_of(run: ResolvedJob, member: Member) -> ResolvedJob:
    """A run with what is known of the member's images alone."""
    return replace(run, facts=replace(run.facts, known=run.facts.known.of_images(member.tilts)))


def turned_back(volume: NDArray[np.float32], member: Member) -> NDArray[np.float32]:
    """A member's volume ``(z, y, x)`` as that of the series lies; a view."""
    return np.flip(volume, member.axes) if member.axes else volume
