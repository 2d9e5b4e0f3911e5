"""Image files to arrays and back.

read            image files to `Scan`s, masks and texts; the only module that opens them
dicom           DICOM files, read with pydicom
dicom_frames    the frames of a DICOM file, decoded
dicom_values    a DICOM file's stored values to grey levels, and its pixel spacing
scan            an upright image with its orientation, window and spacing
transforms      a scan to the network's square input and back
spacing         the size of a pixel in mm
render          outlines and grids drawn on images, contact sheets
encode          arrays to PNG, TIFF, GIF and JPEG bytes
"""
