"""Diffusion: noise, the schedule by which it is added and taken away, and boxes of a slice."""
