"""A run: its program, what it needs before its first step, the loop, and what it leaves behind."""
