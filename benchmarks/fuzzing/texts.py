"""Small valid files of text that are damaged by fuzz.py."""

ALN = """# AreTomo Alignment / Priims bprmMn
# RawSize = 48 40 4
# NumPatches = 0
# DarkFrame = 3 3 60.00
# AlphaOffset = 0.00
# BetaOffset = 0.00
# SEC ROT GMAG TX TY SMEAN SFIT SCALE BASE TILT
 0 84.1 1.0 1.5 -2.5 1.0 1.0 1.0 0.0 -20.0
 1 84.1 1.0 0.5 -1.5 1.0 1.0 1.0 0.0 0.0
 2 84.1 1.0 -1.5 2.5 1.0 1.0 1.0 0.0 20.0
# Local Alignment
 0 0 10.0 10.0 0.1 0.1 1
"""
NEWST = """# newst.com
$newstack -StandardInput
InputFile ts.st
OutputFile ts_ali.mrc
TransformFile ts.xf
OffsetsInXandY 0,0
BinByFactor 2
ImagesAreBinned 1.0
SizeToOutputInXandY 20,24
"""
TILT = """$setenv IMOD_OUTPUT_FORMAT MRC
$tilt -StandardInput
InputProjections ts_ali.mrc
OutputFile ts_full_rec.mrc
IMAGEBINNED 2
TILTFILE ts.tlt
XTILTFILE ts.xtilt
THICKNESS 100
FULLIMAGE 48 40
SUBSETSTART 0 0
OFFSET 1.5
SHIFT 0.0 -3.0
XAXISTILT 0.5
EXCLUDELIST 1,3-4
LOCALFILE tslocal.xf
$if (-e ./savework) ./savework
"""
STAR = """data_ts_01

loop_
_rlnMicrographName #1
_rlnTomoXTilt #2
_rlnTomoYTilt #3
_rlnTomoZRot #4
_rlnTomoXShiftAngst #5
_rlnTomoYShiftAngst #6
1@ts.mrc 0.0 -20.0 84.1 5.5 -3.5
2@ts.mrc 0.0 0.0 84.1 1.5 -2.5
3@ts.mrc 0.0 20.0 84.1 -5.5 3.5
"""
TOMOGRAMS = """data_global

loop_
_rlnTomoName #1
_rlnVoltage #2
_rlnTomoTiltSeriesPixelSize #3
_rlnTomoTiltSeriesStarFile #4
_rlnTomoSizeX #5
_rlnTomoSizeY #6
_rlnTomoSizeZ #7
ts_01 300.0 5.0 tilt_series/ts_01.star 48 40 20
'ts 02' 300.0 5.0 "tilt_series/ts 02.star" 48 40 20
"""
SERIES = """data_global

loop_
_rlnTomoName #1
_rlnTomoTiltSeriesPixelSize #2
_rlnTomoSizeX #3
_rlnTomoSizeY #4
_rlnTomoSizeZ #5
ts_01 5.0 48 40 20
ts_02 5.0 48 40 20

"""
PARTICLES = """data_particles

loop_
_rlnTomoName #1
_rlnCenteredCoordinateXAngst #2
_rlnCenteredCoordinateYAngst #3
_rlnCenteredCoordinateZAngst #4
_rlnClassNumber #5
ts_01 10.5 -20.5 30.0 1
ts_01 -10.5 20.5 -30.0 2
"""
UNBINNED_PARTICLES = """data_optics

loop_
_rlnOpticsGroup #1
_rlnTomoTiltSeriesPixelSize #2
_rlnImagePixelSize #3
1 2.5 10.0
2 2.7 10.0

data_particles

loop_
_rlnMicrographName #1
_rlnCoordinateX #2
_rlnCoordinateY #3
_rlnCoordinateZ #4
_rlnOriginXAngst #5
_rlnOriginYAngst #6
_rlnOriginZAngst #7
_rlnTomoSubtomogramRot #8
_rlnTomoSubtomogramTilt #9
_rlnTomoSubtomogramPsi #10
_rlnOpticsGroup #11
ts_01.tomostar 10.5 20.5 30.0 1.5 -2.5 3.0 10.0 20.0 30.0 1
ts_02.tomostar 11.5 21.5 31.0 0.0 0.0 0.0 0.0 0.0 0.0 2
"""
WARP = """<?xml version="1.0" encoding="utf-8"?>
<TiltSeries DataDirectory="" AreAnglesInverted="True" LevelAngleX="0" LevelAngleY="0">
  <Angles>-20
0
20</Angles>
  <AxisAngle>84
84
84</AxisAngle>
  <AxisOffsetX>1.5
2.5
-3</AxisOffsetX>
  <AxisOffsetY>0
0
1</AxisOffsetY>
  <UseTilt>True
True
False</UseTilt>
  <GridMovementX Width="1" Height="1" Depth="1"><Node X="0" Y="0" Z="0" Value="0.5" /></GridMovementX>
</TiltSeries>
"""
TOMOSTAR = """data_

loop_
_wrpMovieName #1
_wrpAngleTilt #2
_wrpAxisAngle #3
_wrpDose #4
a.mrc -20.0 84.0 0.0
b.mrc 0.0 84.0 3.0
c.mrc 20.0 84.0 6.0
"""
MDOC = """PixelSpacing = 5
Voltage = 300
ImageFile = ts.mrc
ImageSize = 48 40
DataMode = 2

[T = SerialEM: a session]

[ZValue = 0]
TiltAngle = -20.01
ExposureDose = 3.0
DateTime = 01-Jan-2026  12:00:00

[ZValue = 1]
TiltAngle = 0.02
DateTime = 01-Jan-26  12:01:00

[ZValue = 2]
TiltAngle = 20.0
SubFramePath = X:\\frames\\a b.tif
"""
SETTINGS = """# settings
method: fbp
thickness: 120
bin: 2
pixel-size: 2.5
contrast: dark
tilt_axis: -3.5
"""
LIST = """tilts,angles,output,thickness,pixel_size
a.mrc,a.tlt,a_rec.mrc,100,2.5
"b, c.mrc",b.tlt,,,
ü.mrc,ü.tlt,ü_rec.mrc,50,
"""
PDB = """ATOM      1  N   ALA A   1      11.104   6.134  -6.504  1.00  0.00           N
ATOM      2  CA  ALA A   1      11.639   6.071  -5.147  1.00  0.00           C
HETATM    3  O   HOH A   2      13.559   7.086  -4.000  1.00  0.00           O
END
"""

