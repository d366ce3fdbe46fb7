"""Small volumes with landmarks, in every storage order, and the way from a file to frames, for the tests of the transforms."""

import itertools

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd
from scipy.spatial.transform import Rotation

from monai_chd.transforms import LoadVolumed, SliceToFramed

# RAS: the first axis runs to the patient's right, the second to the front, the third to the head
SHAPE = (9, 11, 13)
RAS = np.array([[0.7, 0, 0, -10], [0, 0.8, 0, 5], [0, 0, 1.5, 33], [0, 0, 0, 1]])
LANDMARKS = {
    "right": ((7, 5, 6), 300),
    "anterior": ((4, 9, 6), 400),
    "head": ((4, 5, 11), 500),
    "corner": ((1, 2, 3), 600),
}
ORIENTATIONS = [
    np.array([*zip(axes, flips, strict=True)])
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def turned(*degrees):
    """RAS, turned about all axes."""
    affine = RAS.copy()
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ RAS[:3, :3]
    return affine


def save(path, values, affine=RAS, orientation=None):
    header = nib.Nifti1Header()
    header.set_data_dtype(values.dtype)
    image = nib.Nifti1Image(values, affine, header)
    (image if orientation is None else image.as_reoriented(orientation)).to_filename(path)
    return str(path)


def orient():
    return Orientationd("image", axcodes="LPS", labels=[["L", "R"], ["P", "A"], ["I", "S"]])


def to_frames(hu_offset=0.0, reader="nibabel", cine_slice=None):
    return Compose([LoadVolumed("image", reader, hu_offset), orient(), SliceToFramed("image", cine_slice)])


def landmark_volume():
    volume = np.zeros(SHAPE, dtype=np.int16)
    for position, value in LANDMARKS.values():
        volume[position] = value
    return volume


def cine_volume(times=4):
    """Every voxel tells its time and place: 2000 t + landmark; landmarks in every slice along every axis."""
    x, y, z = np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij")
    return np.stack([2000 * t + 169 * x + 13 * y + z for t in range(times)], -1).astype(np.int16)


def world(affine, position):
    return (np.asarray(affine) @ [*position, 1])[:3]


def random_ct(shape, seed=0):
    """HU with air and soft tissue, so that the offset is found, and some of all else."""
    rng = np.random.default_rng(seed)
    air, soft, other = (rng.integers(*ends, shape) for ends in ((-1000, -600), (-160, 260), (-1000, 2000)))
    return np.choose(rng.choice(3, shape, p=(0.4, 0.5, 0.1)), (air, soft, other)).astype(np.int16)


def frames_of(*shape, affine=None, seed=0):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(values, affine=torch.as_tensor(RAS if affine is None else affine))
