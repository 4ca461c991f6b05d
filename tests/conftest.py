"""Shapes in signatures are executed here, and only here: jaxtyping checks them with beartype."""

from jaxtyping import install_import_hook

install_import_hook("samcls", "beartype.beartype")
