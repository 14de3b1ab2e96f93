"""What a run would need on devices that are not here: its program, compiled for them and read."""