# AreTomo's local alignment, IMOD's, RELION-5's deformations, Warp's grids
PATCHES = (
    ALN.partition("# Local Alignment")[0]
    + """# Local Alignment
 0 0 -10.0 10.0 0.5 0.1 1.0
 0 1 10.0 -10.0 0.1 -0.4 1.0
 1 0 -10.0 10.0 0.1 0.1 1.0
 2 0 -10.0 10.0 0.1 0.1 0.0
"""
)
LOCAL = (
    """ 2 2 12.0 10.0 24.0 20.0 1 5.0 0
0.1 0.0 -0.1
0.0 0.0 0.0
1.0 0.0 0.0 1.0 0.5 -0.5
1.0 0.01 -0.01 1.0 0.0 0.0
1.0 0.0 0.0 1.0 -0.5 0.5
"""
    + 3
    * """0.0 0.0 0.0
0.0 0.1 0.0
1.0 0.0 0.0 1.0 0.0 0.0
1.0 0.0 0.0 1.0 0.5 0.5
1.0 0.0 0.0 1.0 0.0 0.0
"""
)
DEFORMED = """data_global

loop_
_rlnTomoName #1
_rlnTomoTiltSeriesPixelSize #2
_rlnTomoSizeX #3
_rlnTomoSizeY #4
_rlnTomoSizeZ #5
_rlnTomoDeformationGridSizeX #6
_rlnTomoDeformationGridSizeY #7
_rlnTomoDeformationType #8
_rlnVoltage #9
_rlnSphericalAberration #10
_rlnAmplitudeContrast #11
_rlnTomoHand #12
ts_01 5.0 48 40 20 {grid} {kind} 300.0 2.7 0.1 -1

data_ts_01

loop_
_rlnMicrographName #1
_rlnTomoXTilt #2
_rlnTomoYTilt #3
_rlnTomoZRot #4
_rlnTomoXShiftAngst #5
_rlnTomoYShiftAngst #6
_rlnTomoDeformationCoefficients #7
_rlnMicrographPreExposure #8
_rlnDefocusU #9
_rlnDefocusV #10
_rlnDefocusAngle #11
_rlnPhaseShift #12
1@ts_01.mrc 0.0 -20.0 84.1 5.5 -3.5 [{first}] 3.0 30000 29000 45 0
2@ts_01.mrc 0.0 0.0 84.1 1.5 -2.5 [{first}] 0.0 31000 30000 45 0
3@ts_01.mrc 0.0 20.0 84.1 -5.5 3.5 [{first}] 6.0 32000 31000 45 0
"""
LINEAR = DEFORMED.format(grid="1 1", kind="linear", first="0.01,-0.02,0.03")
SPLINE = DEFORMED.format(grid="2 2", kind="spline", first=",".join(["0.5"] * 32))
FOURIER = DEFORMED.format(grid="2 2", kind="Fourier", first=",".join(["0.5"] * 12))


def _grid(name: str, sizes: str, nodes: list[str]) -> str:
    return f"<{name} {sizes}>{''.join(f'<Node {node} />' for node in nodes)}</{name}>"


