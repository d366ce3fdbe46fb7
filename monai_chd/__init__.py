"""Classification of congenital heart disease from cardiac CT read as sequences of frames, on MONAI."""

__version__ = "0.1.0"
