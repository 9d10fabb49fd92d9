"""Reading, checking and writing volumes; the only place that knows file formats."""
