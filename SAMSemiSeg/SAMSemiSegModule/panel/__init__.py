"""The panel: five sections from top to bottom, the way the work goes."""
