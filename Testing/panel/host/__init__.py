"""A small host that runs the Slicer module without a Slicer: MRML is Slicer's own (slicer-core),
Qt is PySide6 made to behave as PythonQt, the rest are stand-ins."""
