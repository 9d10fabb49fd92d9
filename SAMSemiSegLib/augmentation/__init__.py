"""One 3D augmentation per volume or crop."""
