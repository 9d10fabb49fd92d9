"""Two decoders that teach each other on slice sequences: ECT-3DMedSAM."""
