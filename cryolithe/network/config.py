"""What a network is made of: the plain values that are stored beside its weights."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from cryolithe.errors import ModelError, SettingsError, nearest_name, shown
from cryolithe.filters import WINDOWS
from cryolithe.known import FACTS
from cryolithe.network.heads import BlockHead, Head
from cryolithe.sampling import Window

# Far above any useful size: a corrupt file must not make us allocate gigabytes before its weights are looked at.
MOST_UNITS = 8192
MOST_ROWS, MOST_LAYERS = 255, 32


@dataclass(frozen=True)
class InputWindow:
    """What a network sees of a detector row.

    Attributes:
        taps: samples of the fine window, one pixel apart, of the ramp-filtered row.
        ramp_window: window of the ramp filter (a key of `cryolithe.filters.WINDOWS`).
        context_taps: samples of a second, coarse window; 0 for none.
        context_step_px: distance of the coarse samples.
        context_sigma_px: standard deviation of the blur of the unfiltered row that the coarse window reads. The
            ramp removes what lies deep inside a large body; the context brings it back.
        unit_noise: scale each filtered row so that white noise of unit variance keeps it.
        oversampling: values per pixel of the filtered rows, 1 or 2. Windows are read by linear interpolation, which
            dampens what is near Nyquist, unevenly, unless the rows are sampled more finely first.
        bands: further fine windows, each of the row in a band an octave wide, the first from 1/4 cycle/px downwards.
        known: facts about a series that the network takes (keys of `cryolithe.known.FACTS`, in their order); any of
            them may be unknown for a series.

    Raises:
        SettingsError: if a value makes no window, or the filter or a fact is not known.
    """

    taps: int = 21
    ramp_window: str = "cosine"
    context_taps: int = 21
    context_step_px: int = 4
    context_sigma_px: float = 2.5
    unit_noise: bool = True
    oversampling: int = 1
    bands: int = 0
    known: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for fact in self.known:
            if fact not in FACTS:
                raise SettingsError(f"unknown fact '{fact}'{nearest_name(fact, FACTS)}; known: {', '.join(FACTS)}")
        if self.known != tuple(fact for fact in FACTS if fact in self.known):
            raise SettingsError(f"facts are listed once each, in the order {', '.join(FACTS)}; got {list(self.known)}")
        if self.oversampling not in (1, 2):
            raise SettingsError(f"rows are oversampled by 1 or 2, got {self.oversampling}")
        if self.taps < 1 or self.taps % 2 == 0:
            raise SettingsError(f"a window needs an odd number of taps, got {self.taps}")
        if self.context_taps and self.context_taps % 2 == 0:
            raise SettingsError(f"a context window needs an odd number of taps or 0, got {self.context_taps}")
        if self.context_step_px < 1 or self.context_sigma_px < 0:
            raise SettingsError("a context window needs a step of at least 1 px and a blur of at least 0 px")
        if self.ramp_window not in WINDOWS:
            raise SettingsError(f"unknown filter '{self.ramp_window}'{nearest_name(self.ramp_window, WINDOWS)}")

    @property
    def windows(self) -> tuple[Window, ...]:
        """The fine window and, if there is one, the context window."""
        fine, per_px = Window(self.taps, 1, self.oversampling), self.oversampling
        context = (Window(self.context_taps, self.context_step_px, per_px),) if self.context_taps else ()
        return (fine, *context, *[fine] * self.bands)

    @property
    def samples(self) -> int:
        """Samples per tilt and row."""
        return self.taps * (1 + self.bands) + self.context_taps


@dataclass(frozen=True)
class RowSetConfig:
    """`RowSet`: one row encoder shared by all rows, a combiner along y.

    Attributes:
        input: windows of the rows.
        head: what is returned.
        rows: rows that each output voxel sees (odd).
        channels: width of the map applied to each tilt's window.
        row_hidden: width of the row MLP.
        row_features: features of an encoded row.
        combiner_width: width of the combiner.
        combiner_layers: its hidden layers, the first one included.
        angle_harmonics: sine and cosine pairs of the angle encoding.
        weigh_spacing: tilts weigh by the range of angles they stand for; else only those that lie closer together than
            is usual share one's weight.
        trunk_units: residual units of `cryolithe.network.trunk.Trunk`, through which neighbouring blocks see each
            other; the combiner is then one linear map. 0 for none: every block by itself.

    Raises:
        SettingsError: if the number of rows is even, or the trunk has too many units.
    """

    input: InputWindow = InputWindow()
    head: BlockHead = field(default_factory=Head)
    rows: int = 21
    channels: int = 128
    row_hidden: int = 256
    row_features: int = 64
    combiner_width: int = 256
    combiner_layers: int = 3
    angle_harmonics: int = 4
    weigh_spacing: bool = False
    trunk_units: int = 0

    def __post_init__(self) -> None:
        if self.rows < 1 or self.rows % 2 == 0:
            raise SettingsError(f"RowSet sees an odd number of rows, got {self.rows}")
        if self.trunk_units > MOST_LAYERS:
            raise SettingsError(f"a trunk has at most {MOST_LAYERS} units, got {self.trunk_units}")

    @property
    def trunk_spacings(self) -> tuple[int, ...]:
        """Distance, in blocks, of what the first convolution of each unit of the trunk reads: 1, 2, ... 2, 1."""
        return tuple(1 if unit in (0, self.trunk_units - 1) else 2 for unit in range(self.trunk_units))

    @property
    def trunk_reach(self) -> int:
        """Blocks, each way along every axis, that an output depends on beside its own."""
        return sum(spacing + 1 for spacing in self.trunk_spacings)


@dataclass(frozen=True)
class SliceSetConfig:
    """`SliceSet`: the published architecture (paper, section 3.4), one encoder for each row of the patch.

    Attributes:
        input: windows of the rows; the paper has no context window.
        head: what is returned.
        rows: rows of the patch; heads of 2 or 4 voxels see 1 or 3 rows more.
        channels: width of a tilt's features (and of the angle encoding).
        set_hidden: width of the hidden layers of the MLP applied to each tilt.
        set_layers: their number.
        set_features: features of a tilt that are averaged.
        row_hidden: width of the hidden layers of the MLP applied to the average.
        row_layers: their number.
        row_features: features of a row.
        combiner_width: width of the hidden layers of the MLP that joins the rows.
        combiner_layers: their number.
        skip: hidden layers after the first add their input to their output.

    Raises:
        SettingsError: if it has facts about a series, no set-MLP, or an odd number of channels.
    """

    input: InputWindow = InputWindow(context_taps=0, unit_noise=False)
    head: BlockHead = field(default_factory=Head)
    rows: int = 21
    channels: int = 128
    set_hidden: int = 512
    set_layers: int = 1
    set_features: int = 512
    row_hidden: int = 512
    row_layers: int = 3
    row_features: int = 64
    combiner_width: int = 512
    combiner_layers: int = 5
    skip: bool = True

    @property
    def trunk_reach(self) -> int:
        """Blocks that an output depends on beside its own: none."""
        return 0

    def __post_init__(self) -> None:
        if self.input.known:
            raise SettingsError(f"SliceSet takes no facts about a series, got known: {list(self.input.known)}")
        if self.set_layers < 1:
            raise SettingsError(f"SliceSet needs a hidden layer or more in its set-MLP, got {self.set_layers}")
        if self.channels % 2:
            raise SettingsError(f"SliceSet needs an even number of channels (sines and cosines), got {self.channels}")


NetworkConfig = RowSetConfig | SliceSetConfig

KINDS: dict[str, type[RowSetConfig] | type[SliceSetConfig]] = {"RowSet": RowSetConfig, "SliceSet": SliceSetConfig}


def config_to_dict(config: NetworkConfig) -> dict[str, Any]:
    """Plain values of a configuration, with its ``kind``; facts are not mentioned where a network takes none."""
    kind = next(name for name, cls in KINDS.items() if cls is type(config))
    values = {"kind": kind, **asdict(config)}
    if not isinstance(config.head, Head):
        values["head"] = {"kind": config.head.kind, **values["head"]}
    known = values["input"].pop("known")
    if known:
        values["input"]["known"] = list(known)
    return values


def config_from_dict(values: dict[str, Any]) -> NetworkConfig:
    """Inverse of `config_to_dict`.

    Raises:
        ModelError: for an unknown kind, an unknown key (the nearest known one is named) or a value of wrong type or
            out of range.
    """
    if not isinstance(values, dict):
        raise ModelError(f"a network configuration must be a table of values, got {shown(values)}")
    kind = values.get("kind")
    if kind is None:
        raise ModelError(f"a network configuration lacks its 'kind'; give {' or '.join(KINDS)}")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelError(f"unknown network kind {kind!r}; this version knows {', '.join(KINDS)}")
    plain = {key: value for key, value in values.items() if key != "kind"}
    nested: dict[str, Any] = {}
    if "input" in plain:
        nested["input"] = _build(InputWindow, plain.pop("input"), "input")
    if "head" in plain:
        nested["head"] = _head(plain.pop("head"))
    return _build(KINDS[kind], plain, kind, **nested)


def _head(values: Any) -> BlockHead:
    """The head of a table; one without a kind is of wavelets."""
    kind = values.get("kind", Head.kind) if isinstance(values, dict) else Head.kind
    if not isinstance(kind, str) or kind not in BlockHead.known:
        raise ModelError(f"unknown kind of head {shown(kind)}; this version knows {', '.join(BlockHead.known)}")
    if isinstance(values, dict):
        values = {key: value for key, value in values.items() if key != "kind"}
    head: BlockHead = _build(BlockHead.known[kind], values, "head")
    return head


def _build(cls: Any, values: Any, where: str, **parts: Any) -> Any:
    """Make a config dataclass from plain values, strictly, and from parts that are made already."""
    if not isinstance(values, dict):
        raise ModelError(f"'{where}' of a network configuration must be a table of values, got {shown(values)}")
    known = {one.name: one for one in fields(cls)}
    plain = dict(values)
    for key, value in values.items():
        if key not in known:
            raise ModelError(f"unknown key '{key}' in network configuration '{where}'{nearest_name(key, known)}")
        default = known[key].default
        if isinstance(default, tuple):
            if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
                raise ModelError(f"'{key}' in '{where}' must be a list of names, got {shown(value)}")
            plain[key] = tuple(value)
            continue
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            continue
        if type(value) is not type(default):
            raise ModelError(f"'{key}' in '{where}' must be {type(default).__name__}, got {shown(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ModelError(f"'{key}' in '{where}' must be a finite number, got {shown(value)}")
        most = MOST_ROWS if key == "rows" else MOST_LAYERS if key.endswith("_layers") else MOST_UNITS
        if type(value) is int and not 0 <= value <= most:
            raise ModelError(f"'{key}' in '{where}' must lie within 0 ... {most}, got {shown(value)}")
    try:
        return cls(**plain, **parts)
    except SettingsError as error:
        raise ModelError(f"'{where}' of a network configuration: {error}") from error
