"""Viewers; Scipion lists the classes imported here."""
from swiftres_plugin.viewers.viewer_align import SwiftresAlignViewer
from swiftres_plugin.viewers.viewer_classify import SwiftresClassifyViewer
from swiftres_plugin.viewers.viewer_classify2d import SwiftresClassesViewer
from swiftres_plugin.viewers.viewer_compare import SwiftresCompareViewer
from swiftres_plugin.viewers.viewer_initial_model import SwiftresInitialModelViewer
from swiftres_plugin.viewers.viewer_postprocess import SwiftresPostprocessViewer
from swiftres_plugin.viewers.viewer_reconstruct import SwiftresReconstructViewer
from swiftres_plugin.viewers.viewer_refine import SwiftresViewer
from swiftres_plugin.viewers.viewer_relax import SwiftresRelaxViewer
from swiftres_plugin.viewers.viewer_simulate import SwiftresSimulateViewer
from swiftres_plugin.viewers.viewer_subtract import SwiftresSubtractViewer
from swiftres_plugin.viewers.viewer_volume import SwiftresVolumeViewer

__all__ = ["SwiftresAlignViewer", "SwiftresClassesViewer", "SwiftresClassifyViewer", "SwiftresCompareViewer",
           "SwiftresInitialModelViewer", "SwiftresPostprocessViewer", "SwiftresReconstructViewer", "SwiftresRelaxViewer",
           "SwiftresSimulateViewer", "SwiftresSubtractViewer", "SwiftresViewer", "SwiftresVolumeViewer"]
