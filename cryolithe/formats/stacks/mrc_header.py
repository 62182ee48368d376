"""The 1024 bytes at the start of an MRC file: making sense of foreign ones, building our own.

Format: https://www.ccpem.ac.uk/mrc_format/mrc2014.php
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mrcfile import utils
from mrcfile.dtypes import HEADER_DTYPE
from numpy.typing import NDArray

from cryolithe.errors import FileFormatError
from cryolithe.formats.files import printable

ByteOrder = Literal["<", ">"]
HEADER_BYTES = 1024
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_CONVERT = "convert it, for instance with IMOD's newstack -mode 2"
_TRANSFORM = "which are a Fourier transform: give the images themselves"
# mode -> what it holds, and what to do.
REFUSED_MODES = {
    3: ("complex 16-bit integers", _TRANSFORM),
    4: ("complex 32-bit floats", _TRANSFORM),
    7: ("32-bit integers", _CONVERT),
    16: ("RGB colours of three bytes", "convert it to grey values, for instance with IMOD's clip splitrgb"),
    101: ("4-bit integers", _CONVERT),
}
HIGHEST_MODE = 127  # what is higher is no mode of any program, but damage
VOLUME_STACK_SPACE_GROUPS = range(401, 631)
# Word 39 of files written by IMOD; bit 0 of word 40 then says that bytes are signed, bit 4 that each holds two pixels.
IMOD_STAMP = 1146047817
LARGEST_AXIS_PX = 2**24
MOST_LABELS = 10
_OTHER_KINDS = {b"\x89HDF\r\n\x1a\n": "an HDF5 file", b"\x93NUMPY": "a NumPy array"}  # by how they begin
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # frames as EER are BigTIFF


@dataclass(frozen=True)
class Header:
    """The 1024 bytes, read in one byte order; nothing in them is trusted yet."""

    raw: bytes
    order: ByteOrder

    @property
    def fields(self) -> Any:
        """The record with mrcfile's field names."""
        return np.frombuffer(self.raw, HEADER_DTYPE.newbyteorder(self.order))[0]

    def ints(self, *names: str) -> tuple[int, ...]:
        """Return fields as Python integers, which do not overflow."""
        fields = self.fields
        return tuple(int(fields[name]) for name in names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels as stored: ``(sections, rows, columns)``."""
        return self.ints("nz", "ny", "nx")

    @property
    def mode(self) -> int:
        """MRC mode: which dtype the values have."""
        return self.ints("mode")[0]

    @property
    def data_offset(self) -> int:
        """Byte at which the values start."""
        return HEADER_BYTES + self.ints("nsymbt")[0]

    @property
    def axes(self) -> tuple[int, ...]:
        """Which axis (1 x, 2 y, 3 z) the sections, rows and columns run along."""
        return self.ints("maps", "mapr", "mapc")

    @property
    def sized(self) -> bool:
        """Whether sizes and extended header are possible at all."""
        return all(0 < n <= LARGEST_AXIS_PX for n in self.shape) and self.data_offset >= HEADER_BYTES

    @property
    def plausible(self) -> bool:
        """Whether sizes, mode and extended header are possible at all."""
        return self.sized and (self.mode in MODES or self.mode in REFUSED_MODES)

    @property
    def end(self) -> int:
        """Bytes that a whole file has; of the data, only one byte per pixel is asked for in a refused mode."""
        return self.data_offset + math.prod(self.shape) * np.dtype(MODES.get(self.mode, "i1")).itemsize

    @property
    def imod_stamp(self) -> bool:
        """Whether IMOD wrote it, which says whether its bytes are signed."""
        return bool(np.frombuffer(self.raw, f"{self.order}i4", count=1, offset=152)[0] == IMOD_STAMP)

    @property
    def unsigned_bytes(self) -> bool:
        """Whether IMOD wrote mode 0 before MRC2014 made it signed."""
        return self.mode == 0 and self.imod_stamp and not self._imod_flags & 1

    @property
    def packed_bytes(self) -> bool:
        """Whether IMOD's flags say that each byte of mode 0 holds two pixels of 4 bits."""
        return self.mode == 0 and bool(self._imod_flags & 16)

    @property
    def ctf_corrected(self) -> bool:
        """Whether IMOD's flags say that the CTF was corrected."""
        return bool(self._imod_flags & 32)

    @property
    def _imod_flags(self) -> int:
        """Word 40 of what IMOD wrote; 0 of other programs' files, which may hold anything there."""
        return int(np.frombuffer(self.raw, f"{self.order}i4", count=1, offset=156)[0]) if self.imod_stamp else 0


def byte_orders(raw: bytes | bytearray) -> tuple[tuple[ByteOrder, ByteOrder], bool]:
    """Return the byte orders, the likelier first, and whether the machine stamp names it."""
    try:
        stamped = utils.byte_order_from_machine_stamp(np.frombuffer(raw, HEADER_DTYPE)[0]["machst"])
    except ValueError:
        return ("<", ">"), False
    return (("<", ">") if stamped == "<" else (">", "<")), True


def of_other_kind(path: Path, raw: bytes) -> str:
    """What a file is that begins as those of another format, and what to do; empty for any other beginning."""
    for start, kind in _OTHER_KINDS.items():
        if raw.startswith(start):
            return (
                f"{path} is {kind}, but images and volumes are read from MRC files: convert it (EMAN2's e2proc2d.py "
                "and e2proc3d.py, or mrcfile in Python)"
            )
    if not raw.startswith(_TIFF):
        return ""
    if path.suffix.lower() == ".eer":
        return (
            f"{path} holds the frames of one exposure (EER), no tilt series: correct their motion (MotionCor3, "
            "RELION, Warp), and give the stack of the images"
        )
    return (
        f"{path} is a TIFF file, but images are read from MRC files, whose rows begin at the bottom: convert it "
        f"(IMOD: tif2mrc {path.name} {path.stem}.mrc)"
    )


def has_map_stamp(raw: bytes) -> bool:
    """Return whether the bytes carry the mark of MRC files since 2000."""
    return raw[208:211] == b"MAP"


def understand(raw: bytes, size: int, path: Path) -> Header:
    """Return the header in the byte order that makes sense for a file of ``size`` bytes.

    Raises:
        FileFormatError: if it makes sense in neither, or promises what cannot be read here.
    """
    headers = [Header(raw, order) for order in byte_orders(raw)[0]]
    plausible = [header for header in headers if header.plausible]
    if not has_map_stamp(raw):
        # Old files have no stamp; then the axis numbers or the exact length must speak for an MRC file.
        plausible = [h for h in plausible if sorted(h.axes) == [1, 2, 3] or h.end == size]
        if not plausible:
            raise FileFormatError(
                f"{path} is not an MRC file: it has no MAP stamp, and its header and its {size} bytes do not fit "
                "together; give an MRC file (.mrc, .st, .ali, .rec, .map)"
            )
    if not plausible:
        for header in headers:
            if header.sized and 0 <= header.mode <= HIGHEST_MODE and header.end <= size:
                raise FileFormatError(
                    f"{path} holds values of MRC mode {header.mode}, which is not known here; expected mode "
                    f"{', '.join(map(str, MODES))}; {_CONVERT}"
                )
        nz, ny, nx = headers[0].shape
        raise FileFormatError(
            f"{path} is damaged: its header gives {nx} × {ny} × {nz} pixels, mode {headers[0].mode} and an extended "
            f"header of {headers[0].data_offset - HEADER_BYTES} bytes, expected positive sizes and a mode of "
            f"{', '.join(map(str, MODES))}; write the file again"
        )
    # False sorts before True: whole files first, of these the exact length, of these the stamped byte order.
    header = min(plausible, key=lambda h: (h.end > size, h.end != size))
    if header.mode in REFUSED_MODES or header.packed_bytes:
        what, remedy = REFUSED_MODES[101 if header.packed_bytes else header.mode]
        flagged = ", two of them in a byte by IMOD's flag 16" if header.packed_bytes else ""
        raise FileFormatError(
            f"{path} holds {what} (MRC mode {header.mode}{flagged}); expected real values (mode "
            f"{', '.join(map(str, MODES))}); {remedy}"
        )
    if header.ints("ispg")[0] in VOLUME_STACK_SPACE_GROUPS:
        raise FileFormatError(
            f"{path} is a stack of volumes (space group {header.ints('ispg')[0]}); expected one volume or tilt stack"
        )
    if header.end > size:
        raise FileFormatError(
            f"{path} is truncated: its header promises {header.end} bytes, found {size}; copy or write the file again"
        )
    return header


@dataclass(frozen=True)
class VolumeStatistics:
    """What an MRC header says about the values.

    Attributes:
        minimum: smallest value.
        maximum: largest value.
        mean: mean value.
        rms: root mean square deviation from the mean.
    """

    minimum: float
    maximum: float
    mean: float
    rms: float


# How MRC2014 says "not computed": dmax < dmin, dmean below both, negative rms.
NOT_COMPUTED = VolumeStatistics(0.0, -1.0, -2.0, -1.0)


def volume_header(
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    statistics: VolumeStatistics,
    label: str | tuple[str, ...],
    voxel_size_angstrom: float | None,
) -> NDArray[Any]:
    """Return a little-endian MRC2014 header for a volume, as an array of one record.

    Of several labels the last 10 are kept: the newest stand at the end.
    """
    header = np.zeros(1, HEADER_DTYPE.newbyteorder("<"))
    record = header[0]
    for axis, size in zip("zyx", shape, strict=True):
        record[f"n{axis}"] = record[f"m{axis}"] = size
        record["cella"][axis] = size * (voxel_size_angstrom or 0.0)
    record["mode"] = utils.mode_from_dtype(dtype)
    record["cellb"] = (90, 90, 90)
    record["mapc"], record["mapr"], record["maps"] = 1, 2, 3
    record["ispg"] = 1
    record["nversion"] = 20141
    record["map"] = b"MAP "
    record["machst"] = utils.machine_stamp_from_byte_order("<")
    _set_statistics(record, statistics)
    given = (label,) if isinstance(label, str) else label
    texts = [text for text in (printable(one).encode("ascii", errors="replace")[:80] for one in given) if text]
    record["nlabl"] = len(texts[-MOST_LABELS:])
    for number, text in enumerate(texts[-MOST_LABELS:] or [b""]):
        record["label"][number] = text.ljust(80)
    return header


def _set_statistics(record: Any, statistics: VolumeStatistics) -> None:
    values = (statistics.minimum, statistics.maximum, statistics.mean, statistics.rms)
    if not all(abs(value) <= float(np.finfo(np.float32).max) for value in values):  # also True for NaN
        values = (NOT_COMPUTED.minimum, NOT_COMPUTED.maximum, NOT_COMPUTED.mean, NOT_COMPUTED.rms)
    record["dmin"], record["dmax"], record["dmean"], record["rms"] = values
