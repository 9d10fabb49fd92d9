"""Ways to make a frozen encoder trainable with few parameters."""
