"""Image files to arrays and back.

read            image files to `Scan`s, masks and texts; the only module that opens them
tiff            TIFF files, page by page
deep            PNG and PPM files with 16-bit colours
dicom           DICOM files, read with pydicom
dicom_frames    the frames of a DICOM file, decoded
dicom_values    a DICOM file's stored values to grey levels, and its pixel spacing
scan            an upright image with its orientation, window and spacing
transforms      a scan to the network's square input and back
resample        an image's pixels at any points, for images that are moved
spacing         the size of a pixel in mm
plot            line charts
render          outlines and grids drawn on images, contact sheets
encode          arrays to PNG, TIFF, GIF and JPEG bytes
"""
