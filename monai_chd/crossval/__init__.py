"""Repeated cross-validation: design, fits, controls, and the content of its report."""
