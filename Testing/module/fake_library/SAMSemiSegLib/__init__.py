"""A library that misbehaves on demand, to test the runner with real processes."""
