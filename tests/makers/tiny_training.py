"""What makes a training of the test cohort take seconds."""

SMALL = ["--frame_size", "24", "--sequence_length", "10"]
"""Config overrides of frames so small."""
