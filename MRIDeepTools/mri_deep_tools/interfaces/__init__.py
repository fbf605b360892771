"""The commands for workflow engines: Boutiques descriptors and Nipype interfaces, made from the parsers of commands."""

from __future__ import annotations
