"""The regions' colours by their own names, for what is no region."""

from __future__ import annotations

from ssad.bundle import REGION_COLORS

BLUE, GREY, ORANGE = REGION_COLORS.values()