WARP_GRIDS = WARP.partition("  <GridMovementX")[0] + "\n".join(
    [
        "<Dose>3\n0\n6</Dose>",
        '<CTF><Param Name="Voltage" Value="300" /><Param Name="Cs" Value="2.7" />',
        '<Param Name="Amplitude" Value="0.1" />',
        '<Param Name="Defocus" Value="3" /><Param Name="PhaseShift" Value="0.25" /></CTF>',
        _grid("GridCTF", 'Width="1" Height="1" Depth="3"', [f'X="0" Y="0" Z="{z}" Value="{3 + z}"' for z in range(3)]),
        *(
            _grid(
                f"GridMovement{axis}",
                'Width="2" Height="2" Depth="3"',
                [f'X="{x}" Y="{y}" Z="{z}" Value="{x - y + z}"' for z in range(3) for y in (0, 1) for x in (0, 1)],
            )
            for axis in "XY"
        ),
        *(
            _grid(
                f"GridVolumeWarp{axis}",
                'Width="2" Height="1" Depth="1" Duration="2"',
                [f'X="{x}" Y="0" Z="0" W="{w}" Value="{x + w}"' for w in (0, 1) for x in (0, 1)],
            )
            for axis in "XYZ"
        ),
        "</TiltSeries>",
    ]
).replace("\n</TiltSeries>", "</TiltSeries>")
WARP_GRIDS = WARP_GRIDS.replace(
    'DataDirectory=""', 'DataDirectory="" ImageDimensionsAngstrom="240, 200" VolumeDimensionsAngstrom="240, 200, 100"'
)

# Contrast transfer functions
CTFFIND = """# Output from CTFFind version 4.1.14, run on 2026-01-01 00:00:00
# Pixel size: 2.0 Angstroms ; acceleration voltage: 300.0 keV ; spherical aberration: 2.70 mm ; amplitude contrast: 0.07
# Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; #3 - defocus 2; #4 - azimuth of astigmatism; #5 - phase
1.000000 30000.0 29000.0 45.0 0.0 0.10 12.0
2.000000 31000.0 30000.0 45.0 0.0 0.10 12.0
3.000000 32000.0 31000.0 45.0 1.5 0.10 12.0
"""
ARETOMO_CTF = """# Columns: #1 micrograph number; #2 - defocus 1 [A]; #3 - defocus 2; #4 - azimuth; #5 - dfHand
 1 30000.0 29000.0 45.0 0.0 0.10 12.0 1
 2 31000.0 30000.0 45.0 0.0 0.10 12.0 1
 3 32000.0 31000.0 45.0 0.0 0.10 12.0 1
"""
DEFOCUS_1 = "0 1 -20.0 0.0 3000.0\n1 2 0.0 20.0 3400.0\n"
DEFOCUS_2 = "1 2 -20.0 0.0 3000.0 2\n2 3 0.0 20.0 3400.0\n"
DEFOCUS_3 = """37 0 0. 0. 0. 3
1 1 -20.0 -20.0 3000 2900 45.0 90.0 0.02
2 2 0.0 0.0 3000 2900 45.0 90.0 0.02
3 3 20.0 20.0 3000 2900 45.0 90.0 0.02
"""

POINTS = """{"type": "orientedPoint", "location": {"x": 10.5, "y": 20.0, "z": 3.0}, "xyz_rotation_matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}
{"type": "point", "location": {"x": 1, "y": 2, "z": 4}}
"""  # noqa: E501

# Configuration of a model as its authors publish it
PUBLISHED = """{
 "seed": 42,
 "data": {
  "n_projections": null
 },
 "filter_projections": true,
 "use_2D_filters": false,
 "model": {
  "type": "SliceSet",
  "slice_index": 2,
  "compare_index": 3,
  "learn_residual": false,
  "set_skip_connection": true,
  "set_bias": false,
  "radon_bias": false,
  "learned_positional_encoding": false,
  "learned_positional_encoding_use_softmax": true,
  "slice_transformer_avg_pooling": true,
  "slice_transformer_positional_encoding_size": 6,
  "sice_transformer_transformer_positional_encoding_add_angle": false,
  "sice_transformer_positional_encoding_mult_angle": true,
  "slice_mlp_skip_connection": true,
  "slice_mlp_bias": false,
  "combine_dropout": 0,
  "combine_batch_norm": false,
  "combine_learn_residual": false,
  "combine_skip_connection": true,
  "combine_mlp_bias": false,
  "output_size": 1,
  "patch_size": 5,
  "mlp_output": 3,
  "set_input": 6,
  "set_hidden_size": 7,
  "set_output": 8,
  "set_num_layers": 2,
  "slice_mlp_hidden_size": 9,
  "slice_mlp_num_layers": 2,
  "combine_mlp_hidden": 10,
  "combine_mlp_layers": 3
 },
 "ramp": {
  "type": "VectorModel_real",
  "use_learnable_ramp": false,
  "model": {
   "init": "cosine",
   "size": 17
  }
 },
 "training": {
  "lr": 0.0001,
  "use_angle": true,
  "learn_patch_scale": false,
  "patch_scale_init": 1,
  "use_wavelet_trainer": false,
  "wavelet": "bior3.1",
  "wavelet_levels": 1
 }
}
"""
