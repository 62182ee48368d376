"""CryoLithe: local networks from an aligned cryo-ET tilt series to a clean tomogram."""

__version__ = "0.1.0"
