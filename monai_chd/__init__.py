"""Classification of congenital heart disease from cardiac CT read as sequences of frames, on MONAI."""

import os

__version__ = "0.1.0"

# PyTorch on Linux then asks for pages of 2 MB instead of 4 KB for large tensors. Getting those from the system took half of the
# time in which a case of frames becomes float32. Read by PyTorch at its first large tensor; "0" in the environment is left alone.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
