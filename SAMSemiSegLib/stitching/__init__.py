"""A volume's slices as one large canvas, and the way back."""
