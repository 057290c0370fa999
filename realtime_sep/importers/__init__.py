"""Importers bring other projects' networks into the user's model folder.

An importer is an entry point of the group `realtime_sep.importers`: a function with the signature
of `Importer`.  It leaves nothing half-written, and what it downloaded stays in the cache.
"""

from realtime_sep.importers.protocol import Importer, Progress, Request

__all__ = ["Importer", "Progress", "Request"]
