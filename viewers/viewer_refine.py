"""Viewers of the refinement: matplotlib pictures that need no other program."""
from __future__ import annotations

import os
from functools import partial

import mrcfile
from pwem.emlib.image import ImageHandler
from pwem.objects import Volume
from pwem.viewers import EmProtocolViewer
from pwem.viewers.mdviewer.viewer import MDView
from pyworkflow.protocol import params
from pyworkflow.viewer import DESKTOP_TKINTER, Viewer

from swiftres_plugin import convert, layout
from swiftres_plugin.protocols import ProtSwiftres
from swiftres_plugin.viewers import pictures

MAPS = {"refined map": layout.map_name, "half map 1": partial(layout.half_name, 1),
        "half map 2": partial(layout.half_name, 2), "mask": layout.mask_name}  # names of files by the number of the class


class SwiftresViewer(EmProtocolViewer):
    """Slices, FSC, directions and course of a run, finished or not."""

    _label = "viewer swiftres"
    _targets = [ProtSwiftres]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form):
        form.addSection("Results")
        form.addParam("iteration", params.IntParam, default=0, label="Iteration",
                      help="Number of the iteration to show; 0 shows the last one, or the result of a finished run.")
        form.addParam("classNumber", params.IntParam, default=1, label="Class",
                      help="Number of the class whose map and FSC are shown: that of its starting volume.")
        group = form.addGroup("Maps")
        group.addParam("shownMap", params.EnumParam, choices=list(MAPS), default=0, label="Map")
        group.addParam("showSlices", params.LabelParam, label="Slices and projections")
        group.addParam("showVolumes", params.LabelParam, label="Map and half maps in the Scipion viewer",
                       help="Opens Scipion's table viewer. It needs the X11 libraries of Qt; where they are missing it says "
                            "so in the terminal only.")
        group = form.addGroup("Resolution")
        group.addParam("showFsc", params.LabelParam, label="Fourier shell correlation")
        group.addParam("showCourse", params.LabelParam, label="Resolution in the course of the refinement")
        group = form.addGroup("Particles")
        group.addParam("showDirections", params.LabelParam, label="Angular distribution")

    def _getVisualizeDict(self):
        views = {"showSlices": self._viewSlices, "showVolumes": self._viewVolumes, "showFsc": self._viewFsc,
                 "showCourse": self._viewCourse, "showDirections": self._viewDirections}
        return {name: self._orMessage(view) for name, view in views.items()}

    def _orMessage(self, view):
        """`view`, telling the user when its file is not there (yet)."""
        def show(_parameter=None):
            try:
                return view()
            except FileNotFoundError as error:
                name = os.path.basename(str(error.filename))
                return [self.errorMessage(f"{name} is not there: the run has not written it yet, or not in this "
                                          "iteration.", title="Nothing to show")]
        return show

    # -------------------------- views --------------------------
    def _viewSlices(self):
        name = self.getEnumText("shownMap")
        with mrcfile.open(self._file(MAPS[name](self.classNumber.get())), permissive=True) as mrc:
            return [pictures.plot_slices(mrc.data.copy(), self._pixelSize(), f"{name} ({self._when()})")]

    def _viewVolumes(self):
        files = [self._file(name(self.classNumber.get())) for name in list(MAPS.values())[:3]]
        path = self.protocol._getExtraPath("viewer_volumes.sqlite")
        volumes = self.createVolumesSqlite(files, path, self._pixelSize())
        return [MDView(volumes, self.protocol, self.getProject().port)]

    def _viewFsc(self):
        curves = convert.read_curves(self._file(layout.fsc_name(self.classNumber.get())))
        return [pictures.plot_fsc(curves, f"Fourier shell correlation ({self._when()})")]

    def _viewCourse(self):
        name = layout.fsc_name(self.classNumber.get())
        found = [(number, folder / name) for number, folder in self._iterations()]
        found = [(number, path) for number, path in found if path.exists()]
        if not found:
            raise FileNotFoundError(2, "no iteration", name)
        numbers, paths = zip(*found)
        curves = [convert.read_curves(path) for path in paths]
        return [pictures.plot_course(numbers, curves, "Course of the refinement")]

    def _viewDirections(self):
        refined = convert.read_refined(self._file(layout.PARTICLES), self._pixelSize())
        title = f"Views of {len(refined.matrices)} particles ({self._when()})"
        return [pictures.plot_directions(refined.matrices, title)]

    # -------------------------- files --------------------------
    def _file(self, name: str) -> str:
        """Path of a result of the chosen iteration; raises `FileNotFoundError` when it is not there."""
        folder = self.protocol._getRunPath()
        if self.iteration.get():
            folder = os.path.join(folder, layout.iteration_name(self.iteration.get()))
        elif not os.path.exists(os.path.join(folder, name)) and self._iterations():
            folder = str(self._iterations()[-1][1])
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            raise FileNotFoundError(2, "not there", path)
        return path

    def _iterations(self):
        return layout.finished_iterations(self.protocol._getRunPath())

    def _when(self) -> str:
        return f"iteration {self.iteration.get()}" if self.iteration.get() else "last"

    def _pixelSize(self) -> float:
        return self.protocol.inputParticles.get().getSamplingRate()


class SwiftresVolumeViewer(Viewer):
    """Slices of any single volume, for installations that have no other viewer for it."""

    _name = "Slices"
    _targets = [Volume]
    _environments = [DESKTOP_TKINTER]

    def _visualize(self, obj, **kwargs):
        voxels = ImageHandler().read(obj.getLocation()).getData()
        pixel_size_a = obj.getSamplingRate() or 1.0
        return [pictures.plot_slices(voxels.reshape(voxels.shape[-3:]), pixel_size_a, obj.getFileName())]
