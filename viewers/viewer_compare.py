"""The viewer of `swiftres - compare alignments`."""
from __future__ import annotations

from pwem.viewers import EmPlotter

from swiftres_plugin import convert
from swiftres_plugin.protocols import ProtSwiftresCompare
from swiftres_plugin.viewers import pictures
from swiftres_plugin.viewers.base import PictureViewer
from swiftres_plugin.viewers.run_files import existing


class SwiftresCompareViewer(PictureViewer):
    """By how much two alignments differ."""

    _label = "swiftres - compare alignments: results"
    _targets = [ProtSwiftresCompare]

    def _defineParams(self, form):
        form.addSection("Results")
        self._addPicture(form, "showDifferences", self._drawDifferences, "Differences of the poses",
                         "Histograms of angle and shift, both together, and the share of particles below each. Dashed "
                         "lines: the limits of the protocol.")
        self._addSaving(form)

    def _drawDifferences(self) -> EmPlotter:
        found = convert.read_differences(existing(self.protocol._differencesFile()))
        limits = self.protocol.maxAngle.get(), self.protocol.maxMove.get()
        return pictures.plot_differences(found, *limits, f"Poses of {len(found)} particles, {found.agreed_count} agree")
