"""A viewer of any single volume."""
from __future__ import annotations

from pwem.emlib.image import ImageHandler
from pwem.objects import Volume
from pyworkflow.viewer import DESKTOP_TKINTER, Viewer

from swiftres_plugin.viewers import pictures


class SwiftresVolumeViewer(Viewer):
    """Slices and surface, for installations that have no other viewer for a volume."""

    _name = "Slices and surface"
    _targets = [Volume]
    _environments = [DESKTOP_TKINTER]

    def _visualize(self, obj, **kwargs):
        voxels = ImageHandler().read(obj.getLocation()).getData()
        voxels, pixel_size_a = voxels.reshape(voxels.shape[-3:]), obj.getSamplingRate() or 1.0
        return [pictures.plot_slices(voxels, pixel_size_a, obj.getFileName()),
                pictures.plot_surface(voxels, obj.getFileName())]
