"""MRML to project files and back."""
