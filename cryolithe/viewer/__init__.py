"""Results in napari (``cryolithe[napari]``): what is shown of a file, and a block made at a point.

Only `cryolithe.viewer.widget` needs napari and Qt; all else are functions that return napari's layers as plain tuples.
"""
