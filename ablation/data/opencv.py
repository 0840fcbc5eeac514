"""OpenCV, set up once: import it from here.

No threads of its own: results must not depend on how many there are, workers would each start as
many as there are cores, and a pool of threads does not survive a fork. OpenCL stays off likewise.
"""

from __future__ import annotations

import cv2 as cv2

cv2.setNumThreads(0)
cv2.ocl.setUseOpenCL(False)
