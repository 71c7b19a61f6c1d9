"""Protocols; Scipion lists the classes imported here."""
from swiftres_plugin.protocols.protocol_align import ProtSwiftresAlign
from swiftres_plugin.protocols.protocol_classify import ProtSwiftresClassify
from swiftres_plugin.protocols.protocol_classify2d import ProtSwiftresClassify2D
from swiftres_plugin.protocols.protocol_compare import ProtSwiftresCompare
from swiftres_plugin.protocols.protocol_expand import ProtSwiftresExpand
from swiftres_plugin.protocols.protocol_initial_model import ProtSwiftresInitialModel
from swiftres_plugin.protocols.protocol_postprocess import ProtSwiftresPostprocess
from swiftres_plugin.protocols.protocol_reconstruct import ProtSwiftresReconstruct
from swiftres_plugin.protocols.protocol_refine import ProtSwiftres
from swiftres_plugin.protocols.protocol_relax import ProtSwiftresRelax
from swiftres_plugin.protocols.protocol_simulate import ProtSwiftresSimulate
from swiftres_plugin.protocols.protocol_subtract import ProtSwiftresSubtract

__all__ = ["ProtSwiftres", "ProtSwiftresAlign", "ProtSwiftresClassify", "ProtSwiftresClassify2D", "ProtSwiftresCompare",
           "ProtSwiftresExpand", "ProtSwiftresInitialModel", "ProtSwiftresPostprocess", "ProtSwiftresReconstruct",
           "ProtSwiftresRelax", "ProtSwiftresSimulate", "ProtSwiftresSubtract"]
