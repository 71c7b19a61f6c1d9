"""Viewers; Scipion lists the classes imported here."""
from swiftres_plugin.viewers.viewer_refine import SwiftresViewer, SwiftresVolumeViewer

__all__ = ["SwiftresViewer", "SwiftresVolumeViewer"]
