"""From predictions to figures with intervals; nothing of a study's files."""
