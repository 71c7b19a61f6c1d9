"""Protocols; Scipion lists the classes imported here."""
from swiftres_plugin.protocols.protocol_refine import ProtSwiftres

__all__ = ["ProtSwiftres"]
