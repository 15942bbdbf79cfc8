"""Backbones: networks from pictures to features [B, dim]."""

from __future__ import annotations

from .build import backbone_names, build_backbone, inner_network

__all__ = ["backbone_names", "build_backbone", "inner_network"]
