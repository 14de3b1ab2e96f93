"""Pure train steps: (state, teacher, batch) -> (state, metrics)."""
