"""The CNN-LSTM over the frames of a case, the frame encoders it takes, and the stand-in for 3D networks."""

from monai_chd.networks.cnn_lstm import CNNLSTM, CrossEntropyOfHeads, VolumeNetwork
from monai_chd.networks.efficientnet import EfficientNetLite0
from monai_chd.networks.encoders import ENCODERS, FrameEncoder, SmallCNN, make_encoder
from monai_chd.networks.heart_crop import CroppedStructureNet
from monai_chd.networks.structure_encoder import StructureEncoder
from monai_chd.networks.structure_loss import StructureLoss
from monai_chd.networks.structure_network import StructureNet

__all__ = [
    "CNNLSTM",
    "ENCODERS",
    "CroppedStructureNet",
    "CrossEntropyOfHeads",
    "EfficientNetLite0",
    "FrameEncoder",
    "SmallCNN",
    "StructureEncoder",
    "StructureLoss",
    "StructureNet",
    "VolumeNetwork",
    "make_encoder",
]
