"""Ignite handlers for what MONAI's do not do."""
