"""DICOM: folders of files to series, series to volumes, who is who kept apart, and what is found written back as DICOM."""
