"""Common orientation, spacing and intensity, and the exact way back."""
