"""Synthetic hearts: cohorts of CT volumes with congenital lesions, without patient data."""
