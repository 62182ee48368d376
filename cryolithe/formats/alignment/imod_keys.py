"""Every key of IMOD's ``newstack`` and ``tilt``, and what is done here when a command file holds it.

Sources: the option lists in IMOD's manual pages and autodocs of both programs, up to IMOD 5. A key is

- ``used``: read here (`cryolithe.formats.alignment.imod`),
- ``harmless``: it changes nothing that is made here: names of outputs, filters and scaling of IMOD's own output, speed,
- ``ignored``: it changes the values of IMOD's result or the order of its axes, not where matter lies; named in a note,
- ``refused``: it changes which images are taken or where matter lies, in a way that is not imitated here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fate = Literal["used", "harmless", "ignored", "refused"]


@dataclass(frozen=True)
class Key:
    """A key of a command.

    Attributes:
        name: as the manual page writes it.
        short: the other name, or "".
        flag: it stands alone; other keys have a value.
        fate: what is done here.
        neutral: numbers with which it does nothing.
    """

    name: str
    short: str = ""
    flag: bool = False
    fate: Fate = "harmless"
    neutral: frozenset[float] = frozenset()


_OFF = frozenset({0.0})


def _keys(fate: Fate, text: str, neutral: frozenset[float] = frozenset()) -> tuple[Key, ...]:
    """Keys of a text: words ``Name`` or ``short:Name``; those that stand alone end in ``!``."""
    found = []
    for word in text.split():
        short, colon, name = word.rpartition(":")
        flag = name.endswith("!")
        found.append(
            Key(name.rstrip("!"), short if colon else "", flag, fate, neutral | (_OFF if flag else frozenset()))
        )
    return tuple(found)


TILT: tuple[Key, ...] = (
    *_keys(
        "used",
        "TILTFILE XTILTFILE LOCALFILE LOCALSCALE WIDTH SLICE TOTALSLICES THICKNESS OFFSET SHIFT ANGLES XAXISTILT "
        "FULLIMAGE SUBSETSTART IMAGEBINNED INCLUDE EXCLUDELIST2 input:InputProjections",
    ),
    *_keys(
        "harmless",
        "output:OutputFile BoundaryInfoFile RADIAL FalloffIsTrueSigma! "
        "MultiplyByGaussian! HammingLikeFilter COSINTERP XTILTINTERP UseGPU ActionIfGPUFails MODE SCALE PERPENDICULAR! "
        "AdjustOrigin! TITLE BaseNumViews MinMaxMean StartingIteration VertBoundaryFile VertSliceOutputFile "
        "VertForSIRTInput! AngleOutputFile AlignTransformFile DefocusFile PixelForDefocus SkipTurnedOffPoints! DONE! "
        "FBPINTERP debug:DebugOutput! internal:InternalSIRTSlices texture:TextureType SuperSampleFactor "
        "ExpandInputLines! help:usage!",
    ),
    *_keys(
        "ignored",
        "WeightAngleFile WeightFile LOG DENSWEIGHT ExactFilterSize MASK PARALLEL! RotateBy90! FakeSIRTiterations "
        "FlatFilterFraction SIRTIterations ConstrainSign",
    ),
    *_keys("refused", "COMPFRACTION", frozenset({1.0})),
    *_keys(
        "refused",
        "ZFACTORFILE COMPRESS BaseRecFile SubtractFromBase REPROJECT ViewsToReproject recfile:RecFileToReproject "
        "xminmax:XMinAndMaxReproj yminmax:YMinAndMaxReproj zminmax:ZMinAndMaxReproj threshold:ThresholdedReproj "
        "SIRTSubtraction! ProjectModel REPLICATE param:ParameterFile",
    ),
)

NEWSTACK: tuple[Key, ...] = (
    *_keys(
        "used",
        "input:InputFile output:OutputFile secs:SectionsToRead fromone:NumberedFromOne! exclude:ExcludeSections "
        "skip:SkipSectionIncrement offset:OffsetsInXandY xform:TransformFile shrink:ShrinkByFactor bin:BinByFactor "
        "size:SizeToOutputInXandY antialias:AntialiasFilter oddeven:AllowOddEvenChange!",
    ),
    *_keys(
        "harmless",
        "append:AppendExtension format:FormatOfOutputFile compression:HDFCompressionIndex 3d:Store3DVolumes "
        "chunk:ChunkSizesInXYZ mdoc:UseMdocFiles! remove:RemoveForMdocName addback:AddBackForMdocName "
        "pixel:PixelSizeFromMdoc! tilt:TiltAngleFile angle:AngleFileToReorder newangle:NewAngleOutputFile "
        "samesec:SameSectionsToRead! numout:NumberToOutput blank:BlankOutput! applyfirst:ApplyOffsetsFirst! "
        "phase:PhaseShiftFFT! noise:NoisePadForFFT! "
        # newstack reads the binning of its images for distortion fields alone, which are refused.
        "imagebinned:ImagesAreBinned fields:UseFields subarea:SubareaOffsetsXandY "
        "origin:AdjustOrigin! linear:LinearInterpolation! nearest:NearestNeighbor! mode:ModeToOutput "
        "bytes:BytesSignedInOutput strip:StripExtraHeader! fixrange:FixRangeIfNeeded rfparam:RangeFixingParams "
        "fill:FillValue taper:TaperAtFill memory:MemoryLimit test:TestLimits megasec:MaxMegaSections "
        "quiet:QuietOutput! print:PrintXYSizeAndExit! verbose:VerboseOutput help:usage!",
    ),
    *_keys(
        "ignored",
        "float:FloatDensities meansd:MeanAndStandardDeviation contrast:ContrastBlackWhite scale:ScaleMinAndMax "
        "map:MapFromRange multadd:MultiplyAndAdd",
        _OFF,
    ),
    *_keys("refused", "reorder:ReorderByTiltAngle rotate:RotateByAngle", _OFF),
    *_keys(
        "refused",
        "expand:ExpandByFactor ftreduce:FourierReduceByFactor ftexpand:FourierExpandByFactor",
        frozenset({0.0, 1.0}),
    ),
    *_keys(
        "refused",
        "fileinlist:FileOfInputs fileoutlist:FileOfOutputs reverse:ReverseInputFileOrder split:SplitStartingNumber "
        "volumes:VolumesToRead twodir:TwoDirectionTiltSeries! replace:ReplaceSections uselines:UseTransformLines "
        "onexform:OneTransformPerFile! distort:DistortionField gradient:GradientFile param:ParameterFile",
    ),
)

PROGRAMS = {"newstack": NEWSTACK, "newst": NEWSTACK, "tilt": TILT}


def find_keys(word: str, keys: tuple[Key, ...]) -> list[Key]:
    """The keys that a word can mean: the one of this name, or those that it abbreviates; upper and lower case alike."""
    wanted = word.lower()
    exact = [key for key in keys if wanted in (key.name.lower(), key.short.lower())]
    return exact or [key for key in keys if key.name.lower().startswith(wanted) or key.short.lower().startswith(wanted)]
