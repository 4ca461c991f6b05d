"""Small DICOM files for tests, made on the spot."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
)

NAME = "Doe^Jane"


def dicom(
    path: Path,
    values: np.ndarray,
    *,
    rle: bool = False,
    syntax: UID = ExplicitVRLittleEndian,
    **elements: object,
) -> str:
    """Write a grey (row, col), multi-frame (frame, row, col) or RGB (row, col, 3) file.

    `syntax` compresses where pydicom can; an element given as None is written blank.
    """
    colour = values.ndim == 3 and values.shape[-1] == 3
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    dataset.PatientName, dataset.PatientID = NAME, "4711"
    dataset.Rows, dataset.Columns = values.shape[:2] if colour else values.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    elif values.ndim == 3:
        dataset.NumberOfFrames = len(values)
    dataset.BitsAllocated = dataset.BitsStored = values.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    dataset["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    if rle or syntax.is_encapsulated:
        dataset.compress(RLELossless if rle else syntax)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = values.astype(values.dtype.newbyteorder(">")).tobytes()
        if values.dtype.itemsize == 1:
            dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)
    return str(path)
