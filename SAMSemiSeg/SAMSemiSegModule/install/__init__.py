"""What the library needs inside Slicer, and how it gets there."""
