"""Leaks between the parts of a datalist, and confounders."""
