"""Image files to arrays and back.

read            image files to `Scan`s, masks and texts; the only place that opens them
dicom           DICOM files, through pydicom
dicom_values    a DICOM file's stored values to grey levels and colours
scan            an upright image with its orientation, window and spacing
transforms      a scan to the network's square and back
spacing         the size of a pixel in mm
render          outlines, grids and sheets drawn on images
encode          arrays to PNG, TIFF, GIF and JPEG bytes
"""
