"""The project folder: label set, cases and what is known of them."""
