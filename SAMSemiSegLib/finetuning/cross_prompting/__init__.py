"""Two decoders that prompt each other with points: CPC-SAM and CPAC-SAM."""
